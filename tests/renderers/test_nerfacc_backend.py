"""nerfacc as a choice. It runs on CUDA only: here its documented functions are written out as plain loops."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.ops.compositing import composite
from studio.ops.marching import OccupancyGrid, march
from studio.renderers import nerfacc_backend
from studio.renderers.volume import VolumeRenderer
from tests.renderers.test_volume import field, views


class Estimator:
    """Steps of whole rays through the unit cube, where cells are occupied."""

    binaries: Tensor

    def __init__(self, aabb: list[float], resolution: int, levels: int) -> None:
        assert (aabb, levels) == ([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], 1)
        self.resolution = resolution

    def to(self, device: torch.device) -> Estimator:
        return self

    def sampling(
        self, origins: Tensor, directions: Tensor, render_step_size: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = []
        for ray, (origin, direction) in enumerate(zip(origins, directions, strict=True)):
            for step in range(int(4 / render_step_size)):
                place = origin + (step + 0.5) * render_step_size * direction
                cell = (place * self.resolution).floor().long()
                inside = bool(((cell >= 0) & (cell < self.resolution)).all())
                if inside and bool(self.binaries[0][tuple(cell)]):
                    found.append((ray, step * render_step_size, (step + 1) * render_step_size))
        ray_indices, begin, end = zip(*found, strict=True)
        return torch.tensor(ray_indices), torch.tensor(begin), torch.tensor(end)


def weights_from_density(
    begin: Tensor, end: Tensor, densities: Tensor, ray_indices: Tensor, n_rays: int
) -> tuple[Tensor, Tensor, Tensor]:
    alphas = 1 - torch.exp(-densities * (end - begin))
    light, transmittance = [1.0] * n_rays, []
    for ray, alpha in zip(ray_indices.tolist(), alphas.tolist(), strict=True):
        transmittance.append(light[ray])
        light[ray] *= 1 - alpha
    return torch.tensor(transmittance) * alphas, torch.tensor(transmittance), alphas


def accumulated(weights: Tensor, values: Tensor | None, ray_indices: Tensor, n_rays: int) -> Tensor:
    values = torch.ones(len(weights), 1) if values is None else values
    return torch.zeros(n_rays, values.shape[1]).index_add(0, ray_indices, weights[:, None] * values)


@pytest.fixture(autouse=True)
def nerfacc(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(
        OccGridEstimator=Estimator,
        render_weight_from_density=weights_from_density,
        accumulate_along_rays=accumulated,
    )
    monkeypatch.setitem(sys.modules, "nerfacc", module)
    nerfacc_backend._estimator.cache_clear()


def test_samples_lie_where_ours_lie() -> None:
    """From the sides of the cube on, both lattices are the same. Of four rays, one misses."""
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[1, :, 2] = occupied[2:, 1, 1] = True
    grid = OccupancyGrid(occupied.float(), occupied)
    origins = torch.tensor([[0.0, 0.3, 0.6], [0.4, 0.0, 0.7], [0.0, 2.0, 0.0], [0.0, 0.4, 0.4]])
    directions = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    ours = march(origins, directions, grid, step=0.05, max_samples=100)
    theirs = nerfacc_backend.march(origins, directions, grid, step=0.05)
    assert theirs.starts.tolist() == ours.starts.tolist() and len(ours.t) > 25
    torch.testing.assert_close(theirs.t, ours.t)
    torch.testing.assert_close(theirs.positions, ours.positions)


def test_composites_what_ours_composites() -> None:
    grid = OccupancyGrid.full(2)
    origins, directions = (
        torch.tensor([[0.0, 0.5, 0.5], [0.0, 5.0, 0.0]]),
        torch.tensor([[1.0, 0.0, 0.0]] * 2),
    )
    samples = march(origins, directions, grid, step=0.1, max_samples=100)
    rng = torch.Generator().manual_seed(0)
    densities, colors = (
        torch.rand(len(samples.t), generator=rng),
        torch.rand(len(samples.t), 5, generator=rng),
    )
    ours = composite(3 * densities, 0.2, colors, samples.t, samples.starts, min_transmittance=0.0)
    theirs = nerfacc_backend.composite(3 * densities, 0.2, colors, samples)
    assert 0.5 < float(ours.opacity[0]) < 1
    for one, two in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one, two)


def test_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(StudioError, match=r"nerfacc backend needs a CUDA device .*renderer.backend = 'auto'"):
        VolumeRenderer(backend="nerfacc")(field(), views(), torch.zeros(2, 3))
