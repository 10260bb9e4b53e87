"""Classifier score distillation: the guidance term of SDS alone is enough.

    g = w (a_positive positive + a_negative negative + a_null null + a_noise noise)

with coefficients on ramps. Where they sum to zero nothing pulls towards natural images, only towards what
tells the prompt from the rest, so the direction need not vanish anywhere: let the highest noise level fall
over the run, and regularise.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Coefficients, LinearCombination
from studio.guidance.method import Method
from studio.guidance.state import NEGATIVE, NULL, POSITIVE
from studio.recipes.guidance import CsdConfig
from studio.recipes.ramps import value_at
from studio.types import NegativePrompt

CITATION = Citation(
    authors="X. Yu, Y.-C. Guo, Y. Li, D. Liang, S.-H. Zhang, X. Qi",
    title="Text-to-3D with Classifier Score Distillation",
    year=2023,
    arxiv="2310.19415",
)


def method(config: CsdConfig) -> Method:
    """The form of the released code, negative prompt included."""

    def coefficients(progress: float) -> Coefficients:
        scores = {
            POSITIVE: value_at(config.positive, progress),
            NULL: value_at(config.null, progress),
            NEGATIVE: value_at(config.negative, progress),
        }
        return Coefficients(scores, noise=value_at(config.noise_coefficient, progress))

    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=LinearCombination(coefficients),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
        negatives=(NegativePrompt(config.negative_prompt),),
    )
