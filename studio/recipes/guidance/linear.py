"""Methods that add up predictions at one noise level, with constant coefficients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.guidance.shared import (
    GradientConfig,
    NoiseConfig,
    RandomNoise,
    ScoresConfig,
    SweepTimes,
    TimesConfig,
    UniformTimes,
    WeightName,
)
from studio.recipes.ramps import Linear, Piecewise, Ramp
from studio.recipes.values import STRICT, Fraction, Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SdsConfig:
    """Score distillation sampling (DreamFusion)."""

    kind: Literal["sds"] = "sds"
    cfg_scale: Ramp = 101.0
    """Classifier-free guidance; DreamFusion's own notation says 100."""
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SjcConfig:
    """Score Jacobian chaining: SDS in variance-exploding form, where the noise may stay in the gradient."""

    kind: Literal["sjc"] = "sjc"
    cfg_scale: Ramp = 101.0
    """Classifier-free guidance."""
    variance_reduction: bool = True
    """Subtract the noise that was added: the same mean, less variance."""
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "uniform"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CsdConfig:
    """Classifier score distillation: any combination of the predictions, each coefficient on a ramp.

    The default is the paper's first stage: away from the unconditional image at first, away from the negative
    prompt later.
    """

    kind: Literal["csd"] = "csd"
    positive: Ramp = 1.0
    """Coefficient of the prompt's prediction."""
    negative: Ramp = Linear(start=0.0, end=-1.0, end_at=0.5)
    """Coefficient of the negative prompt's prediction."""
    null: Ramp = Linear(start=-1.0, end=0.0, end_at=0.5)
    """Coefficient of the unconditional prediction."""
    noise_coefficient: Ramp = 0.0
    """Coefficient of the noise that was added."""
    negative_prompt: str = "oversaturated color, ugly, tiling, low quality, noisy"
    times: TimesConfig = UniformTimes(t_max=Piecewise(points=((0.0, 0.98), (0.5, 0.98), (0.5, 0.5))))
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "uniform"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NfsdConfig:
    """Noise-free score distillation."""

    kind: Literal["nfsd"] = "nfsd"
    cfg_scale: Ramp = 7.5
    """Classifier-free guidance; the method is made for nominal values."""
    split_timestep: Annotated[float, Field(ge=0.0, le=999.0)] = 200.0
    """Stable Diffusion's timestep from which the negative prompt is subtracted; other schedules use the
    level of the same signal-to-noise ratio."""
    negative_prompt: str = (
        "unrealistic, blurry, low quality, out of focus, ugly, low contrast, "
        "dull, dark, low-resolution, gloomy"
    )
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BridgeConfig:
    """SDS-Bridge: SDS first, then from a description of what the scene looks like now to the prompt."""

    kind: Literal["bridge"] = "bridge"
    cfg_scale: Ramp = 101.0
    """Guidance scale of both parts."""
    source_suffix: str = (
        ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
    )
    """Added to the prompt to describe the scene as SDS leaves it."""
    switch_at: Fraction = 0.5
    """Progress at which the second part begins."""
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


HifaWeightName = Literal["constant", "noise_match", "alpha_sigma", "alpha2_over_sigma"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HifaConfig:
    """HiFA: SDS written as a distance to the denoised image, along one falling noise level."""

    kind: Literal["hifa"] = "hifa"
    cfg_scale: Ramp = 101.0
    """Classifier-free guidance."""
    weight: HifaWeightName = "constant"
    """The paper's weights of the distance: 0.05 times 1, alpha/sigma, alpha sigma, or alpha²/sigma."""
    residual_clip: Positive | None = 200.0
    """Bound on the distance of each element, in units of sigma."""
    times: TimesConfig = SweepTimes()
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()
