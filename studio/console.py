"""How runs are watched and stopped in a terminal: a live line, or elsewhere a plain one every few seconds."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from studio.jobs.batch import Batch, Outcome
from studio.reports import StepReport
from studio.run.events import EventLog
from studio.run.folder import EVENTS

_PLAIN_LINE_EVERY_S = 5.0
_RATE_OVER_STEPS = 40


class RunProgress:
    """Shows step, ETA, images a second and the latest preview while a run goes on.

    Args:
        console: where to; a live line is drawn only on a terminal.
        first_step: how many steps were done before, 0 in a new run.
        total_steps: of the whole run.
        clock: seconds from some origin.
    """

    def __init__(
        self,
        console: Console,
        first_step: int,
        total_steps: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._clock = clock
        self._total = total_steps
        self._moments = deque([(clock(), first_step)], maxlen=_RATE_OVER_STEPS)
        self._last_line_at = clock() - _PLAIN_LINE_EVERY_S
        self._warned: set[str] = set()
        self._bar = Progress(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=total_steps, completed=first_step)

    def __enter__(self) -> RunProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def show(self, report: StepReport, preview: Path | None) -> None:
        """Takes notice of a step."""
        now = self._clock()
        self._moments.append((now, report.step))
        line = self._line(report.step, int(report.statistics["images"]), preview)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=report.step, description=line)
        elif now - self._last_line_at >= _PLAIN_LINE_EVERY_S or report.step == self._total:
            self._last_line_at = now
            self.say(f"step {report.step}/{self._total}  {line}")
        for warning in report.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self.say(f"warning: {warning}")

    def say(self, text: str) -> None:
        """Prints a line above the live one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _line(self, step: int, images_per_step: int, preview: Path | None) -> str:
        (earlier, first), (now, last) = self._moments[0], self._moments[-1]
        rate = (last - first) / (now - earlier) if now > earlier else 0.0
        left = (self._total - step) / rate if rate else 0.0
        parts = [f"ETA {duration(left)}", f"{rate * images_per_step:.0f} images/s"]
        return "  ".join([*parts, *([f"preview {preview}"] if preview else [])])


class BatchProgress:
    """Shows how a batch goes: a line for each row that is dealt with, and a live one for those at hand.

    Args:
        console: where to; a live line is drawn only on a terminal.
        batch: what is shown.
        clock: seconds from some origin.
    """

    def __init__(self, console: Console, batch: Batch, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._batch = batch
        self._clock = clock
        self._started = clock()
        self._seen = self._made = 0
        self._live = Live(console=console, get_renderable=self._at_hand, refresh_per_second=1, transient=True)

    def __enter__(self) -> BatchProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, outcome: Outcome) -> None:
        """Takes notice of a row."""
        self._seen += 1
        self._made += outcome.attempts > 0
        how = outcome.reason or outcome.ending.value
        took = f" in {duration(outcome.seconds)}" if outcome.seconds else ""
        self._console.print(
            f"row {outcome.row}, {outcome.prompt or 'no prompt'}: {how}{took}  [{self._so_far()}]",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def _so_far(self) -> str:
        left = len(self._batch.rows) - self._seen
        each = (self._clock() - self._started) / self._made if self._made else 0.0
        return f"{self._seen} of {len(self._batch.rows)}, ETA {duration(left * each)}"

    def _at_hand(self) -> Text:
        lines = [self._so_far()]
        for row in self._batch.making:
            steps = EventLog(self._batch.run_folder(row) / EVENTS).read()
            step = steps[-1]["step"] if steps else 0
            lines.append(f"  row {row.number}, {row.recipe.prompt}: {step} of {row.recipe.total_steps} steps")
        return Text("\n".join(lines))


@contextmanager
def stop_request(terminate: bool = False) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed: the step at hand is finished first. Pressed again, it stops at once.

    Args:
        terminate: a polite kill (SIGTERM) asks too.
    """
    asked = threading.Event()

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    kinds = (signal.SIGINT, signal.SIGTERM) if terminate else (signal.SIGINT,)
    before = {kind: signal.signal(kind, ask) for kind in kinds}
    try:
        yield asked.is_set
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def duration(seconds: float) -> str:
    """``"1:05"``, ``"2:03:04"``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
