"""``events.jsonl``: what happened in a run, one JSON object a line, in the order of steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.export.files import write_bytes
from studio.reports import StepReport

Event = dict[str, Any]
"""One line: ``event`` says what, ``step`` after how many steps."""


class EventLog:
    """Appends to a run's events. Every line is on its way to the disk when ``append`` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one line: what happened, after how many steps, and its figures.

        Raises:
            StudioError: the disk is full or the folder is gone.
        """
        line = json.dumps({"event": event, "step": step, **values}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise StudioError(
                f"Cannot write {self._path}: {error.strerror or error}. Resume the run once there is room."
            ) from error

    def append_report(self, report: StepReport, elapsed_s: float) -> None:
        """Write what a step says of itself."""
        values = {
            "elapsed_s": round(elapsed_s, 3),
            "losses": dict(report.losses),
            "seconds": {part: round(seconds, 6) for part, seconds in report.seconds.items()},
            "statistics": dict(report.statistics),
            "warnings": list(report.warnings),
        }
        self.append("step", report.step, values)

    def read(self) -> list[Event]:
        """All whole lines; a kill may have torn the last one."""
        if not self._path.is_file():
            return []
        events = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return events

    def cut(self, step: int) -> list[Event]:
        """Forget what came after ``step`` steps: a resumed run takes them again. Returns what is left.

        Raises:
            StudioError: the folder cannot be written to.
        """
        kept = [event for event in self.read() if event["step"] <= step]
        write_bytes(self._path, "".join(json.dumps(event) + "\n" for event in kept).encode())
        return kept
