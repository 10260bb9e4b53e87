"""HiFA: SDS as the distance to the denoised image, at a noise level that falls as the run goes on.

    g = w (x - x0) = w sigma/alpha (null + cfg_scale (positive - null) - noise)

The loss on decoded images and the variance along rays, which the paper adds, are not part of the guidance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.guidance import noise, times
from studio.guidance.citation import Citation
from studio.guidance.combine import Combine
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.guidance.state import State, Term
from studio.guidance.weighting import Weight
from studio.recipes.guidance import HifaConfig, HifaWeightName

CITATION = Citation(
    authors="J. Zhu, P. Zhuang, S. Koyejo",
    title="HiFA: High-fidelity Text-to-3D Generation with Advanced Diffusion Guidance",
    year=2023,
    arxiv="2305.18766",
)


def distance_weight(
    name: HifaWeightName, alpha: Float[Tensor, "b 1 1 1"], sigma: Float[Tensor, "b 1 1 1"]
) -> Float[Tensor, "b 1 1 1"]:
    """The released code's weights of ``x - x0``."""
    match name:
        case "constant":
            return 0.05 * alpha**0
        case "noise_match":
            return 0.05 * alpha / sigma
        case "alpha_sigma":
            return 0.05 * alpha * sigma
        case "alpha2_over_sigma":
            return 0.05 * alpha**2 / sigma
        case _:
            assert_never(name)


def noise_weight(name: HifaWeightName) -> Weight:
    """The same weights for a difference of noises: ``x - x0 = sigma/alpha (guided - noise)``."""

    def weight(alpha: Float[Tensor, "b 1 1 1"], sigma: Float[Tensor, "b 1 1 1"]) -> Float[Tensor, "b 1 1 1"]:
        return distance_weight(name, alpha, sigma) * sigma / alpha

    return weight


@dataclass(frozen=True)
class ClippedDistance:
    """A combination held to ``|x - x0| <= bound sigma`` in each element."""

    combine: Combine
    bound: float

    def terms(self, progress: float) -> tuple[Term, ...]:
        """Those of the combination."""
        return self.combine.terms(progress)

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The direction, clipped."""
        alpha, _ = state.alpha_sigma()
        limit = self.bound * alpha
        return self.combine(scores, state, progress).clamp(-limit, limit)


def method(config: HifaConfig) -> Method:
    """HiFA's latent loss."""
    combine: Combine = guided_minus_noise(config.cfg_scale)
    if config.residual_clip is not None:
        combine = ClippedDistance(combine, config.residual_clip)
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=combine,
        weight=noise_weight(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
