"""What a run is, as a type: a recipe is a prompt, a seed, a prior and a list of stages.

A stage is the sentence of the studio with every word decided: a scene, a renderer, guidance, cameras. A later
stage goes on with the scene that the earlier one left. Everything is frozen and refuses what it does not
know; ``load.py`` reads these types from TOML. Each module beside this one describes a word; the rest of the
house imports all of them from here, and the methods of guidance from ``studio.recipes.guidance``.
"""

from __future__ import annotations

from studio.recipes.cameras import (
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
from studio.recipes.clipart import Bone, CanvasPoint, ClipartConfig, CurveOffsets, LayerConfig, Loop
from studio.recipes.deformation import (
    DeformableConfig,
    HexPlaneConfig,
    KeyframesConfig,
    NodesConfig,
    PerceptronConfig,
)
from studio.recipes.export import (
    CLIP,
    FILM,
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
from studio.recipes.priors import (
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
from studio.recipes.ramps import Range
from studio.recipes.recipe import Recipe, WatchdogsConfig
from studio.recipes.regularizers import RegularizersConfig
from studio.recipes.renderers import (
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
from studio.recipes.scenes import SceneConfig
from studio.recipes.shapes import (
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
from studio.recipes.stage import GuidanceTerm, Stage
from studio.recipes.topology import DensifyConfig, NoTopologyConfig, RelocateConfig, TopologyConfig

__all__ = [
    "CLIP",
    "DRAWN_BY",
    "FILM",
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
