"""A method as a record: the parts that the driver puts together."""

from __future__ import annotations

from dataclasses import dataclass

from studio.guidance.citation import Citation
from studio.guidance.combine import Combine
from studio.guidance.noise import NoisePolicy
from studio.guidance.times import TimeSampler
from studio.guidance.weighting import Weight
from studio.recipes.guidance import GradientConfig, ScoresConfig
from studio.types import NegativePrompt


@dataclass(frozen=True)
class Method:
    """One paper's answer to: when, from which noise, which scores, how combined, how weighted.

    Attributes:
        citation: the paper.
        negatives: the texts it needs beside the prompt, in the order its terms count them.
    """

    citation: Citation
    times: TimeSampler
    noise: NoisePolicy
    combine: Combine
    weight: Weight
    scores: ScoresConfig
    gradient: GradientConfig
    negatives: tuple[NegativePrompt, ...] = ()
