"""Score implicit matching: a distance between the scores of renders and prior, through both networks.

    L = -d'(y)·(s_q + noise/sigma),   y = s_q - s_p,   s = -score/sigma

whose gradient is that of E d(y) without the critic's own change. The squared distance is SiD with a = 1; the
pseudo-Huber distance bounds each image's pull. The constant of the latter is an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.dmd2 import guided_score, guided_terms
from studio.guidance.method import Method
from studio.guidance.objective import Descent
from studio.guidance.state import CRITIC, State, Term
from studio.recipes.guidance import SimConfig
from studio.recipes.ramps import Ramp, value_at

CITATION = Citation(
    authors="W. Luo, Z. Huang, Z. Geng, J. Z. Kolter, G.-J. Qi",
    title="One-Step Diffusion Distillation through Score Implicit Matching",
    year=2024,
    arxiv="2410.16794",
)


def distance_slope(difference: Float[Tensor, "b c h w"], huber: float | None) -> Float[Tensor, "b c h w"]:
    """2y, the slope of |y|², or that of the pseudo-Huber distance of n elements: y/sqrt(|y|² + n huber²)."""
    if huber is None:
        return 2 * difference
    squared = difference.square().sum(dim=(1, 2, 3), keepdim=True)
    return difference / (squared + difference[0].numel() * huber**2).sqrt()


@dataclass(frozen=True)
class ImplicitMatching:
    """SIM's loss."""

    cfg_scale: Ramp
    huber: float | None

    def terms(self, progress: float) -> tuple[Term, ...]:
        """The guided score's, and the critic."""
        return (*guided_terms(value_at(self.cfg_scale, progress)), CRITIC)

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b"]:
        """The loss of each image."""
        _, sigma = state.alpha_sigma()
        guided = guided_score(scores, value_at(self.cfg_scale, progress))
        difference = (guided - scores[CRITIC]) / sigma
        residual = (state.noise - scores[CRITIC]) / sigma
        return -(distance_slope(difference, self.huber) * residual).sum(dim=(1, 2, 3))


def method(config: SimConfig) -> Method:
    """The paper's generator loss."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=Descent(ImplicitMatching(config.cfg_scale, config.huber)),
        weight=weighting.named("uniform"),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
    )
