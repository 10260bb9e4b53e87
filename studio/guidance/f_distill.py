"""f-distill: distribution matching for any f-divergence, by weighing the images.

    g = h(r)/mean h  g_dmd,   r = p(x_t)/q(x_t),   h(r) = r² f''(r)

The reverse KL divergence weighs all alike; the forward one, and the others in between, look more to what the
prior likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.dmd2 import DistributionMatching
from studio.guidance.method import Method
from studio.guidance.state import LOG_RATIO, State, Term
from studio.recipes.guidance import Divergence, FDistillConfig

SMALLEST_RATIO, LARGEST_RATIO = 0.1, 20.0
"""Bounds on the density ratio, the released code's."""

CITATION = Citation(
    authors="Y. Xu, W. Nie, A. Vahdat",
    title="One-step Diffusion Models with f-Divergence Distribution Matching",
    year=2025,
    arxiv="2502.15681",
)


def importance(divergence: Divergence, ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """h(r) = r² f''(r) for the divergence with generator f, up to a constant factor.

    Args:
        ratio: p/q, of the data over the renders.
    """
    match divergence:
        case "reverse_kl":
            return ratio**0
        case "forward_kl":
            return ratio
        case "jensen_shannon":
            return ratio / (1 + ratio)
        case "softened_reverse_kl":
            return 1 / (1 + ratio)
        case "hellinger":
            return ratio.sqrt()
        case "jeffreys":
            return 1 + ratio
        case "neyman":
            return 1 / ratio
        case _:
            assert_never(divergence)


@dataclass(frozen=True)
class WeighedMatching:
    """Distribution matching, each image weighed by a divergence; the weights' mean is 1."""

    matching: DistributionMatching
    divergence: Divergence

    def terms(self, progress: float) -> tuple[Term, ...]:
        """Those of distribution matching, and the density ratio."""
        return (*self.matching.terms(progress), LOG_RATIO)

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The weighed direction."""
        ratio = scores[LOG_RATIO][:, :1, :1, :1].exp().clamp(SMALLEST_RATIO, LARGEST_RATIO)
        weights = importance(self.divergence, ratio)
        return weights / weights.mean() * self.matching(scores, state, progress)


def method(config: FDistillConfig) -> Method:
    """f-distill's loss, without its adversarial term."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=WeighedMatching(DistributionMatching(config.cfg_scale), config.divergence),
        weight=weighting.named("uniform"),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
        ratio=config.ratio,
    )
