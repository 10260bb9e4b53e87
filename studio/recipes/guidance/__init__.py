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
from studio.recipes.guidance.flow import (
    CfdConfig,
    RfdsConfig,
    UcmConfig,
)
from studio.recipes.guidance.heads import IesdConfig, IsdConfig
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
from studio.recipes.guidance.pairs import (
    AsdConfig,
    AutomaticBalance,
    BsdConfig,
    FixedBalance,
    JsdConfig,
    MvdreamConfig,
    SecondPriorConfig,
)
from studio.recipes.guidance.pixels import (
    FootageConfig,
    MeshContrastConfig,
    MeshesTarget,
    PixelsConfig,
    TargetConfig,
    TruthTarget,
)
from studio.recipes.guidance.shared import (
    ConsistentNoise,
    DreamTimeTimes,
    FixedNoise,
    GradientConfig,
    InvertedNoise,
    NoiseConfig,
    OdeNoise,
    RandomNoise,
    RefinedNoise,
    ScoresConfig,
    SweepTimes,
    TimesConfig,
    UniformTimes,
    WeightName,
)
from studio.recipes.guidance.trajectories import (
    CdsConfig,
    CsmConfig,
    IsmConfig,
    RefineConfig,
    SdiConfig,
    TsmConfig,
    VpcsmConfig,
)

__all__ = [
    "AnyGuidanceConfig",
    "AsdConfig",
    "AutomaticBalance",
    "BridgeConfig",
    "BsdConfig",
    "CdsConfig",
    "CfdConfig",
    "ConsistentNoise",
    "CriticConfig",
    "CsdConfig",
    "CsmConfig",
    "DisbackConfig",
    "Divergence",
    "Dmd2Config",
    "DreamTimeTimes",
    "EsdConfig",
    "FDistillConfig",
    "FittedCriticConfig",
    "FixedBalance",
    "FixedNoise",
    "FootageConfig",
    "GradientConfig",
    "GuidanceConfig",
    "HifaConfig",
    "HifaWeightName",
    "IesdConfig",
    "InvertedNoise",
    "IsdConfig",
    "IsmConfig",
    "JsdConfig",
    "LodsConfig",
    "MeshContrastConfig",
    "MeshesTarget",
    "MvdreamConfig",
    "NfsdConfig",
    "NoiseConfig",
    "OdeNoise",
    "PgSbConfig",
    "PictureGuidanceConfig",
    "PixelsConfig",
    "RandomNoise",
    "RatioHeadConfig",
    "RefineConfig",
    "RefinedNoise",
    "RfdsConfig",
    "ScoresConfig",
    "SdiConfig",
    "SdsConfig",
    "SecondPriorConfig",
    "SfdConfig",
    "SidConfig",
    "SimConfig",
    "SjcConfig",
    "SweepTimes",
    "TargetConfig",
    "TdmConfig",
    "TimesConfig",
    "TrainedCriticConfig",
    "TruthTarget",
    "TsmConfig",
    "UcmConfig",
    "UniformTimes",
    "VpcsmConfig",
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
    | SfdConfig
    | IesdConfig
    | IsdConfig
    | IsmConfig
    | TsmConfig
    | CsmConfig
    | VpcsmConfig
    | SdiConfig
    | RefineConfig
    | CdsConfig
    | AsdConfig
    | BsdConfig
    | MvdreamConfig
    | JsdConfig
    | RfdsConfig
    | UcmConfig
    | CfdConfig,
    Field(discriminator="kind"),
]
"""The methods that ask a diffusion model."""

PictureGuidanceConfig = PixelsConfig | MeshContrastConfig
"""The methods that compare with pictures that are known, and ask none."""

AnyGuidanceConfig = Annotated[GuidanceConfig | PictureGuidanceConfig, Field(discriminator="kind")]
