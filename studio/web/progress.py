"""How far a run is and what it has told, read from its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.evaluate.plots import Series
from studio.run.events import Event, EventLog

_CURVE_POINTS = 120
_RATE_OVER_EVENTS = 8


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
    events = EventLog(folder / "events.jsonl").read()
    steps = [event for event in events if event["event"] == "step"]
    return Progress(
        step=steps[-1]["step"] if steps else 0,
        seconds=steps[-1]["elapsed_s"] if steps else 0.0,
        steps_per_second=_rate(steps[-_RATE_OVER_EVENTS:]),
        curves=_curves(steps),
        log=tuple(_line(event) for event in events[-12:]),
    )


def _rate(steps: Sequence[Event]) -> float | None:
    if len(steps) < 2:
        return None
    seconds = steps[-1]["elapsed_s"] - steps[0]["elapsed_s"]
    return (steps[-1]["step"] - steps[0]["step"]) / seconds if seconds > 0 else None


def _curves(steps: Sequence[Event]) -> tuple[Series, ...]:
    every = math.ceil(len(steps) / _CURVE_POINTS) or 1
    shown = [event for index, event in enumerate(steps) if index % every == 0 or index == len(steps) - 1]
    found: dict[str, list[tuple[float, float]]] = {}
    for event in shown:
        values: Mapping[str, float] = event.get("losses", {}) | event.get("statistics", {})
        for name, value in values.items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append((float(event["step"]), float(value)))
    # What never changes says nothing.
    return tuple(
        Series(name, tuple(points))
        for name, points in found.items()
        if len({value for _, value in points}) > 1
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
