"""The dual surface of FlexiCubes: closed for any signs, against spheres, planes and finite differences."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.recipes.config import SurfaceConfig
from studio.scenes.flexicubes import (
    WEIGHTS_A_CUBE,
    CubeWeights,
    DualCrossings,
    crossing_values,
    deviation,
    dual_crossings,
    dual_values,
)
from studio.scenes.grid import Grid
from studio.scenes.surface import Surface, grid_of
from studio.types import Mesh
from tests.truth.isosurfaces import ball, ball_errors, volume


def random_weights(cut: DualCrossings, seed: int = 0) -> CubeWeights:
    rng = torch.Generator().manual_seed(seed)
    return CubeWeights.of(torch.randn(len(cut.cubes), WEIGHTS_A_CUBE, generator=rng, dtype=torch.double))


def plain_weights(cut: DualCrossings) -> CubeWeights:
    return CubeWeights.of(torch.zeros(len(cut.cubes), WEIGHTS_A_CUBE, dtype=torch.double))


def vertices_of(grid: Grid, distances: Tensor, weights: CubeWeights, cut: DualCrossings) -> Tensor:
    return dual_values(crossing_values(grid.points().double(), distances, weights, cut), weights, cut)


def surface(grid: Grid, distances: Tensor) -> Mesh:
    cut = dual_crossings(grid, distances)
    return Mesh(vertices_of(grid, distances, plain_weights(cut), cut), cut.faces)


def is_closed_manifold(faces: Tensor) -> bool:
    """Each edge once in each direction, and around each vertex one fan."""
    following: dict[tuple[int, int], int] = {}
    for a, b, c in faces.tolist():
        for one, other, third in ((a, b, c), (b, c, a), (c, a, b)):
            if (one, other) in following:
                return False
            following[one, other] = third
    if any((b, a) not in following for a, b in following):
        return False
    left = {a: b for a, b in following}
    degrees = torch.bincount(faces.flatten()).tolist()
    for middle, first in left.items():
        spoke, count = following[middle, first], 1
        while spoke != first:
            spoke, count = following[middle, spoke], count + 1
        if count != degrees[middle]:
            return False
    return True


def random_distances(grid: Grid, seed: int) -> Tensor:
    """Random inside, with more or fewer inner points; outside at the border."""
    noise = torch.rand(grid.count, generator=torch.Generator().manual_seed(seed)).double()
    at_border = grid.points().abs().amax(1) > 0.49 * grid.side
    return torch.where(at_border, 0.5, noise - (0.3, 0.5, 0.7)[seed % 3])


@pytest.mark.parametrize("seed", range(6))
def test_any_signs_away_from_the_border_make_a_closed_manifold(seed: int) -> None:
    grid = Grid(6, 1.0)
    distances = random_distances(grid, seed)
    cut = dual_crossings(grid, distances)
    assert is_closed_manifold(cut.faces)
    assert volume(Mesh(vertices_of(grid, distances, plain_weights(cut), cut), cut.faces)) > 0
    # Vertices stay in their cubes whatever the weights.
    found = vertices_of(grid, distances, random_weights(cut), cut)[: len(cut.vertex_cube)]
    place = (found + grid.side / 2) / grid.spacing
    cube = cut.cubes[cut.vertex_cube]
    low = torch.stack([cube // 36, cube // 6 % 6, cube % 6], dim=1)
    assert bool(((place >= low - 1e-9) & (place <= low + 1 + 1e-9)).all())


def test_every_case_of_a_cube_is_as_many_spheres_as_it_has_inner_parts() -> None:
    """Parts are corners that edges join; the corners around are outside."""
    grid = Grid(3, 3.0)
    middle = torch.nonzero(grid.points().abs().amax(1) < 1.0)[:, 0]
    assert len(middle) == 8
    for case in range(1, 256):
        inner = [corner for corner in range(8) if case >> corner & 1]
        parts = {corner: {corner} for corner in inner}
        for a, b in itertools.combinations(inner, 2):
            if (a ^ b) in (1, 2, 4) and parts[a] is not parts[b]:
                joined = parts[a] | parts[b]
                parts |= {corner: joined for corner in joined}
        count = len({id(part) for part in parts.values()})
        distances = torch.ones(grid.count)
        distances[middle[inner]] = -1.0
        faces = dual_crossings(grid, distances).faces
        assert is_closed_manifold(faces)
        assert len(faces.unique()) - len(faces) // 2 == 2 * count


def test_two_cubes_do_not_share_an_edge_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two inner corners across a face, joined by a path on either side of it: Wenger's cases 16 and 19."""
    grid = Grid(4, 4.0)
    distances = torch.ones(5, 5, 5)
    distances[1, 1, 2] = distances[2, 2, 2] = -1.0
    for z in (1, 3):
        distances[1, 1, z] = distances[1, 2, z] = distances[2, 2, z] = -1.0
    assert is_closed_manifold(dual_crossings(grid, distances.flatten()).faces)
    never = lambda cases, cubes, table: torch.zeros(len(cubes), dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr("studio.scenes.flexicubes._joins_inside", never)
    assert not is_closed_manifold(dual_crossings(grid, distances.flatten()).faces)


def test_a_ball_converges_with_the_square_of_the_spacing() -> None:
    ball_errors(surface, body_centred=False)


def test_a_plane_is_met_exactly_whatever_the_weights_of_edges() -> None:
    grid = Grid(6, 1.0)
    normal = torch.tensor([0.3, 0.5, 0.8], dtype=torch.double)
    distances = grid.points().double() @ normal - 0.05
    cut = dual_crossings(grid, distances)
    logits = torch.zeros(len(cut.cubes), WEIGHTS_A_CUBE, dtype=torch.double)
    logits[:, 8:] = torch.randn(len(cut.cubes), 13, generator=torch.Generator().manual_seed(0)).double()
    found = vertices_of(grid, distances, CubeWeights.of(logits), cut)
    assert torch.allclose(found @ normal, torch.full((len(found),), 0.05, dtype=torch.double))


def test_weights_of_an_edge_and_of_a_corner_by_hand() -> None:
    """One inner point: six cut edges, each crossed at a fraction that alpha moves."""
    grid = Grid(2, 2.0)
    distances = torch.ones(27, dtype=torch.double)
    distances[13] = -1.0  # the middle
    cut = dual_crossings(grid, distances)
    assert len(cut.cubes) == 8 and len(cut.quads) == 6
    alpha = torch.ones(8, 8, dtype=torch.double)
    alpha[:, :] = torch.where(torch.arange(8)[:, None] + torch.arange(8) == 7, 3.0, 1.0)  # of the middle
    weights = CubeWeights(alpha, torch.ones(8, 12).double(), torch.ones(8).double())
    crossed = crossing_values(grid.points().double(), distances, weights, cut)
    assert torch.allclose(crossed.norm(dim=1), torch.tensor(0.75, dtype=torch.double))
    beta = torch.ones(8, 12, dtype=torch.double)
    beta[:, :4] = 2.0  # edges along x count twice
    vertices = dual_values(crossed, CubeWeights(alpha, beta, weights.gamma), cut)[:8]
    assert torch.allclose(vertices.abs(), torch.tensor([0.375, 0.1875, 0.1875], dtype=torch.double))
    # Of equal crossings along the axes, those to a corner (t, t, t) differ by nothing.
    even = dual_values(crossed, weights, cut)
    assert float(deviation(crossed, even, cut)) == pytest.approx(0.0, abs=1e-12)
    lengths = torch.stack([(vertices[0].abs() - 0.75 * axis).norm() for axis in torch.eye(3).double()])
    expected = (lengths - lengths.mean()).abs().mean()
    uneven = torch.cat([vertices, vertices])
    assert float(deviation(crossed, uneven, cut)) == pytest.approx(float(expected))


def test_a_quad_folds_along_the_diagonal_with_the_larger_gamma() -> None:
    grid = Grid(2, 2.0)
    distances = torch.ones(27, dtype=torch.double)
    distances[13] = -1.0
    cut = dual_crossings(grid, distances)
    gamma = torch.tensor([2.0, 1, 1, 2, 1, 1, 1, 1], dtype=torch.double)  # cubes across the face x = 0
    weights = CubeWeights(torch.ones(8, 8).double(), torch.ones(8, 12).double(), gamma)
    values = torch.zeros(27, 1, dtype=torch.double)
    found = dual_values(crossing_values(values, distances, weights, cut), weights, cut)
    assert bool((found == 0).all())
    vertices = torch.arange(8, dtype=torch.double)[:, None].square()
    crossed = vertices[cut.vertex]
    middles = dual_values(crossed, weights, cut)[8:, 0]
    for quad, middle in zip(cut.quads.tolist(), middles.tolist(), strict=True):
        a, b, c, d = quad
        first, second = gamma[a] * gamma[c], gamma[b] * gamma[d]
        expected = (first * (a * a + c * c) / 2 + second * (b * b + d * d) / 2) / (first + second)
        assert middle == pytest.approx(float(expected))


def test_gradients_against_finite_differences() -> None:
    grid = Grid(3, 1.0)
    distances = ball(grid, 0.3).requires_grad_()
    points = grid.points().double().requires_grad_()
    cut = dual_crossings(grid, distances)
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(len(cut.cubes), WEIGHTS_A_CUBE, generator=rng, dtype=torch.double).requires_grad_()

    def both(distances: Tensor, points: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        weights = CubeWeights.of(logits)
        crossed = crossing_values(points, distances, weights, cut)
        found = dual_values(crossed, weights, cut)
        return found, deviation(crossed, found, cut)

    assert torch.autograd.gradcheck(both, (distances, points, logits), fast_mode=True)


def fit_turned_cube(config: SurfaceConfig) -> tuple[float, int]:
    """Mean squared distance of a surface to a cube across its grid, fitted for a while, and its triangles."""
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.4, 0.2], [0.4, 0.0, -0.3], [-0.2, 0.3, 0.0]]))

    def box(places: Tensor) -> Tensor:
        """Signed distance of a cube of side 0.6."""
        beyond = (places @ turn).abs() - 0.3
        return beyond.clamp_min(0).norm(dim=1) + beyond.amax(1).clamp_max(0)

    distances = box(grid_of(config).points())
    scene = Surface.of_distances(distances, torch.zeros(len(distances), 3), config)
    moved = [group.parameter for group in scene.parameter_groups() if group.name != "color_logits"]
    optimizer = torch.optim.Adam(moved, lr=0.02)
    weights = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        mesh = scene.at(None)
        samples = torch.einsum(
            "kc,fcd->fkd", weights / weights.sum(1, keepdim=True), mesh.vertices[mesh.faces]
        )
        error = box(samples.reshape(-1, 3)).square().mean()
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return error.item(), len(scene)


def test_a_cube_across_the_grid_is_met_more_sharply_than_by_tetrahedra() -> None:
    flexible, few = fit_turned_cube(SurfaceConfig(extraction="flexicubes", resolution=14))
    stiff, many = fit_turned_cube(SurfaceConfig(extraction="tetrahedra", resolution=12))
    assert few < many and flexible < 0.5 * stiff


@pytest.mark.parametrize(("value", "where"), [(1.0, "outside"), (-1.0, "inside")])
def test_an_empty_surface_is_told_of(value: float, where: str) -> None:
    grid = Grid(4, 1.0)
    with pytest.raises(StudioError, match=f"isosurface is empty: the grid's points are {where}"):
        dual_crossings(grid, torch.full((grid.count,), value))
