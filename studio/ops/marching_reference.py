"""Marching through an occupancy grid in plain torch: every step of every ray is tested."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_STEPS = 2**18  # of one ray; STUDIO_MARCH_STEPS of kernels/marching/marching.h
_RAYS_AT_ONCE = 4096


def march_reference(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    occupied: Bool[Tensor, "x x x"],
    jitter: Float[Tensor, "r"],
    step: float,
    near: float,
    max_samples: int,
) -> tuple[Int[Tensor, "r"], Float[Tensor, "s"], Float[Tensor, "s 3"]]:
    """Counts, t and positions of ``march``."""
    parts = []
    for first in range(0, max(len(origins), 1), _RAYS_AT_ONCE):
        rays = slice(first, first + _RAYS_AT_ONCE)
        parts.append(_march(origins[rays], directions[rays], jitter[rays], occupied, step, near, max_samples))
    counts, t, positions = (torch.cat(part) for part in zip(*parts, strict=True))
    return counts, t, positions


def _march(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    jitter: Float[Tensor, "r"],
    occupied: Bool[Tensor, "x x x"],
    step: float,
    near: float,
    max_samples: int,
) -> tuple[Int[Tensor, "r"], Float[Tensor, "s"], Float[Tensor, "s 3"]]:
    enter, leave = cross_cube(origins, directions, near)
    steps = int(((leave - enter) / step).clamp(0, MAX_STEPS).max().ceil()) if len(origins) else 0
    k = torch.arange(steps, device=origins.device, dtype=origins.dtype)
    t = (k + jitter[:, None]) * step + enter[:, None]
    points = origins[:, None] + t[..., None] * directions[:, None]
    side = occupied.shape[0]
    x, y, z = (points * side).nan_to_num().clamp(0, side - 1).long().unbind(-1)
    kept = (t < leave[:, None]) & occupied[x, y, z]
    kept &= kept.cumsum(1) <= max_samples
    return kept.sum(1), t[kept], points[kept]


def cross_cube(
    origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"], near: float
) -> tuple[Float[Tensor, "r"], Float[Tensor, "r"]]:
    """Where rays enter and leave the unit cube; 0 and 0 where they miss it."""
    still = directions == 0
    ends = torch.stack([-origins / directions, (1 - origins) / directions])
    first = ends.amin(0).where(~still, -torch.inf).amax(-1).clamp(min=max(near, 0.0))
    last = ends.amax(0).where(~still, torch.inf).amin(-1)
    beside = (still & ((origins < 0) | (origins > 1))).any(-1)
    finite = origins.isfinite().all(-1) & directions.isfinite().all(-1)
    crosses = finite & ~beside & ~still.all(-1) & (first < last)
    zero = torch.zeros_like(first)
    return first.where(crosses, zero), last.where(crosses, zero)
