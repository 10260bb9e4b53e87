from __future__ import annotations

import math

import pytest
import torch
import trimesh

from studio.cameras import fibonacci_sphere
from studio.errors import StudioError
from studio.export.texture import baked, texels_of, unwrapped
from studio.export.views import pictures, project
from studio.ops.surfaces import Light
from studio.renderers.raster import MeshRenderer
from studio.types import Mesh, RenderOutput

DRAW = MeshRenderer(supersample=1, light=Light())


def ball() -> Mesh:
    shape = trimesh.creation.icosphere(3, radius=0.4)
    return Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long())


def colors_at(positions: torch.Tensor) -> torch.Tensor:
    """A smooth pattern all around the ball."""
    return 0.5 + 0.4 * torch.sin(positions * torch.tensor([6.0, 7.0, 8.0]))


def test_unwrapped_charts_cover_the_surface_once() -> None:
    mesh = unwrapped(ball(), 256)
    assert mesh.uvs is not None and len(mesh.vertices) == 642 and len(mesh.faces) == 1280
    assert mesh.uvs.min() >= 0 and mesh.uvs.max() <= 1
    a, b, c = mesh.uvs.unbind(1)
    areas = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs() / 2
    texels = texels_of(mesh, DRAW, 256)
    # As many texels as the charts have area: none is claimed by two faces.
    assert len(texels.rows) == pytest.approx(areas.sum().item() * 256**2, rel=0.02)


def test_texels_lie_on_the_surface() -> None:
    texels = texels_of(unwrapped(ball(), 256), DRAW, 256)
    radii = texels.positions.norm(dim=-1)
    # Between the vertices the facets lie a little inside the ball.
    assert radii.max() < 0.4001 and radii.min() > 0.39
    outwards = (texels.normals * texels.positions).sum(-1) / radii
    assert outwards.min() > 0.99


def test_texture_shows_the_colours_that_the_pictures_show() -> None:
    """A ball painted by a formula, drawn, baked: each texel has the formula's colour at its place."""
    plain = ball()
    painted = Mesh(plain.vertices, plain.faces, vertex_colors=colors_at(plain.vertices))
    cameras = fibonacci_sphere(24, 160, 160, (-60.0, 60.0))
    scene = pictures(MeshRenderer(supersample=2, light=Light()), painted, cameras, 0.0)
    mesh = unwrapped(plain, 256)
    textured = baked(mesh, scene, cameras, DRAW, 256, tolerance=0.01)
    texture = textured.materials[0].texture
    assert texture is not None and (texture[..., 3] == 1).all()
    texels = texels_of(mesh, DRAW, 256)
    error = (texture[texels.rows, texels.columns, :3] - colors_at(texels.positions)).abs()
    assert error.mean() < 0.01 and error.max() < 0.1
    # Gutters are painted too: no texel of the background's colour bleeds in at the seams.
    drawn = pictures(MeshRenderer(supersample=2, light=Light()), textured, cameras, 0.0)
    inner = scene.alpha > 0.999
    assert (drawn.rgb - scene.rgb).abs().mul(inner).max() < 0.15


def test_what_no_view_sees_takes_the_nearest_colour() -> None:
    """A ball that darkens downwards, seen from above: its underside is as dark as what is seen lowest."""
    plain = ball()
    grey = 0.5 + plain.vertices[:, 1:2].expand(-1, 3)
    above = fibonacci_sphere(12, 160, 160, (30.0, 60.0))
    scene = pictures(DRAW, Mesh(plain.vertices, plain.faces, vertex_colors=grey), above, 0.0)
    mesh = unwrapped(plain, 128)
    texture = baked(mesh, scene, above, DRAW, 128, tolerance=0.01).materials[0].texture
    assert texture is not None
    texels = texels_of(mesh, DRAW, 128)
    heights, colors = texels.positions[:, 1], texture[texels.rows, texels.columns, 0]
    torch.testing.assert_close(colors[heights > 0], 0.5 + heights[heights > 0], atol=0.02, rtol=0)
    underside = colors[heights < -0.35]
    lowest_seen = 0.5 - 0.4 * math.sin(math.radians(60.0))
    assert len(underside) > 50
    assert underside.min() > lowest_seen - 0.02 and underside.max() < 0.4


def test_a_mesh_that_no_picture_shows_is_refused() -> None:
    mesh = unwrapped(ball(), 64)
    cameras = fibonacci_sphere(2, 40, 40)
    nothing = RenderOutput(rgb=torch.zeros(2, 3, 40, 40), alpha=torch.zeros(2, 1, 40, 40))
    with pytest.raises(StudioError, match=r"no colours for the mesh.*as \.ply"):
        baked(mesh, nothing, cameras, DRAW, 64, tolerance=0.01)


def test_projection_agrees_with_the_camera() -> None:
    camera = fibonacci_sphere(3, 40, 30)[[1]]
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    grid, depth = project(points, camera)
    for point, place, z in zip(points, grid[0, 0], depth, strict=True):
        seen = camera.world_to_camera[0] @ torch.cat([point, torch.ones(1)])
        pixel = camera.intrinsics[0] @ (seen[:3] / seen[2])
        assert z.item() == pytest.approx(seen[2].item(), rel=1e-5)
        assert ((place + 1) / 2 * torch.tensor([40.0, 30.0])).tolist() == pytest.approx(
            pixel[:2].tolist(), abs=1e-3
        )
