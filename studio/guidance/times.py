"""When: the noise levels of a step.

Levels are integer timesteps (kept as floats), because that is what denoisers were trained at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.guidance.citation import Citation
from studio.guidance.state import ANCHOR, LATER, MAIN, MIDDLE, NOISIER, Levels
from studio.recipes.guidance import DreamTimeTimes, SweepTimes, TimesConfig, UniformTimes
from studio.recipes.ramps import Ramp, value_at
from studio.schedule import NoiseSchedule

DREAMTIME = Citation(
    authors="Y. Huang, J. Wang, Y. Shi, B. Tang, X. Qi, L. Zhang",
    title="DreamTime: An Improved Optimization Strategy for Diffusion-Guided 3D Generation",
    year=2023,
    arxiv="2306.12422",
)


@runtime_checkable
class TimeSampler(Protocol):
    """Draws the noise levels of a step."""

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """Timesteps for each image, on the generator's device; ``MAIN`` is always among them."""

    def extremes(self, schedule: NoiseSchedule, progress: float) -> tuple[Levels, Levels]:
        """The least and the most noisy levels that may be drawn, of one image."""


@dataclass(frozen=True)
class Uniform:
    """t ~ U{t_min T ... t_max T}, both ends included (DreamFusion)."""

    t_min: Ramp
    t_max: Ramp
    shared: bool

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """One draw for each image, or one for all."""
        low, high = self.window(schedule, progress)
        count = 1 if self.shared else batch
        drawn = torch.randint(low, high + 1, (count,), generator=rng, device=rng.device)
        return {MAIN: drawn.float().expand(batch)}

    def extremes(self, schedule: NoiseSchedule, progress: float) -> tuple[Levels, Levels]:
        """The window's ends."""
        low, high = self.window(schedule, progress)
        return {MAIN: torch.tensor([float(low)])}, {MAIN: torch.tensor([float(high)])}

    def window(self, schedule: NoiseSchedule, progress: float) -> tuple[int, int]:
        """The lowest and the highest timestep at ``progress``.

        Raises:
            StudioError: the ramps pass one another, or leave 0-1.
        """
        low, high = value_at(self.t_min, progress), value_at(self.t_max, progress)
        if not 0.0 <= low <= high <= 1.0:
            raise StudioError(
                f"times: t_min {low:g} and t_max {high:g} at progress {progress:.3f}; expected "
                "0 <= t_min <= t_max <= 1 all the way, try other ramps"
            )
        return nearest_timestep(schedule, low), nearest_timestep(schedule, high)


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

    def extremes(self, schedule: NoiseSchedule, progress: float) -> tuple[Levels, Levels]:
        """The one level twice."""
        levels = self(schedule, progress, 1, torch.Generator())
        return levels, levels


@dataclass(frozen=True)
class DreamTime:
    """One level for all, falling slowly where content forms; the generator is not touched.

    The share of the run spent above a timestep is the share of W(t) above it, with
    ``W = sigma/alpha exp(-d²/2)`` and d the distance from a plateau in standard deviations (arXiv:2306.12422,
    as in the author's later code).
    """

    config: DreamTimeTimes

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """The same timestep for each image."""
        config, levels = self.config, len(schedule)
        low, high = nearest_timestep(schedule, config.t_min), nearest_timestep(schedule, config.t_max)
        timesteps = torch.arange(high, low - 1, -1, dtype=torch.float64)
        alpha, sigma = (level.flatten() for level in schedule.alpha_sigma(timesteps, torch.float64))
        above = (timesteps / levels - config.plateau_to).clamp(min=0) / config.spread_above
        below = (config.plateau_from - timesteps / levels).clamp(min=0) / config.spread_below
        importance = sigma / alpha * torch.exp(-(above**2 + below**2) / 2)
        spent = importance.cumsum(0) / importance.sum()
        passed = min(int((spent < progress).sum()), len(timesteps) - 1)
        return {MAIN: torch.full((batch,), float(high - passed), device=rng.device)}

    def extremes(self, schedule: NoiseSchedule, progress: float) -> tuple[Levels, Levels]:
        """The one level twice."""
        levels = self(schedule, progress, 1, torch.Generator())
        return levels, levels


@dataclass(frozen=True)
class Anchored:
    """An inner sampler's levels, and an ``ANCHOR`` below by ``gap``, as a fraction of the schedule."""

    inner: TimeSampler
    gap: Ramp

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """The anchor at timestep 0 where the gap reaches below."""
        return self._anchored(self.inner(schedule, progress, batch, rng), schedule, progress)

    def extremes(self, schedule: NoiseSchedule, progress: float) -> tuple[Levels, Levels]:
        """The inner ones with their anchors."""
        low, high = self.inner.extremes(schedule, progress)
        return self._anchored(low, schedule, progress), self._anchored(high, schedule, progress)

    def _anchored(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Levels:
        gap = round(value_at(self.gap, progress) * len(schedule))
        return {**levels, ANCHOR: (levels[MAIN] - gap).clamp(min=0)}


@dataclass(frozen=True)
class Between:
    """An anchored sampler's levels, and ``MIDDLE`` at ``s + (t - s) sqrt(1 - gamma²)``, rounded."""

    inner: TimeSampler
    gamma: float

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """The three levels."""
        return self._between(self.inner(schedule, progress, batch, rng))

    def extremes(self, schedule: NoiseSchedule, progress: float) -> tuple[Levels, Levels]:
        """The inner ones with their middles."""
        low, high = self.inner.extremes(schedule, progress)
        return self._between(low), self._between(high)

    def _between(self, levels: Levels) -> Levels:
        share = math.sqrt(1 - self.gamma**2)
        middle = levels[ANCHOR] + (levels[MAIN] - levels[ANCHOR]) * share
        return {**levels, MIDDLE: middle.round()}


@dataclass(frozen=True)
class Ahead:
    """An inner sampler's levels, and ``NOISIER`` ones: further by up to ``rate`` of the way from ``foot``.

    ``t+ = t + floor(rate u (t - foot))``, held to 1 ... T - 1, with u ~ U(0, 1), or 1 if nothing is drawn.

    Attributes:
        foot: a fraction of the schedule, below all that the inner sampler gives.
        shared: one u for all images.
    """

    inner: TimeSampler
    foot: Ramp
    rate: float
    drawn: bool
    shared: bool

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """The two levels."""
        levels = self.inner(schedule, progress, batch, rng)
        count = 1 if self.shared else batch
        reach = torch.rand(count, generator=rng, device=rng.device) if self.drawn else 1.0
        return self._ahead(levels, schedule, progress, reach)

    def extremes(self, schedule: NoiseSchedule, progress: float) -> tuple[Levels, Levels]:
        """The inner ones, with the least and with the most that may be added."""
        low, high = self.inner.extremes(schedule, progress)
        return self._ahead(low, schedule, progress, 0.0), self._ahead(high, schedule, progress, 1.0)

    def _ahead(
        self, levels: Levels, schedule: NoiseSchedule, progress: float, reach: Tensor | float
    ) -> Levels:
        foot = nearest_timestep(schedule, value_at(self.foot, progress))
        step = (self.rate * reach * (levels[MAIN] - foot)).floor()
        return {**levels, NOISIER: (levels[MAIN] + step).clamp(1, len(schedule) - 1)}


@dataclass(frozen=True)
class Raised:
    """``MAIN`` above an inner sampler's level, by a step drawn for all.

    The step is an integer from ``low`` to below ``high``, both fractions of the schedule. Where that leaves
    no choice, nothing is drawn.

    Attributes:
        keep_later: the inner level is there too, as ``LATER``.
    """

    inner: TimeSampler
    low: float
    high: float
    keep_later: bool

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        """Both levels lie within the schedule."""
        low, high = self._steps(schedule)
        later = self.inner(schedule, progress, batch, rng)[MAIN]
        if low == high:
            return self._raised(later, schedule, low)
        step = torch.randint(low, high + 1, (1,), generator=rng, device=rng.device)
        return self._raised(later, schedule, step)

    def extremes(self, schedule: NoiseSchedule, progress: float) -> tuple[Levels, Levels]:
        """The inner ones, raised by the least and by the most."""
        low, high = self._steps(schedule)
        least, most = self.inner.extremes(schedule, progress)
        return self._raised(least[MAIN], schedule, low), self._raised(most[MAIN], schedule, high)

    def _steps(self, schedule: NoiseSchedule) -> tuple[int, int]:
        low = round(self.low * len(schedule))
        return low, max(low, round(self.high * len(schedule)) - 1)

    def _raised(self, later: Tensor, schedule: NoiseSchedule, step: Tensor | int) -> Levels:
        later = later.clamp(max=len(schedule) - 1 - step)
        return {MAIN: later + step, LATER: later} if self.keep_later else {MAIN: later + step}


def sampler(config: TimesConfig) -> TimeSampler:
    """The sampler that a recipe describes."""
    match config:
        case UniformTimes():
            return Uniform(config.t_min, config.t_max, config.shared)
        case SweepTimes():
            return Sweep(config.start, config.end, config.shape)
        case DreamTimeTimes():
            return DreamTime(config)
        case _:
            assert_never(config)


def nearest_timestep(schedule: NoiseSchedule, fraction: float) -> int:
    """The timestep at a fraction of the schedule; the last one for 1."""
    return min(round(fraction * len(schedule)), len(schedule) - 1)
