"""Consistency distillation sampling: two points of one guided trajectory should imply one image.

    g = w (guided at t - guided at t'),   guided = null + cfg_scale (positive - null)

Noise is the same in all views and steps; the image at t' < t is one step down the ODE from that at t. The
gradient is ``(D(x_t') - D(x_t)) / (sigma'/alpha')`` with D the denoised images. The other sign, which a
consistency loss suggests, drives a Gaussian to infinity.
"""

from __future__ import annotations

from dataclasses import replace

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Coefficients, LinearCombination, guided
from studio.guidance.inversion import Descended
from studio.guidance.method import Method
from studio.guidance.state import LATER, NULL, POSITIVE
from studio.recipes.guidance import CdsConfig
from studio.recipes.ramps import value_at

CITATION = Citation(
    authors="Z. Wu, P. Zhou, X. Yi, X. Yuan, H. Zhang",
    title="Consistent3D: Towards Consistent High-Fidelity Text-to-3D Generation with Deterministic Sampling "
    "Prior",
    year=2024,
    arxiv="2401.09050",
)


def method(config: CdsConfig) -> Method:
    """The paper's consistency distillation."""

    def coefficients(progress: float) -> Coefficients:
        scale = value_at(config.cfg_scale, progress)
        now = {POSITIVE: scale, NULL: 1.0 - scale}
        return Coefficients(now | {replace(term, level=LATER): -value for term, value in now.items()})

    return Method(
        citation=CITATION,
        times=times.Raised(times.sampler(config.times), config.gap_min, config.gap_max, keep_later=True),
        noise=Descended(noise.policy(config.noise), guided(config.cfg_scale)),
        combine=LinearCombination(coefficients),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
