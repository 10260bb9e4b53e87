"""Methods made for heads: editing by a second prompt, and a prior that is told an identity."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from studio.recipes.guidance.critics import CriticConfig, TrainedCriticConfig
from studio.recipes.guidance.shared import (
    GradientConfig,
    NoiseConfig,
    RandomNoise,
    ScoresConfig,
    TimesConfig,
    UniformTimes,
    WeightName,
)
from studio.recipes.ramps import Ramp
from studio.recipes.values import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IesdConfig:
    """Identity-aware editing score distillation (HeadSculpt): SDS between the prompt and an edit of it."""

    kind: Literal["iesd"] = "iesd"
    cfg_scale: Ramp = 100.0
    """Classifier-free guidance of both prompts."""
    edit_prompt: str = ""
    """What the head should become, without words for the view."""
    edit_weight: Ramp = 0.5
    """Share of the edit: 0 is SDS of the prompt, 1 of the edit. The paper's value is not public; its code
    leaves the edit off."""
    front_only: bool = False
    """Edit what is seen from the front only; other views are SDS of the prompt, as with an ``edit_weight`` of
    0."""
    times: TimesConfig = UniformTimes()
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "fantasia3d"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IsdConfig:
    """Identity score distillation (Portrait3D): VSD, or SDS, with a prior that is told an identity.

    The paper's equation is not public; its released code has the form of VSD. The identity is the prior's
    business: ``prior.image_prompt`` or ``prior.identity``, with ``prior.face_within_deg = 70``.
    """

    kind: Literal["isd"] = "isd"
    form: Literal["vsd", "sds"] = "vsd"
    """Subtract a critic's score, or the noise."""
    cfg_scale: Ramp = 50.0
    """Classifier-free guidance of the prior."""
    critic: CriticConfig = TrainedCriticConfig(target="epsilon")
    times: TimesConfig = UniformTimes(t_max=0.5)
    noise: NoiseConfig = RandomNoise()
    weight: WeightName = "sigma2"
    scores: ScoresConfig = ScoresConfig()
    gradient: GradientConfig = GradientConfig()
