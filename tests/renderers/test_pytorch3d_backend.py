"""PyTorch3D as a choice, against our own rasterizer; it runs on CPUs, where it is installed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.meshes import with_uvs
from studio.ops.mesh_raster import rasterize
from studio.renderers import pytorch3d_backend
from studio.renderers.meshes import RasterRenderer
from studio.types import Material
from tests.renderers.test_meshes import WHITE, ball, views
from tests.truth import meshes as truth


def assert_alike(one: Tensor, two: Tensor, tolerance: float) -> None:
    """To a share of the largest of ``two``."""
    torch.testing.assert_close(one, two, rtol=0, atol=tolerance * float(two.detach().abs().max()))


SIZES = ((40, 29), (29, 40), (33, 33))


def assert_fragments_agree(width: int, height: int, device: str = "cpu") -> None:
    """Faces, weights, depth and slopes of a ball from two sides, and gradients on its positions."""
    vertices, faces = truth.ball()
    faces, drawn = faces.to(device), []
    for find in (pytorch3d_backend.rasterize, rasterize):
        positions = truth.seen(vertices, 2, width, height).to(device).requires_grad_()
        drawn.append((positions, find(positions, faces, width, height, slopes=True)))
    same = drawn[0][1].face == drawn[1][1].face  # an edge through a pixel's centre falls to either side
    assert float(same.float().mean()) > 0.998 and bool((drawn[1][1].face[same] >= 0).any())
    found: list[list[Tensor]] = []
    for positions, fragments in drawn:
        assert fragments.slopes is not None
        images = [fragments.weights, fragments.depth, fragments.slopes.flatten(1, 2)]
        images = [image * same[:, None] for image in images]
        found.append(images + [
            torch.autograd.grad((truth.random_like(image) * image).sum(), positions, retain_graph=True)[0]
            for image in images
        ])  # fmt: skip
    for theirs, ours in zip(*found, strict=True):
        assert_alike(theirs, ours, 1e-3)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_fragments_are_ours(width: int, height: int) -> None:
    pytest.importorskip("pytorch3d")
    assert_fragments_agree(width, height)


def test_from_inside_what_is_behind_the_camera_is_not_drawn() -> None:
    """A ball around the camera: every pixel shows it, and some faces lie through the camera's plane."""
    pytest.importorskip("pytorch3d")
    vertices, faces = truth.ball()
    positions = truth.seen(5 * vertices)  # from 2 away, inside of a radius of 2.5
    theirs = pytorch3d_backend.rasterize(positions, faces, 40, 29)
    ours = rasterize(positions, faces, 40, 29)
    same = theirs.face == ours.face
    assert bool((ours.face >= 0).all()) and float(same.float().mean()) > 0.998
    assert_alike(theirs.weights * same[:, None], ours.weights * same[:, None], 1e-3)
    assert_alike(theirs.depth * same[:, None], ours.depth * same[:, None], 1e-3)


def test_broken_triangles_are_not_drawn() -> None:
    """Nor do they take gradients; in double precision, as the caller's."""
    pytest.importorskip("pytorch3d")
    vertices, faces = truth.ball()
    vertices[3, 0], vertices[9, 1] = torch.nan, torch.inf
    faces = torch.cat([faces, faces[:5, [0, 0, 1]]])
    found = []
    for find in (pytorch3d_backend.rasterize, rasterize):
        positions = truth.seen(vertices.double()).requires_grad_()
        fragments = find(positions, faces, 40, 29, slopes=True)
        assert fragments.slopes is not None
        loss = fragments.weights.square().sum() + fragments.depth.sum() + fragments.slopes.square().sum()
        found.append((fragments.face, fragments.weights, torch.autograd.grad(loss, positions)[0]))
    (face, weights, v), (our_face, our_weights, our_v) = found
    assert torch.equal(face, our_face) and weights.dtype == torch.float64
    assert_alike(weights, our_weights, 1e-3)
    assert_alike(v, our_v, 1e-3)


def test_no_faces_show_nothing() -> None:
    vertices, faces = truth.ball()
    fragments = pytorch3d_backend.rasterize(truth.seen(vertices), faces[:0], 40, 29, slopes=True)
    assert bool((fragments.face == -1).all()) and not fragments.weights.any()


@pytest.mark.parametrize("textured", [False, True])
def test_the_renderer_draws_the_same_pictures(textured: bool) -> None:
    """Soft outlines too, and gradients on vertices and texels; but for pixels on edges."""
    pytest.importorskip("pytorch3d")
    mesh = with_uvs(ball(), 64) if textured else ball()
    texture = torch.rand(64, 64, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = []
    for backend in ("pytorch3d", "auto"):
        vertices = mesh.vertices.clone().requires_grad_()
        shown = replace(mesh, vertices=vertices)
        if textured:
            shown = replace(shown, materials=(Material(texture=texture),))
        images = RasterRenderer(supersample=2, backend=backend)(shown, views(48), WHITE)
        leaves = [vertices, texture] if textured else [vertices]
        gradients = torch.autograd.grad((images.rgb - 0.3).square().sum() + images.alpha.sum(), leaves)
        found.append((images, gradients))
    (theirs, v_theirs), (ours, v_ours) = found
    for name in ("rgb", "alpha", "depth", "normal"):
        one, two = getattr(theirs, name), getattr(ours, name)
        assert float(((one - two).abs().amax(1) > 1e-3).float().mean()) < 5e-3, name
    for one, two in zip(v_theirs, v_ours, strict=True):
        assert float(torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), dim=0)) > 0.99


def test_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StudioError, match=r"needs pytorch3d; pip install .*renderer.backend = 'auto'"):
        RasterRenderer(backend="pytorch3d")(ball(), views(), WHITE)
