"""The solid of a radiance field: where a short way through it hides what is behind."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.export.surface import OccupancyGrid
from studio.ops.field import Field

THICKNESS = 0.02
"""Of the way, in world units: two samples of the usual renderer, or four voxels of the usual grid."""
_POINTS_AT_ONCE = 1 << 18


def opacity_grid(field: Field, resolution: int) -> OccupancyGrid | None:
    """Opacity of ``THICKNESS`` of each voxel's matter, around what is occupied; None if nothing is.

    Args:
        field: without gradients.
        resolution: the cube root of the number of voxels, about.
    """
    occupied = field.occupancy.occupied
    cells = torch.nonzero(occupied)
    if len(cells) == 0:
        return None
    side = 2 * field.radius
    lowest, highest = cells.amin(0) / len(occupied), (cells.amax(0) + 1) / len(occupied)
    extent = highest - lowest
    voxel = float(extent.double().prod() ** (1 / 3)) / resolution
    # A layer beyond each end stays empty, so that the surface is closed.
    counts = [int(n) + 3 for n in (extent / voxel).ceil()]
    axes = [
        low + voxel * (torch.arange(count, device=occupied.device) - 1)
        for low, count in zip(lowest, counts, strict=True)
    ]
    points = torch.cartesian_prod(*axes)
    inside = _is_occupied(points, occupied)
    values = torch.zeros(len(points), device=occupied.device)
    with torch.no_grad():
        found = [field.sampled(part)[0] for part in torch.split(points[inside], _POINTS_AT_ONCE)]
    values[inside] = -torch.expm1(-THICKNESS * torch.cat(found))
    closed = torch.zeros(counts)
    closed[1:-1, 1:-1, 1:-1] = values.reshape(counts)[1:-1, 1:-1, 1:-1].cpu()
    return OccupancyGrid(closed, side * (lowest.cpu() - voxel - 0.5), side * voxel)


def _is_occupied(points: Float[Tensor, "n 3"], occupied: Bool[Tensor, "x x x"]) -> Bool[Tensor, "n"]:
    cells = len(occupied)
    within = ((points >= 0) & (points < 1)).all(-1)
    x, y, z = (points * cells).long().clamp(0, cells - 1).unbind(-1)
    return within & occupied[x, y, z]
