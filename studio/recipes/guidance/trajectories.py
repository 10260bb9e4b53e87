"""Methods that compare predictions along the prior's own ODE.

Steps are fractions of the schedule. The papers chose them on Stable Diffusion's; on other schedules the same
fractions are other noise levels, and nobody has published better ones.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.guidance.shared import (
    FixedNoise,
    GradientConfig,
    InvertedNoise,
    NoiseConfig,
    RandomNoise,
    ScoresConfig,
    SweepTimes,
    TimesConfig,
    UniformTimes,
    WeightName,
)
from studio.recipes.ramps import Linear, Ramp
from studio.recipes.values import STRICT, Fraction

WARM_UP = 0.3
"""Progress until which LucidDreamer and Dreamer-XL widen their levels: 1500 of 5000, 750 of 2500 steps."""

WARMED_UP = UniformTimes(t_max=Linear(start=0.98, end=0.5, end_at=WARM_UP), shared=True)
GAP = Linear(start=0.1, end=0.08, end_at=WARM_UP)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IsmConfig:
    """Interval score matching (LucidDreamer)."""

    kind: Literal["ism"] = "ism"
    cfg_scale: Ramp = 7.5
    """Classifier-free guidance."""
    gap: Ramp = GAP
    """From the end of the inversion to the level of the step."""
    times: TimesConfig = WARMED_UP
    noise: NoiseConfig = InvertedNoise()
    weight: WeightName = "sigma_over_alpha"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TsmConfig:
    """Trajectory score matching (Dreamer XL)."""

    kind: Literal["tsm"] = "tsm"
    cfg_scale: Ramp = 7.5
    """Classifier-free guidance."""
    gap: Ramp = GAP
    """From the end of the inversion to the level of the step."""
    gamma: Fraction = 0.3
    """Where between the two the target lies: 1 at the end of the inversion (ISM), 0 at the level itself."""
    times: TimesConfig = WARMED_UP
    noise: NoiseConfig = InvertedNoise()
    weight: WeightName = "sigma_over_alpha"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CsmConfig:
    """Classifier score matching (TV-3DG). No code was released: gap, weight and scale are ISM's."""

    kind: Literal["csm"] = "csm"
    gap: Ramp = GAP
    """From the end of the inversion to the level of the step."""
    times: TimesConfig = WARMED_UP
    noise: NoiseConfig = InvertedNoise()
    weight: WeightName = "sigma_over_alpha"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VpcsmConfig:
    """Classifier score matching with a reference image beside the prompt (TV-3DG's VPCSM).

    No code was released: the two scales are of this studio's choice.
    """

    kind: Literal["vpcsm"] = "vpcsm"
    text_scale: Ramp = 1.0
    """Of the direction from no prompt to the prompt."""
    image_scale: Ramp = 1.0
    """Of the direction from the prompt to the prompt with the image."""
    gap: Ramp = GAP
    """From the end of the inversion to the level of the step."""
    times: TimesConfig = WARMED_UP
    noise: NoiseConfig = InvertedNoise()
    weight: WeightName = "sigma_over_alpha"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SdiConfig:
    """Score distillation via reparametrised DDIM."""

    kind: Literal["sdi"] = "sdi"
    cfg_scale: Ramp = 7.5
    """Classifier-free guidance of the denoised image."""
    jitter: Fraction = 0.1
    """The level is raised by a random step of up to this much."""
    times: TimesConfig = SweepTimes(start=0.98, end=0.25, shape="linear")
    noise: NoiseConfig = InvertedNoise(stride=0.1, cfg_scale=-7.5, eta=0.3)
    weight: WeightName = "sigma_over_alpha"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RefineConfig:
    """Image to image: pixels follow what the prior makes of the renders from a low noise level
    (DreamGaussian)."""

    kind: Literal["refine"] = "refine"
    cfg_scale: Ramp = 7.5
    """Classifier-free guidance."""
    steps: Annotated[int, Field(strict=True, ge=1)] = 5
    """Equal steps from the noise level to the picture; each costs predictions."""
    times: TimesConfig = SweepTimes(start=0.3, end=0.05, shape="linear")
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CdsConfig:
    """Consistency distillation sampling (Consistent3D)."""

    kind: Literal["cds"] = "cds"
    cfg_scale: Ramp = Linear(start=101.0, end=51.0)
    """Classifier-free guidance; the paper's own notation says 100 to 50."""
    gap_min: Fraction = 0.1
    """The first level lies above the second by at least this much ..."""
    gap_max: Fraction = 0.3
    """... and by less than this."""
    times: TimesConfig = SweepTimes(start=0.7, end=0.1)
    noise: NoiseConfig = FixedNoise()
    weight: WeightName = "uniform"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig(clamp=Linear(start=2.0, end=8.0))
