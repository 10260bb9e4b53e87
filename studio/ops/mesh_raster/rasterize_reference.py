"""Rasterization in plain torch: the oracle of the native kernel, and what runs without it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from studio.errors import StudioError
from studio.ops.mesh_raster.mesh import corner_rows
from studio.ops.nearest_faces import nearest_faces


def rasterize_reference(
    positions: Float[Tensor, "b v 4"],
    faces: Int32[Tensor, "*b f 3"],
    width: int,
    height: int,
    slopes: bool,
    cull: bool,
) -> tuple[
    Int32[Tensor, "b h w"],
    Float[Tensor, "b 3 h w"],
    Float[Tensor, "b 1 h w"],
    Float[Tensor, "b 2 3 h w"] | None,
]:
    """See ``studio.ops.mesh_raster.rasterize``."""
    views, vertices = positions.shape[:2]
    if faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < vertices:
        raise StudioError("faces name vertices that are not there")
    face = torch.full((views, height * width), -1, dtype=torch.int32, device=positions.device)
    for view in range(views):
        corners = positions[view].detach()[(faces[view] if faces.dim() == 3 else faces).long()]
        x, y, z, w = corners.unbind(-1)
        on_screen = torch.stack([width / 2 * (x + w), height / 2 * (w - y), w], dim=-1)
        # Counter-clockwise as seen has a positive volume in clip space.
        drawn = torch.linalg.det(torch.stack([x, y, w], dim=-1)) > 0 if cull else torch.ones_like(x[:, 0]) > 0
        best = positions.new_zeros(height * width)
        found, pixel = nearest_faces(on_screen, w - z, drawn, width, height, 2.0, best)
        face[view, pixel] = found.int()
    face = face.reshape(views, height, width)
    return face, *fragments_reference(positions, faces, face, slopes)


def fragments_reference(
    positions: Float[Tensor, "b v 4"],
    faces: Int32[Tensor, "*b f 3"],
    face: Int32[Tensor, "b h w"],
    slopes: bool,
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 1 h w"], Float[Tensor, "b 2 3 h w"] | None]:
    """Weights, depth and slopes where it is known which face each pixel shows."""
    views, height, width = face.shape
    view, row, column = torch.nonzero(face >= 0).unbind(-1)
    place: list[Tensor | None] = [view, row, column]
    weights = positions.new_zeros(views, height, width, 3)
    depth = positions.new_ones(views, height, width)
    across = positions.new_zeros(views, height, width, 2, 3) if slopes else None
    if len(view):
        rows = corner_rows(faces, face, positions.shape[1], own_vertices=True)[view, row, column]
        x, y, z, w = positions.reshape(-1, 4)[rows].unbind(-1)  # each [n 3]
        # Homogeneous pixels around the pixel's centre.
        x = width / 2 * x + (width / 2 - 0.5 - column)[:, None].to(x) * w
        y = -height / 2 * y + (height / 2 - 0.5 - row)[:, None].to(y) * w
        edges = _crossed(x, y)
        total = edges.sum(-1, keepdim=True)
        there = edges / total
        weights = weights.index_put(place, there)
        depth = depth.index_put(place, (there * z).sum(-1) / (there * w).sum(-1))
        if across is not None:
            # d x = -w and d y = -w from one pixel to the next, rightwards and downwards.
            along = torch.stack([-_crossed(w, y), -_crossed(x, w)], dim=1)
            change = (along - there[:, None] * along.sum(-1, keepdim=True)) / total[:, None]
            across = across.index_put(place, change)
    return (
        weights.permute(0, 3, 1, 2),
        depth[:, None],
        None if across is None else across.permute(0, 3, 4, 1, 2),
    )


def _crossed(a: Float[Tensor, "n 3"], b: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """a_j b_k - a_k b_j at place i."""
    return a.roll(-1, -1) * b.roll(-2, -1) - a.roll(-2, -1) * b.roll(-1, -1)
