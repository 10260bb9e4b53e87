"""The mesh operators on CUDA: the CPU's tests and assertions again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from studio.ops.library import Backend
from studio.ops.mesh_raster import antialias, interpolate, rasterize
from studio.ops.mesh_raster.texture import Wrap
from tests.ops import test_mesh_raster as cpu
from tests.truth.meshes import assert_agrees, ball, seen


@pytest.mark.parametrize(
    ("name", "size"),
    [("ball", (40, 29)), ("fine ball", (17, 64)), ("soup", (40, 29)), ("own faces", (17, 64))],
)
def test_cuda_agrees_with_the_reference(name: str, size: tuple[int, int], device: str) -> None:
    positions, faces = cpu.scene(name)
    assert_agrees(positions.to(device), faces.to(device), *size, "native")


@pytest.mark.parametrize("name", ["ball", "fine ball", "soup", "own faces"])
def test_pixels_show_the_very_faces_of_the_cpu(
    name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small faces and some that fill the picture; and each time the same."""
    positions, faces = cpu.scene(name)
    made = [
        rasterize(positions.to(device), faces.to(device), 200, 151, backend="native").face.cpu()
        for _ in range(2)
    ]
    monkeypatch.undo()
    expected = rasterize(positions, faces, 200, 151, backend="native").face
    assert torch.equal(made[0], made[1])
    # nvcc rounds otherwise, which decides where two faces cross in a pixel's centre.
    assert (made[0] != expected).float().mean() <= (0 if device == "cpu" else 1e-4)


@pytest.mark.parametrize("wrap", cpu.WRAPS)
@pytest.mark.parametrize("shape", cpu.SHAPES, ids=str)
@pytest.mark.parametrize("trilinear", [False, True])
def test_textures_agree_with_the_reference(
    wrap: Wrap, shape: tuple[int, int, int, int], trilinear: bool, device: str
) -> None:
    cpu.assert_texture_agrees(wrap, shape, trilinear, device)


@pytest.mark.parametrize(
    "test",
    [
        cpu.test_a_triangle_covers_the_pixels_whose_centres_it_holds,
        cpu.test_pixels_on_a_common_edge_belong_to_one_face,
        cpu.test_weights_are_perspective_correct,
        cpu.test_the_nearer_face_is_seen_and_the_first_of_equals,
        cpu.test_a_floor_through_the_camera_is_drawn_up_to_the_horizon,
        cpu.test_nothing_is_drawn_beyond_the_planes,
        cpu.test_culling_leaves_the_front_of_a_closed_surface,
        cpu.test_a_checkerboard_from_afar_is_grey,
        cpu.test_broken_and_flat_faces_are_not_drawn,
        cpu.test_nothing_gives_nothing,
        cpu.test_uv_without_area_or_numbers,
        cpu.test_one_texel_is_a_colour,
    ],
    ids=lambda test: test.__name__,
)
def test_what_holds_on_a_cpu(test: Callable[[Backend], None], device: str) -> None:
    with torch.device(device):
        test("native")


@pytest.mark.parametrize("edge", [3.5, 3.7, 4.3])
def test_an_upright_edge_covers_pixels_exactly(edge: float, device: str) -> None:
    with torch.device(device):
        cpu.test_an_upright_edge_covers_pixels_exactly("native", edge)


def test_vertices_and_faces_that_are_not_there_show_nothing(device: str) -> None:
    """To refuse them, as on a CPU, would mean to wait for the device."""
    vertices, faces = ball()
    positions, faces = seen(vertices).to(device), faces.to(device)
    clean = rasterize(positions, faces, 40, 29, backend="native")
    wrong = torch.tensor([[0, 1, len(vertices)], [-1, 2, 3], [2**31 - 1, 0, 1]], device=device)
    every = torch.cat([faces, wrong])
    leaf = positions.clone().requires_grad_()
    fragments = rasterize(leaf, every, 40, 29, backend="native")
    assert torch.equal(fragments.face, clean.face)
    # Nothing is behind faces that are not there, nor across edges to such neighbours.
    strange = fragments._replace(face=fragments.face + len(faces))
    neighbours = torch.full_like(every, 2**30, dtype=torch.int32)
    color = torch.rand(len(vertices), 3, device=device).requires_grad_()
    assert not interpolate(color, every, strange, backend="native").any()
    smooth = antialias(fragments.weights, leaf, every, strange, neighbours, backend="native")
    gradients = torch.autograd.grad(smooth.square().sum() + fragments.depth.sum(), leaf)
    assert smooth.isfinite().all() and gradients[0].isfinite().all()
