"""Keypoints as a person draws them: an SVG of circles that lies over a drawing, and of lines between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from studio.clipart.drawing import check_file, place_of, svg_libraries
from studio.clipart.svg_paths import Box, page_of, paths_of
from studio.clipart.svg_tree import read_svg
from studio.clipart.svg_writer import bounding_box
from studio.errors import StudioError

REACH_PX = 6.0
"""A line that ends as near as this to a circle's centre meets it, however small the circle is."""
_SAME_SHAPE = 0.02
"""Greatest relative difference of the aspects of two pages that lie on one another."""


@dataclass(frozen=True)
class Markers:
    """What was marked.

    Attributes:
        keypoints: the circles' centres in canvas pixels, in the order of drawing.
        bones: pairs of keypoints that lines join; None where there is no line.
    """

    keypoints: tuple[tuple[float, float], ...]
    bones: tuple[tuple[int, int], ...] | None


def read_markers(path: Path, drawing: Path) -> Markers:
    """Reads an SVG of markers: a keypoint is the middle of a closed shape, a bone an open line between two.

    Its page lies on the drawing's, whatever the units of either. A line with corners at several circles joins
    each to the next.

    Args:
        path: an SVG that shows nothing but markers.
        drawing: the drawing's file.

    Raises:
        StudioError: a file that ``read_drawing`` refuses; pages of different shapes; no closed shape; a line
            that begins or ends beside all of them.
    """
    page, square = place_of(drawing)
    check_file(path)
    tree = read_svg(path.read_bytes(), path.name)
    own_page = page_of(tree)
    with svg_libraries():
        paths = paths_of(tree, _laid_over(square, page, own_page, path.name, drawing.name))
    shapes = [shape for marker in paths for shape in zip(marker.subpaths, marker.closed, strict=True)]
    boxes = torch.tensor([bounding_box([curves]) for curves, closed in shapes if closed]).reshape(-1, 4)
    if len(boxes) == 0:
        raise StudioError(f"{path.name} shows no circle, expected one at each keypoint: draw them, filled.")
    centers = boxes[:, :2] + boxes[:, 2:] / 2
    reach_px = (boxes[:, 2:].amax(1) / 2).clamp(min=REACH_PX)
    lines = [torch.cat([curves[:1, 0], curves[:, 3]]) for curves, closed in shapes if not closed]
    bones = [bone for line in lines for bone in _joined(line, centers, reach_px, path.name)]
    keypoints = tuple((x, y) for x, y in centers.double().tolist())
    return Markers(keypoints, tuple(dict.fromkeys(bones)) if bones else None)


def _laid_over(square: Box, page: Box, own_page: Box, name: str, drawing: str) -> Box:
    """A square of a drawing's coordinates in those of the markers."""
    scale = own_page[2] / page[2]
    if abs(own_page[3] / (page[3] * scale) - 1) > _SAME_SHAPE:
        raise StudioError(
            f"{name} has a page of {own_page[2]:g} x {own_page[3]:g}, expected the shape of {drawing}'s, "
            f"{page[2]:g} x {page[3]:g}: draw the circles on a copy of the drawing, then delete the drawing."
        )
    x, y = (own_page[axis] + (square[axis] - page[axis]) * scale for axis in (0, 1))
    return x, y, square[2] * scale, square[3] * scale


def _joined(
    line: Float[Tensor, "n 2"], centers: Float[Tensor, "k 2"], reach_px: Float[Tensor, "k"], name: str
) -> list[tuple[int, int]]:
    """The bones that a line draws: between each circle that a corner of it lies in and the next."""
    off = (line[:, None] - centers).norm(dim=-1) - reach_px
    met = [int(row.argmin()) if bool((row <= 0).any()) else None for row in off]
    for end in (0, -1):
        if met[end] is None:
            x, y = line[end].tolist()
            raise StudioError(
                f"{name} has a line that ends at ({x:.0f}, {y:.0f}) of the canvas, beside all circles: let "
                "it end in one."
            )
    stops = [circle for circle in met if circle is not None]
    return [(min(pair), max(pair)) for pair in pairwise(stops) if pair[0] != pair[1]]
