"""Score identity distillation: a loss of the prior's and the critic's clean images, through both networks.

    L = (f - g)·((f - x) - a (f - g)) / mean |x - f|,   f = x0 of prior, g = x0 of critic

With an exact critic its mean is (1 - a) E|f - g|², whose gradient does not need the critic's own change with
the scene. The loss may be negative and says nothing about convergence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.dmd2 import clean_image, guided_score, guided_terms, mean_distance
from studio.guidance.method import Method
from studio.guidance.objective import Descent
from studio.guidance.state import CRITIC, State, Term
from studio.recipes.guidance import SidConfig
from studio.recipes.ramps import Ramp, value_at

CITATION = Citation(
    authors="M. Zhou, H. Zheng, Z. Wang, M. Yin, H. Huang",
    title="Score identity Distillation: Exponentially Fast Distillation of Pretrained Diffusion Models for "
    "One-Step Generation",
    year=2024,
    arxiv="2404.04057",
)


def identity_loss(
    clean: Float[Tensor, "b c h w"],
    prior_x0: Float[Tensor, "b c h w"],
    critic_x0: Float[Tensor, "b c h w"],
    a: float,
) -> Float[Tensor, "b"]:
    """SiD's loss of each image before it is normalised, summed over the elements."""
    difference = prior_x0 - critic_x0
    return (difference * ((prior_x0 - clean) - a * difference)).sum(dim=(1, 2, 3))


@dataclass(frozen=True)
class ScoreIdentity:
    """SiD's loss."""

    cfg_scale: Ramp
    a: float

    def terms(self, progress: float) -> tuple[Term, ...]:
        """The guided score's, and the critic."""
        return (*guided_terms(value_at(self.cfg_scale, progress)), CRITIC)

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b"]:
        """The normalised loss of each image."""
        guided = clean_image(state, guided_score(scores, value_at(self.cfg_scale, progress)))
        loss = identity_loss(state.clean, guided, clean_image(state, scores[CRITIC]), self.a)
        return loss / mean_distance(state, guided).flatten()


def method(config: SidConfig) -> Method:
    """The paper's generator loss."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=Descent(ScoreIdentity(config.cfg_scale, config.a)),
        weight=weighting.named("uniform"),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
    )
