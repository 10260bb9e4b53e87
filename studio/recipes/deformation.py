"""A shape in motion: what moves it, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from studio.recipes.shapes import GaussiansConfig, TexturedMeshConfig
from studio.recipes.values import STRICT, NotNegative, Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class KeyframesConfig:
    """Where each node is, and how it is turned, at evenly spaced instants; in between, interpolated."""

    kind: Literal["keyframes"] = "keyframes"
    count: Annotated[int, Field(ge=2, le=1024)] = 16
    """How many instants, time 0 and time 1 among them."""
    translations_rate: Positive = 5e-3
    """Learning rate of the places, in world units a step."""
    quats_rate: Positive = 5e-3
    """Learning rate of the rotations."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NodesConfig:
    """A few nodes, spread over the shape at rest, move and carry the rest along: linear blend skinning."""

    kind: Literal["nodes"] = "nodes"
    count: Annotated[int, Field(ge=1, le=65536)] = 512
    """At most this many nodes, and at most one for every eight splats or vertices."""
    carriers: Annotated[int, Field(ge=1, le=16)] = 4
    """How many nodes carry each splat or vertex: those nearest to it."""
    track: Annotated[KeyframesConfig | PerceptronConfig, Field(discriminator="kind")] = KeyframesConfig()
    """What holds the nodes' motion."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
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
