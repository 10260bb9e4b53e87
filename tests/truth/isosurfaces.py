"""Balls on a grid, and what any isosurface of them must be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from studio.meshes import mesh_statistics
from studio.scenes.grid import Grid
from studio.types import Mesh


def ball(grid: Grid, radius: float) -> Tensor:
    return (grid.points().double() - torch.tensor([0.01, -0.02, 0.03])).norm(dim=1) - radius


def volume(mesh: Mesh) -> float:
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def ball_errors(surface: Callable[[Grid, Tensor], Mesh], body_centred: bool) -> list[tuple[float, float]]:
    """How much area and volume balls of radius 0.4 lack on three grids, each twice as fine as the last.

    They must be closed, spheres by Euler's count, and lack a quarter as much each time.
    """
    errors = []
    for resolution in (12, 24, 48):
        grid = Grid(resolution, 1.2, body_centred)
        mesh = surface(grid, ball(grid, 0.4))
        found = mesh_statistics(mesh)
        assert found.is_watertight
        assert len(mesh.vertices) - len(mesh.faces) // 2 == 2  # Euler: a sphere
        errors.append((4 * math.pi * 0.4**2 - found.surface_area, 4 / 3 * math.pi * 0.4**3 - volume(mesh)))
    for coarse, fine in itertools.pairwise(errors):
        for before, after in zip(coarse, fine, strict=True):
            assert 3.5 < before / after < 4.5
    return errors
