"""Methods that play two predictions against each other, at two levels or in one."""

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
from studio.recipes.guidance.trajectories import WARMED_UP
from studio.recipes.ramps import Linear, Piecewise, Ramp
from studio.recipes.values import STRICT, Fraction, NotNegative, Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AsdConfig:
    """Asynchronous score distillation (ScaleDreamer)."""

    kind: Literal["asd"] = "asd"
    cfg_scale: Ramp = 7.5
    """Classifier-free guidance at the level itself; the noisier prediction has none."""
    shift_rate: NotNegative = 0.1
    """How far the noisier level may lie, as a share of the way from the window's lower end."""
    shift_drawn: bool = True
    """Draw the distance for each image, instead of taking the largest."""
    times: UniformTimes = UniformTimes(t_min=Linear(start=0.5, end=0.02), t_max=Linear(start=0.98, end=0.5))
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FixedBalance:
    """The classifier direction counts ``classifier_scale`` times the unconditional score."""

    kind: Literal["fixed"] = "fixed"
    classifier_scale: Ramp = 18.0
    """The paper's instructions say 18; its released code has 15."""
    weight: WeightName = "alpha"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutomaticBalance:
    """The unconditional score is replaced by what of it the noise does not explain, which sets the scale."""

    kind: Literal["automatic"] = "automatic"
    smoothing_scale: Positive = 1.25
    """Multiplies ``null - noise``."""
    norm_divisor: Positive = 50.0
    """The weight is ``sigma |null - noise| / norm_divisor``, the norm over each image."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BsdConfig:
    """Balanced score distillation (PlacidDreamer)."""

    kind: Literal["bsd"] = "bsd"
    balance: Annotated[FixedBalance | AutomaticBalance, Field(discriminator="kind")] = FixedBalance()
    times: TimesConfig = WARMED_UP
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MvdreamConfig:
    """Score distillation as MVDream does it: towards a denoised image of tempered contrast."""

    kind: Literal["mvdream"] = "mvdream"
    cfg_scale: Ramp = 50.0
    """Classifier-free guidance."""
    times: TimesConfig = UniformTimes(
        t_min=Linear(start=0.98, end=0.02, end_at=0.8),
        t_max=Linear(start=0.98, end=0.5, end_at=0.8),
        shared=True,
    )
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma_over_alpha"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig(rescale_std=0.5)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SecondPriorConfig:
    """How a second prior, of several views at once, denoises the renders, under noise of its own."""

    cfg_scale: Ramp = 50.0
    """Classifier-free guidance."""
    rescale_std: Fraction = 0.5
    """Pull the guided image's spread towards the unguided one's by this much, set by set."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class JsdConfig:
    """Joint score distillation (JointDreamer): SDS, drawn to what a multi-view prior makes of the views."""

    kind: Literal["jsd"] = "jsd"
    cfg_scale: Ramp = 31.0
    """Classifier-free guidance; the paper's own notation says 30."""
    energy_scale: Ramp = Piecewise(points=((0.0, 0.0), (0.12, 0.0), (0.12, 5.0)))
    """How much the distance between the two priors' images counts; 0 is SDS and does not ask the second."""
    second: SecondPriorConfig = SecondPriorConfig()
    """The term of guidance names it: ``views_prior``."""
    times: TimesConfig = UniformTimes(
        t_min=Linear(start=0.98, end=0.02, end_at=0.6),
        t_max=Linear(start=0.98, end=0.5, end_at=0.6),
        shared=True,
    )
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()
