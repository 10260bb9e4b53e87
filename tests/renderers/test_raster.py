"""The mesh renderer: what it promises to those who draw with it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from studio.cameras import orbit
from studio.interfaces import Renderer
from studio.ops.surfaces import Light
from studio.renderers.raster import MeshRenderer
from studio.types import Material, Mesh


def box() -> Mesh:
    """A white box of half side 0.25, counter-clockwise from outside."""
    vertices = torch.tensor([[x, y, z] for x in (-0.25, 0.25) for y in (-0.25, 0.25) for z in (-0.25, 0.25)])
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = torch.tensor([[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)])
    return Mesh(vertices, faces)


def test_it_is_a_renderer_of_premultiplied_pictures_over_the_background() -> None:
    renderer = MeshRenderer()
    assert isinstance(renderer, Renderer)
    cameras = orbit(torch.tensor([0.0, 90.0]), torch.tensor([0.0, 30.0]), 33, 25)
    white, black = (renderer(box(), cameras, torch.full((2, 3), value)) for value in (1.0, 0.0))
    assert white.rgb.shape == (2, 3, 25, 33) and white.depth is not None and white.normal is not None
    torch.testing.assert_close(white.rgb - black.rgb, (1 - white.alpha).expand(-1, 3, -1, -1))
    assert 0 < float(black.alpha.mean()) < 1 and bool(
        (black.rgb[black.alpha.expand_as(black.rgb) == 0] == 0).all()
    )


def test_coverage_and_depth_of_a_box_seen_from_the_front() -> None:
    # The front lies at depth 1.75; its square covers (2 · 0.25 · focal / 1.75)² pixels.
    cameras = orbit(torch.tensor([0.0]), torch.tensor([0.0]), 64, 64)
    output = MeshRenderer(supersample=4)(box(), cameras, torch.zeros(1, 3))
    side = 0.5 * (32 / math.tan(math.radians(17.5))) / 1.75
    assert abs(float(output.alpha.sum()) - side**2) < side  # to within the pixels of one side
    assert output.depth is not None and abs(float(output.depth[0, 0, 32, 32]) - 1.75) < 1e-4


def test_white_shows_as_white_towards_the_key_light_and_clear_in_the_shadow() -> None:
    azimuth = torch.arange(0.0, 360.0, 15.0)
    cameras = orbit(azimuth, torch.full_like(azimuth, 20.0), 48, 48)
    output = MeshRenderer(supersample=1)(box(), cameras, torch.zeros(len(azimuth), 3))
    shown = output.rgb[output.alpha.expand_as(output.rgb) == 1]
    assert float(shown.max()) > 0.93 and float(shown.min()) > 0.6
    # The faces are told apart: front, right, back, left and top each have a shade of their own.
    assert len(shown.mul(100).round().unique()) >= 5


def test_a_surface_has_one_colour_from_all_sides_that_see_it() -> None:
    vertices = torch.tensor([[-0.2, -0.2, 0.0], [0.2, -0.2, 0.1], [0.0, 0.3, -0.1]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2]]), materials=(Material((0.2, 0.5, 0.9, 1.0)),))
    cameras = orbit(torch.tensor([-50.0, 0.0, 40.0]), torch.tensor([-10.0, 0.0, 50.0]), 32, 32)
    output = MeshRenderer(supersample=1)(mesh, cameras, torch.zeros(3, 3))
    colors = [output.rgb[i][:, output.alpha[i, 0] == 1].T.unique(dim=0) for i in range(3)]
    torch.testing.assert_close(colors[0], colors[1])
    torch.testing.assert_close(colors[0], colors[2])
    assert len(colors[0]) == 1


def test_without_light_colours_are_the_materials_own() -> None:
    texture = torch.tensor([[[0.25, 0.5, 0.75, 1.0]]])
    mesh = replace(
        box(),
        materials=(Material((1.0, 0.5, 0.2, 1.0), texture),),
        uvs=torch.rand(12, 3, 2),
        vertex_normals=None,
    )
    cameras = orbit(torch.tensor([20.0]), torch.tensor([30.0]), 32, 32)
    output = MeshRenderer(light=Light())(mesh, cameras, torch.zeros(1, 3))
    shown = output.rgb[0][:, output.alpha[0, 0] == 1]
    expected = torch.tensor([0.25, 0.25, 0.15])[:, None].expand_as(shown)
    torch.testing.assert_close(shown, expected, rtol=0, atol=0.5 / 255 + 1e-4)


def test_a_texture_without_uvs_is_left_out() -> None:
    mesh = replace(box(), materials=(Material((0.0, 1.0, 0.0, 1.0), torch.zeros(2, 2, 4)),))
    cameras = orbit(torch.tensor([0.0]), torch.tensor([0.0]), 16, 16)
    output = MeshRenderer(light=Light())(mesh, cameras, torch.zeros(1, 3))
    assert output.rgb[0, :, 8, 8].tolist() == [0, 1, 0]
