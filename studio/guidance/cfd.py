"""Consistent flow distillation: SDS read as one trajectory per view, with noise that is locked to the world.

    g = sigma/alpha (null + cfg_scale (positive - null) - noise seen by the camera)

The paper locks its noise to the surface; here it lies on a sphere around the scene, and what the released
code can add, a slow refresh of the locked noise, is left out.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.recipes.guidance import CfdConfig

CITATION = Citation(
    authors="R. Yan, Y. Chen, X. Wang",
    title="Consistent Flow Distillation for Text-to-3D Generation",
    year=2025,
    arxiv="2501.05445",
)


def method(config: CfdConfig) -> Method:
    """The paper's flow."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=guided_minus_noise(config.cfg_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
