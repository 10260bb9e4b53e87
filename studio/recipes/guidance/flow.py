"""Methods made for rectified flows, and methods that follow a flow. They run on every schedule."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from studio.recipes.guidance.shared import (
    ConsistentNoise,
    GradientConfig,
    NoiseConfig,
    OdeNoise,
    RandomNoise,
    ScoresConfig,
    SweepTimes,
    TimesConfig,
    UniformTimes,
    WeightName,
)
from studio.recipes.ramps import Ramp
from studio.recipes.values import STRICT, Fraction


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RfdsConfig:
    """Rectified-flow distillation; with ``noise.kind = "refined"``, RFDS-Rev."""

    kind: Literal["rfds"] = "rfds"
    cfg_scale: Ramp = 100.0
    """Classifier-free guidance."""
    times: TimesConfig = UniformTimes(t_max=0.7)
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "inverse_alpha"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UcmConfig:
    """Unique couple matching (FlowDreamer): RFDS first, then with the noise that the flow couples with the
    image."""

    kind: Literal["ucm"] = "ucm"
    cfg_scale: Ramp = 60.0
    """Classifier-free guidance."""
    switch_at: Fraction = 0.5
    """Progress from which the noise is the coupled one."""
    times: TimesConfig = UniformTimes(t_max=0.7)
    noise: NoiseConfig = RandomNoise()
    """The noise before the switch."""
    coupled_noise: OdeNoise = OdeNoise()
    """The noise after the switch."""
    weight: WeightName = "inverse_alpha"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CfdConfig:
    """Consistent flow distillation: one falling noise level and noise that sticks to the world.

    The ends of the sweep are of this studio's choice.
    """

    kind: Literal["cfd"] = "cfd"
    cfg_scale: Ramp = 70.0
    """Classifier-free guidance."""
    times: TimesConfig = SweepTimes(start=0.98, end=0.02)
    noise: NoiseConfig = ConsistentNoise()
    weight: WeightName = "sigma_over_alpha"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()
