"""A table of prompts to as many assets, on many processes or machines, resumable after any kill.

Every row has a run folder whose name follows from its recipe. A row is done when its folder says so, whoever
did it: a batch that is started again does what is left, and rows that were added or changed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol, runtime_checkable

from studio.errors import StudioError
from studio.export.files import check_writable, write_bytes
from studio.jobs.making import DONE
from studio.jobs.table import BadRow, Row
from studio.locks import locked
from studio.recipes.load import to_toml
from studio.reports import Figure

MANIFEST, ERRORS = "manifest.jsonl", "errors.jsonl"
_LOCK = ".batch.lock"
_LONGEST_PAUSE_S = 60.0


class Ending(str, Enum):
    """What became of a row."""

    DONE = "done"
    FOUND = "found done"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """One row, dealt with: a line of the manifest.

    Attributes:
        row: its number in the table.
        prompt: what it asks for.
        ending: what became of it.
        folder: of its run, below the output folder; empty if it never had one.
        files: the assets, below the run's folder.
        metrics: of the finished run.
        seconds: from its last beginning to its end.
        attempts: how often it was begun by this batch.
        reason: why it failed.
    """

    row: int
    prompt: str
    ending: Ending
    folder: str = ""
    files: tuple[str, ...] = ()
    metrics: Mapping[str, Figure] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 0
    reason: str = ""


class WorkerDied(Exception):
    """What was making a row is gone, for a reason that may be gone too."""


@runtime_checkable
class Performer(Protocol):
    """Makes one row after another, somewhere."""

    def __call__(self, recipe: str, folder: Path) -> None:
        """As ``make``.

        Raises:
            StudioError: the row cannot be made.
            WorkerDied: it may be tried again.
        """

    def close(self) -> None:
        """Let go of the processes; a row that is being made goes on from its last checkpoint another time."""


class Batch:
    """Rows on their way to assets::

        with closing(Batch(rows, Path("out"), performers).outcomes()) as outcomes:
            for outcome in outcomes:
                print(outcome.row, outcome.ending)

    Args:
        rows: good and bad, as ``read_table`` gives them.
        output: the folder of runs, manifest and errors.
        performers: as many as work side by side; they are closed in the end.
        retries: how often a row is tried again when its worker dies, each time after a longer pause.
    """

    def __init__(
        self,
        rows: Sequence[Row | BadRow],
        output: Path,
        performers: Sequence[Performer],
        retries: int = 2,
    ) -> None:
        self.rows = rows
        self.output = output
        self._performers = performers
        self._retries = retries
        self._stop = threading.Event()
        self._making: dict[int, Row] = {}

    @property
    def making(self) -> list[Row]:
        """The rows that are being made now."""
        return list(self._making.values())

    def run_folder(self, row: Row) -> Path:
        """Where a row's run is."""
        return self.output / "runs" / row.folder

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Every row once, as it is dealt with; bad ones and those found done come first.

        Raises:
            StudioError: the folder cannot be written to, or another batch is at work on it.
        """
        check_writable(self.output / "runs")
        busy = StudioError(f"Another batch is at work on {self.output}; wait for it, or stop it.")
        with locked(self.output / _LOCK, busy):
            manifest: list[Outcome] = []
            path = self.output / MANIFEST
            write_bytes(path, b"")
            try:
                for outcome in self._dealt_with():
                    manifest.append(outcome)
                    with path.open("a", encoding="utf-8") as file:
                        file.write(_line(outcome))
                    yield outcome
            finally:
                manifest.sort(key=lambda outcome: outcome.row)
                write_bytes(path, "".join(map(_line, manifest)).encode())
                failed = [outcome for outcome in manifest if outcome.ending is Ending.FAILED]
                write_bytes(self.output / ERRORS, "".join(map(_line, failed)).encode())

    def _dealt_with(self) -> Iterator[Outcome]:
        left: SimpleQueue[Row] = SimpleQueue()
        for row in self.rows:
            match row:
                case BadRow(number, prompt, reason):
                    yield Outcome(number, prompt, Ending.FAILED, reason=reason)
                case Row() if (self.run_folder(row) / DONE).is_file():
                    yield self._outcome(row, Ending.FOUND)
                case Row():
                    left.put(row)
        count, ended = left.qsize(), SimpleQueue[Outcome]()
        threads = [
            threading.Thread(target=self._work, args=(performer, left, ended))
            for performer in self._performers[:count]
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in range(count):
                yield ended.get()
        finally:
            self._stop.set()
            for performer in self._performers:
                performer.close()
            for thread in threads:
                thread.join()

    def _work(self, performer: Performer, left: SimpleQueue[Row], ended: SimpleQueue[Outcome]) -> None:
        while not self._stop.is_set():
            try:
                row = left.get_nowait()
            except Empty:
                return
            self._making[row.number] = row
            ended.put(self._made(performer, row))
            del self._making[row.number]

    def _made(self, performer: Performer, row: Row) -> Outcome:
        started, recipe, folder = time.monotonic(), to_toml(row.recipe), self.run_folder(row)
        for attempt in range(1, self._retries + 2):
            try:
                performer(recipe, folder)
                return self._outcome(row, Ending.DONE, time.monotonic() - started, attempt)
            except WorkerDied as error:
                reason = f"{error}, at each of {attempt} attempts. Try a smaller resolution."
                if self._stop.wait(min(2.0**attempt, _LONGEST_PAUSE_S)):
                    break
            except StudioError as error:
                reason = str(error)
                break
            except Exception as error:  # noqa: BLE001  (one row's bug must not stop the others)
                reason = f"A bug in the studio: {type(error).__name__}: {error}"
                break
        where = str(folder.relative_to(self.output)) if folder.is_dir() else ""
        took = time.monotonic() - started
        return Outcome(
            row.number, row.recipe.prompt, Ending.FAILED, where, seconds=took, attempts=attempt, reason=reason
        )

    def _outcome(self, row: Row, ending: Ending, seconds: float = 0.0, attempts: int = 0) -> Outcome:
        folder = self.run_folder(row)
        said = json.loads((folder / DONE).read_text(encoding="utf-8"))
        return Outcome(
            row.number,
            row.recipe.prompt,
            ending,
            str(folder.relative_to(self.output)),
            tuple(said["files"]),
            said["metrics"],
            round(seconds, 2),
            attempts,
        )


def _line(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome)) + "\n"
