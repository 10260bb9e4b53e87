"""Variational score distillation: what the prompt wants and the renders are not yet.

    g = sigma² (null + cfg_scale (positive - null) - critic)

The critic has learned the score of the renders, told the camera and the prompt without words for the view.
Where SDS subtracts the noise, and so pulls every scene to the likeliest one, VSD stops once the renders are
distributed as the prior's images are. Deviations from the released code: the critic learns before it is asked
instead of after; one scene at a time.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Coefficients, LinearCombination
from studio.guidance.method import Method
from studio.guidance.state import CRITIC, CRITIC_NULL, NULL, POSITIVE
from studio.recipes.guidance import VsdConfig
from studio.recipes.ramps import Ramp, value_at

CITATION = Citation(
    authors="Z. Wang, C. Lu, Y. Wang, F. Bao, C. Li, H. Su, J. Zhu",
    title="ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score "
    "Distillation",
    year=2023,
    arxiv="2305.16213",
)


def guided_minus_critic(cfg_scale: Ramp, camera_free: float = 0.0) -> LinearCombination:
    """``null + cfg_scale (positive - null) - (1 - camera_free) critic - camera_free critic_null``."""

    def coefficients(progress: float) -> Coefficients:
        scale = value_at(cfg_scale, progress)
        return Coefficients(
            {POSITIVE: scale, NULL: 1.0 - scale, CRITIC: camera_free - 1.0, CRITIC_NULL: -camera_free}
        )

    return LinearCombination(coefficients)


def method(config: VsdConfig) -> Method:
    """ProlificDreamer's method."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=guided_minus_critic(config.cfg_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
    )
