"""Score distillation sampling: the baseline that every other method changes.

g = sigma² (null + cfg_scale (positive - null) - noise)
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import LinearCombination, guided
from studio.guidance.method import Method
from studio.recipes.guidance import SdsConfig
from studio.recipes.ramps import Ramp

CITATION = Citation(
    authors="B. Poole, A. Jain, J. T. Barron, B. Mildenhall",
    title="DreamFusion: Text-to-3D using 2D Diffusion",
    year=2022,
    arxiv="2209.14988",
)


def guided_minus_noise(cfg_scale: Ramp, noise_coefficient: float = -1.0) -> LinearCombination:
    """``null + cfg_scale (positive - null) + noise_coefficient noise``."""
    return guided(cfg_scale, noise_coefficient)


def method(config: SdsConfig) -> Method:
    """DreamFusion's method."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=guided_minus_noise(config.cfg_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
