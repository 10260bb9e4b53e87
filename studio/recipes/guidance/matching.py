"""Distribution matching: the critic's clean image against the prior's, and losses through both networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.guidance.critics import CriticConfig, TrainedCriticConfig
from studio.recipes.guidance.shared import (
    GradientConfig,
    NoiseConfig,
    RandomNoise,
    ScoresConfig,
    TimesConfig,
    UniformTimes,
)
from studio.recipes.ramps import Ramp
from studio.recipes.values import STRICT, NotNegative, Number, Positive

FAKE = TrainedCriticConfig(target="epsilon", learning_rate=1e-4, updates=5)
"""A critic that keeps ahead of the scene."""

Divergence = Literal[
    "reverse_kl", "forward_kl", "jensen_shannon", "softened_reverse_kl", "hellinger", "jeffreys", "neyman"
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Dmd2Config:
    """Distribution matching distillation (DMD2, without its adversarial term: it wants real images)."""

    kind: Literal["dmd2"] = "dmd2"
    cfg_scale: Ramp = 1.75
    """Classifier-free guidance of the prior; 8 for Stable Diffusion XL."""
    critic: CriticConfig = FAKE
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RatioHeadConfig:
    """A small classifier of noisy images that learns log p/q, the prior's density over the renders'.

    Its examples of the prior are the renders as the prior denoises them, since a scene has no real images.
    """

    learning_rate: Positive = 1e-3
    width: Annotated[int, Field(ge=4, le=512)] = 32
    """Channels of its layers."""
    seed: int = 0
    """Of its first weights."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FDistillConfig:
    """f-distill: DMD2 whose images are weighted by the density ratio, as an f-divergence asks."""

    kind: Literal["f_distill"] = "f_distill"
    divergence: Divergence = "jensen_shannon"
    """The divergence to minimise; the reverse KL is DMD2."""
    cfg_scale: Ramp = 1.75
    """Classifier-free guidance of the prior."""
    ratio: RatioHeadConfig = RatioHeadConfig()
    critic: CriticConfig = FAKE
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TdmConfig:
    """Trajectory distribution matching for one step: DMD2 under a Huber loss."""

    kind: Literal["tdm"] = "tdm"
    cfg_scale: Ramp = 2.0
    """Classifier-free guidance of the prior."""
    huber: Positive | None = 1e-3
    """Where the pseudo-Huber loss bends, or None for the squared loss, that is DMD2's direction."""
    critic: CriticConfig = TrainedCriticConfig(target="x0", snr_cap=5.0, learning_rate=1e-4, updates=5)
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DisbackConfig:
    """DisBack: DMD2 towards teachers that lead from what the scene looked like to the true one.

    The teachers are the prior as it unlearns towards the first renders, kept on the way and walked backwards.
    """

    kind: Literal["disback"] = "disback"
    cfg_scale: Ramp = 1.75
    """Classifier-free guidance of the teachers."""
    degrade_until: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Progress until which the prior unlearns; the scene rests meanwhile."""
    walk_until: Annotated[float, Field(gt=0.0, le=1.0)] = 0.6
    """Progress at which the walk reaches the true prior."""
    teachers: Annotated[int, Field(ge=1, le=1000)] = 5
    """Degraded teachers that are kept."""
    degradation: TrainedCriticConfig = TrainedCriticConfig(target="epsilon", learning_rate=1e-4, updates=5)
    """How the prior unlearns."""
    critic: CriticConfig = FAKE
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SidConfig:
    """Score identity distillation: a loss through the prior and the critic."""

    kind: Literal["sid"] = "sid"
    cfg_scale: Ramp = 1.0
    """Classifier-free guidance of the prior."""
    a: Number = 1.2
    """How much of the squared difference is taken away; above 1 is unstable on some data, then 0.5 to 1."""
    critic: CriticConfig = FAKE
    times: TimesConfig = UniformTimes(t_max=0.8)
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimConfig:
    """Score implicit matching: a distance of the two scores, through the prior and the critic.

    The public code only samples: the constant of the pseudo-Huber distance is not known from it.
    """

    kind: Literal["sim"] = "sim"
    cfg_scale: Ramp = 1.0
    """Classifier-free guidance of the prior."""
    huber: Positive | None = 1.0
    """Where the pseudo-Huber distance bends, in units of the scores' norm per sqrt(element); None for the
    squared distance."""
    critic: CriticConfig = FAKE
    times: TimesConfig = UniformTimes(t_max=0.8)
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SfdConfig:
    """Score forgetting distillation: SiD towards a safe prompt, beside SiD towards the prompt itself."""

    kind: Literal["sfd"] = "sfd"
    safe_prompt: str = ""
    """What the renders should look like instead."""
    forget_weight: NotNegative = 0.01
    """Weight of the loss towards the safe prompt."""
    remain_weight: NotNegative = 1.0
    """Weight of the loss towards the prompt."""
    a: Number = 1.2
    """As in SiD."""
    critic: CriticConfig = FAKE
    times: TimesConfig = UniformTimes(t_min=0.038, t_max=0.712)
    noise: NoiseConfig = RandomNoise()
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()
