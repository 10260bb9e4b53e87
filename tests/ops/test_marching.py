"""Marching against cubes worked out by hand, a walk in double precision, and its other backend."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.ops.library import Backend
from studio.ops.marching import OccupancyGrid, PackedSamples, cell_points, march
from tests.truth.bits import assert_same_bits

BACKENDS: tuple[Backend, ...] = ("native", "torch")
backends = pytest.mark.parametrize("backend", BACKENDS)


def sparse(resolution: int, share: float = 0.2, seed: int = 0) -> OccupancyGrid:
    rng = torch.Generator().manual_seed(seed)
    occupied = torch.rand((resolution,) * 3, generator=rng) < share
    return OccupancyGrid(occupied.float(), occupied)


def some_rays(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """From around and inside the cube, towards and past it."""
    rng = torch.Generator().manual_seed(seed)
    origins = 0.5 + torch.randn(count, 3, generator=rng)
    directions = 0.5 + 0.4 * torch.randn(count, 3, generator=rng) - origins
    return origins, torch.nn.functional.normalize(directions), torch.rand(count, generator=rng)


def row(x: float, y: float, z: float) -> Tensor:
    return torch.tensor([[x, y, z]])


def assert_agrees(resolution: int, rays: int, step: float, device: str = "cpu") -> None:
    """Native and reference differ only in samples that rounding moves over a border of cells or cube."""
    grid = sparse(resolution)
    origins, directions, jitter = some_rays(rays)
    places: tuple[tuple[Backend, str], ...] = (("native", device), ("torch", "cpu"))
    keys = []
    for backend, where in places:
        there = OccupancyGrid(grid.densities.to(where), grid.occupied.to(where))
        moved = [x.to(where) for x in (origins, directions)]
        samples = march(*moved, there, step=step, max_samples=4096, jitter=jitter.to(where), backend=backend)
        ray, points, t = (x.cpu() for x in (samples.ray_indices, samples.positions, samples.t))
        assert torch.equal(ray, torch.arange(rays).repeat_interleave(samples.starts.cpu().diff()))
        assert int(samples.starts[0]) == 0 and int(samples.starts[-1]) == len(t)
        along = torch.addcmul(origins[ray], t[:, None], directions[ray])
        torch.testing.assert_close(points, along, rtol=0, atol=1e-6)
        assert float(points.clamp(0, 1).sub(points).abs().max() if len(points) else 0) < 1e-5
        cell = (points * resolution).long().clamp(0, resolution - 1)
        at_border = ((points * resolution).frac().sub(0.5).abs() > 0.499).any(-1)
        assert bool((grid.occupied[tuple(cell.T)] | at_border).all())
        numbers = (t / step).round().long()[~at_border]
        keys.append(set(zip(ray[~at_border].tolist(), numbers.tolist(), strict=True)))
    different = keys[0] ^ keys[1]
    assert len(different) <= 1e-3 * max(len(keys[0]), 1000)


@backends
def test_one_ray_by_hand(backend: Backend) -> None:
    """Along x through a grid of four cells a side, the second and last of which are occupied."""
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[1, 2, 0] = occupied[3, 2, 0] = True
    grid = OccupancyGrid(occupied.float(), occupied)
    origin = row(-1.0, 0.6, 0.1)
    samples = march(origin, row(1.0, 0.0, 0.0), grid, step=0.1, max_samples=100, backend=backend)
    torch.testing.assert_close(samples.t, 1 + torch.tensor([0.25, 0.35, 0.45, 0.75, 0.85, 0.95]))
    assert samples.starts.tolist() == [0, 6] and not samples.ray_indices.any()
    torch.testing.assert_close(samples.positions[0], torch.tensor([0.25, 0.6, 0.1]))
    few = march(origin, row(1.0, 0.0, 0.0), grid, step=0.1, max_samples=4, backend=backend)
    assert torch.equal(few.t, samples.t[:4])
    early = march(
        origin, row(1.0, 0.0, 0.0), grid, step=0.1, max_samples=9, jitter=torch.zeros(1), backend=backend
    )
    assert float(early.t[0]) == pytest.approx(1.3, abs=1e-5)
    late = march(origin, row(1.0, 0.0, 0.0), grid, step=0.1, max_samples=9, near=1.6, backend=backend)
    torch.testing.assert_close(late.t, torch.tensor([1.75, 1.85, 1.95]))


@backends
def test_from_inside_the_cube(backend: Backend) -> None:
    grid = OccupancyGrid.full(8)
    samples = march(row(0.5, 0.5, 0.5), row(0.0, -1.0, 0.0), grid, step=0.125, max_samples=9, backend=backend)
    torch.testing.assert_close(samples.t, torch.tensor([0.0625, 0.1875, 0.3125, 0.4375]))


@backends
@pytest.mark.parametrize(
    ("origin", "direction"),
    [
        ((0.5, 0.5, -1), (0, 0, -1)),  # behind
        ((2, 0.5, 0.5), (0, 1, 0)),  # beside, and never there
        ((-1, 0, 0), (0.6, 0.8, 0)),  # past a corner
        ((0.5, 0.5, 0.5), (0, 0, 0)),
        ((math.nan, 0.5, 0.5), (1, 0, 0)),
        ((math.inf, 0.5, 0.5), (-1, 0, 0)),
        ((0.5, 0.5, 0.5), (1, math.nan, 0)),
        ((0.5, 0.5, 0.5), (math.inf, 0, 0)),
    ],
)
def test_rays_without_samples(
    origin: tuple[float, float, float], direction: tuple[float, float, float], backend: Backend
) -> None:
    # Between two rays that have some.
    origins = torch.tensor([[0.5, 0.5, -1.0], origin, [0.5, 0.5, 0.5]])
    directions = torch.tensor([[0.0, 0.0, 1.0], direction, [0.0, 0.0, 1.0]])
    samples = march(origins, directions, OccupancyGrid.full(2), step=0.1, max_samples=100, backend=backend)
    assert samples.starts.tolist() == [0, 10, 10, 15]
    assert bool(samples.t.isfinite().all())


@backends
def test_nothing_to_march(backend: Backend) -> None:
    origins, directions, _ = some_rays(20)
    nothing = torch.zeros(4, 4, 4)
    empty = march(
        origins, directions, OccupancyGrid(nothing, nothing.bool()), step=0.1, max_samples=9, backend=backend
    )
    assert empty.starts.tolist() == [0] * 21 and len(empty.t) == 0
    none = march(origins[:0], directions[:0], OccupancyGrid.full(4), step=0.1, max_samples=9, backend=backend)
    assert none.starts.tolist() == [0] and len(none.t) == len(none.ray_indices) == len(none.positions) == 0


@pytest.mark.parametrize(("resolution", "rays"), [(1, 3), (5, 100), (32, 1000), (128, 200)])
def test_native_agrees_with_the_reference(resolution: int, rays: int) -> None:
    assert_agrees(resolution, rays, 0.7 / resolution if resolution > 5 else 0.03)


def test_the_last_cell_of_a_large_grid() -> None:
    occupied = torch.zeros(512, 512, 512, dtype=torch.bool)
    occupied[-1, -1, -1] = True
    grid = OccupancyGrid(torch.zeros(()).expand(512, 512, 512), occupied)
    direction = torch.nn.functional.normalize(row(1.0, 1.0, 1.0))
    samples = march(row(0.0, 0.0, 0.0), direction, grid, step=1e-4, max_samples=100, backend="native")
    assert len(samples.t) == pytest.approx(3**0.5 / 512 / 1e-4, abs=1)
    assert float(samples.t.min()) >= 3**0.5 * 511 / 512 - 1e-5


def test_bits_do_not_depend_on_run_or_threads() -> None:
    origins, directions, jitter = some_rays(3000)
    grid = sparse(16)

    def run() -> PackedSamples:
        return march(origins, directions, grid, step=0.02, max_samples=50, jitter=jitter, backend="native")

    assert_same_bits(run)


@backends
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"step": 0.0}, "step between samples is 0.0"),
        ({"step": math.nan}, "step between samples is nan"),
        ({"step": math.inf}, "step between samples is inf"),
        ({"max_samples": 0}, "max_samples is 0"),
        ({"max_samples": 2**31}, "max_samples is 2147483648"),
        ({"near": math.nan}, "near is nan"),
        ({"jitter": torch.zeros(2, dtype=torch.float64)}, "float64"),
    ],
)
def test_impossible_numbers_are_refused(
    wrong: dict[str, float | Tensor], message: str, backend: Backend
) -> None:
    origins, directions, _ = some_rays(2)
    arguments = {"step": 0.1, "max_samples": 9, **wrong}
    with pytest.raises(StudioError, match=message):
        march(origins, directions, OccupancyGrid.full(4), backend=backend, **arguments)  # type: ignore[arg-type]


def test_too_many_samples_are_refused_before_they_need_memory() -> None:
    rays = 40_000
    origins = torch.tensor([[0.0, 0.0, 0.0]]).expand(rays, 3)
    directions = torch.nn.functional.normalize(torch.ones(rays, 3))
    with pytest.raises(StudioError, match=r"have \d{10} samples, more than 2147483647"):
        march(origins, directions, OccupancyGrid.full(1), step=3e-5, max_samples=2**18, backend="native")


def test_bits_are_the_cells_in_order() -> None:
    grid = sparse(5)
    cells = grid.occupied.flatten().tolist()
    words = [number & 0xFFFFFFFF for number in grid.bits.tolist()]
    assert len(words) == 4
    assert [bool(words[i // 32] >> i % 32 & 1) for i in range(128)] == cells + [False] * 3


def test_memory_fades_and_new_densities_count_at_once() -> None:
    old, new = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    old[0, 0, 0], old[0, 0, 1], new[1, 1, 1] = 10.0, 0.5, 3.0
    grid = OccupancyGrid(old, old > 0).updated(new, decay=0.5, threshold=1.0)
    assert grid.densities[0, 0].tolist() == [5.0, 0.25] and float(grid.densities[1, 1, 1]) == 3.0
    assert grid.occupied.sum() == 2 and bool(grid.occupied[0, 0, 0] & grid.occupied[1, 1, 1])


def test_a_thin_field_is_occupied_above_its_mean() -> None:
    densities = torch.full((4, 4, 4), 1e-3)
    assert bool(OccupancyGrid.full(4).updated(densities, threshold=0.01).occupied.all())
    assert not OccupancyGrid.full(4).updated(torch.zeros(4, 4, 4)).occupied.any()


def test_broken_densities_are_refused() -> None:
    with pytest.raises(StudioError, match="not finite"):
        OccupancyGrid.full(2).updated(torch.full((2, 2, 2), math.nan))
    with pytest.raises(StudioError, match="1 to 1024 cells"):
        OccupancyGrid.full(0)


def test_cell_points_lie_in_their_cells() -> None:
    points = cell_points(torch.rand(3, 3, 3, 3, generator=torch.Generator().manual_seed(0)))
    x, y, z = (points * 3).long().unbind(-1)
    assert (9 * x + 3 * y + z).tolist() == list(range(27))
