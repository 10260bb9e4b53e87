"""Noise-free score distillation: keep the part of the score that points to the data, drop its noise.

    g = sigma² (cfg_scale (positive - null) + null)                 at low noise
    g = sigma² (cfg_scale (positive - null) + null - negative)      from timestep 200 on

At low noise the unconditional score is nearly all data; at high noise the score of bad images stands for its
noise part, and is taken away.
"""

from __future__ import annotations

import torch

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Coefficients, LinearCombination, NoisierThan
from studio.guidance.method import Method
from studio.guidance.state import NEGATIVE, NULL, POSITIVE
from studio.recipes.guidance import NfsdConfig
from studio.recipes.ramps import value_at
from studio.schedule import NoiseSchedule
from studio.types import NegativePrompt

CITATION = Citation(
    authors="O. Katzir, O. Patashnik, D. Cohen-Or, D. Lischinski",
    title="Noise-Free Score Distillation",
    year=2023,
    arxiv="2310.17590",
)


def method(config: NfsdConfig) -> Method:
    """Noise-free score distillation."""
    # Half a step below, so that the split timestep itself falls on the noisy side whatever the rounding.
    split = NoiseSchedule.scaled_linear().log_snr_at(torch.tensor([config.split_timestep - 0.5])).item()

    def coefficients(progress: float) -> Coefficients:
        scale = value_at(config.cfg_scale, progress)
        return Coefficients({POSITIVE: scale, NULL: 1.0 - scale, NEGATIVE: NoisierThan(split, -1.0)})

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
