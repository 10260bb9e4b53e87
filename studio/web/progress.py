"""How far a run is and what it has told, read from its folder."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from studio.evaluate.plots import Series
from studio.run.events import Event
from studio.run.folder import EVENTS

_CURVE_POINTS = 120
_RATE_OVER_EVENTS = 8
_LOG_LINES = 12


@dataclass(frozen=True)
class Progress:
    """What a run has told so far.

    Attributes:
        step: of its last line.
        seconds: that its steps have taken.
        steps_per_second: lately; None before there are two lines.
        curves: values over the steps: the losses, then statistics of the scene.
        log: its last lines, for people.
    """

    step: int
    seconds: float
    steps_per_second: float | None
    curves: tuple[Series, ...]
    log: tuple[str, ...]

    def seconds_left(self, total_steps: int) -> float | None:
        """How long the remaining steps will take at this rate."""
        if not self.steps_per_second:
            return None
        return (total_steps - self.step) / self.steps_per_second


def progress(folder: Path) -> Progress:
    """What the run in a folder has told; nothing yet where there is none."""
    return _listener(folder / EVENTS).progress()


class Listener:
    """Hears a run's events as they are written, each once; what it keeps does not grow with the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._forget()

    def progress(self) -> Progress:
        """What the run has told up to now."""
        with self._lock:
            for event in self._new():
                self._hear(event)
            last = self._lately[-1] if self._lately else None
            return Progress(
                step=0 if last is None else last["step"],
                seconds=0.0 if last is None else last["elapsed_s"],
                steps_per_second=_rate(self._lately),
                curves=_curves([*self._points, *([] if last is None else [last])]),
                log=tuple(self._log),
            )

    def _forget(self) -> None:
        self._file, self._offset = 0, 0
        self._count, self._every = 0, 1
        self._points: list[Event] = []
        self._lately = deque[Event](maxlen=_RATE_OVER_EVENTS)
        self._log = deque[str](maxlen=_LOG_LINES)

    def _new(self) -> list[Event]:
        """The whole lines that have come since; all of them where the file is another one, or cut."""
        try:
            with self._path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_ino != self._file or about.st_size < self._offset:
                    self._forget()
                    self._file = about.st_ino
                file.seek(self._offset)
                lines = file.read().rpartition(b"\n")[0]
            events = [json.loads(line) for line in lines.splitlines()]
        except (OSError, json.JSONDecodeError):
            self._forget()
            return []
        self._offset += len(lines) + 1 if lines else 0
        return events

    def _hear(self, event: Event) -> None:
        self._log.append(_line(event))
        if event["event"] != "step":
            return
        self._lately.append(event)
        if self._count % self._every == 0:
            self._points.append(event)
        self._count += 1
        if len(self._points) > _CURVE_POINTS:
            self._every *= 2
            del self._points[1::2]


_listener = lru_cache(maxsize=64)(Listener)


def _rate(steps: Sequence[Event]) -> float | None:
    if len(steps) < 2:
        return None
    seconds = steps[-1]["elapsed_s"] - steps[0]["elapsed_s"]
    return (steps[-1]["step"] - steps[0]["step"]) / seconds if seconds > 0 else None


def _curves(steps: Sequence[Event]) -> tuple[Series, ...]:
    found: dict[str, dict[float, float]] = {}
    for event in steps:
        values: Mapping[str, float] = event.get("losses", {}) | event.get("statistics", {})
        for name, value in values.items():
            if isinstance(value, int | float):
                found.setdefault(name, {})[float(event["step"])] = float(value)
    # What never changes says nothing.
    return tuple(
        Series(name, tuple(points.items())) for name, points in found.items() if len(set(points.values())) > 1
    )


def _line(event: Event) -> str:
    step = event["step"]
    match event["event"]:
        case "begin":
            return f"step {step}: begins on {event.get('device')}; prior: {event.get('prior')}"
        case "stop":
            return f"step {step}: stops: {event.get('reason')}"
        case "finish":
            return f"step {step}: finished after {event.get('elapsed_s', 0.0):.1f} s"
        case _:
            losses = ", ".join(f"{name} {value:.4g}" for name, value in event.get("losses", {}).items())
            warned = "".join(f"; {warning}" for warning in event.get("warnings", ()))
            return f"step {step}: {losses}{warned}"
