"""Fields drawn: against closed forms, finite differences and geometry."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from studio.cameras import orbit
from studio.interfaces import Renderer
from studio.ops.field import Field
from studio.ops.hash_grid import HashGrid
from studio.ops.marching import OccupancyGrid
from studio.renderers.volume import VolumeRenderer
from studio.types import Cameras

RADIUS = 0.6
GRID = HashGrid(levels=2, features=2, log2_table_size=8, base_resolution=3, finest_resolution=6)


def field(rng_seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Field:
    """A small field of random content, with a smooth blob in the middle."""
    rng = torch.Generator().manual_seed(rng_seed)
    widths = (GRID.width, 8, 4)

    def normal(*size: int) -> Tensor:
        return scale * torch.randn(*size, generator=rng, dtype=torch.float64).to(dtype)

    return Field(
        grid=GRID,
        table=normal(GRID.entries, GRID.features),
        weights=(normal(widths[1], widths[0]), normal(widths[2], widths[1])),
        biases=(normal(widths[1]), normal(widths[2])),
        occupancy=OccupancyGrid.full(8),
        radius=RADIUS,
        blob_density=5.0,
        blob_radius=0.3,
    )


def plain(density: float, blob_radius: float = 1e4) -> Field:
    """The same grey and, but for the blob, the same density everywhere."""
    return replace(field(scale=0.0), blob_density=density, blob_radius=blob_radius)


def views(count: int = 2, size: int = 12) -> Cameras:
    azimuth = torch.arange(count) * 77.0
    return orbit(azimuth, torch.full_like(azimuth, 20.0), size, size)


def slab(from_z: int, to_z: int) -> OccupancyGrid:
    """Of 8 layers of cells along z, some."""
    full = OccupancyGrid.full(8)
    occupied = torch.zeros_like(full.occupied)
    occupied[:, :, from_z:to_z] = True
    return OccupancyGrid(full.densities, occupied)


def test_a_slab_lets_through_what_beer_and_lambert_say() -> None:
    """exp(-density length), along each ray's own slant; the depth is that of the light's mean absorption."""
    thickness, density = 4 / 8 * 2 * RADIUS, 2.0
    camera = orbit(torch.zeros(1), torch.zeros(1), 9, 9, field_of_view_deg=10.0)
    shown = VolumeRenderer(step=0.002)(
        replace(plain(density), occupancy=slab(2, 6)), camera, torch.tensor([[1.0, 0.5, 0.0]])
    )
    offset = (torch.arange(9) + 0.5 - 4.5) / camera.intrinsics[0, 0, 0]
    slant = (1 + offset[:, None] ** 2 + offset**2).sqrt()
    through = torch.exp(-density * thickness * slant)
    torch.testing.assert_close(shown.alpha[0, 0], 1 - through, atol=2e-3, rtol=0)
    expected = 0.5 * (1 - through) + through * torch.tensor([1.0, 0.5, 0.0])[:, None, None]
    torch.testing.assert_close(shown.rgb[0], expected, atol=2e-3, rtol=0)
    # ∫ z k exp(-k (z - near)) dz over the slab, in the middle of the picture.
    near, far = 2.0 - thickness / 2, 2.0 + thickness / 2
    depth = (near + 1 / density) - (far + 1 / density) * math.exp(-density * thickness)
    assert shown.depth is not None
    assert float(shown.depth[0, 0, 4, 4]) == pytest.approx(depth, abs=3e-3)


def test_depth_is_along_the_camera_and_not_along_the_ray() -> None:
    """An opaque slab that faces the camera has one depth all over."""
    camera = orbit(torch.zeros(1), torch.zeros(1), 16, 16)
    occupied = slab(4, 6)
    shown = VolumeRenderer(step=0.002)(replace(plain(1e5), occupancy=occupied), camera, torch.zeros(1, 3))
    seen = shown.alpha[0, 0] > 0.999
    assert seen.sum() > 100
    assert shown.depth is not None
    torch.testing.assert_close(
        shown.depth[0, 0][seen], torch.full((int(seen.sum()),), 2.0 - 6 / 8 * 1.2 + 0.6), atol=5e-3, rtol=0
    )


@pytest.mark.parametrize("normals", [False, True])
def test_gradients_are_those_of_finite_differences(normals: bool) -> None:
    """In double precision, of everything that is drawn, to every parameter."""
    tiny = field(dtype=torch.float64)
    camera = views(1, 5)
    camera = replace(
        camera, world_to_camera=camera.world_to_camera.double(), intrinsics=camera.intrinsics.double()
    )
    draw: Renderer[Field] = VolumeRenderer(step=0.07, normals=normals)

    def pictures(table: Tensor, *layers: Tensor) -> Tensor:
        moved = replace(tiny, table=table, weights=layers[:2], biases=layers[2:])
        shown = draw(moved, camera, torch.full((1, 3), 0.3, dtype=torch.float64))
        assert shown.depth is not None
        parts = [shown.rgb, shown.alpha, shown.depth]
        if normals:
            assert shown.normal is not None and shown.facing_away is not None
            parts += [shown.normal, shown.facing_away]
        return torch.cat(parts, dim=1)

    leaves = [x.requires_grad_() for x in (tiny.table, *tiny.weights, *tiny.biases)]
    assert torch.autograd.gradcheck(pictures, leaves, fast_mode=True, eps=1e-7, atol=1e-4, rtol=1e-3)
    gradients = torch.autograd.grad(pictures(*leaves).square().sum(), leaves)
    assert all(float(gradient.abs().max()) > 1e-3 for gradient in gradients)


def test_native_and_reference_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    both = []
    for backend in ("auto", "torch"):
        monkeypatch.setenv("STUDIO_BACKEND", backend)
        shown = VolumeRenderer(normals=True)(field(3), views(), torch.ones(2, 3))
        assert shown.normal is not None and shown.depth is not None
        both.append(torch.cat([shown.rgb, shown.alpha, shown.depth, shown.normal], dim=1))
    torch.testing.assert_close(*both, atol=2e-4, rtol=1e-3)


def test_a_ball_has_the_normals_of_a_sphere() -> None:
    """Down the density's slope is outwards; nothing that is seen of a ball looks away from the camera."""
    camera = orbit(torch.tensor([30.0]), torch.tensor([10.0]), 24, 24)
    shown = VolumeRenderer(step=0.005, normals=True)(plain(1e5, blob_radius=0.1), camera, torch.zeros(1, 3))
    assert shown.normal is not None and shown.depth is not None and shown.facing_away is not None
    column = (torch.arange(24) + 0.5 - 12) / camera.intrinsics[0, 0, 0]
    y, x = torch.meshgrid(column, column, indexing="ij")
    z = shown.depth[0, 0]
    in_camera = torch.stack([x * z, y * z, z])
    rotation, translation = camera.world_to_camera[0, :3, :3], camera.world_to_camera[0, :3, 3]
    points = rotation.T @ (in_camera.reshape(3, -1) - translation[:, None])
    solid = (shown.alpha[0, 0] > 0.999).flatten()
    assert int(solid.sum()) > 80
    outwards = torch.nn.functional.normalize(points, dim=0)
    cosine = (outwards * shown.normal[0].reshape(3, -1)).sum(0)[solid]
    assert float(cosine.detach().min()) > 0.98
    assert float(shown.facing_away.detach().flatten()[solid].max()) < 1e-3


def test_what_looks_away_is_measured() -> None:
    """The far half of a ball alone: its density falls away from the camera, so its normals point there."""
    far_half = replace(plain(50.0, blob_radius=0.3), occupancy=slab(0, 4))
    camera = orbit(torch.zeros(1), torch.zeros(1), 9, 9, field_of_view_deg=20.0)
    shown = VolumeRenderer(normals=True)(far_half, camera, torch.zeros(1, 3))
    assert shown.facing_away is not None
    middle = (0, 0, 4, 4)
    # Straight through the middle all normals point along the ray.
    torch.testing.assert_close(shown.facing_away[middle], shown.alpha[middle], atol=2e-2, rtol=0)


def test_without_gradients_the_same_picture_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    some, camera = field(5), views(3, 10)
    whole = VolumeRenderer()(some, camera, torch.rand(3, 3, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr("studio.renderers.volume._RAYS_AT_ONCE", 37)
    with torch.no_grad():
        parts = VolumeRenderer()(some, camera, torch.rand(3, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(whole.rgb, parts.rgb) and torch.equal(whole.alpha, parts.alpha)


def test_no_matter_shows_the_background_and_has_gradients_of_zero() -> None:
    empty = OccupancyGrid(torch.zeros(8, 8, 8), torch.zeros(8, 8, 8, dtype=torch.bool))
    some = replace(field(), occupancy=empty)
    table = some.table.clone().requires_grad_()
    for normals in (False, True):
        shown = VolumeRenderer(normals=normals)(replace(some, table=table), views(), torch.full((2, 3), 0.7))
        assert float(shown.alpha.detach().max()) == 0.0
        torch.testing.assert_close(shown.rgb.detach(), torch.full_like(shown.rgb.detach(), 0.7))
        shown.rgb.sum().backward()
        assert table.grad is not None and float(table.grad.abs().max()) == 0.0
