"""The surface where a signed distance on a tetrahedral grid is zero, differentiable in distances and grid.

Shen et al., "Deep Marching Tetrahedra" (2021, arXiv:2111.04276). The grid is body-centred cubic: the corners
and the centres of cubes; each pair of neighbouring centres and each edge of the square between them make a
tetrahedron. All tetrahedra are alike and nearly regular, so the surface's triangles are more even than those
of cut cubes.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from studio.scenes.grid import Grid, empty_surface


@dataclass(frozen=True)
class Crossings:
    """How a surface cuts the grid; it changes only where distances change their sign.

    Attributes:
        edges: the grid's points at both ends of each cut edge, the inner one first.
        faces: the cut edges that are corners of each triangle, counter-clockwise seen from outside.
    """

    edges: Int64[Tensor, "v 2"]
    faces: Int64[Tensor, "f 3"]


def crossings(grid: Grid, distances: Float[Tensor, "n"]) -> Crossings:
    """The edges and triangles of the surface between points inside (below 0) and outside.

    It is closed unless points inside lie on the grid's border.

    Args:
        grid: body-centred.
        distances: at its points, negative inside.

    Raises:
        StudioError: all points are on one side.
    """
    inside = distances.detach() < 0
    tetrahedra = _cut_tetrahedra(grid.resolution, inside)
    if len(tetrahedra) == 0:
        raise empty_surface(bool(inside.any()))
    case = (inside[tetrahedra] * torch.tensor([1, 2, 4, 8], device=inside.device)).sum(1)
    ends = _triangles(inside.device)[case]  # [t 2 3 2]: two triangles of three edges, -1 where there is none
    row = torch.arange(len(tetrahedra), device=inside.device)[:, None, None, None]
    ends = tetrahedra[row, ends.clamp_min(0)][ends[:, :, 0, 0] >= 0]
    edges, faces = torch.unique(ends[..., 0] * grid.count + ends[..., 1], return_inverse=True)
    pairs = torch.stack([edges.div(grid.count, rounding_mode="floor"), edges % grid.count], dim=1)
    return Crossings(pairs, faces)


def between(
    values: Float[Tensor, "n c"], distances: Float[Tensor, "n"], cut: Crossings
) -> Float[Tensor, "v c"]:
    """Values of the grid's points where the surface cuts its edges; of positions, the surface's vertices.

    Linear along each edge (eq. 4 of the paper). Gradients reach values and distances.
    """
    inner, outer = cut.edges.unbind(1)
    # index_select, as its backward adds up in a fixed order.
    below, above = distances.index_select(0, inner)[:, None], distances.index_select(0, outer)[:, None]
    first, second = values.index_select(0, inner), values.index_select(0, outer)
    return (first * above - second * below) / (above - below)


def _cut_tetrahedra(resolution: int, inside: Tensor) -> Int64[Tensor, "t 4"]:
    """The tetrahedra with points on both sides, each with its points in positive orientation."""
    corners, centres = _indices(resolution, inside.device)
    found = []
    for axis in range(3):
        # Even permutations of the axes keep the orientation.
        order = (axis, (axis + 1) % 3, (axis + 2) % 3)
        centre, corner = centres.permute(order), corners.permute(order)[1:-1]
        ring = [corner[:, :-1, :-1], corner[:, 1:, :-1], corner[:, 1:, 1:], corner[:, :-1, 1:]]
        ends = [centre[:-1], centre[1:]]
        sides = [inside[points] for points in (*ends, *ring)]
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
            first, second, third, fourth = sides[0], sides[1], sides[2 + a], sides[2 + b]
            cut = (first | second | third | fourth) & ~(first & second & third & fourth)
            found.append(torch.stack([points[cut] for points in (*ends, ring[a], ring[b])], dim=1))
    return torch.cat(found)


@functools.lru_cache(maxsize=4)
def _indices(resolution: int, device: torch.device) -> tuple[Int64[Tensor, "m m m"], Int64[Tensor, "n n n"]]:
    corners = torch.arange((resolution + 1) ** 3, device=device)
    centres = torch.arange(resolution**3, device=device) + len(corners)
    return corners.reshape((resolution + 1,) * 3), centres.reshape((resolution,) * 3)


@functools.lru_cache(maxsize=4)
def _triangles(device: torch.device) -> Int[Tensor, "16 2 3 2"]:
    """For each set of inner points, as bits: two triangles of three edges, the inner end of each first.

    With i, j, k, l an even permutation of a tetrahedron's points, the triangle j, k, l is counter-clockwise
    seen from where i is not.
    """
    table = torch.full((16, 2, 3, 2), -1)
    for i, j, k, l in itertools.permutations(range(4)):  # noqa: E741
        order = (i, j, k, l)
        if sum(order[a] > order[b] for a in range(4) for b in range(a + 1, 4)) % 2:
            continue
        table[1 << i, 0] = torch.tensor([(i, j), (i, k), (i, l)])
        table[15 - (1 << i), 0] = torch.tensor([(j, i), (l, i), (k, i)])
        if i < j:
            table[1 << i | 1 << j] = torch.tensor(
                [[(i, k), (i, l), (j, l)], [(i, k), (j, l), (j, k)]],
            )
    return table.to(device)
