"""The isosurface of a tetrahedral grid against spheres, tori and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.scenes.grid import Grid
from studio.scenes.tetrahedra import Crossings, between, crossings
from studio.types import Mesh
from tests.truth.isosurfaces import ball, ball_errors, volume


def surface(grid: Grid, distances: Tensor) -> Mesh:
    cut = crossings(grid, distances)
    return Mesh(between(grid.points().double(), distances, cut), cut.faces)


def test_tetrahedra_fill_the_grid_once() -> None:
    """All but the half cubes at the border: as many as are cut when one point in each is told from others."""
    grid = Grid(3, 3.0, body_centred=True)
    points = grid.points().double()
    volumes = {}
    for point in range(grid.count):
        distances = torch.ones(grid.count, dtype=torch.double)
        distances[point] = -1.0
        try:
            cut = crossings(grid, distances)
        except StudioError:
            continue
        corners = points[cut.edges[cut.faces]]  # [t 3 edges 2 ends 3]; the inner end is the point
        apex = points[point]
        sixfold = torch.linalg.det(corners[:, :, 1] - apex)
        assert bool((sixfold > 0).all())
        for ends, six in zip(cut.edges[cut.faces][:, :, 1].tolist(), sixfold.tolist(), strict=True):
            volumes[tuple(sorted([point, *ends]))] = six / 6
    # Each inner square between two cubes is the waist of a double pyramid of volume 1/3, in four parts.
    squares = 3 * 3 * 3 * 2
    assert len(volumes) == 4 * squares
    assert math.isclose(sum(volumes.values()), squares / 3)


def test_a_ball_is_closed_and_converges_with_the_square_of_the_spacing() -> None:
    errors = ball_errors(surface, body_centred=True)
    assert errors[-1][0] < 4e-3 and errors[-1][1] < 5e-4


def test_any_signs_away_from_the_border_make_a_closed_surface_wound_outwards() -> None:
    grid = Grid(8, 1.0, body_centred=True)
    distances = torch.rand(grid.count, generator=torch.Generator().manual_seed(0)).double() - 0.5
    at_border = grid.points().abs().amax(1) > 0.4
    mesh = surface(grid, torch.where(at_border, 0.5, distances))
    directed = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    uses = torch.unique(directed, dim=0, return_counts=True)[1]
    assert bool((uses == 1).all())  # each edge once in each direction: consistently wound
    assert torch.equal(torch.unique(directed, dim=0), torch.unique(directed.flip(1), dim=0))
    assert volume(mesh) > 0


def test_a_torus_has_its_hole() -> None:
    grid = Grid(24, 1.2, body_centred=True)
    x, y, z = grid.points().double().unbind(1)
    mesh = surface(grid, (((x * x + y * y).sqrt() - 0.35) ** 2 + z * z).sqrt() - 0.12)
    assert len(mesh.vertices) - len(mesh.faces) // 2 == 0


def test_gradients_of_vertices_against_finite_differences() -> None:
    grid = Grid(3, 1.0, body_centred=True)
    distances = ball(grid, 0.3).requires_grad_()
    points = grid.points().double().requires_grad_()
    cut = crossings(grid, distances)
    assert torch.autograd.gradcheck(lambda d, p: between(p, d, cut), (distances, points))
    # Growing the ball by e moves each vertex outwards by about e, seen from the ball's centre.
    outwards = between(points, distances, cut)
    offset = (outwards - torch.tensor([0.01, -0.02, 0.03])).norm(dim=1).sum()
    (slope,) = torch.autograd.grad(offset, distances)
    assert 0.8 < float(-slope.sum()) / len(cut.edges) < 1.4


def test_other_values_are_read_where_the_surface_is() -> None:
    grid = Grid(6, 1.0, body_centred=True)
    distances, points = ball(grid, 0.3), grid.points().double()
    cut = crossings(grid, distances)
    linear = points @ torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.double) + 0.5
    expected = between(points, distances, cut) @ torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.double) + 0.5
    assert torch.allclose(between(linear, distances, cut), expected)
    assert isinstance(cut, Crossings)


@pytest.mark.parametrize(("value", "where"), [(1.0, "outside"), (-1.0, "inside")])
def test_an_empty_surface_is_told_of(value: float, where: str) -> None:
    grid = Grid(4, 1.0, body_centred=True)
    with pytest.raises(StudioError, match=f"isosurface is empty: the grid's points are {where}"):
        crossings(grid, torch.full((grid.count,), value))


@pytest.mark.parametrize(("resolution", "side"), [(1, 1.0), (8, 0.0)])
def test_impossible_grids_are_refused(resolution: int, side: float) -> None:
    with pytest.raises(StudioError, match="expected at least 2"):
        Grid(resolution, side, body_centred=True)
