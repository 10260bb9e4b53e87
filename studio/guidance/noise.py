"""How the rendered images become noisy.

A policy returns a whole ``State``: one that walks along the probability-flow ODE (DDIM inversion) leaves the
images at several levels and hands on the scores it computed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.guidance import consistent, inversion
from studio.guidance.forward import NoisePolicy, Rounds, diffused, fresh_noise
from studio.guidance.state import Levels, State, Term
from studio.guidance.terms import ScoreBank
from studio.randomness import generator
from studio.recipes.guidance import (
    ConsistentNoise,
    FixedNoise,
    InvertedNoise,
    NoiseConfig,
    OdeNoise,
    RandomNoise,
    RefinedNoise,
)
from studio.schedule import NoiseSchedule


@dataclass(frozen=True)
class Random:
    """Noise of its own for each image; the same at every level."""

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """One draw from ``rng``."""
        return diffused(clean, fresh_noise(clean, rng), levels, schedule)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """Nothing."""
        return ()

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """Nothing."""
        return ()


@dataclass(frozen=True)
class Fixed:
    """One noise image for every view and step, named by a seed; ``rng`` is not touched."""

    seed: int

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """The same noise whatever the step."""
        source = generator(self.seed, "fixed noise")
        noise = torch.randn(clean.shape[1:], generator=source, dtype=clean.dtype).to(clean.device)
        return diffused(clean, noise.expand_as(clean), levels, schedule)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """Nothing."""
        return ()

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """Nothing."""
        return ()


@dataclass(frozen=True)
class Switched:
    """One policy until ``switch_at``, another from there on."""

    before: NoisePolicy
    after: NoisePolicy
    switch_at: float

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """What the policy of the moment makes."""
        return self._at(progress)(clean, levels, schedule, bank, progress, rng)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """What the policy of the moment asks."""
        return self._at(progress).rounds(levels, schedule, progress)

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """What the policy of the moment knows."""
        return self._at(progress).known(levels, progress)

    def _at(self, progress: float) -> NoisePolicy:
        return self.before if progress < self.switch_at else self.after


def policy(config: NoiseConfig) -> NoisePolicy:
    """The policy that a recipe describes."""
    match config:
        case RandomNoise():
            return Random()
        case FixedNoise():
            return Fixed(config.seed)
        case InvertedNoise():
            return inversion.Inverted(config.stride, config.cfg_scale, config.eta, config.start_noise)
        case RefinedNoise():
            return inversion.Refined(Random())
        case OdeNoise():
            return inversion.Ode(config.steps)
        case ConsistentNoise():
            return consistent.Consistent(config)
        case _:
            assert_never(config)
