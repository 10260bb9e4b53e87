"""Scenes at rest: Gaussians, surfaces, meshes and radiance fields, and what they begin as."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from studio.recipes.values import STRICT, Count, NotNegative, Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BallConfig:
    """Grey splats spread evenly through a ball around the origin."""

    kind: Literal["ball"] = "ball"
    count: Count = 4000
    """How many splats."""
    radius: Annotated[float, Field(gt=0.0, le=1.0)] = 0.45
    """Of the ball; assets fit 0.5."""
    opacity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Of each splat at the start."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PointCloudConfig:
    """A splat at each point of a PLY file, moved and scaled to fit the ball of radius 0.5."""

    kind: Literal["point_cloud"] = "point_cloud"
    path: Annotated[str, Field(min_length=1)]
    """The PLY file; colours are used where it has them."""
    count: Count = 20000
    """At most this many splats, drawn at random from the points."""
    opacity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Of each splat at the start."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MeshConfig:
    """Splats on the surface of a mesh, in its colours, moved and scaled to fit the ball of radius 0.5."""

    kind: Literal["mesh"] = "mesh"
    path: Annotated[str, Field(min_length=1)]
    """A GLB, OBJ, PLY or STL file."""
    count: Count = 10000
    """How many splats."""
    opacity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Of each splat at the start."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
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
