"""Multiresolution hash encoding in plain torch: the kernels' oracle, differentiable to any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Müller et al. 2022, eq. 4.
PRIMES = (1, 2654435761, 805459861)


class HashLevel(NamedTuple):
    """One grid: ``resolution`` cells along a side, whose corners' entries begin at ``first`` in the table."""

    first: int
    resolution: int
    mask: int  # number of entries - 1 where corners are hashed; 0: one entry for each corner, x fastest

    @property
    def end(self) -> int:
        """The entry behind its last."""
        return self.first + (self.mask + 1 if self.mask else (self.resolution + 1) ** 3)


def hash_grid_reference(
    positions: Float[Tensor, "n 3"], table: Float[Tensor, "e f"], levels: Sequence[HashLevel]
) -> Float[Tensor, "n _"]:
    """See ``hash_grid``."""
    valid = ~positions.isnan().any(-1, keepdim=True)
    inside = positions.where(valid, torch.zeros_like(positions)).clamp(0, 1)
    features = [_level(inside, table, level) for level in levels]
    return torch.cat(features, dim=-1).where(valid, positions.new_full((), torch.nan))


def _level(
    positions: Float[Tensor, "n 3"], table: Float[Tensor, "e f"], level: HashLevel
) -> Float[Tensor, "n f"]:
    scaled = positions * level.resolution
    low = scaled.detach().floor().clamp(max=level.resolution - 1)
    f = (scaled - low)[:, None]
    corner = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], device=positions.device)
    weights = torch.where(corner.bool(), f, 1 - f).prod(-1)
    entries = level.first + _entries(low.long()[:, None] + corner, level)
    return (weights[..., None] * table[entries]).sum(1)


def _entries(corners: Int[Tensor, "n 8 3"], level: HashLevel) -> Int[Tensor, "n 8"]:
    if level.mask:
        x, y, z = (corners * torch.tensor(PRIMES, device=corners.device)).unbind(-1)
        return (x ^ y ^ z) & level.mask
    side = level.resolution + 1
    return (corners * torch.tensor([1, side, side * side], device=corners.device)).sum(-1)
