"""Unique couple matching: RFDS whose noise is the one that the flow itself pairs with the image.

    g = v_guided - (noise - x) = (guided - noise) / alpha

First with fresh noise; from ``switch_at`` on the image is led along the prompt's ODE to its noise, in a few
Euler steps.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.recipes.guidance import UcmConfig

CITATION = Citation(
    authors="H. Li, X. Chu, D. Shi, L. Wang",
    title="FlowDreamer: Exploring High Fidelity Text-to-3D Generation via Rectified Flow",
    year=2024,
    arxiv="2408.05008",
)


def method(config: UcmConfig) -> Method:
    """FlowDreamer's two stages."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.Switched(
            noise.policy(config.noise), noise.policy(config.coupled_noise), config.switch_at
        ),
        combine=guided_minus_noise(config.cfg_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
