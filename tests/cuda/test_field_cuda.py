"""The field's operators on CUDA against their references on the CPU: the CPU's assertions again."""

from __future__ import annotations

import pytest

from tests.ops import test_compositing, test_hash_grid, test_marching, test_mlp, test_planes


@pytest.mark.parametrize("points", [0, 1, 5000])
def test_hash_grid_agrees(points: int, device: str) -> None:
    test_hash_grid.assert_agrees(test_hash_grid.MIXED, points, device)


@pytest.mark.parametrize("points", [0, 1, 3000])
def test_planes_agree(points: int, device: str) -> None:
    test_planes.assert_agrees(test_planes.MIXED, points, device)


@pytest.mark.parametrize(("resolution", "rays"), [(1, 3), (5, 100), (32, 1000)])
def test_marching_agrees(resolution: int, rays: int, device: str) -> None:
    test_marching.assert_agrees(resolution, rays, 0.02, device)


@pytest.mark.parametrize(("rays", "longest"), [(0, 4), (1, 1), (130, 30)])
def test_compositing_agrees(rays: int, longest: int, device: str) -> None:
    test_compositing.assert_agrees(rays, longest, device=device)
    test_compositing.assert_agrees(rays, longest, min_transmittance=0.2, device=device)


@pytest.mark.parametrize("widths", [(19, 64, 33, 4), (32, 256, 7), (5, 16, 31, 47, 12, 2)], ids=str)
@pytest.mark.parametrize("points", [0, 1, 1300])
def test_mlp_agrees(points: int, widths: tuple[int, ...], device: str) -> None:
    test_mlp.assert_agrees(points, widths, device=device)


def test_narrow_and_large_mlps_agree(device: str) -> None:
    test_mlp.assert_agrees(20, (1, 1, 1), device=device)
    test_mlp.assert_agrees(70_000, (4, 16, 3), "relu", device)  # more than are kept at once
