"""What: the combination of scores that makes a method.

``LinearCombination`` is the one that most methods are: a sum of scores and noise, with coefficients that may
follow progress and the noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from studio.guidance.state import NULL, POSITIVE, State, Term
from studio.recipes.ramps import Ramp, value_at


@runtime_checkable
class Combine(Protocol):
    """Turns scores into a direction. Sees neither text nor cameras."""

    def terms(self, progress: float) -> tuple[Term, ...]:
        """The scores it wants at ``progress``; none that it would multiply by zero."""

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The descent direction on the prior's variable, before its weight."""


@dataclass(frozen=True)
class NoisierThan:
    """A coefficient that is ``value`` where an image's level lies below ``log_snr``, and 0 elsewhere."""

    log_snr: float
    value: float


@dataclass(frozen=True)
class Coefficients:
    """What multiplies each score, and the noise."""

    scores: Mapping[Term, float | NoisierThan]
    noise: float = 0.0


@dataclass(frozen=True)
class LinearCombination:
    """``sum_k a_k(progress, level) score_k + a_noise noise``."""

    coefficients: Callable[[float], Coefficients]

    def terms(self, progress: float) -> tuple[Term, ...]:
        """The scores whose coefficient is not zero."""
        return tuple(term for term, value in self.coefficients(progress).scores.items() if value != 0.0)

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The sum."""
        coefficients = self.coefficients(progress)
        direction = torch.zeros_like(state.clean)
        for term in self.terms(progress):
            value = coefficients.scores[term]
            if isinstance(value, NoisierThan):
                gate = state.noisier_than(value.log_snr, term.level)
                direction.addcmul_(gate, scores[term], value=value.value)
            else:
                direction.add_(scores[term], alpha=value)
        return direction.add_(state.noise, alpha=coefficients.noise) if coefficients.noise else direction


def guided(cfg_scale: Ramp, noise: float = 0.0) -> LinearCombination:
    """Classifier-free guidance, ``null + cfg_scale (positive - null)``, plus a multiple of the noise."""

    def coefficients(progress: float) -> Coefficients:
        scale = value_at(cfg_scale, progress)
        return Coefficients({POSITIVE: scale, NULL: 1.0 - scale}, noise)

    return LinearCombination(coefficients)


def guided_against(cfg_scale: Ramp, target: Term) -> LinearCombination:
    """Classifier-free guidance minus one other prediction, at another level."""

    def coefficients(progress: float) -> Coefficients:
        scale = value_at(cfg_scale, progress)
        return Coefficients({POSITIVE: scale, NULL: 1.0 - scale, target: -1.0})

    return LinearCombination(coefficients)
