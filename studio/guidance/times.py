"""When: the noise levels of a step.

Levels are integer timesteps (kept as floats), because that is what denoisers were trained at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.guidance.state import MAIN, Levels
from studio.recipes.guidance import SweepTimes, TimesConfig, UniformTimes
from studio.recipes.ramps import Ramp, value_at
from studio.schedule import NoiseSchedule


@runtime_checkable
class TimeSampler(Protocol):
    """Draws the noise levels of a step."""

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """Timesteps for each image, on the generator's device; ``MAIN`` is always among them."""


@dataclass(frozen=True)
class Uniform:
    """t ~ U{t_min T ... t_max T}, both ends included (DreamFusion)."""

    t_min: Ramp
    t_max: Ramp
    shared: bool

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """One draw for each image, or one for all."""
        low, high = value_at(self.t_min, progress), value_at(self.t_max, progress)
        if not 0.0 <= low <= high <= 1.0:
            raise StudioError(
                f"times: t_min {low:g} and t_max {high:g} at progress {progress:.3f}; expected "
                "0 <= t_min <= t_max <= 1 all the way, try other ramps"
            )
        drawn = torch.randint(
            nearest_timestep(schedule, low),
            nearest_timestep(schedule, high) + 1,
            (1 if self.shared else batch,),
            generator=rng,
            device=rng.device,
        )
        return {MAIN: drawn.float().expand(batch)}


@dataclass(frozen=True)
class Sweep:
    """One level for all, following progress; the generator is not touched."""

    start: float
    end: float
    shape: Literal["sqrt", "linear"]

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """The same timestep for each image."""
        elapsed = progress**0.5 if self.shape == "sqrt" else progress
        timestep = nearest_timestep(schedule, self.start + (self.end - self.start) * elapsed)
        return {MAIN: torch.full((batch,), float(timestep), device=rng.device)}


def sampler(config: TimesConfig) -> TimeSampler:
    """The sampler that a recipe describes."""
    match config:
        case UniformTimes():
            return Uniform(config.t_min, config.t_max, config.shared)
        case SweepTimes():
            return Sweep(config.start, config.end, config.shape)
        case _:
            assert_never(config)


def nearest_timestep(schedule: NoiseSchedule, fraction: float) -> int:
    """The timestep at a fraction of the schedule; the last one for 1."""
    return min(round(fraction * len(schedule)), len(schedule) - 1)
