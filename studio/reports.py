"""What a run tells of itself while it goes on and in the end: plain numbers, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Figure = int | float | str
"""One of a finished run's metrics."""


@dataclass(frozen=True)
class StepReport:
    """One step of the loop, as its callers see it.

    Attributes:
        step: how many steps are done.
        total_steps: how many the run takes over all its stages.
        stage: the stage's index.
        losses: loss terms by name.
        seconds: time by part of the step (cameras, render, guidance, backward, optimiser, topology).
        statistics: alpha mean, saturation, point count and the like, by name.
        warnings: what the watchdogs have to say, each with its cause and the key to change.
    """

    step: int
    total_steps: int
    stage: int
    losses: Mapping[str, float]
    seconds: Mapping[str, float]
    statistics: Mapping[str, float]
    warnings: tuple[str, ...] = ()
