"""Classifier score matching: the classifier's direction alone, at an image that inversion made noisy.

    g = sigma/alpha (positive - null)

CSD without chance, or TSM with nothing but its classifier. No code was released; levels, step and weight are
those of ISM, and the scale is left to the weight of the guidance.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Coefficients, LinearCombination
from studio.guidance.method import Method
from studio.guidance.state import NULL, POSITIVE
from studio.recipes.guidance import CsmConfig

CITATION = Citation(
    authors="J. Yang, D. Di, B. Ma, X. Yang, Y. Ma, W. Sun, W. Chen, J. Cui, Z. Xue, M. Wang, Y. Liu",
    title="TV-3DG: Mastering Text-to-3D Customized Generation with Visual Prompt",
    year=2024,
    arxiv="2410.21299",
)


def method(config: CsmConfig) -> Method:
    """The paper's classifier score."""
    return Method(
        citation=CITATION,
        times=times.Anchored(times.sampler(config.times), config.gap),
        noise=noise.policy(config.noise),
        combine=LinearCombination(lambda progress: Coefficients({POSITIVE: 1.0, NULL: -1.0})),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
