"""What a vector drawing consists of: cubic curves and the paint on them, in canvas pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

CANVAS_PX = 256
"""All coordinates of clipart are pixels of a square canvas of this size, x right, y down."""


@dataclass(frozen=True)
class Color:
    """A plain paint: sRGB and opacity, each in 0-1."""

    rgb: tuple[float, float, float]
    opacity: float = 1.0


@dataclass(frozen=True)
class Gradient:
    """A paint that changes along a line or outwards from a point.

    In its own space a linear gradient runs from (0, 0) to (1, 0), and a radial one fills the unit circle
    around the origin.

    Attributes:
        stops: offsets in 0-1, rising, with the colour at each.
        matrix: a, b, c, d, e, f of SVG: from the gradient's own space (x, y) to the canvas at
            (a x + c y + e, b x + d y + f).
        focus: for a radial gradient where the offset 0 is, inside the unit circle; None for a linear one.
        spread: what lies beyond offset 0 and 1.
    """

    stops: tuple[tuple[float, Color], ...]
    matrix: tuple[float, float, float, float, float, float]
    focus: tuple[float, float] | None = None
    spread: Literal["pad", "reflect", "repeat"] = "pad"


@dataclass(frozen=True)
class Stroke:
    """The line along a path; lengths in canvas pixels."""

    paint: Color | Gradient
    width_px: float
    cap: Literal["butt", "round", "square"] = "butt"
    join: Literal["miter", "round", "bevel"] = "miter"
    miter_limit: float = 4.0
    dashes_px: tuple[float, ...] = ()
    dash_offset_px: float = 0.0


@dataclass(frozen=True)
class PathStyle:
    """How a path is painted: first the fill, then the stroke over it."""

    fill: Color | Gradient | None = None
    stroke: Stroke | None = None
    fill_rule: Literal["nonzero", "evenodd"] = "nonzero"


@dataclass(frozen=True)
class VectorPath:
    """One painted path.

    Attributes:
        subpaths: cubic Béziers, each its start, two controls and its end; a segment starts where the one
            before it ends.
        closed: for each subpath whether its end meets its start.
        style: the paint.
    """

    subpaths: tuple[Float[Tensor, "_ 4 2"], ...]
    closed: tuple[bool, ...]
    style: PathStyle
