"""The differentiable mesh renderer against the one without gradients, and against finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from studio.cameras import orbit
from studio.errors import StudioError
from studio.meshes import with_uvs
from studio.ops.surfaces import Light
from studio.recipes.config import SurfaceConfig
from studio.renderers.meshes import RasterRenderer
from studio.renderers.raster import MeshRenderer, studio_light
from studio.scenes.surface import Surface
from studio.types import Cameras, Material, Mesh


def ball(colored: bool = True) -> Mesh:
    found = Surface.ball(SurfaceConfig(resolution=24)).at(None)
    vertices = found.vertices.detach()
    return Mesh(vertices, found.faces, vertex_colors=(vertices + 0.5).clamp(0, 1) if colored else None)


def views(size: int = 64, count: int = 3) -> Cameras:
    azimuth = torch.arange(count) * 110.0
    return orbit(azimuth, torch.linspace(-20.0, 40.0, count), size, size)


WHITE = torch.ones(3, 3)


@pytest.mark.parametrize("light", [Light(), studio_light()])
def test_it_draws_what_the_renderer_without_gradients_draws(light: Light) -> None:
    mesh = ball()
    soft = RasterRenderer(supersample=4, light=light)(mesh, views(), WHITE)
    smooth = MeshRenderer(light=light, supersample=4)
    truth = smooth(
        replace(mesh, vertex_normals=torch.nn.functional.normalize(mesh.vertices, dim=1)), views(), WHITE
    )
    assert float((soft.rgb - truth.rgb).square().mean()) < 2e-5
    assert float((soft.alpha - truth.alpha).abs().mean()) < 2e-3
    assert truth.depth is not None and soft.depth is not None and soft.normal is not None
    covered = truth.alpha > 0.99
    assert torch.allclose((soft.depth / soft.alpha)[covered], (truth.depth / truth.alpha)[covered], atol=1e-2)
    facing = torch.einsum("bchw,bc->bhw", soft.normal, views().positions)
    assert bool((facing[covered[:, 0]] > 0).all())


def test_a_texture_shows_its_colours_where_they_belong() -> None:
    mesh = with_uvs(ball(), 64)
    texture = torch.zeros(64, 64, 4)
    texture[..., 0], texture[..., 3] = torch.linspace(0, 1, 64), 1.0
    texture[..., 1] = torch.linspace(0, 1, 64)[:, None]
    mesh = replace(mesh, materials=(Material(texture=texture),))
    soft = RasterRenderer(supersample=2)(mesh, views(), WHITE)
    truth = MeshRenderer(light=Light(), supersample=4)(mesh, views(), WHITE)
    assert float((soft.rgb - truth.rgb).square().mean()) < 2e-3


def test_gradients_move_an_outline_as_finite_differences_say() -> None:
    """Coverage as the ball grows: summed over the picture, antialiasing is nearly exact."""
    mesh = ball()
    cameras = views(48)

    def coverage(scale: torch.Tensor) -> torch.Tensor:
        grown = replace(mesh, vertices=mesh.vertices.double() * scale, vertex_colors=None)
        return RasterRenderer()(grown, cameras, WHITE).alpha.sum()

    scale = torch.tensor(1.0, dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(coverage(scale), scale)
    step = 0.05
    with torch.no_grad():
        expected = (coverage(scale + step) - coverage(scale - step)) / (2 * step)
    assert abs(float(slope / expected) - 1) < 0.1


def test_gradients_reach_colours_texture_and_vertices() -> None:
    mesh = with_uvs(ball(), 32)
    vertices = mesh.vertices.clone().requires_grad_()
    texture = torch.full((32, 32, 4), 0.5, requires_grad=True)
    drawn = replace(mesh, vertices=vertices, materials=(Material(texture=texture),))
    (RasterRenderer()(drawn, views(), WHITE).rgb - 0.3).square().sum().backward()  # type: ignore[no-untyped-call]
    assert vertices.grad is not None and texture.grad is not None
    assert bool(vertices.grad.isfinite().all()) and float(vertices.grad.abs().sum()) > 0
    assert bool((texture.grad[..., :3] != 0).any()) and bool((texture.grad[..., 3] == 0).all())


def test_several_materials_are_refused() -> None:
    with pytest.raises(StudioError, match="2 materials"):
        RasterRenderer()(replace(ball(), materials=(Material(), Material())), views(), WHITE)
