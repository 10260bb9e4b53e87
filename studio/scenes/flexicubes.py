"""The surface where a signed distance on a grid of cubes is zero, with weights that move it within its cubes.

Shen et al., "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization" (2023, arXiv:2308.05371).
The surface is dual: each of its patches inside a cube is one vertex, and each edge of the grid that it cuts
is a quad between the vertices of the four cubes around. A vertex may lie anywhere among its patch's
crossings, so that sharp edges need not follow the grid.

Corner c of a cube stands at the bits of c, 4 x + 2 y + z. Edge 4 a + k runs along axis a; k counts the square
of its places on the axes after it, counter-clockwise.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from studio.scenes.grid import Grid, empty_surface

WEIGHTS_A_CUBE = 21
"""Alpha of its 8 corners, beta of its 12 edges, gamma."""
_REACH = 0.99
"""How far from 1 alpha and beta may go; the paper's 1 would let a weight vanish."""
_SQUARE = ((0, 0), (1, 0), (1, 1), (0, 1))
"""Places on two axes, counter-clockwise."""


def _corner(axis: int, along: int, across: tuple[int, int]) -> int:
    """The corner at a place along an axis and on the two axes after it."""
    places = {axis: along, (axis + 1) % 3: across[0], (axis + 2) % 3: across[1]}
    return 4 * places[0] + 2 * places[1] + places[2]


_CORNERS = tuple(itertools.product((0, 1), repeat=3))
"""Places of each corner."""
_EDGES = tuple(
    (_corner(axis, 0, across), _corner(axis, 1, across)) for axis in range(3) for across in _SQUARE
)
"""Corners at the lower and upper end of each edge."""
_FACES = tuple(
    tuple(_corner(axis, along, across) for across in _SQUARE) for axis in range(3) for along in (0, 1)
)
"""Corners around each face: face 2 a + e ends a cube along axis a, at its lower (0) or upper end."""


@dataclass(frozen=True)
class CubeWeights:
    """How the surface is moved within each cube that it passes.

    Attributes:
        alpha: of each corner, above 0: larger ones push the crossings of their edges away.
        beta: of each edge, above 0: how much its crossing draws its patch's vertex.
        gamma: above 0: quads are folded along the diagonal whose cubes have the larger ones.
    """

    alpha: Float[Tensor, "c 8"]
    beta: Float[Tensor, "c 12"]
    gamma: Float[Tensor, "c"]

    @staticmethod
    def of(logits: Float[Tensor, "c 21"]) -> CubeWeights:
        """From numbers without bounds; zeros leave every vertex in the middle of its crossings."""
        alpha, beta, gamma = torch.split(logits, [8, 12, 1], dim=1)
        return CubeWeights(1 + _REACH * alpha.tanh(), 1 + _REACH * beta.tanh(), gamma[:, 0].sigmoid())


@dataclass(frozen=True)
class DualCrossings:
    """How a surface cuts the grid; it changes only where distances change their sign.

    A cut edge crosses the surface once in each of the cubes around it, up to four.

    Attributes:
        cubes: those that the surface passes, numbered as places in the grid, z fastest.
        edges: the grid's points at both ends of each cut edge, the inner one first.
        edge: the cut edge of each crossing.
        cube: where in ``cubes`` the one is that it is seen in.
        ends: corners of that cube at the crossing's inner and outer end.
        side: which of the cube's edges it is.
        vertex: the vertex of its patch.
        vertex_cube: where in ``cubes`` each vertex lies.
        quads: the vertices around each cut edge that has four cubes, counter-clockwise seen from outside.
    """

    cubes: Int64[Tensor, "c"]
    edges: Int64[Tensor, "e 2"]
    edge: Int64[Tensor, "p"]
    cube: Int64[Tensor, "p"]
    ends: Int64[Tensor, "p 2"]
    side: Int64[Tensor, "p"]
    vertex: Int64[Tensor, "p"]
    vertex_cube: Int64[Tensor, "v"]
    quads: Int64[Tensor, "q 4"]

    @property
    def faces(self) -> Int64[Tensor, "f 3"]:
        """Four triangles a quad; the quads' middles are numbered after the vertices."""
        middles = len(self.vertex_cube) + torch.arange(len(self.quads), device=self.quads.device)
        following = self.quads.roll(-1, dims=1)
        return torch.stack([self.quads, following, middles[:, None].expand_as(following)], dim=2).reshape(
            -1, 3
        )


def dual_crossings(grid: Grid, distances: Float[Tensor, "n"]) -> DualCrossings:
    """The crossings and quads of the surface between points inside (below 0) and outside.

    It is closed unless points inside lie on the grid's border, and no edge of it has more than two quads.

    Args:
        grid: not body-centred.
        distances: at its points, negative inside.

    Raises:
        StudioError: no cube has points on both sides.
    """
    n, device = grid.resolution, distances.device
    inside = (distances.detach() < 0).reshape((n + 1,) * 3)
    cases = torch.zeros((n, n, n), dtype=torch.uint8, device=device)
    for corner, (x, y, z) in enumerate(_CORNERS):
        cases |= inside[x : x + n, y : y + n, z : z + n].to(torch.uint8) << corner
    cubes = torch.nonzero((cases != 0) & (cases != 255))
    if len(cubes) == 0:
        raise empty_surface(bool(inside.any()))

    table = _case_table(device)
    patches = table.patches[_joins_inside(cases, cubes, table).long(), cases[cubes.unbind(1)].long()]
    row, side = torch.nonzero(patches >= 0).unbind(1)
    counts = patches.amax(1) + 1
    vertex = (counts.cumsum(0) - counts)[row] + patches[row, side]

    # One cut edge is met in several cubes: its lower point and axis say which it is.
    corners = torch.tensor(_EDGES, device=device)[side]
    lower_point = cubes[row] + torch.tensor(_CORNERS, device=device)[corners[:, 0]]
    keys, edge = torch.unique(3 * _numbered(lower_point, n + 1) + side // 4, return_inverse=True)
    lower = keys // 3
    ends = torch.stack(
        [lower, lower + torch.tensor([(n + 1) ** 2, n + 1, 1], device=device)[keys % 3]], dim=1
    )
    is_inner_above = ~inside.flatten()[lower]

    # An edge's places in the cubes around it go around as the cubes do.
    around = torch.full((len(keys), 4), -1, device=device)
    around[edge, side % 4] = vertex
    around = torch.where(is_inner_above[:, None], around.flip(1), around)
    return DualCrossings(
        cubes=_numbered(cubes, n),
        edges=torch.where(is_inner_above[:, None], ends.flip(1), ends),
        edge=edge,
        cube=row,
        ends=torch.where(is_inner_above[edge][:, None], corners.flip(1), corners),
        side=side,
        vertex=vertex,
        vertex_cube=torch.arange(len(cubes), device=device).repeat_interleave(counts),
        quads=around[(around >= 0).all(1)],
    )


def crossing_values(
    values: Float[Tensor, "n c"], distances: Float[Tensor, "n"], weights: CubeWeights, cut: DualCrossings
) -> Float[Tensor, "p c"]:
    """Values of the grid's points at the crossings, linear along each edge but for alpha (eq. 4)."""
    inner, outer = cut.edges[cut.edge].unbind(1)
    # index_select, as its backward adds up in a fixed order.
    alpha = weights.alpha.flatten().index_select(0, (8 * cut.cube[:, None] + cut.ends).flatten())
    scaled = alpha.reshape(-1, 2) * distances.index_select(0, cut.edges[cut.edge].flatten()).reshape(-1, 2)
    below, above = scaled[:, :1], scaled[:, 1:]
    first, second = values.index_select(0, inner), values.index_select(0, outer)
    return (first * above - second * below) / (above - below)


def dual_values(
    crossed: Float[Tensor, "p c"], weights: CubeWeights, cut: DualCrossings
) -> Float[Tensor, "m c"]:
    """Values at the surface's vertices, then at the middles of its quads; of positions, where they are.

    A vertex is the mean of its crossings, weighted by beta (eq. 5). The middle of a quad lies between the
    middles of its diagonals, nearer to the one whose cubes have the larger gamma (eq. 6).
    """
    beta = weights.beta.flatten().index_select(0, 12 * cut.cube + cut.side)
    count = len(cut.vertex_cube)
    total = crossed.new_zeros(count, crossed.shape[1]).index_add(0, cut.vertex, beta[:, None] * crossed)
    vertices = total / crossed.new_zeros(count).index_add(0, cut.vertex, beta)[:, None]

    corners = vertices.index_select(0, cut.quads.flatten()).reshape(-1, 4, vertices.shape[1])
    gamma = weights.gamma.index_select(0, cut.vertex_cube[cut.quads.flatten()]).reshape(-1, 4)
    first, second = gamma[:, 0] * gamma[:, 2], gamma[:, 1] * gamma[:, 3]
    share = (first / (first + second))[:, None]
    middles = share * (corners[:, 0] + corners[:, 2]) / 2 + (1 - share) * (corners[:, 1] + corners[:, 3]) / 2
    return torch.cat([vertices, middles])


def deviation(
    crossed: Float[Tensor, "p 3"], vertices: Float[Tensor, "m 3"], cut: DualCrossings
) -> Float[Tensor, ""]:
    """How unequal a vertex's distances to its crossings are, in world units: their mean absolute deviation.

    The paper's L_dev (eq. 8), averaged over the vertices: it keeps quads regular and vertices in their cubes.

    Args:
        crossed: where the crossings are.
        vertices: as ``dual_values`` returns them.
    """
    count = len(cut.vertex_cube)
    crossings = torch.bincount(cut.vertex, minlength=count).to(crossed)
    distances = (crossed - vertices.index_select(0, cut.vertex)).norm(dim=1)
    mean = crossed.new_zeros(count).index_add(0, cut.vertex, distances) / crossings
    spread = (distances - mean.index_select(0, cut.vertex)).abs()
    return (crossed.new_zeros(count).index_add(0, cut.vertex, spread) / crossings).mean()


def _numbered(places: Int64[Tensor, "n 3"], side: int) -> Int64[Tensor, "n"]:
    """Numbers of places in a cube of ``side`` places along each side, z fastest."""
    x, y, z = places.unbind(1)
    return (x * side + y) * side + z


# ------------------------------------------------------------------------------------------------ the cases


@dataclass(frozen=True)
class _CaseTable:
    """What there is in a cube, by which of its corners are inside, as bits.

    A face whose corners alternate can be cut in two ways: it joins its outer corners and parts the inner
    ones, or the other way round. Cubes on both sides must agree.

    Attributes:
        patches: the number of each edge's patch, -1 where it is not cut; faces that can be cut in two ways
            join their outer corners (row 0) or their inner ones (row 1).
        doubled: the face that one patch passes twice if outer corners are joined; -1 if there is none, and
            there is never more than one. Quads of two such cubes would share an edge on it.
    """

    patches: Int64[Tensor, "2 256 12"]
    doubled: Int64[Tensor, "256"]


@functools.lru_cache(maxsize=4)
def _case_table(device: torch.device) -> _CaseTable:
    patches, doubled = torch.full((2, 256, 12), -1), torch.full((256,), -1)
    for case in range(256):
        inside = [bool(case >> corner & 1) for corner in range(8)]
        for joins_inside in (False, True):
            regions = _regions(inside, joins_inside)
            # A closed curve on the cube parts two regions, and no two curves part the same two.
            seen: list[tuple[int, int]] = []
            for side, (a, b) in enumerate(_EDGES):
                if inside[a] != inside[b]:
                    pair = (regions[a], regions[b]) if inside[a] else (regions[b], regions[a])
                    if pair not in seen:
                        seen.append(pair)
                    patches[int(joins_inside), case, side] = seen.index(pair)
        parted = _regions(inside, joins_inside=False)
        for face, (a, b, c, d) in enumerate(_FACES):
            if inside[a] == inside[c] != inside[b] == inside[d]:
                inner, opposite = (a, c) if inside[a] else (b, d)
                if parted[inner] == parted[opposite]:
                    doubled[case] = face
    return _CaseTable(patches.to(device), doubled.to(device))


def _regions(inside: list[bool], joins_inside: bool) -> list[int]:
    """A number for each corner, the same where the cube's surface leads from one to the other on one side."""
    regions = list(range(8))
    links = list(_EDGES)
    for a, b, c, d in _FACES:
        if inside[a] == inside[c] != inside[b] == inside[d]:
            links.append((a, c) if inside[a] == joins_inside else (b, d))
    for a, b in links:
        if inside[a] == inside[b]:
            regions = [regions[a] if region == regions[b] else region for region in regions]
    return regions


def _joins_inside(
    cases: UInt8[Tensor, "x y z"], cubes: Int64[Tensor, "s 3"], table: _CaseTable
) -> Bool[Tensor, "s"]:
    """Which cubes must join their inner corners: both at a face that would be passed twice from either side.

    Wenger, "Isosurfaces" (2013), and sec. 4.2 of the paper. Those cubes have no other face with a choice.
    """
    face = table.doubled[cases[cubes.unbind(1)].long()]
    found = torch.nonzero(face >= 0)[:, 0]
    axis, end = face[found] // 2, face[found] % 2
    beyond = cubes[found]
    beyond[torch.arange(len(found), device=cubes.device), axis] += 2 * end - 1
    exists = ((beyond >= 0) & (beyond < len(cases))).all(1)
    other = table.doubled[cases[beyond.clamp(0, len(cases) - 1).unbind(1)].long()]
    joins = torch.zeros(len(cubes), dtype=torch.bool, device=cubes.device)
    joins[found] = exists & (other == 2 * axis + 1 - end)
    return joins
