"""The nearest triangle of each sample in plain torch: the oracle of ``kernels/rasterize/cpu_zbuffer.h``.

Corners are homogeneous samples u = (x, y, w), as in ``kernels/include/studio/math/triangle.h``. A list of all
pairs of a face and a sample inside its bounding box is thinned to those that are covered, then to the nearest
of each sample. Any float type and device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

PAIRS_AT_ONCE = 1 << 21

# (faces, perspective-correct weights of their corners) -> which samples are not holes
Keep = Callable[[Int64[Tensor, "n"], Float[Tensor, "n 3"]], Bool[Tensor, "n"]]


def rays(sample: Int64[Tensor, "n"], columns: int) -> Float[Tensor, "n 3"]:
    """The centres of samples that are numbered along rows, as homogeneous points."""
    x, y = sample % columns + 0.5, sample // columns + 0.5
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def planes(
    corners: Float[Tensor, "n 3 3"], values: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Edge planes, positive inside; the plane of value / w; signed volume, negative seen from outside."""
    u0, u1, u2 = corners.unbind(1)
    volume = (torch.linalg.cross(u1 - u0, u2 - u0) * u0).sum(-1)
    edges = torch.stack([_edge(u1, u2), _edge(u2, u0), _edge(u0, u1)], dim=1)
    edges = edges * volume.sign()[:, None, None]
    w = corners[:, :, 2]
    one_side = w.sum(-1) > 0.25 * w.abs().sum(-1)
    around = torch.where(one_side, values.sum(-1) / w.sum(-1), 0.0)
    rest = (values - around[:, None] * w) / volume.abs()[:, None]
    plane = (rest[:, :, None] * edges).sum(1)
    plane = plane + torch.nn.functional.pad(around[:, None], (2, 0))
    return edges, plane, volume


def _edge(a: Float[Tensor, "n 3"], b: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """a x b, from the same end for both faces of the edge, so that their values are exact opposites."""
    ahead = torch.where(a[:, 0] != b[:, 0], a[:, 0] > b[:, 0], a[:, 1] > b[:, 1])
    same = (a[:, :2] == b[:, :2]).all(-1)
    swap = torch.where(same, a[:, 2] > b[:, 2], ahead)[:, None]
    first, second = torch.where(swap, b, a), torch.where(swap, a, b)
    product = torch.linalg.cross(first, second - first)
    return torch.where(swap, -product, product)


def nearest_faces(
    corners: Float[Tensor, "f 3 3"],
    values: Float[Tensor, "f 3"],
    drawn: Bool[Tensor, "f"],
    columns: int,
    rows: int,
    most: float,
    best: Float[Tensor, "_samples"],
    keep: Keep | None = None,
) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "n"]]:
    """The nearest face of each sample that has one.

    Args:
        corners: homogeneous samples.
        values: value / w says how near a corner is.
        drawn: which faces count.
        columns, rows: of samples.
        most: samples with 0 < value / w <= most are drawn.
        best: samples nearer than this are drawn; raised to what they reach.
        keep: leaves out samples of a face.

    Returns:
        Face indices and sample indices.
    """
    edges, nearness_plane, volume = planes(corners, values)
    w = corners[:, :, 2]
    valid = drawn & (1 / volume).isfinite() & corners.isfinite().all(-1).all(-1) & values.isfinite().all(-1)
    valid &= (w > 0).any(-1) & (values > 0).any(-1) & (values <= most * w).any(-1)
    size = torch.tensor([columns, rows], device=corners.device)
    low, high = torch.zeros_like(size).repeat(len(corners), 1), (size - 1).repeat(len(corners), 1)
    whole = valid & (w > 0).all(-1) & (values <= most * w).all(-1)  # the others may reach anywhere
    on_screen = corners[whole, :, :2] / corners[whole, :, 2:]
    limit = size.to(corners)
    low[whole] = (on_screen.amin(1) - 0.51).ceil().clamp(min=0).minimum(limit).long()
    high[whole] = (on_screen.amax(1) - 0.49).floor().minimum(limit - 1).clamp(min=-1).long()
    extent = (high - low + 1).clamp(min=0) * valid[:, None]
    count = extent.prod(-1)

    owner = torch.full((rows * columns,), len(corners), dtype=torch.int64, device=corners.device)
    order = torch.nonzero(count).squeeze(-1)
    chunk = torch.div(count[order].cumsum(0), PAIRS_AT_ONCE, rounding_mode="floor")
    for index in range(int(chunk[-1]) + 1 if len(chunk) else 0):
        these = order[chunk == index]
        face = these.repeat_interleave(count[these])
        within = torch.arange(len(face), device=face.device)
        within = within - (count[these].cumsum(0) - count[these]).repeat_interleave(count[these])
        x, y = low[face, 0] + within % extent[face, 0], low[face, 1] + within // extent[face, 0]
        sample = y * columns + x
        ray = rays(sample, columns).to(corners)
        value = (edges[face] @ ray[:, :, None]).squeeze(-1)
        normal = edges[face]
        owned = (normal[..., 0] > 0) | ((normal[..., 0] == 0) & (normal[..., 1] > 0))
        nearness = (nearness_plane[face] * ray).sum(-1)
        hit = ((value > 0) | ((value == 0) & owned)).all(-1) & (nearness > 0) & (nearness <= most)
        face, sample, value, nearness = face[hit], sample[hit], value[hit], nearness[hit]
        if keep is not None:
            kept = keep(face, value / value.sum(-1, keepdim=True))
            face, sample, nearness = face[kept], sample[kept], nearness[kept]
        before = best.clone()
        best.scatter_reduce_(0, sample, nearness, "amax")
        owner[best > before] = len(corners)
        winning = (nearness == best[sample]) & (best[sample] > before[sample])
        owner.scatter_reduce_(0, sample[winning], face[winning], "amin")
    sample = torch.nonzero(owner < len(corners)).squeeze(-1)
    return owner[sample], sample
