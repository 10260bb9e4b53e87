"""What a recipe says of guidance: which method, at which noise levels, with which weights.

Conventions: classifier-free guidance is ``null + cfg_scale (positive - null)``, so a paper that writes
``positive + s (positive - null)`` is entered as ``cfg_scale = s + 1``. Noise levels are fractions of the
prior's schedule, 0 clean and 1 pure noise.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from studio.recipes.guidance.critics import (
    CriticConfig,
    EsdConfig,
    FittedCriticConfig,
    LodsConfig,
    PgSbConfig,
    TrainedCriticConfig,
    VsdConfig,
)
from studio.recipes.guidance.linear import (
    BridgeConfig,
    CsdConfig,
    HifaConfig,
    HifaWeightName,
    NfsdConfig,
    SdsConfig,
    SjcConfig,
)
from studio.recipes.guidance.matching import (
    DisbackConfig,
    Divergence,
    Dmd2Config,
    FDistillConfig,
    RatioHeadConfig,
    SfdConfig,
    SidConfig,
    SimConfig,
    TdmConfig,
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
    "CriticConfig",
    "CsdConfig",
    "DisbackConfig",
    "Divergence",
    "Dmd2Config",
    "EsdConfig",
    "FDistillConfig",
    "FittedCriticConfig",
    "FixedNoise",
    "GradientConfig",
    "GuidanceConfig",
    "HifaConfig",
    "HifaWeightName",
    "LodsConfig",
    "NfsdConfig",
    "NoiseConfig",
    "NotNegative",
    "PgSbConfig",
    "Positive",
    "RandomNoise",
    "RatioHeadConfig",
    "ScoresConfig",
    "SdsConfig",
    "SfdConfig",
    "SidConfig",
    "SimConfig",
    "SjcConfig",
    "SweepTimes",
    "TdmConfig",
    "TimesConfig",
    "TrainedCriticConfig",
    "UniformTimes",
    "VsdConfig",
    "WeightName",
]

GuidanceConfig = Annotated[
    SdsConfig
    | SjcConfig
    | CsdConfig
    | NfsdConfig
    | BridgeConfig
    | HifaConfig
    | VsdConfig
    | EsdConfig
    | LodsConfig
    | PgSbConfig
    | Dmd2Config
    | FDistillConfig
    | TdmConfig
    | DisbackConfig
    | SidConfig
    | SimConfig
    | SfdConfig,
    Field(discriminator="kind"),
]
