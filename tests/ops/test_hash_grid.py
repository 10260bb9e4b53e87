"""Hash encoding against cells worked out by hand, finite differences, and its other backend."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.ops import hash_grid as module
from studio.ops.hash_grid import HashGrid, hash_grid
from studio.ops.library import Backend
from tests.truth.bits import assert_same_bits

BACKENDS: tuple[Backend, ...] = ("native", "torch")
backends = pytest.mark.parametrize("backend", BACKENDS)
MIXED = HashGrid(levels=5, features=2, log2_table_size=9, base_resolution=3, finest_resolution=40)


def inputs(grid: HashGrid, points: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions, most of them inside the cube, and a table, as leaves."""
    rng = torch.Generator().manual_seed(seed)
    positions = 1.2 * torch.rand(points, 3, generator=rng) - 0.1
    table = torch.randn(grid.entries, grid.features, generator=rng)
    return positions.requires_grad_(), table.requires_grad_()


def results(positions: Tensor, table: Tensor, grid: HashGrid, backend: Backend) -> list[Tensor]:
    """Features, gradients of a loss on them, and gradients of a loss on the slopes, as normals need."""
    rng = torch.Generator().manual_seed(1)

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=rng).to(like)

    features = hash_grid(positions, table, grid, backend=backend)
    v = random(features).requires_grad_()
    first = torch.autograd.grad(features, (positions, table), v, create_graph=True)
    along_slopes = torch.autograd.grad(first[0], (positions, table, v), random(first[0]), retain_graph=True)
    # The table's gradient does not depend on the table.
    along_scatter = torch.autograd.grad(first[1], (positions, v), random(first[1]))
    return [result.detach() for result in (features, *first, *along_slopes, *along_scatter)]


def assert_agrees(grid: HashGrid, points: int, device: str = "cpu") -> None:
    """Native in float32 is the reference in double on the CPU."""
    positions, table = inputs(grid, points)
    floats = [leaf.detach().to(device).requires_grad_() for leaf in (positions, table)]
    doubles = [leaf.detach().double().requires_grad_() for leaf in (positions, table)]
    expected = results(*doubles, grid, "torch")
    for got, target in zip(results(*floats, grid, "native"), expected, strict=True):
        assert got.shape == target.shape
        size = float(target.abs().max()) if target.numel() else 1.0
        assert float((got.cpu().double() - target).abs().max() if target.numel() else 0) <= 1e-4 * size


def test_resolutions_grow_geometrically() -> None:
    """The paper's table 1: 16 levels from 16 to 512 have the factor 1.2599."""
    grid = HashGrid(levels=16, log2_table_size=14, base_resolution=16, finest_resolution=512)
    growth = 32 ** (1 / 15)
    assert [level.resolution for level in grid.grids] == [int(16 * growth**i + 1e-9) for i in range(16)]
    assert grid.grids[0].mask == 0 and grid.grids[1].first == 17**3
    assert grid.grids[-1].mask == 2**14 - 1
    assert grid.entries == 17**3 + 21**3 + 14 * 2**14 and grid.width == 32


@backends
def test_a_dense_level_by_hand(backend: Backend) -> None:
    """Corner (x, y, z) of a grid of 4 cells is entry x + 5 y + 25 z: linear stays linear."""
    grid = HashGrid(levels=1, features=1, log2_table_size=7, base_resolution=4, finest_resolution=4)
    x, y, z = (i.flatten() for i in torch.meshgrid(*[torch.arange(5.0)] * 3, indexing="ij"))
    table = torch.empty(125, 1)
    table[(x + 5 * y + 25 * z).long(), 0] = 1 + 2 * x - 3 * y + 0.5 * z
    positions = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
    positions = torch.cat([positions, torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 1.0, 0.25]])])
    expected = 1 + 4 * (positions @ torch.tensor([2.0, -3.0, 0.5]))
    torch.testing.assert_close(hash_grid(positions, table, grid, backend=backend)[:, 0], expected)


@backends
def test_a_hashed_corner_by_hand(backend: Backend) -> None:
    grid = HashGrid(levels=1, features=2, log2_table_size=10, base_resolution=100, finest_resolution=100)
    table = torch.randn(1024, 2, generator=torch.Generator().manual_seed(0))
    corner = (37, 91, 64)
    entry = (37 ^ (91 * 2654435761 % 2**32) ^ (64 * 805459861 % 2**32)) % 1024
    position = torch.tensor([corner], dtype=torch.float32) / 100 + 1e-6
    got = hash_grid(position, table, grid, backend=backend)[0]
    torch.testing.assert_close(got, table[entry], atol=2e-3, rtol=0)


def test_reference_gradients_match_finite_differences() -> None:
    grid = HashGrid(levels=2, features=2, log2_table_size=5, base_resolution=2, finest_resolution=4)
    positions = torch.tensor(
        [[0.13, 0.47, 0.81], [0.91, 0.33, 0.66]], dtype=torch.float64, requires_grad=True
    )
    table = torch.randn(grid.entries, 2, dtype=torch.float64, requires_grad=True)

    def encode(positions: Tensor, table: Tensor) -> Tensor:
        return hash_grid(positions, table, grid)

    assert torch.autograd.gradcheck(encode, (positions, table))
    assert torch.autograd.gradgradcheck(encode, (positions, table))


@pytest.mark.parametrize(
    "grid",
    [
        MIXED,
        HashGrid(levels=1, features=1, log2_table_size=4, base_resolution=9, finest_resolution=9),
        HashGrid(levels=3, features=4, log2_table_size=12, base_resolution=1, finest_resolution=20),
        HashGrid(levels=2, features=8, log2_table_size=8, base_resolution=5, finest_resolution=6),
        HashGrid(levels=32, features=2, log2_table_size=10, base_resolution=2, finest_resolution=300),
    ],
    ids=str,
)
@pytest.mark.parametrize("points", [0, 1, 37, 5000])
def test_native_agrees_with_the_reference(grid: HashGrid, points: int) -> None:
    assert_agrees(grid, points)


def test_native_slopes_match_finite_differences() -> None:
    """In float32, of a smooth table, in the middle of cells."""
    grid = HashGrid(levels=2, features=2, log2_table_size=8, base_resolution=2, finest_resolution=4)
    table = torch.randn(grid.entries, 2, generator=torch.Generator().manual_seed(0))
    position = torch.tensor([[0.3, 0.6, 0.85]], requires_grad=True)
    (slopes,) = torch.autograd.grad(hash_grid(position, table, grid, backend="native").sum(), position)
    for axis in range(3):
        step = torch.zeros(1, 3)
        step[0, axis] = 0.01
        ahead, behind = (hash_grid(position.detach() + s, table, grid).sum() for s in (step, -step))
        assert float(slopes[0, axis]) == pytest.approx(float(ahead - behind) / 0.02, rel=1e-3, abs=1e-3)


def test_bits_do_not_depend_on_run_or_threads() -> None:
    positions, table = inputs(MIXED, 20_000)
    assert_same_bits(lambda: results(positions, table, MIXED, "native"))


@backends
def test_outside_counts_as_the_nearest_inside(backend: Backend) -> None:
    _, table = inputs(MIXED, 1)
    outside = torch.tensor([[-0.5, 0.3, 7.0], [math.inf, -math.inf, 0.5], [1e30, 0.2, -1e-30]])
    outside.requires_grad_()
    features = hash_grid(outside, table, MIXED, backend=backend)
    assert torch.equal(features, hash_grid(outside.detach().clamp(0, 1), table, MIXED, backend=backend))
    (slopes,) = torch.autograd.grad(features.sum(), outside)
    inside = (outside >= 0) & (outside <= 1)
    assert bool((slopes[~inside] == 0).all()) and bool((slopes[inside] != 0).all())


@backends
def test_nan_positions_give_nan_and_no_gradients(backend: Backend) -> None:
    positions, table = inputs(MIXED, 40)
    broken = positions.detach().clone()
    broken[7, 1] = math.nan
    broken.requires_grad_()
    got = results(broken, table, MIXED, backend)
    good = torch.arange(40) != 7
    kept = positions.detach()[good].requires_grad_()
    assert bool(got[0][7].isnan().all())
    features = hash_grid(kept, table, MIXED, backend=backend)
    assert torch.equal(got[0][good], features)
    assert not got[1][7].any()
    v = torch.randn(got[0].shape, generator=torch.Generator().manual_seed(1))[good]
    expected = torch.autograd.grad(features, (kept, table), v)
    torch.testing.assert_close(got[1][good], expected[0])
    torch.testing.assert_close(got[2], expected[1])
    assert all(result.isfinite().all() for result in got[1:])


def test_third_derivatives_are_refused() -> None:
    positions, table = inputs(MIXED, 3)
    (slopes,) = torch.autograd.grad(
        hash_grid(positions, table, MIXED, backend="native").sum(), positions, create_graph=True
    )
    (second,) = torch.autograd.grad(slopes.square().sum(), positions, create_graph=True)
    with pytest.raises(StudioError, match="no third derivatives"):
        torch.autograd.grad(second.sum(), table)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"levels": 0}, "levels of the hash grid is 0, expected 1 to 32"),
        ({"levels": 33}, "expected 1 to 32"),
        ({"features": 3}, "features of the hash grid is 3"),
        ({"log2_table_size": 31}, "log2_table_size of the hash grid is 31, expected 1 to 24"),
        ({"finest_resolution": 8}, "finest_resolution of the hash grid is 8, expected 16"),
        ({"finest_resolution": 2**31}, "expected 16 to 1048576"),
        ({"base_resolution": 0}, "base_resolution of the hash grid is 0"),
    ],
)
def test_impossible_grids_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        HashGrid(**wrong)


@backends
def test_wrong_tables_are_refused(backend: Backend) -> None:
    positions, table = inputs(MIXED, 2)
    with pytest.raises(StudioError, match=r"table is \[.*expected"):
        hash_grid(positions, table[:-1], MIXED, backend=backend)
    with pytest.raises(StudioError, match="float64"):
        hash_grid(positions, table.double(), MIXED, backend=backend)


def test_the_finest_grid_stays_within_its_table() -> None:
    """Where the products of the hash wrap around."""
    grid = HashGrid(levels=2, features=1, log2_table_size=3, base_resolution=2**20, finest_resolution=2**20)
    positions = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
    table = torch.full((16, 1), 3.0)
    torch.testing.assert_close(
        hash_grid(positions, table, grid, backend="native"), torch.full((1000, 2), 3.0)
    )


def test_operators_keep_the_rules_of_torch() -> None:
    positions, table = inputs(MIXED, 30)
    levels = [number for level in MIXED.grids for number in level]
    v = torch.randn(30, MIXED.width, requires_grad=True)
    torch.library.opcheck(module._encode, (positions, None, table, levels))
    torch.library.opcheck(module._scatter, (positions, None, v, levels))
    torch.library.opcheck(module._slopes, (positions, None, v, table, levels))


def test_arguments_need_not_be_contiguous() -> None:
    positions, table = inputs(MIXED, 50)
    strided = positions.detach().T.contiguous().T
    assert torch.equal(hash_grid(strided, table, MIXED), hash_grid(positions, table, MIXED))
