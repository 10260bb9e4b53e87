"""What a run is, as a type: a recipe is a prompt, a seed, a prior and a list of stages.

A stage is the sentence of the studio with every word decided: a scene, a renderer, guidance, cameras. A later
stage goes on with the scene that the earlier one left. Everything is frozen and refuses what it does not
know; ``recipes/load.py`` reads these types from TOML. The modules of this package describe a word each;
everything outside imports them from here. Methods of guidance are in ``recipes/guidance``.
"""

from __future__ import annotations

from studio.recipes.config.cameras import (
    AlignedConfig,
    CamerasConfig,
    ClipConfig,
    FixedSetConfig,
    FramesConfig,
    FrontConfig,
    InstantsConfig,
    MultiViewConfig,
    OrbitConfig,
    RandomInstantsConfig,
)
from studio.recipes.config.clipart import Bone, CanvasPoint, ClipartConfig, CurveOffsets, LayerConfig, Loop
from studio.recipes.config.deformation import (
    DeformableConfig,
    HexPlaneConfig,
    KeyframesConfig,
    NodesConfig,
    PerceptronConfig,
)
from studio.recipes.config.export import (
    CLIP,
    FLAT,
    FORMATS,
    HOLDS_CURVES,
    HOLDS_MESH,
    HOLDS_ONE_INSTANT,
    HOLDS_SPLATS,
    NEEDS_MOTION,
    TURNTABLE,
    AssetFormat,
    ExportConfig,
)
from studio.recipes.config.priors import (
    AutoPriorConfig,
    ClipPriorConfig,
    LatentPriorConfig,
    LibraryPriorConfig,
    MotionName,
    NoPriorConfig,
    PriorConfig,
    SmallPriorConfig,
    VideoPriorConfig,
)
from studio.recipes.config.recipe import Recipe, WatchdogsConfig
from studio.recipes.config.regularizers import RegularizersConfig
from studio.recipes.config.renderers import (
    DRAWN_BY,
    AugmentationConfig,
    BackgroundConfig,
    CutoutConfig,
    FixedBackgroundConfig,
    RandomBackgroundConfig,
    RasterConfig,
    RendererConfig,
    SplattingConfig,
    VolumeConfig,
)
from studio.recipes.config.scenes import SceneConfig
from studio.recipes.config.shapes import (
    BallConfig,
    FieldConfig,
    GaussiansConfig,
    InitialConfig,
    MeshConfig,
    PointCloudConfig,
    SplatFileConfig,
    SurfaceConfig,
    TexturedMeshConfig,
)
from studio.recipes.config.stage import GuidanceTerm, Stage
from studio.recipes.config.topology import DensifyConfig, NoTopologyConfig, RelocateConfig, TopologyConfig
from studio.recipes.config.values import Count, Positive, Range

__all__ = [
    "CLIP",
    "DRAWN_BY",
    "FLAT",
    "FORMATS",
    "HOLDS_CURVES",
    "HOLDS_MESH",
    "HOLDS_ONE_INSTANT",
    "HOLDS_SPLATS",
    "NEEDS_MOTION",
    "TURNTABLE",
    "AlignedConfig",
    "AssetFormat",
    "AugmentationConfig",
    "AutoPriorConfig",
    "BackgroundConfig",
    "BallConfig",
    "Bone",
    "CamerasConfig",
    "CanvasPoint",
    "ClipConfig",
    "ClipPriorConfig",
    "ClipartConfig",
    "Count",
    "CurveOffsets",
    "CutoutConfig",
    "DeformableConfig",
    "DensifyConfig",
    "ExportConfig",
    "FieldConfig",
    "FixedBackgroundConfig",
    "FixedSetConfig",
    "FramesConfig",
    "FrontConfig",
    "GaussiansConfig",
    "GuidanceTerm",
    "HexPlaneConfig",
    "InitialConfig",
    "InstantsConfig",
    "KeyframesConfig",
    "LatentPriorConfig",
    "LayerConfig",
    "LibraryPriorConfig",
    "Loop",
    "MeshConfig",
    "MotionName",
    "MultiViewConfig",
    "NoPriorConfig",
    "NoTopologyConfig",
    "NodesConfig",
    "OrbitConfig",
    "PerceptronConfig",
    "PointCloudConfig",
    "Positive",
    "PriorConfig",
    "RandomBackgroundConfig",
    "RandomInstantsConfig",
    "Range",
    "RasterConfig",
    "Recipe",
    "RegularizersConfig",
    "RelocateConfig",
    "RendererConfig",
    "SceneConfig",
    "SmallPriorConfig",
    "SplatFileConfig",
    "SplattingConfig",
    "Stage",
    "SurfaceConfig",
    "TexturedMeshConfig",
    "TopologyConfig",
    "VideoPriorConfig",
    "VolumeConfig",
    "WatchdogsConfig",
]
