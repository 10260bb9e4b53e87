"""Flat pictures on meshes: against the picture itself, compositing by hand, and finite differences."""

from __future__ import annotations

import torch
from torch import Tensor

from studio.cameras import front
from studio.clipart.drawing import read_drawing
from studio.clipart.puppet import Puppet
from studio.clipart.sheet import sheet_of
from studio.evaluate.metrics import psnr
from studio.ops.mesh_raster import texture_levels
from studio.renderers.cutouts import CutoutRenderer
from studio.resources import clipart
from studio.types import Cutout, CutoutLayer

WHITE, BLACK = torch.ones(1, 3), torch.zeros(1, 3)


def test_at_rest_it_is_the_drawing() -> None:
    path = clipart("crab")
    drawing = read_drawing(path, 512)
    puppet = Puppet.of(drawing, sheet_of(drawing))
    (cutout,) = puppet.posed(puppet.keypoints[None])
    for size, at_least_db in ((128, 30.0), (256, 40.0)):
        rgba = read_drawing(path, size).rgba.float().movedim(-1, 0) / 255
        expected = rgba[:3] * rgba[3:] + 1 - rgba[3:]
        seen = CutoutRenderer()(cutout, front(size, size), WHITE).rgb
        assert float(psnr(seen, expected[None])) > at_least_db


def square(offset: float) -> Tensor:
    return torch.tensor([[-0.25, -0.25], [0.25, -0.25], [0.25, 0.25], [-0.25, 0.25]]) + offset


def test_what_is_behind_shows_through() -> None:
    """Two half-transparent squares of one mesh, red behind green."""
    texture = torch.zeros(1, 2, 2, 4)
    texture[0, :, 0], texture[0, :, 1] = torch.tensor([0.5, 0, 0, 0.5]), torch.tensor([0, 0.5, 0, 0.5])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    uvs = torch.tensor([[0.25, 0.5]] * 4 + [[0.75, 0.5]] * 4)
    cutout = Cutout((CutoutLayer(torch.cat([square(-0.1), square(0.1)]), faces, uvs, (texture,)),))
    seen = CutoutRenderer()(cutout, front(64, 64), WHITE)
    row, left, middle, right = 32, 12, 32, 51
    red, green = torch.tensor([1.0, 0.5, 0.5]), torch.tensor([0.5, 1.0, 0.5])
    both = torch.tensor([0.25, 0.5, 0]) + 0.25
    for column, at, colour in ((left, 40, red), (right, 24, green), (middle, row, both)):
        torch.testing.assert_close(seen.rgb[0, :, at, column], colour, atol=1e-5, rtol=0)
    assert float(seen.alpha[0, 0, row, middle]) == 0.75


def test_gradients_on_vertices_are_slopes() -> None:
    """A smooth blot on a square: the picture's sum, weighted, by central differences."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64)] * 2, indexing="ij")
    alpha = torch.exp(-8 * (x * x + y * y))
    texture = torch.stack([alpha * (0.5 + 0.5 * x), alpha * 0.5, alpha * 0.2, alpha], dim=-1)[None]
    vertices = square(0.0)
    uvs = vertices * 2 + 0.5
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    weights = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.nn.functional.interpolate(weights, size=(128, 128), mode="bicubic")

    def loss(moved: Tensor) -> Tensor:
        cutout = Cutout((CutoutLayer(moved, faces, uvs, tuple(texture_levels(texture)[:1])),))
        return (CutoutRenderer()(cutout, front(128, 128), BLACK).rgb * weights).sum()

    leaf = vertices.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    for vertex in range(4):
        for axis in range(2):
            step = torch.zeros_like(vertices)
            step[vertex, axis] = 2e-3
            slope = (loss(vertices + step) - loss(vertices - step)) / 4e-3
            assert abs(float(gradient[vertex, axis] - slope)) < 0.1 * float(gradient.abs().max())
