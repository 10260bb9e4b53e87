"""A drawing's curves, carried along by its sheet: what vector formats are written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.clipart.drawing import Drawing
from studio.clipart.sheet import Sheet
from studio.clipart.vectors import VectorPath
from studio.errors import StudioError

PIECE_PX = 9.0
"""Segments are cut into pieces about as long as the triangles that bend them, and no more than MAX_PIECES."""
MAX_PIECES = 16
_POINTS_AT_ONCE = 2048


@dataclass(frozen=True)
class MovingPath:
    """A path and where its curves are in each frame.

    Attributes:
        rest: the path at rest, in as many pieces as it moves in.
        frames: for each subpath its curves in each frame, in canvas pixels.
    """

    rest: VectorPath
    frames: tuple[Float[Tensor, "t _ 4 2"], ...]


@dataclass(frozen=True)
class VectorClip:
    """A vector drawing in motion.

    Attributes:
        name: of the drawing.
        paths: in the order of drawing.
        order: the frames as they are shown, each for as long as the others; players go straight from one to
            the next.
        seconds: how long they take together.
        loops: whether the first comes again after the last.
    """

    name: str
    paths: tuple[MovingPath, ...]
    order: tuple[int, ...]
    seconds: float
    loops: bool

    def keys(self) -> list[tuple[float, int]]:
        """When, as a share of ``seconds`` from 0 to 1, which frame is shown."""
        count = len(self.order)
        if self.loops:
            return [(index / count, self.order[index % count]) for index in range(count + 1)]
        return [(index / max(count - 1, 1), frame) for index, frame in enumerate(self.order)]


@dataclass(frozen=True)
class MovingSheet:
    """Some paths of a drawing and the sheet that takes them along.

    Attributes:
        paths: numbers of the drawing's paths.
        sheet: at rest, under them.
        frames: the sheet's vertices in each frame, in canvas pixels.
    """

    paths: Sequence[int]
    sheet: Sheet
    frames: Float[Tensor, "t v 2"]


def vector_clip(
    drawing: Drawing,
    sheets: Sequence[MovingSheet],
    order: Sequence[int],
    seconds: float,
    loops: bool = True,
) -> VectorClip:
    """Carries the curves of a drawing along with its sheets.

    A control point keeps its barycentric coordinates in the triangle that it lies in or, off the sheet, in
    the nearest one.

    Args:
        drawing: an SVG's.
        sheets: each path of the drawing is in one of them.
        order: which frames are shown one after the other; at least one.
        seconds: how long that takes.
        loops: whether it then starts again.

    Raises:
        StudioError: the drawing has no paths, as it comes from a picture.
    """
    if not drawing.paths:
        raise StudioError(
            f"{drawing.name} is a picture without paths, and vector formats need an SVG: "
            "animate an SVG, or export GIF, WebP, APNG or MP4."
        )
    moving: dict[int, MovingPath] = {}
    for sheet in sheets:
        rest = [_in_pieces(drawing.paths[number]) for number in sheet.paths]
        moving |= zip(sheet.paths, _carried(rest, sheet), strict=True)
    paths = tuple(moving[number] for number in range(len(drawing.paths)))
    return VectorClip(drawing.name, paths, tuple(order), seconds, loops)


def _carried(paths: Sequence[VectorPath], sheet: MovingSheet) -> list[MovingPath]:
    points = torch.cat([subpath.reshape(-1, 2) for path in paths for subpath in path.subpaths])
    corners, weights = carriers(points.double(), sheet.sheet)
    places = sheet.frames.detach().cpu().double()
    moved = (places[:, corners] * weights[None, :, :, None]).sum(2).float()
    carried, start = [], 0
    for path in paths:
        curves = []
        for subpath in path.subpaths:
            end = start + 4 * len(subpath)
            curves.append(moved[:, start:end].reshape(len(places), -1, 4, 2))
            start = end
        carried.append(MovingPath(path, tuple(curves)))
    return carried


def carriers(points: Float[Tensor, "n 2"], sheet: Sheet) -> tuple[Int[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """The vertices that carry each point, and with what weights: they sum to 1, negative off the sheet.

    Args:
        points: canvas pixels, at rest.
        sheet: at rest.
    """
    corners = sheet.vertices.cpu().double()[sheet.faces.cpu()]
    to_weights = torch.linalg.inv((corners[:, 1:] - corners[:, :1]).mT)
    faces, weights = [], []
    for some in torch.split(points.double(), _POINTS_AT_ONCE):
        others = torch.einsum("fij,nfj->nfi", to_weights, some[:, None] - corners[:, 0])
        all_weights = torch.cat([1 - others.sum(-1, keepdim=True), others], -1)
        depth, face = all_weights.amin(-1).max(-1)
        off = depth < 0
        if bool(off.any()):
            face[off] = _squared_distances(some[off], corners).argmin(-1)
        faces.append(face)
        weights.append(all_weights[torch.arange(len(some)), face])
    return sheet.faces.cpu()[torch.cat(faces)], torch.cat(weights)


def _squared_distances(points: Float[Tensor, "n 2"], corners: Float[Tensor, "f 3 2"]) -> Float[Tensor, "n f"]:
    """From points outside of triangles to their nearest sides."""
    side = corners.roll(-1, 1) - corners
    away = points[:, None, None] - corners
    along = ((away * side).sum(-1) / (side * side).sum(-1)).clamp(0, 1)
    return (away - along[..., None] * side).square().sum(-1).amin(-1)


def _in_pieces(path: VectorPath) -> VectorPath:
    return replace(path, subpaths=tuple(_cut(subpath) for subpath in path.subpaths))


def _cut(curves: Float[Tensor, "n 4 2"]) -> Float[Tensor, "m 4 2"]:
    """The same curves, long ones in pieces."""
    lengths = curves.diff(dim=1).norm(dim=-1).sum(-1)
    counts = (lengths / PIECE_PX).ceil().clamp(1, MAX_PIECES).long()
    whole = curves.repeat_interleave(counts, 0)
    step = torch.cat([torch.arange(count) for count in counts.tolist()])
    count = counts.repeat_interleave(counts)
    start, end = step / count, (step + 1) / count
    # The control points of a part are the curve's blossom at its ends (Ramshaw 1987).
    arguments = ((start, start, start), (start, start, end), (start, end, end), (end, end, end))
    return torch.stack([_blossom(whole, at) for at in arguments], 1)


def _blossom(
    curves: Float[Tensor, "n 4 2"], arguments: tuple[Tensor, Tensor, Tensor]
) -> Float[Tensor, "n 2"]:
    """De Casteljau's steps with another parameter each."""
    points = curves
    for argument in arguments:
        share = argument[:, None, None]
        points = points[:, :-1] * (1 - share) + points[:, 1:] * share
    return points[:, 0]
