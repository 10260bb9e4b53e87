"""How the rendered images become noisy.

A policy returns a whole ``State``: one that walks along the probability-flow ODE (DDIM inversion) leaves the
images at several levels and hands on the scores it computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.guidance.state import MAIN, Levels, State
from studio.guidance.terms import ScoreBank
from studio.randomness import generator
from studio.recipes.guidance import FixedNoise, NoiseConfig, RandomNoise
from studio.schedule import NoiseSchedule


@runtime_checkable
class NoisePolicy(Protocol):
    """Makes the noisy images of a step."""

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        rng: torch.Generator,
    ) -> State:
        """The images at every level in ``levels``. Predictions, if any are needed, come from ``bank``."""


@dataclass(frozen=True)
class Random:
    """Noise of its own for each image; the same at every level."""

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        rng: torch.Generator,
    ) -> State:
        """One draw from ``rng``."""
        noise = torch.randn(clean.shape, generator=rng, device=rng.device, dtype=clean.dtype)
        return diffused(clean, noise.to(clean.device), levels, schedule)


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
        rng: torch.Generator,
    ) -> State:
        """The same noise whatever the step."""
        source = generator(self.seed, "fixed noise")
        noise = torch.randn(clean.shape[1:], generator=source, dtype=clean.dtype).to(clean.device)
        return diffused(clean, noise.expand_as(clean), levels, schedule)


def policy(config: NoiseConfig) -> NoisePolicy:
    """The policy that a recipe describes."""
    match config:
        case RandomNoise():
            return Random()
        case FixedNoise():
            return Fixed(config.seed)
        case _:
            assert_never(config)


def diffused(
    clean: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    levels: Levels,
    schedule: NoiseSchedule,
) -> State:
    """The forward process: ``alpha x + sigma noise`` at every level."""
    levels = {name: timesteps.to(clean.device) for name, timesteps in levels.items()}
    noisy = {name: schedule.add_noise(clean, noise, timesteps) for name, timesteps in levels.items()}
    assert MAIN in noisy
    return State(schedule, clean, levels, noisy, noise)
