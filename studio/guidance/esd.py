"""Entropic score distillation: VSD that also asks the views to differ from one another.

    g = sigma² (null + cfg_scale (positive - null) - entropy critic_null - (1 - entropy) critic)

``critic_null`` is told no camera, so it knows the distribution of the renders from all sides. Pulling away
from it raises that distribution's entropy: a scene that shows a face from everywhere has little.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.vsd import guided_minus_critic
from studio.recipes.guidance import EsdConfig

CITATION = Citation(
    authors="P. Wang, D. Xu, Z. Fan, D. Wang, S. Mohan, F. Iandola, R. Ranjan, Y. Li, Q. Liu, Z. Wang, "
    "V. Chandra",
    title="Taming Mode Collapse in Score Distillation for Text-to-3D Generation",
    year=2024,
    arxiv="2401.00909",
)


def method(config: EsdConfig) -> Method:
    """The paper's method."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=guided_minus_critic(config.cfg_scale, camera_free=config.entropy),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
    )
