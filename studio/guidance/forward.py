"""The forward process, and what every way to make the images noisy promises."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from studio.guidance.state import MAIN, Levels, State, Term
from studio.guidance.terms import ScoreBank
from studio.schedule import NoiseSchedule

Rounds = Sequence[tuple[Term, ...]]
"""What is asked of the bank, one request after the other."""


@runtime_checkable
class NoisePolicy(Protocol):
    """Makes the noisy images of a step."""

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """The images at every level in ``levels``. Predictions, if any are needed, come from ``bank``."""

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """What a call at these levels asks of the bank."""

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """The scores that a call at these levels leaves in the state, so that nobody asks for them again."""


def fresh_noise(like: Float[Tensor, "b c h w"], rng: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Standard normal noise in the shape, precision and place of ``like``, drawn where ``rng`` lives."""
    noise = torch.randn(like.shape, generator=rng, device=rng.device, dtype=like.dtype)
    return noise.to(like.device)


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
