"""A drawing in motion: its keypoints, bones, layers and curves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.values import STRICT, Number, Positive

CanvasPoint = tuple[Number, Number]
"""x, y in pixels of clipart's canvas of 256, y down."""
Bone = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
CurveOffsets = tuple[CanvasPoint, CanvasPoint, CanvasPoint]
Loop = Literal["there_and_back", "cyclic", "once"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LayerConfig:
    """Some paths of a drawing, moved on a sheet of their own."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """For messages."""
    paths: tuple[Annotated[int, Field(ge=0)], ...]
    """Of the drawing, counted from 0 in the order of drawing; islands of one path count one by one."""
    keypoints: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """That lead it, counted from 0; those that two layers share are joints. Left out, all that lie on it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
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
