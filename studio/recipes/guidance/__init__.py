"""What a recipe says of guidance: which method, at which noise levels, with which weights.

Conventions: classifier-free guidance is ``null + cfg_scale (positive - null)``, so a paper that writes
``positive + s (positive - null)`` is entered as ``cfg_scale = s + 1``. Noise levels are fractions of the
prior's schedule, 0 clean and 1 pure noise.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from studio.recipes.guidance.linear import (
    BridgeConfig,
    CsdConfig,
    HifaConfig,
    HifaWeightName,
    NfsdConfig,
    SdsConfig,
    SjcConfig,
)
from studio.recipes.guidance.shared import (
    FixedNoise,
    GradientConfig,
    NoiseConfig,
    NotNegative,
    Positive,
    RandomNoise,
    ScoresConfig,
    SweepTimes,
    TimesConfig,
    UniformTimes,
    WeightName,
)

__all__ = [
    "BridgeConfig",
    "CsdConfig",
    "FixedNoise",
    "GradientConfig",
    "GuidanceConfig",
    "HifaConfig",
    "HifaWeightName",
    "NfsdConfig",
    "NoiseConfig",
    "NotNegative",
    "Positive",
    "RandomNoise",
    "ScoresConfig",
    "SdsConfig",
    "SjcConfig",
    "SweepTimes",
    "TimesConfig",
    "UniformTimes",
    "WeightName",
]

GuidanceConfig = Annotated[
    SdsConfig | SjcConfig | CsdConfig | NfsdConfig | BridgeConfig | HifaConfig, Field(discriminator="kind")
]
