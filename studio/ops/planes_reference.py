"""Products of bilinear samples of planes in plain torch: the kernels' oracle."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def planes_reference(
    positions: Float[Tensor, "n axes"], planes: Sequence[Sequence[Float[Tensor, "_ _ channels"]]]
) -> Float[Tensor, "n width"]:
    """See ``sample_planes``. ``planes`` are those of each scale, pair by pair of axes."""
    valid = ~positions.isnan().any(-1, keepdim=True)
    inside = positions.where(valid, torch.zeros_like(positions)).clamp(0, 1)
    features = []
    for scale in planes:
        pairs = itertools.combinations(inside.unbind(-1), 2)
        samples = [_bilinear(plane, u, v) for plane, (u, v) in zip(scale, pairs, strict=True)]
        features.append(torch.stack(samples).prod(0))
    return torch.cat(features, dim=-1).where(valid, positions.new_full((), torch.nan))


def _bilinear(
    plane: Float[Tensor, "rows columns channels"], u: Float[Tensor, "n"], v: Float[Tensor, "n"]
) -> Float[Tensor, "n channels"]:
    rows, columns, _ = plane.shape
    (left, u), (top, v) = _cell(u, columns), _cell(v, rows)
    above = plane[top, left] * (1 - u) + plane[top, left + 1] * u
    below = plane[top + 1, left] * (1 - u) + plane[top + 1, left + 1] * u
    return above * (1 - v) + below * v


def _cell(x: Float[Tensor, "n"], resolution: int) -> tuple[Tensor, Float[Tensor, "n 1"]]:
    along = x * (resolution - 1)
    cell = along.detach().floor().clamp(max=resolution - 2)
    return cell.long(), (along - cell)[:, None]
