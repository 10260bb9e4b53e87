"""The field's operators on CUDA against their references on the CPU: the CPU's assertions again."""

from __future__ import annotations

import pytest
import torch

from tests.ops import test_compositing, test_hash_grid, test_marching, test_planes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("points", [0, 1, 5000])
def test_hash_grid_agrees(points: int) -> None:
    test_hash_grid.assert_agrees(test_hash_grid.MIXED, points, "cuda")


@pytest.mark.parametrize("points", [0, 1, 3000])
def test_planes_agree(points: int) -> None:
    test_planes.assert_agrees(test_planes.MIXED, points, "cuda")


@pytest.mark.parametrize(("resolution", "rays"), [(1, 3), (5, 100), (32, 1000)])
def test_marching_agrees(resolution: int, rays: int) -> None:
    test_marching.assert_agrees(resolution, rays, 0.02, "cuda")


@pytest.mark.parametrize(("rays", "longest"), [(0, 4), (1, 1), (130, 30)])
def test_compositing_agrees(rays: int, longest: int) -> None:
    test_compositing.assert_agrees(rays, longest, device="cuda")
    test_compositing.assert_agrees(rays, longest, min_transmittance=0.2, device="cuda")
