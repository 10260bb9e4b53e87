"""PG-SB: VSD in which the prior and the critic share one guidance scale, drawn anew for each image.

    g = sigma² (prior_null + s (prior - prior_null) - critic_null - s (critic - critic_null)),   s ~ U(range)

The direction is affine in the scale, so its mean is that of the mean scale; only its variance differs. The
range is an assumption: the paper's is not public.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.state import CRITIC, CRITIC_UNPROMPTED, NULL, POSITIVE, State, Term
from studio.recipes.guidance import PgSbConfig

CITATION = Citation(
    authors="V. Nguyen, A. Nguyen, T. Dao, K. Nguyen, C. Pham, T. Tran, A. Tran",
    title="SNOOPI: Supercharged One-step Diffusion Distillation with Proper Guidance",
    year=2024,
    arxiv="2412.02687",
)


@dataclass(frozen=True)
class RandomScale:
    """The difference of two guided scores at one scale between ``lowest`` and ``highest``."""

    lowest: float
    highest: float

    def terms(self, progress: float) -> tuple[Term, ...]:
        """Both of the prior's and both of the critic's."""
        return POSITIVE, NULL, CRITIC, CRITIC_UNPROMPTED

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The direction, each image at its own scale."""
        assert state.chance is not None
        scale = (self.lowest + (self.highest - self.lowest) * state.chance)[:, None, None, None]
        prompted = scores[POSITIVE] - scores[CRITIC]
        unprompted = scores[NULL] - scores[CRITIC_UNPROMPTED]
        return unprompted + scale * (prompted - unprompted)


def method(config: PgSbConfig) -> Method:
    """SwiftBrush's loss at a random scale."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=RandomScale(config.lowest_scale, config.highest_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
        draws_chance=True,
    )
