"""The surface of a field whose level sets are known."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from studio.export.density import THICKNESS, opacity_grid
from studio.export.surface import isosurface
from studio.ops.marching import OccupancyGrid
from tests.renderers.test_volume import plain


def test_a_blobs_surface_is_a_sphere_of_the_known_radius() -> None:
    """1 - exp(-0.02 d exp(-r² / 2 s²)) = level, solved for r."""
    blob, level = plain(200.0, blob_radius=0.2), 0.3
    grid = opacity_grid(blob, 40)
    assert grid is not None
    density = -math.log(1 - level) / THICKNESS
    radius = 0.2 * math.sqrt(2 * math.log(200.0 / density))
    distances = isosurface(grid, level).vertices.norm(dim=-1)
    assert len(distances) > 1000
    torch.testing.assert_close(distances, torch.full_like(distances, radius), atol=0.1 * grid.voxel, rtol=0)


def test_what_is_not_occupied_is_empty_and_the_surface_is_closed() -> None:
    full = OccupancyGrid.full(8)
    half = full.occupied.clone()
    half[4:] = False
    dense = plain(1e4)
    grid = opacity_grid(replace(dense, occupancy=OccupancyGrid(full.densities, half)), 24)
    assert grid is not None
    surface = isosurface(grid, 0.5)
    lowest, highest = surface.vertices.amin(0), surface.vertices.amax(0)
    torch.testing.assert_close(lowest, torch.full((3,), -0.6), atol=grid.voxel, rtol=0)
    torch.testing.assert_close(highest, torch.tensor([0.0, 0.6, 0.6]), atol=grid.voxel, rtol=0)
    nothing = OccupancyGrid(full.densities, torch.zeros_like(half))
    assert opacity_grid(replace(dense, occupancy=nothing), 24) is None
