"""Balanced score distillation: the classifier's direction and the unconditional score, neither at a loss.

    g = alpha (a classifier + (1 - a) smoothing),   classifier = scale (positive - null),   smoothing = null

with the ``a`` in 0-1 that makes the sum shortest: a step along it is good for both (multiple-gradient
descent), and it is zero where they contradict each other. ``a`` is chosen for each image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Combine
from studio.guidance.method import Method
from studio.guidance.state import NULL, POSITIVE, State, Term
from studio.recipes.guidance import AutomaticBalance, BsdConfig, FixedBalance
from studio.recipes.ramps import value_at

CITATION = Citation(
    authors="S. Huang, S. Sun, Z. Wang, X. Qin, Y. Xiong, Y. Zhang, P. Wan, D. Zhang, J. Jia",
    title="PlacidDreamer: Advancing Harmony in Text-to-3D Generation",
    year=2024,
    arxiv="2407.13976",
)


def shortest_between(
    one: Float[Tensor, "b c h w"], other: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """The shortest vector on the line between each pair. Where the two are equal, that one.

    It makes at least as much progress along either as its own length squared (Désidéri 2012).
    """
    between = other - one
    along = (between * other).sum(dim=(1, 2, 3), keepdim=True)
    length_squared = between.square().sum(dim=(1, 2, 3), keepdim=True)
    # Equal vectors have any share; a positive divisor keeps 0/0 out.
    share = (along / length_squared.clamp(min=1e-30)).clamp(0, 1)
    return other - share * between


@dataclass(frozen=True)
class Balanced:
    """The paper's main form."""

    balance: FixedBalance

    def terms(self, progress: float) -> tuple[Term, ...]:
        """Both branches."""
        return POSITIVE, NULL

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The shortest mixture."""
        scale = value_at(self.balance.classifier_scale, progress)
        return shortest_between(scale * (scores[POSITIVE] - scores[NULL]), scores[NULL])


@dataclass(frozen=True)
class SelfBalanced:
    """The form that needs no scale: the noise residual's length is the weight.

    The released code takes that length over the whole batch; here each image has its own.
    """

    balance: AutomaticBalance

    def terms(self, progress: float) -> tuple[Term, ...]:
        """Both branches."""
        return POSITIVE, NULL

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The shortest mixture, weighted."""
        _, sigma = state.alpha_sigma()
        residual = scores[NULL] - state.noise
        length = residual.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        shortest = shortest_between(scores[POSITIVE] - scores[NULL], self.balance.smoothing_scale * residual)
        return sigma * length / self.balance.norm_divisor * shortest


def method(config: BsdConfig) -> Method:
    """The paper's method, in either form."""
    match config.balance:
        case FixedBalance():
            combine: Combine = Balanced(config.balance)
            weight = weighting.named(config.balance.weight)
        case AutomaticBalance():
            combine, weight = SelfBalanced(config.balance), weighting.named("uniform")
        case _:
            assert_never(config.balance)
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=combine,
        weight=weight,
        scores=config.scores,
        gradient=config.gradient,
    )
