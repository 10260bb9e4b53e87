"""Critics, and the methods that set the prior's score against the score of what is rendered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.guidance.shared import (
    GradientConfig,
    NoiseConfig,
    RandomNoise,
    ScoresConfig,
    TimesConfig,
    UniformTimes,
    WeightName,
)
from studio.recipes.ramps import Piecewise, Ramp
from studio.recipes.values import STRICT, Fraction, Positive

CriticTarget = Literal["epsilon", "v", "x0"]
Updates = Annotated[int, Field(ge=1, le=100)]

FALLING = UniformTimes(t_max=Piecewise(points=((0.0, 0.98), (0.2, 0.98), (0.2, 0.5))))
"""ProlificDreamer's window: its upper end drops after a fifth of the run."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainedCriticConfig:
    """A network that learns the renders' score by denoising them, a few steps for each of the scene's."""

    kind: Literal["trained"] = "trained"
    target: CriticTarget = "v"
    """What its error is measured in: the noise, v, or the clean image. Only weights the noise levels."""
    snr_cap: Positive | None = None
    """Weigh each level's error by its signal-to-noise ratio, up to this; None weighs all alike."""
    learning_rate: Positive = 1e-4
    updates: Updates = 1
    """Its own steps for each step of the scene."""
    camera_drop: Fraction = 0.1
    """Share of its steps in which it is not told the camera, so that it knows all views together too."""
    prompt_drop: Fraction = 0.0
    """Share of its steps in which it is told the empty prompt."""
    rank: Annotated[int, Field(ge=0, le=1024)] = 4
    """Of the low-rank change to the prior's attention layers; 0 learns the empty prompt's embedding only."""
    seed: int = 0
    """Of its first weights."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FittedCriticConfig:
    """The exact score of a distribution fitted to each step's renders anew: nothing to train.

    For comparisons, with several particles: told a camera it knows what they show to it at this step, told
    none what they show to all of the step's cameras.
    """

    kind: Literal["fitted"] = "fitted"
    shape: Literal["gaussian", "particles"] = "particles"
    """A Gaussian for each element, or a point mass at each render."""


CriticConfig = Annotated[TrainedCriticConfig | FittedCriticConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VsdConfig:
    """Variational score distillation (ProlificDreamer): the prompt's score against the renders' own."""

    kind: Literal["vsd"] = "vsd"
    cfg_scale: Ramp = 7.5
    """Classifier-free guidance of the prior; the critic has none."""
    critic: CriticConfig = TrainedCriticConfig()
    times: TimesConfig = FALLING
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EsdConfig:
    """Entropic score distillation: VSD whose critic knows all views together as well as each."""

    kind: Literal["esd"] = "esd"
    cfg_scale: Ramp = 7.5
    """Classifier-free guidance of the prior."""
    entropy: Fraction = 0.5
    """Share of the camera-free critic: 0 is VSD, 1 spreads the views most."""
    critic: CriticConfig = TrainedCriticConfig()
    times: TimesConfig = FALLING
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LodsConfig:
    """Score distillation with a learned null: SDS over its scale, its unconditional branch trained on the
    renders."""

    kind: Literal["lods"] = "lods"
    cfg_scale: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] = 1000.0
    """Classifier-free guidance."""
    critic: CriticConfig = TrainedCriticConfig(
        target="epsilon", learning_rate=1e-4, camera_drop=0.0, prompt_drop=1.0, rank=0
    )
    times: TimesConfig = FALLING
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PgSbConfig:
    """PG-SB (SNOOPI): VSD with one random guidance scale for both the prior and the critic.

    The range is not stated in the paper's abstract, and no code is public: the default surrounds
    SwiftBrush's 4.5.
    """

    kind: Literal["pgsb"] = "pgsb"
    lowest_scale: Annotated[float, Field(ge=0.0, le=1000.0)] = 2.0
    """Lower end of the scales, drawn evenly for each image."""
    highest_scale: Annotated[float, Field(ge=0.0, le=1000.0)] = 7.0
    """Upper end of the scales."""
    critic: CriticConfig = TrainedCriticConfig(target="epsilon", learning_rate=1e-3, prompt_drop=0.1, rank=64)
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()
