"""Antialiasing in plain torch: the oracle of the native kernel, and what runs without it.

The words are those of ``kernels/mesh_raster/antialias.h``.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Int32, Int64
from torch import Tensor

MAX_STEPS = 128


def antialias_reference(
    image: Float[Tensor, "b c h w"],
    positions: Float[Tensor, "b v 4"],
    faces: Int32[Tensor, "*b f 3"],
    neighbours: Int32[Tensor, "*b f 3"],
    face: Int32[Tensor, "b h w"],
    depth: Float[Tensor, "b 1 h w"],
) -> Float[Tensor, "b c h w"]:
    """See ``studio.ops.mesh_raster.antialias``."""
    own = faces.dim() == 3
    views = [
        _smooth(
            image[view],
            positions[view],
            (faces[view] if own else faces).long(),
            (neighbours[view] if own else neighbours).long(),
            face[view].long(),
            depth[view, 0],
        )
        for view in range(len(image))
    ]
    return torch.stack(views) if views else image


def _smooth(
    image: Float[Tensor, "c h w"],
    positions: Float[Tensor, "v 4"],
    faces: Int64[Tensor, "f 3"],
    neighbours: Int64[Tensor, "f 3"],
    face: Int64[Tensor, "h w"],
    depth: Float[Tensor, "h w"],
) -> Float[Tensor, "c h w"]:
    channels, height, width = image.shape
    volume = torch.linalg.det(positions.detach()[faces][:, :, [0, 1, 3]].nan_to_num(0.0, 0.0, 0.0))
    finite = positions.detach()[faces][:, :, [0, 1, 3]].isfinite().all(-1).all(-1)
    facing = torch.where(finite, volume.sign(), 0.0)
    colors, out = image.reshape(channels, -1), image.reshape(channels, -1)
    pixel = torch.arange(height * width, device=image.device).reshape(height, width)
    for vertical in (False, True):
        first = (pixel[:-1] if vertical else pixel[:, :-1]).reshape(-1)
        second = (pixel[1:] if vertical else pixel[:, 1:]).reshape(-1)
        differ = face.reshape(-1)[first] != face.reshape(-1)[second]
        first, second = first[differ], second[differ]
        face_1, face_2 = face.reshape(-1)[first], face.reshape(-1)[second]
        first_nearer = (face_2 < 0) | (
            (face_1 >= 0) & (depth.reshape(-1)[first] <= depth.reshape(-1)[second])
        )
        a, b = torch.where(first_nearer, first, second), torch.where(first_nearer, second, first)
        step = torch.where(first_nearer, 1.0, -1.0).to(image)
        found, edge = _silhouettes(
            positions.detach(), faces, neighbours, facing, face.reshape(-1)[a], face.reshape(-1)[b],
            a, step, width, height, vertical,
        )  # fmt: skip
        a, b, step, edge = a[found], b[found], step[found], edge[found]
        along, across, w = _around(positions[edge], a, width, height, vertical)
        top = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
        bottom = w[:, 0] * across[:, 1] - w[:, 1] * across[:, 0]
        beyond = (step * top / bottom).clamp(0, 1) - 0.5
        giver, receiver = torch.where(beyond > 0, a, b), torch.where(beyond > 0, b, a)
        out = out.index_add(1, receiver, beyond.abs() * (colors[:, giver] - colors[:, receiver]))
    return out.reshape(image.shape)


def _around(
    corners: Float[Tensor, "n k 4"], pixel: Int64[Tensor, "n"], width: int, height: int, vertical: bool
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Homogeneous pixels around the centres of ``pixel``: along the way to its neighbour, across, and w."""
    x, y, _, w = corners.unbind(-1)
    column, row = (pixel % width)[:, None], torch.div(pixel, width, rounding_mode="floor")[:, None]
    x = width / 2 * x + (width / 2 - 0.5 - column) * w
    y = -height / 2 * y + (height / 2 - 0.5 - row) * w
    return (y, x, w) if vertical else (x, y, w)


def _silhouettes(
    positions: Float[Tensor, "v 4"],
    faces: Int64[Tensor, "f 3"],
    neighbours: Int64[Tensor, "f 3"],
    facing: Float[Tensor, "f"],
    face: Int64[Tensor, "n"],
    target: Int64[Tensor, "n"],
    pixel: Int64[Tensor, "n"],
    step: Float[Tensor, "n"],
    width: int,
    height: int,
    vertical: bool,
) -> tuple[Bool[Tensor, "n"], Int[Tensor, "n 2"]]:
    """Where a silhouette crosses the way from each pixel to its neighbour, and the vertices of that edge."""
    count = len(face)
    found = torch.zeros(count, dtype=torch.bool, device=face.device)
    edge = torch.zeros(count, 2, dtype=torch.int64, device=face.device)
    entry = torch.full_like(face, -1)
    here = torch.arange(count, device=face.device)  # ways that still lead on
    for _ in range(MAX_STEPS):
        along, across, w = _around(positions[faces[face[here]]], pixel[here], width, height, vertical)
        side = facing[face[here]][:, None] * (1 if vertical else -1)
        j, k = [1, 2, 0], [2, 0, 1]
        at_a = side * (along[:, j] * across[:, k] - along[:, k] * across[:, j])
        loss = side * step[here, None] * (w[:, j] * across[:, k] - w[:, k] * across[:, j])
        leaves = (at_a <= loss) & (loss > 0)
        leaves &= torch.arange(3, device=face.device) != entry[here, None]
        share, corner = torch.where(leaves, at_a / loss, torch.inf).min(1)
        stays = share.isfinite()
        here, corner = here[stays], corner[stays]
        row = torch.arange(len(here), device=face.device)
        ends = torch.stack([(corner + 1) % 3, (corner + 2) % 3], dim=1)
        vertices = faces[face[here]].gather(1, ends)
        beyond = neighbours[face[here]][row, corner]
        next_face = torch.div(beyond, 2, rounding_mode="floor").clamp(min=0)
        turned = torch.where(beyond % 2 == 1, -facing[next_face], facing[next_face])
        silhouette = (beyond < 0) | (turned != facing[face[here]])

        along, across, w = (values[stays].gather(1, ends) for values in (along, across, w))
        steep = (w[:, 0] * across[:, 1] - w[:, 1] * across[:, 0]).abs()
        flat = (w[:, 0] * along[:, 1] - w[:, 1] * along[:, 0]).abs()
        counts = silhouette & ((steep > flat) if vertical else (steep >= flat))
        found[here[counts]], edge[here[counts]] = True, vertices[counts]

        on = ~silhouette & (next_face != target[here])
        here, vertices, next_face = here[on], vertices[on], next_face[on]
        others = (faces[next_face][:, :, None] != vertices[:, None]).all(-1)
        entry[here] = others.long().argmax(1)
        face = face.index_put((here,), next_face)
    return found, edge
