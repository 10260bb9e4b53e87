"""The mesh operators against pixels worked out by hand, references in double, and finite differences."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from studio.cameras import look_at
from studio.errors import StudioError
from studio.ops.library import Backend
from studio.ops.mesh_raster import (
    Fragments,
    antialias,
    clip_matrices,
    dilate,
    face_neighbours,
    interpolate,
    interpolate_slopes,
    level_of,
    rasterize,
    rasterize_uv,
    repair_seams,
    sample,
    seams,
    texture_levels,
)
from studio.ops.mesh_raster.antialias import _antialias
from studio.ops.mesh_raster.interpolate import _interpolate
from studio.ops.mesh_raster.mesh import prepared_faces
from studio.ops.mesh_raster.rasterize import _rasterize
from studio.ops.mesh_raster.rasterize_reference import fragments_reference
from studio.ops.mesh_raster.texture import Wrap, _sample
from tests.truth.bits import assert_same_bits
from tests.truth.meshes import assert_agrees, ball, random_like, seen, soup

BACKENDS: tuple[Backend, ...] = ("native", "torch")
backends = pytest.mark.parametrize("backend", BACKENDS)
WRAPS: tuple[Wrap, ...] = ("repeat", "clamp", "mirror")


def on_pixels(corners: Sequence[Sequence[float]], width: int, height: int) -> Tensor:
    """Clip positions [1 v 4] of points at depth 0 given in pixels, rows downwards: an orthographic camera."""
    x, y = torch.tensor(corners).unbind(-1)
    return torch.stack([2 * x / width - 1, 1 - 2 * y / height, 0 * x, torch.ones_like(x)], dim=-1)[None]


# Rasterization.


@backends
def test_a_triangle_covers_the_pixels_whose_centres_it_holds(backend: Backend) -> None:
    positions = on_pixels([[0, 0], [4.2, 0], [0, 4.2]], 6, 5)
    fragments = rasterize(positions, torch.tensor([[0, 1, 2]]), 6, 5, backend=backend)
    column, row = torch.arange(6)[None], torch.arange(5)[:, None]
    assert torch.equal(fragments.alpha[0, 0] == 1, column + row + 1 <= 4)
    # At pixel (1, 2) the weights are 1 - 1.5/4.2 - 2.5/4.2, 1.5/4.2 and 2.5/4.2.
    expected = torch.tensor([0.2, 1.5, 2.5]) / 4.2
    torch.testing.assert_close(fragments.weights[0, :, 2, 1], expected)
    assert float(fragments.depth[0, 0, 2, 1]) == 0 and float(fragments.depth[0, 0, 4, 5]) == 1


@backends
def test_pixels_on_a_common_edge_belong_to_one_face(backend: Backend) -> None:
    """A quad on pixel centres: its left and top edges are inside, its right and bottom ones are not."""
    positions = on_pixels([[1.5, 1.5], [4.5, 1.5], [4.5, 4.5], [1.5, 4.5]], 6, 6)
    both = rasterize(positions, torch.tensor([[0, 1, 2], [0, 2, 3]]), 6, 6, backend=backend)
    expected = torch.zeros(6, 6)
    expected[1:4, 1:4] = 1
    assert torch.equal(both.alpha[0, 0], expected)
    alone = [
        rasterize(positions, torch.tensor([face]), 6, 6, backend=backend).alpha
        for face in ([0, 1, 2], [0, 2, 3])
    ]
    assert torch.equal(alone[0] + alone[1], both.alpha)


@backends
def test_weights_are_perspective_correct(backend: Backend) -> None:
    """The world point under a pixel lies on the pixel's ray, and depth is that point's z / w."""
    vertices = torch.tensor([[-0.6, -0.5, 0.4], [0.7, -0.3, -0.5], [0.0, 0.6, 0.1]])
    positions = seen(vertices, views=2)
    fragments = rasterize(positions, torch.tensor([[0, 1, 2]]), 40, 29, backend=backend)
    clip = interpolate(positions, torch.tensor([[0, 1, 2]]), fragments, backend=backend)
    x, y = torch.arange(40) + 0.5, torch.arange(29)[:, None] + 0.5
    inside = fragments.face >= 0
    assert inside.sum() > 100
    screen = clip[:, :3] / clip[:, 3:]
    for got, expected in (
        (screen[:, 0], (2 * x / 40 - 1).expand(2, 29, 40)),
        (screen[:, 1], (1 - 2 * y / 29).expand(2, 29, 40)),
        (screen[:, 2], fragments.depth[:, 0]),
    ):
        torch.testing.assert_close(got[inside], expected[inside], rtol=0, atol=1e-5)


def test_clip_matrices_project_as_the_cameras_do() -> None:
    intrinsics = torch.tensor([[[50.0, 0, 21], [0, 45, 13], [0, 0, 1]]])
    clip = clip_matrices(torch.eye(4)[None], intrinsics, 40, 30, near=0.5, far=8.0)[0]
    x, y, z, w = (clip @ torch.tensor([0.3, -0.2, 2.0, 1.0])).tolist()
    assert [(x / w + 1) * 20, (1 - y / w) * 15] == pytest.approx([50 * 0.15 + 21, 45 * -0.1 + 13])
    assert w == pytest.approx(2.0)
    for depth, expected in ((0.5, -1.0), (8.0, 1.0)):
        z, w = (clip @ torch.tensor([0.0, 0.0, depth, 1.0]))[2:].tolist()
        assert z / w == pytest.approx(expected)


@backends
def test_the_nearer_face_is_seen_and_the_first_of_equals(backend: Backend) -> None:
    near = on_pixels([[0, 0], [9, 0], [0, 9]], 4, 4)
    far = near + torch.tensor([0, 0, 0.5, 0])
    positions = torch.cat([far, near, near], dim=1)
    fragments = rasterize(positions, torch.arange(9).reshape(3, 3), 4, 4, backend=backend)
    assert (fragments.face[:, :3, :3] == 1).all()


@backends
def test_a_floor_through_the_camera_is_drawn_up_to_the_horizon(backend: Backend) -> None:
    """A plane below the camera from behind it to far ahead: each row shows the depth of its ray."""
    lens = torch.tensor([[[20.0, 0, 16], [0, 20, 16], [0, 0, 1]]])
    matrix = clip_matrices(torch.eye(4)[None], lens, 32, 32, near=0.1, far=1000.0)
    floor = torch.tensor([[-900.0, 1, -900, 1], [900, 1, -900, 1], [900, 1, 900, 1], [-900, 1, 900, 1]])
    positions, faces = floor @ matrix.mT, torch.tensor([[0, 1, 2], [0, 2, 3]])
    fragments = rasterize(positions, faces, 32, 32, backend=backend)
    assert torch.equal(fragments.alpha[0, 0, :, 0], (torch.arange(32) >= 16).float())
    depth = interpolate(floor[:, 2:3], faces, fragments, backend=backend)[0, 0]
    row = torch.arange(16, 32) + 0.5
    torch.testing.assert_close(depth[16:], (20 / (row - 16))[:, None].expand(16, 32), rtol=1e-3, atol=0)


@backends
def test_a_camera_inside_sees_the_surface_all_around(backend: Backend) -> None:
    vertices, faces = ball()
    view = look_at(torch.tensor([[0.1, 0.05, -0.1]]), torch.tensor([[1.0, 0.3, 0.4]]))
    matrix = clip_matrices(view, torch.tensor([[[20.0, 0, 24], [0, 20, 24], [0, 0, 1]]]), 48, 48, near=0.01)
    positions = (torch.nn.functional.pad(vertices, (0, 1), value=1.0) @ matrix.mT).requires_grad_()
    fragments = rasterize(positions, faces, 48, 48, backend=backend)
    places = interpolate(vertices, faces, fragments, backend=backend)
    radius = antialias(places, positions, faces, fragments, backend=backend).norm(dim=1)
    near, far = radius.detach().aminmax()
    assert (fragments.face >= 0).all()
    # Between the faceted ball's inscribed and its circumscribed sphere; the clip planes cut nothing off.
    assert 0.5 * math.cos(math.pi / 12) ** 2 < float(near) <= float(far) < 0.5 + 1e-5
    (gradient,) = torch.autograd.grad(fragments.depth.sum() + radius.sum(), positions)
    assert gradient.isfinite().all()


@backends
def test_nothing_is_drawn_beyond_the_planes(backend: Backend) -> None:
    flat, face = on_pixels([[0, 0], [20, 0], [0, 20]], 4, 4), torch.tensor([[0, 1, 2]])
    for depth, drawn in ((-1.0, True), (-1.001, False), (0.999, True), (1.0, False)):
        moved = flat + torch.tensor([0, 0, depth, 0])
        assert bool(rasterize(moved, face, 4, 4, backend=backend).alpha.all()) == drawn
    assert not rasterize(-flat, face, 4, 4, backend=backend).alpha.any()  # behind the camera


@backends
def test_culling_leaves_the_front_of_a_closed_surface(backend: Backend) -> None:
    vertices, faces = ball()
    positions = seen(vertices)
    whole = rasterize(positions, faces, 40, 29, backend=backend)
    assert torch.equal(whole.face, rasterize(positions, faces, 40, 29, cull=True, backend=backend).face)
    assert (rasterize(positions, faces.flip(1), 40, 29, cull=True, backend=backend).face != whole.face).any()


# Every operator against its reference in double, and the reference against finite differences.


def scene(name: str) -> tuple[Tensor, Tensor]:
    match name:
        case "ball":
            vertices, faces = ball()
            return seen(vertices), faces
        case "fine ball":
            vertices, faces = ball(60, 30)
            return seen(vertices, 1, 33, 50), faces
        case "own faces":
            positions, faces = soup(20)
            return positions, torch.stack([faces, faces.flip(0)])
        case _:
            return soup(40)


@pytest.mark.parametrize("name", ["ball", "fine ball", "soup", "own faces"])
@pytest.mark.parametrize("size", [(40, 29), (1, 1), (17, 64), (130, 3)], ids=str)
def test_native_agrees_with_the_reference(name: str, size: tuple[int, int]) -> None:
    positions, faces = scene(name)
    assert_agrees(positions, faces, *size, "native")


def test_gradients_match_finite_differences() -> None:
    """Of weights, depth and slopes to positions, while pixels keep their faces."""
    positions, faces = soup(12, views=1, seed=2)
    face = rasterize(positions.double(), faces, 6, 5).face
    assert (face >= 0).sum() > 8

    def made(moved: Tensor) -> tuple[Tensor, ...]:
        weights, depth, slopes = fragments_reference(moved, faces.int(), face, True)
        assert slopes is not None
        return weights, depth, slopes

    assert torch.autograd.gradcheck(made, positions.double().requires_grad_(), eps=1e-7, atol=1e-4, rtol=1e-3)


def test_slopes_are_differences_between_pixels() -> None:
    """Of weights in the middle between two pixels: on one face, a little off through perspective."""
    vertices, faces = (
        torch.tensor([[-0.8, -0.6, 0.3], [0.9, -0.7, -0.3], [0.0, 0.8, 0.2]]),
        torch.tensor([[0, 1, 2]]),
    )
    fragments = rasterize(seen(vertices, 1, 64, 64), faces, 64, 64, slopes=True)
    assert fragments.slopes is not None
    for axis, slopes in ((3, fragments.slopes[:, 0]), (2, fragments.slopes[:, 1])):
        both = ((fragments.alpha.narrow(axis, 0, 63) * fragments.alpha.narrow(axis, 1, 63)) == 1).expand(
            -1, 3, -1, -1
        )
        middle = (slopes.narrow(axis, 0, 63) + slopes.narrow(axis, 1, 63)) / 2
        assert both.sum() > 1000
        torch.testing.assert_close(fragments.weights.diff(dim=axis)[both], middle[both], rtol=2e-3, atol=1e-5)


def assert_texture_agrees(
    wrap: Wrap, shape: tuple[int, int, int, int], trilinear: bool, device: str = "cpu"
) -> None:
    """Native in float32 is the reference in double."""
    rng = torch.Generator().manual_seed(3)
    texture, uv = torch.randn(shape, generator=rng), 1.5 * torch.randn(2, 2, 9, 11, generator=rng)
    level = 2 * torch.randn(2, 1, 9, 11, generator=rng) + 1
    results = []
    for dtype, backend in zip((torch.float32, torch.float64), BACKENDS, strict=True):
        inputs = [values.to(device, dtype).requires_grad_() for values in (texture, uv, level)]
        levels = texture_levels(inputs[0]) if trilinear else [inputs[0]]
        image = sample(levels, inputs[1], inputs[2] if trilinear else None, wrap=wrap, backend=backend)
        gradients = torch.autograd.grad(
            image, inputs, random_like(image), allow_unused=True, materialize_grads=True
        )
        results.append([image, *gradients])
    for native, truth in zip(*results, strict=True):
        torch.testing.assert_close(native.double(), truth, rtol=1e-4, atol=3e-5)


SHAPES = [(1, 5, 7, 3), (2, 1, 1, 4), (2, 8, 4, 1), (1, 3, 1, 6)]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("trilinear", [False, True])
def test_textures_agree_with_the_reference(
    wrap: Wrap, shape: tuple[int, int, int, int], trilinear: bool
) -> None:
    assert_texture_agrees(wrap, shape, trilinear)


@pytest.mark.parametrize("wrap", WRAPS)
def test_texture_gradients_match_finite_differences(wrap: Wrap) -> None:
    rng = torch.Generator().manual_seed(1)
    texture = torch.randn(1, 4, 6, 2, generator=rng, dtype=torch.float64).requires_grad_()
    uv = (1.3 * torch.randn(1, 2, 3, 4, generator=rng, dtype=torch.float64)).requires_grad_()
    level = (0.1 + 1.7 * torch.rand(1, 1, 3, 4, generator=rng, dtype=torch.float64)).requires_grad_()

    def read(texture: Tensor, uv: Tensor, level: Tensor) -> Tensor:
        return sample(texture_levels(texture), uv, level, wrap=wrap)

    assert torch.autograd.gradcheck(read, (texture, uv, level), eps=1e-7, atol=1e-5, rtol=1e-4)


@backends
def test_textures_against_torch(backend: Backend) -> None:
    """Clamped bilinear sampling is grid_sample's with border padding, v turned up."""
    rng = torch.Generator().manual_seed(2)
    texture, uv = torch.rand(1, 6, 9, 3, generator=rng), 2 * torch.rand(1, 2, 7, 8, generator=rng) - 0.5
    grid = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], dim=-1)
    expected = torch.nn.functional.grid_sample(
        texture.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(sample([texture], uv, wrap="clamp", backend=backend), expected)


@backends
def test_a_checkerboard_from_afar_is_grey(backend: Backend) -> None:
    checker = ((torch.arange(64)[:, None] + torch.arange(64)[None]) % 2).float()[None, :, :, None]
    positions, faces = on_pixels([[0, 0], [8, 0], [8, 8], [0, 8]], 8, 8), torch.tensor([[0, 1, 2], [0, 2, 3]])
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    fragments = rasterize(positions, faces, 8, 8, slopes=True, backend=backend)
    uv = interpolate(uvs, faces, fragments, backend=backend)
    level = level_of(interpolate_slopes(uvs, faces, fragments, backend=backend), 64, 64)
    torch.testing.assert_close(level, torch.full_like(level, 3.0))  # 8 texels a pixel
    image = sample(texture_levels(checker), uv, level, backend=backend)
    torch.testing.assert_close(image, torch.full_like(image, 0.5))


# Antialiasing.


@backends
@pytest.mark.parametrize("edge", [3.5, 3.7, 4.0, 4.3, 4.5])
def test_an_upright_edge_covers_pixels_exactly(backend: Backend, edge: float) -> None:
    positions = on_pixels([[-9, -9], [edge, -9], [edge, 99], [-9, 99]], 8, 4)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    fragments = rasterize(positions, faces, 8, 4, backend=backend)
    smooth = antialias(fragments.alpha, positions, faces, fragments, backend=backend)
    coverage = (edge - torch.arange(8)).clamp(0, 1).expand(4, 8)
    torch.testing.assert_close(smooth[0, 0], coverage, rtol=0, atol=1e-5)


def supersampled(
    positions: Tensor, faces: Tensor, colors: Tensor, width: int, height: int, by: int = 16
) -> Tensor:
    fragments = rasterize(positions, faces, width * by, height * by)
    return torch.nn.functional.avg_pool2d(interpolate(colors, faces, fragments), by)


@backends
@pytest.mark.parametrize("fineness", [(24, 12), (70, 50)], ids=str)
def test_silhouette_gradients_match_a_supersampled_render(
    backend: Backend, fineness: tuple[int, int]
) -> None:
    """A ball moves, grows and bends before a smooth target: coarse faces, and some smaller than pixels."""
    width, height = 56, 48
    vertices, faces = ball(*fineness, radius=0.45)
    positions = seen(vertices, 1, width, height)
    color = torch.ones(len(vertices), 1)
    y, x = torch.meshgrid(torch.linspace(0, 5, height), torch.linspace(0, 6, width), indexing="ij")
    v_image = (1 + (x + 0.4).sin() * (0.7 * y + 1).cos())[None, None]
    moved = positions.clone().requires_grad_()
    fragments = rasterize(moved, faces, width, height)
    smooth = antialias(fragments.alpha, moved, faces, fragments)
    truth = supersampled(positions, faces, color, width, height)
    hard, soft = (float((alpha.detach() - truth).abs().sum()) for alpha in (fragments.alpha, smooth))
    assert soft < 0.35 * hard
    (gradient,) = torch.autograd.grad(smooth, moved, v_image)

    screen = positions[..., :2] / positions[..., 3:]
    w = positions[..., 3:]
    for direction in (
        torch.tensor([1.0, 0]).expand_as(screen),
        torch.tensor([0, 1.0]).expand_as(screen),
        screen,
        (2 * screen.flip(-1)).sin(),
    ):
        step = 0.02 * torch.cat([direction * w, torch.zeros_like(positions[..., 2:])], dim=-1)
        above, below = (
            float((supersampled(positions + s * step, faces, color, width, height) * v_image).sum())
            for s in (1, -1)
        )
        largest = float((gradient * step).abs().sum())
        assert float((gradient * step).sum()) == pytest.approx((above - below) / 2, abs=0.03 * largest)


def test_antialias_reference_matches_finite_differences() -> None:
    """The blend is smooth in positions and image as long as no pixel changes its face."""
    vertices, faces = ball(6, 4)
    positions = seen(vertices.double(), 1, 10, 8)
    fragments = rasterize(positions, faces, 10, 8)
    image = random_like(fragments.weights)

    def smooth(image: Tensor, positions: Tensor) -> Tensor:
        return antialias(image, positions, faces, fragments)

    inputs = (image.requires_grad_(), positions.requires_grad_())
    assert not torch.equal(smooth(*inputs), image)
    # fast_mode: along random directions, for a reference that is slow.
    assert torch.autograd.gradcheck(smooth, inputs, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_neighbours_of_two_triangles() -> None:
    # They share the edge 1-2, wound consistently; then with the second one turned over.
    assert face_neighbours(torch.tensor([[0, 1, 2], [2, 1, 3]])).tolist() == [[2, -1, -1], [-1, -1, 0]]
    assert face_neighbours(torch.tensor([[0, 1, 2], [1, 2, 3]])).tolist() == [[3, -1, -1], [-1, -1, 1]]
    # Three faces on one edge have no neighbours there.
    assert face_neighbours(torch.tensor([[0, 1, 2], [2, 1, 3], [1, 2, 4]])).max() == -1
    assert face_neighbours(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)


def clipart(vertices: Tensor, texture: Tensor, size: int) -> Tensor:
    """A textured quad with a cut-out on a flat stage before an orthographic camera: rgba, soft at its rim."""
    faces, uvs = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    flat = torch.cat([vertices, torch.tensor([[0.0, 1.0]]).expand(len(vertices), 2).to(vertices)], dim=-1)[
        None
    ]
    fragments = rasterize(flat, faces, size, size, slopes=True)
    uv = interpolate(uvs.to(vertices), faces, fragments)
    slopes = interpolate_slopes(uvs.to(vertices), faces, fragments)
    level = level_of(slopes, *texture.shape[1:3])
    painted = sample(texture_levels(texture), uv, level, wrap="clamp") * fragments.alpha
    return antialias(painted, flat, faces, fragments)


def test_clipart_gradients_reach_vertices_through_texture_and_alpha_edges() -> None:
    """A bright spot on a quad is pulled to the right: through uv, and through the quad's own rim.

    The truth is a supersampled render; the target weighs every pixel by its column.
    """
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    spot = torch.exp(-4 * (x**2 + y**2))
    inner = torch.stack([spot, 0.3 * spot, 1 - spot, torch.exp(-6 * (x**2 + y**2))], dim=-1)[None]
    quad = torch.tensor([[-0.53, -0.61], [0.57, -0.55], [0.62, 0.51], [-0.49, 0.58]])
    v_image = torch.linspace(-1, 1, 80).expand(1, 4, 80, 80) ** 3
    for opaque in (False, True):  # the rim fades out, or it is a hard edge
        texture = inner.clone()
        if opaque:
            texture[..., 3] = 1
        moved = quad.clone().requires_grad_()
        image = clipart(moved, texture, 80)
        (gradient,) = torch.autograd.grad(image, moved, v_image)
        for direction in (
            torch.tensor([1.0, 0]).expand_as(quad),
            torch.tensor([0, 1.0]).expand_as(quad),
            quad.flip(1),
            quad,
        ):
            losses = []
            for step in (0.02, -0.02):
                big = clipart(quad + step * direction, texture, 640)
                losses.append(float((torch.nn.functional.avg_pool2d(big, 8) * v_image).sum()))
            expected = (losses[0] - losses[1]) / 0.04
            largest = float((gradient * direction).abs().sum())
            assert float((gradient * direction).sum()) == pytest.approx(expected, abs=0.03 * largest)


# What must not break anything.


@backends
def test_broken_and_flat_faces_are_not_drawn(backend: Backend) -> None:
    vertices, faces = ball()
    positions = seen(vertices)
    clean = rasterize(positions, faces, 40, 29, slopes=True, backend=backend)
    broken = torch.cat([positions, torch.full((2, 3, 4), math.nan), positions[:, :1].expand(2, 3, 4)], dim=1)
    broken[:, -5] = math.inf
    count = positions.shape[1]
    extra = torch.tensor([[0, 1, count], [0, count + 1, 2], [count + 3, count + 4, count + 5], [0, 0, 5]])
    extra = torch.cat([extra, torch.arange(count, count + 3)[None]])
    leaf = broken.requires_grad_()
    fragments = rasterize(leaf, torch.cat([faces, extra]), 40, 29, slopes=True, backend=backend)
    assert torch.equal(fragments.face, clean.face)
    image = antialias(fragments.weights, leaf, torch.cat([faces, extra]), fragments, backend=backend)
    assert fragments.slopes is not None and image.isfinite().all() and fragments.slopes.isfinite().all()
    loss = image.square().sum() + fragments.slopes.sum() + fragments.depth.sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert gradient.isfinite().all() and gradient.any() and not gradient[:, count:].any()


def test_slivers_stay_finite() -> None:
    """Needles a millionth of a pixel wide through pixel centres, and huge faces."""
    rng = torch.Generator().manual_seed(5)
    middle = torch.randint(0, 16, (200, 1, 2), generator=rng) + 0.5
    along = 30 * torch.randn(200, 1, 2, generator=rng)
    corners = middle + torch.tensor([[-1.0], [1.0], [0.3]]) * along
    corners[:, 2] += 1e-6 * torch.randn(200, 2, generator=rng)
    corners[::10] *= 1e8
    positions = on_pixels(corners.reshape(-1, 2).tolist(), 16, 16).requires_grad_()
    faces = torch.arange(600).reshape(-1, 3)
    fragments = rasterize(positions, faces, 16, 16, slopes=True, backend="native")
    assert (fragments.face >= 0).any() and fragments.weights.isfinite().all()
    image = antialias(fragments.weights, positions, faces, fragments, backend="native")
    (gradient,) = torch.autograd.grad(image.sum() + fragments.depth.sum(), positions)
    assert gradient.isfinite().all()


@backends
def test_nothing_gives_nothing(backend: Backend) -> None:
    for vertices, faces in ((0, 0), (5, 0)):
        positions = torch.rand(2, vertices, 4).requires_grad_()
        triangles = torch.zeros(faces, 3, dtype=torch.int64)
        colors = torch.rand(vertices, 3).requires_grad_()
        fragments = rasterize(positions, triangles, 7, 5, slopes=True, backend=backend)
        assert (fragments.face == -1).all() and (fragments.depth == 1).all()
        image = interpolate(colors, triangles, fragments, backend=backend)
        smooth = antialias(image, positions, triangles, fragments, backend=backend)
        assert not smooth.any()
        gradients = torch.autograd.grad(
            smooth.sum() + fragments.depth.sum(),
            (positions, colors),
            allow_unused=True,
            materialize_grads=True,
        )
        assert not any(gradient.any() for gradient in gradients)


@backends
def test_uv_without_area_or_numbers(backend: Backend) -> None:
    """All corners at one place of the texture, then coordinates that are not finite or enormous."""
    texture = torch.rand(1, 4, 4, 3).requires_grad_()
    uv = torch.full((1, 2, 2, 3), 0.3)
    uv[0, 0, 1] = torch.tensor([math.nan, math.inf, 1e30])
    uv.requires_grad_()
    for wrap in WRAPS:
        image = sample(texture_levels(texture), uv, torch.zeros(1, 1, 2, 3), wrap=wrap, backend=backend)
        gradients = torch.autograd.grad(image.sum(), (texture, uv))
        assert image.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)
        assert float(gradients[0].sum()) == pytest.approx(18.0)  # weights sum to 1 at 6 pixels of 3 channels
    flat = level_of(torch.zeros(1, 2, 2, 2, 3), 4, 4)
    assert flat.isfinite().all() and (flat < 0).all()


@backends
def test_one_texel_is_a_colour(backend: Backend) -> None:
    texture = torch.rand(2, 1, 1, 3)
    uv = 9 * torch.randn(2, 2, 4, 5)
    for wrap in WRAPS:
        image = sample(texture_levels(texture), uv, 5 * torch.randn(2, 1, 4, 5), wrap=wrap, backend=backend)
        torch.testing.assert_close(image, texture[:, 0, 0, :, None, None].expand(2, 3, 4, 5))


@backends
def test_a_row_of_8192_texels(backend: Backend) -> None:
    """The largest of odd shapes, forward and backward: each pixel reads a texel at its centre."""
    texture = torch.rand(1, 1, 8192, 1).requires_grad_()
    columns = torch.tensor([0, 1, 4095, 8190, 8191])
    uv = torch.stack([(columns + 0.5) / 8192, torch.full((5,), 0.5)])[None, :, None]
    image = sample([texture], uv, wrap="repeat", backend=backend)
    torch.testing.assert_close(image[0, 0, 0], texture.detach()[0, 0, columns, 0])
    (gradient,) = torch.autograd.grad(image.sum(), texture)
    torch.testing.assert_close(gradient[0, 0, columns, 0], torch.ones(5))
    assert float(gradient.sum()) == pytest.approx(5)


def test_large_textures() -> None:
    """8192 x 8192: levels beside it take a third more, and the far corner is read where it lies."""
    texture = torch.zeros(1, 8192, 8192, 1)
    texture[0, 0, 8191], texture[0, 8191, 0] = 3.0, 5.0
    uv = torch.tensor([[1 - 0.5 / 8192, 0.5 / 8192], [1 - 0.5 / 8192, 0.5 / 8192]])[None, :, None]
    assert sample([texture], uv, wrap="clamp", backend="native").flatten().tolist() == [3.0, 5.0]
    levels = texture_levels(texture)
    assert levels[0] is texture and len(levels) == 14
    assert sum(level.numel() for level in levels[1:]) == (8192**2 - 1) // 3
    read = sample(levels, uv, torch.full((1, 1, 1, 2), 1.0), wrap="clamp", backend="native")
    assert read.flatten().tolist() == [0.75, 1.25]


def refused(what: str, call: Callable[[], object]) -> None:
    with pytest.raises(StudioError, match=what):
        call()


@backends
def test_impossible_requests_are_refused(backend: Backend) -> None:
    vertices, faces = ball()
    positions = seen(vertices)
    fragments = rasterize(positions, faces, 8, 6, backend=backend)
    image = fragments.weights
    uv = torch.zeros(2, 2, 6, 8)
    texture = torch.zeros(1, 4, 4, 3)
    refused("0 x 8 pixels", lambda: rasterize(positions, faces, 0, 8, backend=backend))
    refused("40000 x 8", lambda: rasterize(positions, faces, 40_000, 8, backend=backend))
    refused("not there", lambda: rasterize(positions, faces + 1, 8, 6, backend=backend))
    refused("not there", lambda: rasterize(positions, faces - 1, 8, 6, backend=backend))
    refused("not there", lambda: interpolate(vertices[:5], faces, fragments, backend=backend))
    refused("3 sets of faces for 2", lambda: prepared_faces(faces.expand(3, -1, -1), 2))
    refused("3 sets of attributes", lambda: interpolate(vertices.expand(3, -1, -1), faces, fragments))
    refused("are more than", lambda: rasterize(positions, torch.zeros(1, 3).long().expand(2**30, 3), 8, 6))
    refused("slopes=True", lambda: interpolate_slopes(vertices, faces, fragments))
    refused("float64", lambda: interpolate(vertices.double(), faces, fragments))
    refused("one drawing", lambda: antialias(image[..., 1:], positions, faces, fragments))
    refused(
        "face_neighbours",
        lambda: antialias(image, positions, faces, fragments, faces.int().expand(2, -1, -1)),
    )
    refused("not there", lambda: interpolate(vertices, faces[:3], fragments, backend=backend))
    refused("0 < near < far", lambda: clip_matrices(torch.eye(4)[None], torch.eye(3)[None], 8, 8, 0.0))
    refused("0 levels", lambda: sample([], uv))
    refused("3 textures for 2 views", lambda: sample([texture.expand(3, -1, -1, -1)], uv))
    refused("expected 1 to 32768", lambda: sample([torch.zeros(1, 1, 1, 3).expand(1, 1, 40_000, 3)], uv))
    refused("expected 1 to 32768", lambda: texture_levels(texture[:, :0]))
    refused("one texture", lambda: sample([texture, texture[..., :2]], uv))
    refused("float64", lambda: sample([texture.double()], uv))


def test_bits_do_not_depend_on_run_or_threads() -> None:
    vertices, faces = ball(40, 30)
    rng = torch.Generator().manual_seed(0)
    texture = torch.rand(1, 37, 50, 3, generator=rng)
    for views in (1, 3):
        assert_same_bits(functools.partial(everything, seen(vertices, views, 90, 70), faces, texture))


def everything(positions: Tensor, faces: Tensor, texture: Tensor) -> list[Tensor]:
    """All operators one after another, and the gradients on positions, uvs and texture."""
    uvs = positions[0, :, :2].detach().clone().requires_grad_()
    leaves = [positions.detach().clone().requires_grad_(), uvs, texture.detach().clone().requires_grad_()]
    fragments = rasterize(leaves[0], faces, 90, 70, slopes=True, backend="native")
    uv = interpolate(uvs, faces, fragments, backend="native")
    level = level_of(interpolate_slopes(uvs, faces, fragments, backend="native"), 37, 50)
    image = sample(texture_levels(leaves[2]), uv, level, backend="native")
    smooth = antialias(image * fragments.alpha, leaves[0], faces, fragments, backend="native")
    return [*fragments[:3], smooth, *torch.autograd.grad(smooth, leaves, random_like(smooth))]


ISA_PROGRAM = """
from studio.ops import library
from tests.truth.meshes import assert_agrees, ball, seen, soup
assert library.find("cpu").isa == {isa!r}
assert_agrees(seen(ball()[0]), ball()[1], 40, 29, "native")
assert_agrees(*soup(40), 37, 21, "native")
"""


@pytest.mark.parametrize("isa", ["base", "v3", "v4"])
def test_every_instruction_set_agrees(isa: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", ISA_PROGRAM.format(isa=isa)],
        env=dict(os.environ, STUDIO_ISA=isa),
        capture_output=True,
        text=True,
        check=False,
    )
    if "not built or not supported by this CPU" in run.stderr:
        assert isa != "base"  # refused with a reason, which is all that can be asked of this CPU
    else:
        assert run.returncode == 0, run.stderr


def test_operators_keep_the_rules_of_torch() -> None:
    vertices, faces = ball(6, 4)
    faces = faces.int()
    positions = seen(vertices, 2, 12, 9).requires_grad_()
    fragments = rasterize(positions.detach(), faces, 12, 9)
    colors, image = torch.rand(len(vertices), 3).requires_grad_(), random_like(fragments.weights)
    texture, uv = torch.rand(1, 4, 4, 3).requires_grad_(), torch.rand(2, 2, 9, 12).requires_grad_()
    level = 0.3 + torch.rand(2, 1, 9, 12)
    levels = [level.detach().requires_grad_() for level in texture_levels(texture)]
    torch.library.opcheck(_rasterize, (positions, faces, 12, 9, True, False))
    torch.library.opcheck(_interpolate, (colors, faces, fragments.face, fragments.weights.requires_grad_()))
    torch.library.opcheck(_sample, (levels, uv, level.requires_grad_(), 0))
    torch.library.opcheck(
        _antialias,
        (
            image.requires_grad_(),
            positions,
            faces,
            face_neighbours(faces),
            fragments.face,
            fragments.depth.detach(),
        ),
    )


# Baking.


@backends
def test_texels_know_their_place_on_the_mesh(backend: Backend) -> None:
    """A quad in two faces on a quarter of the atlas: positions are linear in the texels."""
    vertices = torch.tensor([[0.0, 0, 1], [2, 0, 1], [2, 4, 1], [0, 4, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uvs = (torch.tensor([[0.0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5]]))[faces]
    fragments = rasterize_uv(uvs, 8, 16, backend=backend)
    expected = torch.zeros(16, 8)
    expected[8:, :4] = 1  # rows run down from v = 1
    assert torch.equal(fragments.alpha[0, 0], expected)
    places = interpolate(vertices, faces, fragments, backend=backend)[0]
    torch.testing.assert_close(places[0, 15, :4], torch.tensor([0.25, 0.75, 1.25, 1.75]))
    torch.testing.assert_close(places[1, 8:, 0], (7.5 - torch.arange(8)) / 2)


def test_dilation_grows_by_pixels() -> None:
    image, known = torch.zeros(1, 1, 7, 7), torch.zeros(1, 1, 7, 7, dtype=torch.bool)
    image[0, 0, 3, 3], known[0, 0, 3, 3] = 2.0, True
    grown, around = dilate(image, known, 2)
    assert around.sum() == 25 and (grown[around] == 2).all() and not grown[~around].any()


@backends
def test_seams_are_closed(backend: Backend) -> None:
    """Two faces of a quad lie apart in the atlas, in two colours."""
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uvs = torch.tensor([[[0.1, 0.1], [0.4, 0.1], [0.4, 0.9]], [[0.6, 0.1], [0.9, 0.8], [0.6, 0.8]]])
    edges = seams(faces, uvs)
    assert edges.tolist() == uvs[[[0, 1]], :][0][:, [0, 2]].tolist() or edges.shape == (1, 2, 2, 2)
    same_vertices = {tuple(edge) for edge in edges[0, :, 0].tolist()}
    assert len(same_vertices) == 2 and edges.shape == (1, 2, 2, 2)
    texture = torch.zeros(32, 32, 3)
    texture[:, 16:] = 1
    share = torch.linspace(0.02, 0.98, 50)

    def gap(texture: Tensor) -> float:
        points = edges[0, :, 0, :, None] * (1 - share) + edges[0, :, 1, :, None] * share  # [side uv n]
        sides = sample([texture[None]], points.permute(1, 0, 2)[None], wrap="clamp")
        return float((sides[0, :, 0] - sides[0, :, 1]).abs().mean())

    repaired = repair_seams(texture, faces, uvs, backend=backend)
    assert gap(texture) > 0.9 and gap(repaired) < 0.02
    assert torch.equal(repaired[:, 15], texture[:, 15])  # away from the seams
    whole = torch.rand(4, 4, 3)
    joined = torch.rand(4, 2)[faces]
    assert torch.equal(repair_seams(whole, faces, joined, backend=backend), whole)


def test_fragments_say_where_something_is() -> None:
    face = torch.tensor([[[3, -1]]], dtype=torch.int32)
    fragments = Fragments(face, torch.zeros(1, 3, 1, 2), torch.zeros(1, 1, 1, 2), None)
    assert fragments.alpha.flatten().tolist() == [1, 0]
