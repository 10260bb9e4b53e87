"""Distribution matching distillation: from the critic's clean image to the prior's, at unit length.

    g = (x0 of critic - x0 of prior) / mean |x - x0 of prior|

VSD's direction, each image's divided by how far it is from what the prior makes of it. The adversarial term
of DMD2 wants real images, which text-to-3D has not; it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.state import CRITIC, MAIN, NULL, POSITIVE, State, Term
from studio.ops.classifier_free import cfg
from studio.recipes.guidance import Dmd2Config
from studio.recipes.ramps import Ramp, value_at

SMALLEST = 1e-6
"""Keeps an image that is already what the prior makes of it from being divided by zero."""

CITATION = Citation(
    authors="T. Yin, M. Gharbi, T. Park, R. Zhang, E. Shechtman, F. Durand, W. T. Freeman",
    title="Improved Distribution Matching Distillation for Fast Image Synthesis",
    year=2024,
    arxiv="2405.14867",
)


@dataclass(frozen=True)
class DistributionMatching:
    """The step from the critic's clean image to the prior's, over the image's mean distance to the latter."""

    cfg_scale: Ramp

    def terms(self, progress: float) -> tuple[Term, ...]:
        """The guided score's, and the critic."""
        return (*guided_terms(value_at(self.cfg_scale, progress)), CRITIC)

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The normalised direction."""
        guided = clean_image(state, guided_score(scores, value_at(self.cfg_scale, progress)))
        return (clean_image(state, scores[CRITIC]) - guided) / mean_distance(state, guided)


def method(config: Dmd2Config) -> Method:
    """DMD2's distribution matching loss."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=DistributionMatching(config.cfg_scale),
        weight=weighting.named("uniform"),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
    )


def guided_terms(scale: float) -> tuple[Term, ...]:
    """What the guided score at a scale is made of; the prompt's is always there."""
    return (POSITIVE,) if scale == 1.0 else (POSITIVE, NULL)


def guided_score(scores: Mapping[Term, Float[Tensor, "b c h w"]], scale: float) -> Float[Tensor, "b c h w"]:
    """Classifier-free guidance with the scores of ``guided_terms``."""
    return scores[POSITIVE] if scale == 1.0 else cfg(scores[NULL], scores[POSITIVE], scale)


def clean_image(state: State, score: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The clean image that a noise prediction stands for."""
    return state.schedule.clean_from_noise(state.noisy[MAIN], score, state.levels[MAIN])


def mean_distance(state: State, x0: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
    """Each image's mean absolute distance to ``x0``, as a constant."""
    return (state.clean - x0).detach().abs().mean(dim=(1, 2, 3), keepdim=True) + SMALLEST
