"""Identity-aware editing score distillation: SDS of a mean of two prompts, as it was and as it is edited.

    g = alpha sigma² (null + cfg_scale ((1 - edit_weight) positive + edit_weight edit - null) - noise)

With ``front_only`` the views that are not from the front are told the prompt in the place of the edit, which
makes of them SDS of the prompt. Here are only the scores: the landmarks that HeadSculpt shows its prior
through a ControlNet are ``prior.controls`` and ``prior.control_points``; its pictures of the unedited head,
through another, are not shown.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Coefficients, LinearCombination
from studio.guidance.method import Method
from studio.guidance.state import NEGATIVE, NULL, POSITIVE
from studio.recipes.guidance import IesdConfig
from studio.recipes.ramps import value_at
from studio.types import NegativePrompt

CITATION = Citation(
    authors="X. Han, Y. Cao, K. Han, X. Zhu, J. Deng, Y.-Z. Song, T. Xiang, K.-Y. K. Wong",
    title="HeadSculpt: Crafting 3D Head Avatars with Text",
    year=2023,
    arxiv="2306.03038",
)


def method(config: IesdConfig) -> Method:
    """HeadSculpt's second stage. The edit is a negative prompt with a positive coefficient."""

    def coefficients(progress: float) -> Coefficients:
        scale, edit = value_at(config.cfg_scale, progress), value_at(config.edit_weight, progress)
        return Coefficients(
            {POSITIVE: scale * (1.0 - edit), NEGATIVE: scale * edit, NULL: 1.0 - scale}, noise=-1.0
        )

    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=LinearCombination(coefficients),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
        negatives=(NegativePrompt(config.edit_prompt, front_only=config.front_only),),
    )
