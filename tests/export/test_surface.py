from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from studio.cameras import fibonacci_sphere, orbit
from studio.evaluate.metrics import check_mesh
from studio.export.surface import (
    DepthMoments,
    OccupancyGrid,
    depth_moments,
    isosurface,
    occupancy_grid,
    simplified,
    smoothed,
    two_layers,
    typical_spread,
    without_debris,
)
from studio.renderers.splatting import SplatRenderer
from studio.types import Cameras, Mesh, Splats

RADIUS = 0.3


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def as_mesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long())


def ball_seen_from(camera: Cameras) -> DepthMoments:
    """The moments of an opaque ball around the origin, from the rays' own equation."""
    row, column = torch.meshgrid(
        torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij"
    )
    pixels = torch.stack([column, row, torch.ones_like(row)], dim=-1)
    rays = pixels @ torch.linalg.inv(camera.intrinsics[0]).T  # z = 1
    centre = camera.world_to_camera[0, :3, 3]
    # |t ray - centre|^2 = radius^2, and t is the depth.
    a, b = rays.square().sum(-1), (rays @ centre)
    discriminant = b**2 - a * (centre.square().sum() - RADIUS**2)
    hit = (discriminant > 0).float()
    depth = (b - discriminant.clamp_min(0).sqrt()) / a
    u = (depth - 1.5) * hit
    return DepthMoments(torch.stack([hit, u, u**2, u**3]), nearest=1.5, farthest=2.5)


def test_two_layers_are_found_exactly() -> None:
    rng = torch.Generator().manual_seed(0)
    near, far = torch.rand(2, 500, generator=rng, dtype=torch.double).sort(dim=0).values
    far = torch.maximum(far, near + 0.02)
    share, alpha = 0.05 + 0.9 * torch.rand(2, 500, generator=rng, dtype=torch.double)
    moments = torch.stack([alpha * (share * near**k + (1 - share) * far**k) for k in range(4)])
    found_near, found_far, found_share = two_layers(moments)
    torch.testing.assert_close(found_near, near, atol=1e-6, rtol=0)
    torch.testing.assert_close(found_far, far, atol=1e-6, rtol=0)
    torch.testing.assert_close(found_share, share, atol=1e-6, rtol=0)


def test_one_layer_is_its_mean() -> None:
    depth = torch.linspace(0, 1, 11)
    near, far, share = two_layers(torch.stack([depth**k for k in range(4)]))
    torch.testing.assert_close(near, depth)
    torch.testing.assert_close(far, depth)
    assert (share == 1).all()


def test_moments_of_two_splats_give_their_depths() -> None:
    """A half transparent disc in front of an opaque one: both depths come back from one picture."""
    camera = orbit(torch.zeros(1), torch.zeros(1), 33, 33)
    splats = Splats(
        means=torch.tensor([[0.0, 0.0, 0.3], [0.0, 0.0, -0.4]]),
        quats_wxyz=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(2, 1),
        scales=torch.tensor([0.2, 0.2, 1e-4]).repeat(2, 1),
        opacities=torch.tensor([0.5, 0.99]),
        sh=torch.zeros(2, 1, 3),
    )
    view = depth_moments(splats, SplatRenderer(), camera)
    near, far, share = two_layers(view.coverage[:, 16, 16, None].double())
    near_z, far_z = (view.nearest + layer * (view.farthest - view.nearest) for layer in (near, far))
    assert near_z.item() == pytest.approx(2 - 0.3, abs=1e-3)
    assert far_z.item() == pytest.approx(2 + 0.4, abs=1e-3)
    assert share.item() == pytest.approx(0.5 / (0.5 + 0.5 * 0.99), abs=1e-3)


def test_moments_of_a_thick_splat_hold_its_spread() -> None:
    """A Gaussian's two nodes lie one standard deviation along the view before and behind its mean."""
    camera = orbit(torch.tensor([90.0]), torch.zeros(1), 33, 33)
    splats = Splats(
        means=torch.zeros(1, 3),
        # A quarter turn about z takes the first axis to y, the second to -x, along this view.
        quats_wxyz=torch.tensor([[0.5**0.5, 0.0, 0.0, 0.5**0.5]]),
        scales=torch.tensor([[0.3, 0.07, 0.2]]),
        opacities=torch.tensor([0.9]),
        sh=torch.zeros(1, 1, 3),
    )
    # A second splat that is not to be seen gives the depths a range.
    hidden = Splats(*(torch.cat([field, field]) for field in vars(splats).values()))
    hidden.means[1, 0] = -0.5
    hidden.opacities[1] = 0.0
    view = depth_moments(hidden, SplatRenderer(), camera)
    assert view.farthest - view.nearest == pytest.approx(0.5, abs=0.01)
    near, far, share = two_layers(view.coverage[:, 16, 16, None].double())
    near_z, far_z = (view.nearest + layer * (view.farthest - view.nearest) for layer in (near, far))
    assert near_z.item() == pytest.approx(2 - 0.07, abs=2e-3)
    assert far_z.item() == pytest.approx(2 + 0.07, abs=2e-3)
    assert share.item() == pytest.approx(0.5, abs=0.01)
    assert typical_spread([view]) == pytest.approx(0.07, abs=1e-3)


def test_a_ball_is_found_where_it_is() -> None:
    """From exact pictures of a ball of radius 0.3: a closed surface of that radius."""
    cameras = fibonacci_sphere(48, 192, 192, (-80.0, 80.0))
    views = [ball_seen_from(cameras[[i]]) for i in range(len(cameras))]
    corner = torch.full((3,), 0.35)
    grid = occupancy_grid(views, cameras, -corner, corner, resolution=56)
    # Exact depths have the layer's own level, one half, inside the outline and a quarter on it.
    surface = isosurface(grid, 0.4)
    radii = surface.vertices.norm(dim=-1)
    assert abs(radii.mean().item() - RADIUS) < 0.5 * grid.voxel
    assert radii.std().item() < 0.5 * grid.voxel
    checks = check_mesh(surface)
    assert checks.watertight and checks.components == 1
    assert as_trimesh(surface).volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.05)


def test_isosurface_is_wound_outwards_and_placed() -> None:
    """A linear ramp of distance has its level exactly where the ball is."""
    axis = torch.arange(24).float()
    points = torch.cartesian_prod(axis, axis, axis) - 11.5
    values = (0.5 + (8 - points.norm(dim=-1)) / 8).clamp(0, 1).reshape(24, 24, 24)
    grid = OccupancyGrid(values, origin=torch.tensor([1.0, 2.0, 3.0]) - 11.5 * 0.1, voxel=0.1)
    surface = isosurface(grid, 0.5)
    np.testing.assert_allclose(
        (surface.vertices - torch.tensor([1.0, 2.0, 3.0])).norm(dim=-1), 0.8, atol=0.01
    )
    assert as_trimesh(surface).volume == pytest.approx(4 / 3 * math.pi * 0.8**3, rel=0.02)
    assert len(isosurface(grid, 1.5).faces) == 0


def test_debris_and_cavities_go_and_parts_stay() -> None:
    body, part = trimesh.creation.icosphere(2, radius=1.0), trimesh.creation.icosphere(1, radius=0.4)
    part.apply_translation((3, 0, 0))
    crumb, hollow = trimesh.creation.icosphere(1, radius=0.05), trimesh.creation.icosphere(1, radius=0.5)
    crumb.apply_translation((0, 3, 0))
    hollow.invert()
    kept = without_debris(as_mesh(trimesh.util.concatenate([crumb, body, hollow, part])), 0.3)
    assert len(kept.faces) == len(body.faces) + len(part.faces)
    assert as_trimesh(kept).volume == pytest.approx(body.volume + part.volume, rel=1e-4)


def test_smoothing_takes_the_noise_and_leaves_the_size() -> None:
    ball = trimesh.creation.icosphere(4)
    noise = 0.02 * torch.randn(len(ball.vertices), 3, generator=torch.Generator().manual_seed(0))
    rough = as_mesh(ball)
    smooth = smoothed(Mesh(rough.vertices + noise, rough.faces), 10)
    radii = smooth.vertices.norm(dim=-1)
    assert radii.std().item() < 0.4 * 0.02
    assert as_trimesh(smooth).volume == pytest.approx(ball.volume, rel=0.02)


def test_simplifying_keeps_the_budget_and_the_shape() -> None:
    ball = trimesh.creation.icosphere(5)
    coarse = simplified(as_mesh(ball), 1000)
    assert 900 <= len(coarse.faces) <= 1000
    assert as_trimesh(coarse).volume == pytest.approx(ball.volume, rel=0.02)
    assert check_mesh(coarse).watertight
    small = as_mesh(trimesh.creation.icosphere(1))
    assert simplified(small, 1000) is small
