"""SDS-Bridge: a step of SDS as a bridge from where the scene is to where the prompt wants it.

First SDS; then, once the scene has SDS's look, that look is described in words as the source:

    g = sigma² cfg_scale (positive - source)
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Coefficients, LinearCombination
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.guidance.state import NEGATIVE, POSITIVE
from studio.recipes.guidance import BridgeConfig
from studio.recipes.ramps import value_at
from studio.types import NegativePrompt

CITATION = Citation(
    authors="D. McAllister, S. Ge, J.-B. Huang, D. W. Jacobs, A. A. Efros, A. Holynski, A. Kanazawa",
    title="Rethinking Score Distillation as a Bridge Between Image Distributions",
    year=2024,
    arxiv="2406.09417",
)


def method(config: BridgeConfig) -> Method:
    """The paper's two stages."""
    score_distillation = guided_minus_noise(config.cfg_scale)

    def coefficients(progress: float) -> Coefficients:
        if progress < config.switch_at:
            return score_distillation.coefficients(progress)
        scale = value_at(config.cfg_scale, progress)
        return Coefficients({POSITIVE: scale, NEGATIVE: -scale})

    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=LinearCombination(coefficients),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
        negatives=(NegativePrompt(config.source_suffix, extends_prompt=True),),
    )
