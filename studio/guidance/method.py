"""A method as a record: the parts that the driver puts together."""

from __future__ import annotations

from dataclasses import dataclass

from studio.guidance.citation import Citation
from studio.guidance.combine import Combine
from studio.guidance.forward import NoisePolicy
from studio.guidance.objective import Descent
from studio.guidance.times import TimeSampler
from studio.guidance.weighting import Weight
from studio.recipes.guidance import (
    CriticConfig,
    GradientConfig,
    RatioHeadConfig,
    ScoresConfig,
    SecondPriorConfig,
)
from studio.types import NegativePrompt


@dataclass(frozen=True)
class Method:
    """One paper's answer to: when, from which noise, which scores, how combined, how weighted.

    Attributes:
        citation: the paper.
        combine: scores to a direction, or a loss of scores whose gradient is the direction.
        negatives: the texts it needs beside the prompt, in the order its terms count them.
        critic: who knows the score of the renders, for methods that ask.
        ratio: who knows the density ratio, for methods that ask.
        second: how a second prior denoises, for methods that ask two.
        draws_chance: the combination reads ``State.chance``.
        as_pixels: the direction leads from the image to another, which the renders follow as pixels.
    """

    citation: Citation
    times: TimeSampler
    noise: NoisePolicy
    combine: Combine | Descent
    weight: Weight
    scores: ScoresConfig
    gradient: GradientConfig
    negatives: tuple[NegativePrompt, ...] = ()
    critic: CriticConfig | None = None
    ratio: RatioHeadConfig | None = None
    second: SecondPriorConfig | None = None
    draws_chance: bool = False
    as_pixels: bool = False
