"""Splatting against pixels worked out by hand, numpy, finite differences, and its other backend."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.spatial.transform
import scipy.special
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.ops import splatting
from studio.ops.library import Backend
from studio.ops.splatting import SplatCapacity, SplatImages, splat
from studio.ops.splatting_reference import evaluate_sh, project
from tests.truth.bits import assert_same_bits
from tests.truth.splatting import SplatScene, assert_agrees, gradients, random_scene

BACKENDS: tuple[Backend, ...] = ("native", "torch")
backends = pytest.mark.parametrize("backend", BACKENDS)
Y0 = 0.28209479177387814


def one_splat(
    position: tuple[float, float, float],
    scales: tuple[float, float, float],
    opacity: float,
    rgb: tuple[float, float, float],
    *,
    antialias: bool = False,
    backend: Backend = "torch",
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0),
) -> SplatImages:
    """One Gaussian before a camera at the origin that looks along +z: 9 x 7 pixels, focal length 10."""
    return splat(
        torch.tensor([position]),
        torch.tensor([quat]),
        torch.tensor([scales]),
        torch.tensor([opacity]),
        (torch.tensor([[rgb]]) - 0.5) / Y0,
        torch.eye(4)[None],
        torch.tensor([[[10.0, 0.0, 4.5], [0.0, 10.0, 3.5], [0.0, 0.0, 1.0]]]),
        torch.zeros(1, 3),
        9,
        7,
        antialias=antialias,
        backend=backend,
    )


@backends
def test_one_gaussian_by_hand(backend: Backend) -> None:
    """On the axis at depth 2, sigma 0.2 and 0.4: 1 and 2 px on the screen; the low pass adds 0.3 px²."""
    images = one_splat((0.0, 0.0, 2.0), (0.2, 0.4, 0.1), 0.8, (0.2, 0.5, 0.9), backend=backend)
    for x, y in ((4, 3), (5, 3), (4, 1), (6, 4), (0, 0)):
        dx, dy = x - 4, y - 3  # pixel centres lie half a pixel in, as does the principal point
        alpha = 0.8 * math.exp(-0.5 * (dx * dx / 1.3 + dy * dy / 4.3))
        alpha = alpha if alpha >= 1 / 255 else 0.0
        assert float(images.alpha[0, 0, y, x]) == pytest.approx(alpha, abs=1e-6)
        for channel, value in enumerate((0.2, 0.5, 0.9)):
            assert float(images.rgb[0, channel, y, x]) == pytest.approx(alpha * value, abs=1e-6)
        assert float(images.depth[0, 0, y, x]) == pytest.approx(alpha * 2.0, abs=1e-6)
        # the shortest axis is z, turned to face the camera
        assert images.normal[0, :, y, x].tolist() == pytest.approx([0.0, 0.0, -alpha], abs=1e-6)
    assert float(images.radii_px) == pytest.approx(math.sqrt(2 * math.log(255 * 0.8) * 4.3), rel=1e-5)


@backends
def test_antialias_keeps_the_light_of_a_thin_splat(backend: Backend) -> None:
    """Mip-Splatting: the opacity falls by sqrt(det(sharp) / det(blurred))."""
    sharp = one_splat((0.0, 0.0, 2.0), (0.1, 0.1, 0.1), 0.8, (1.0, 1.0, 1.0), backend=backend)
    mip = one_splat((0.0, 0.0, 2.0), (0.1, 0.1, 0.1), 0.8, (1.0, 1.0, 1.0), antialias=True, backend=backend)
    assert float(sharp.alpha[0, 0, 3, 4]) == pytest.approx(0.8, abs=1e-6)
    assert float(mip.alpha[0, 0, 3, 4]) == pytest.approx(0.8 * 0.25 / 0.55, abs=1e-6)


@backends
def test_two_gaussians_composite_front_to_back(backend: Backend) -> None:
    images = splat(
        torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, 2.0]]),  # the nearer one comes last
        torch.tensor([[1.0, 0, 0, 0]]).expand(2, -1),
        torch.full((2, 3), 0.3),
        torch.tensor([0.9, 0.6]),
        (torch.tensor([[[1.0, 0, 0]], [[0.0, 1, 0]]]) - 0.5) / Y0,
        torch.eye(4)[None],
        torch.tensor([[[10.0, 0.0, 4.5], [0.0, 10.0, 3.5], [0.0, 0.0, 1.0]]]),
        torch.tensor([[0.0, 0.0, 1.0]]),
        9,
        7,
        antialias=False,
        backend=backend,
    )
    assert images.rgb[0, :, 3, 4].tolist() == pytest.approx([0.4 * 0.9, 0.6, 0.4 * 0.1], abs=1e-6)
    assert float(images.alpha[0, 0, 3, 4]) == pytest.approx(1 - 0.4 * 0.1, abs=1e-6)
    assert float(images.depth[0, 0, 3, 4]) == pytest.approx(0.6 * 2 + 0.4 * 0.9 * 3, abs=1e-5)


def test_projection_against_numpy() -> None:
    """J W Sigma W^T J^T by plain matrices, off the axis, with scipy's rotations."""
    scene = random_scene(splats=20).to("cpu", torch.float64)
    view, k = scene.world_to_camera[1].numpy(), scene.intrinsics[1].numpy()
    zero = torch.zeros(20, 2, dtype=torch.float64)
    projected = project(
        *(leaf.detach() for leaf in scene.leaves[:5]),
        zero,
        scene.world_to_camera[1],
        scene.intrinsics[1],
        scene.width,
        scene.height,
        True,
    )
    for i in range(20):
        mean, scale = scene.means[i].detach().numpy(), scene.scales[i].detach().numpy()
        rotation = scipy.spatial.transform.Rotation.from_quat(
            scene.quats_wxyz[i].detach().numpy()[[1, 2, 3, 0]]
        )
        world = rotation.as_matrix() @ np.diag(scale**2) @ rotation.as_matrix().T
        x, y, z = view[:3, :3] @ mean + view[:3, 3]
        jacobian = np.array([[k[0, 0] / z, 0, -k[0, 0] * x / z**2], [0, k[1, 1] / z, -k[1, 1] * y / z**2]])
        sharp = jacobian @ view[:3, :3] @ world @ view[:3, :3].T @ jacobian.T
        blurred = sharp + 0.3 * np.eye(2)
        conic = np.linalg.inv(blurred)
        assert projected.means2d[i].numpy() == pytest.approx((k @ [x / z, y / z, 1])[:2])
        assert projected.conics[i].numpy() == pytest.approx([conic[0, 0], conic[0, 1], conic[1, 1]])
        mip = math.sqrt(np.linalg.det(sharp) / np.linalg.det(blurred))
        assert float(projected.opacities[i]) == pytest.approx(float(scene.opacities[i].detach()) * mip)
        normal = rotation.as_matrix()[:, scale.argmin()]
        towards = -view[:3, :3].T @ view[:3, 3] - mean
        assert projected.normals[i].numpy() == pytest.approx(normal * np.sign(normal @ towards))


def test_harmonics_against_scipy() -> None:
    """The basis is scipy's complex one made real, with the field's signs."""
    directions = torch.nn.functional.normalize(
        torch.randn(30, 3, generator=torch.Generator().manual_seed(0)).double()
    )
    x, y, z = directions.numpy().T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    index = 0
    for degree in range(4):
        for order in range(-degree, degree + 1):
            complex_y = scipy.special.sph_harm_y(degree, abs(order), polar, azimuth)
            # 3DGS keeps the Condon-Shortley phase, which scipy's complex functions carry too.
            real = (
                complex_y.real
                if order == 0
                else math.sqrt(2) * (complex_y.imag if order < 0 else complex_y.real)
            )
            sh = torch.zeros(30, 16, 3, dtype=torch.float64)
            sh[:, index, 0] = 0.1
            value = (evaluate_sh(sh, directions)[:, 0].numpy() - 0.5) / 0.1
            assert value == pytest.approx(real, abs=1e-12), (degree, order)
            index += 1


def test_reference_gradients_match_finite_differences() -> None:
    scene = random_scene(splats=3, terms=9, width=4, height=3, views=1, size=0.2).to("cpu", torch.float64)

    def draw(*leaves: Tensor) -> tuple[Tensor, ...]:
        moved = SplatScene(*leaves, scene.world_to_camera, scene.intrinsics, 4, 3, True)
        return moved.draw("torch")[:4]

    assert torch.autograd.gradcheck(draw, scene.leaves, eps=1e-6, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"terms": 1, "antialias": False},
        {"terms": 9, "width": 16, "height": 16, "views": 1},
        {"terms": 16, "width": 65, "height": 33, "views": 2},
        {"splats": 1, "terms": 1},
        {"splats": 2000, "terms": 1, "size": 0.005, "views": 2},
        {"splats": 40, "size": 0.4, "width": 50, "height": 20},
        {"splats": 300, "width": 1, "height": 1},
    ],
    ids=str,
)
def test_native_agrees_with_the_reference(options: dict[str, int]) -> None:
    scene = random_scene(**options)
    assert_agrees(scene, scene.to("cpu", torch.float64), "native")


def flattened(scene: SplatScene) -> SplatScene:
    """The same splats as surfels: the third scale is 0."""
    scales = scene.scales.detach() * torch.tensor([1.0, 1.0, 0.0], dtype=scene.scales.dtype)
    return replace(scene, scales=scales.requires_grad_())


@pytest.mark.parametrize("antialias", [True, False])
def test_native_agrees_on_surfels(antialias: bool) -> None:
    scene = flattened(random_scene(size=0.08, antialias=antialias))
    assert_agrees(scene, scene.to("cpu", torch.float64), "native")


def test_gradients_of_surfels_match_finite_differences() -> None:
    """Also along the vanished scale, where they are 0: thickness shows in its square alone."""
    scene = flattened(
        random_scene(splats=3, terms=1, width=4, height=3, views=1, size=0.2).to("cpu", torch.float64)
    )

    def draw(*leaves: Tensor) -> tuple[Tensor, ...]:
        moved = SplatScene(*leaves, scene.world_to_camera, scene.intrinsics, 4, 3, True)
        return moved.draw("torch")[:4]

    # A step to a negative scale leaves it the least of the three.
    assert torch.autograd.gradcheck(draw, scene.leaves, eps=1e-6, atol=1e-5, rtol=1e-3)
    v_scales = gradients(scene, scene.draw("torch"))[2]
    assert v_scales[:, :2].abs().min() > 1e-4 and v_scales[:, 2].abs().max() < 1e-12


@backends
def test_a_surfel_by_hand(backend: Backend) -> None:
    """Turned by 60 degrees about x: half as high on the screen, and its normal leans by as much."""
    turned = (math.cos(math.radians(30)), math.sin(math.radians(30)), 0.0, 0.0)
    images = one_splat((0.0, 0.0, 2.0), (0.2, 0.4, 0.0), 0.8, (1.0, 1.0, 1.0), backend=backend, quat=turned)
    for x, y in ((4, 3), (5, 3), (4, 1), (4, 5)):
        dx, dy = x - 4, y - 3
        # The far side is no smaller: a splat's projection is affine.
        alpha = 0.8 * math.exp(-0.5 * (dx * dx / 1.3 + dy * dy / 1.3))
        assert float(images.alpha[0, 0, y, x]) == pytest.approx(alpha, abs=1e-6)
        normal = [0.0, alpha * math.sin(math.radians(60)), -alpha * 0.5]
        assert images.normal[0, :, y, x].tolist() == pytest.approx(normal, abs=1e-6)
    assert not one_splat(
        (0.0, 0.0, 2.0), (0.2, 0.4, 0.0), 0.8, (1.0, 1.0, 1.0), backend=backend, antialias=True,
        quat=(math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0),
    ).alpha.any()  # seen from the edge  # fmt: skip


def test_native_agrees_with_the_camera_among_the_splats() -> None:
    scene = random_scene(splats=100, views=1)
    inside = scene.world_to_camera.clone()
    inside[:, :3, 3] = 0.0
    scene = replace(scene, world_to_camera=inside)
    assert_agrees(scene, scene.to("cpu", torch.float64), "native")


ISA_PROGRAM = """
import torch
from studio.ops import library
from tests.ops.test_splatting import flattened
from tests.truth.splatting import assert_agrees, random_scene
assert library.find("cpu").isa == {isa!r}
tiny, flat = random_scene(terms=1, size=0.005), flattened(random_scene(terms=16, size=0.1))
for scene in random_scene(terms=9), tiny, flat:
    assert_agrees(scene, scene.to("cpu", torch.float64), "native")
"""


@pytest.mark.parametrize("isa", ["base", "v3", "v4"])
def test_every_instruction_set_agrees(isa: str) -> None:
    environment = dict(os.environ, STUDIO_ISA=isa)
    run = subprocess.run(
        [sys.executable, "-c", ISA_PROGRAM.format(isa=isa)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "not built or not supported by this CPU" in run.stderr:
        assert isa != "base"  # refused with a reason, which is all that can be asked of this CPU
    else:
        assert run.returncode == 0, run.stderr


def test_bits_do_not_depend_on_run_or_threads() -> None:
    scene = random_scene(splats=3000, terms=4, width=100, height=60)

    def run() -> list[Tensor]:
        images = scene.draw("native")
        return [*images, *gradients(scene, images)]

    assert_same_bits(run)


@backends
def test_no_splats_is_background(backend: Backend) -> None:
    scene = random_scene(splats=0)
    images = scene.draw(backend)
    assert torch.equal(images.rgb, scene.background[:, :, None, None].expand_as(images.rgb))
    assert not images.alpha.any() and images.radii_px.shape == (3, 0)
    assert [tuple(g.shape) for g in gradients(scene, images)] == [tuple(leaf.shape) for leaf in scene.leaves]


@backends
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("leaf", range(5))
def test_a_broken_splat_is_not_drawn(backend: Backend, value: float, leaf: int) -> None:
    scene = random_scene(splats=30)
    good = [tensor.detach().clone() for tensor in scene.leaves]
    broken = [tensor.detach().clone() for tensor in scene.leaves]
    good[3][5] = 0.0
    broken[leaf][5].view(-1)[0] = value
    drawn = SplatScene(*(x.requires_grad_() for x in broken), *_frame(scene))
    expected = SplatScene(*(x.requires_grad_() for x in good), *_frame(scene))
    images = drawn.draw(backend)
    for image, target in zip(images, expected.draw(backend), strict=True):
        torch.testing.assert_close(image, target)
    for gradient in gradients(drawn, images)[:5]:
        assert gradient.isfinite().all() and not gradient[5].any()


def _frame(scene: SplatScene) -> tuple[Tensor, Tensor, int, int, bool]:
    return scene.world_to_camera, scene.intrinsics, scene.width, scene.height, scene.antialias


@backends
def test_a_zero_quaternion_is_not_drawn(backend: Backend) -> None:
    images = one_splat(
        (0.0, 0.0, 2.0), (0.2, 0.2, 0.2), 0.9, (1.0, 1.0, 1.0), quat=(0.0, 0.0, 0.0, 0.0), backend=backend
    )
    assert not images.alpha.any()


@backends
def test_behind_the_camera_is_not_drawn(backend: Backend) -> None:
    images = one_splat((0.0, 0.0, -2.0), (0.2, 0.2, 0.2), 0.9, (1.0, 1.0, 1.0), backend=backend)
    assert not images.alpha.any() and not images.radii_px.any()


@backends
def test_a_huge_splat_covers_the_picture(backend: Backend) -> None:
    images = one_splat((0.0, 0.0, 2.0), (1e4, 1e4, 1e4), 0.7, (1.0, 1.0, 1.0), backend=backend)
    torch.testing.assert_close(images.alpha, torch.full_like(images.alpha, 0.7))


def test_a_million_splats_on_one_pixel() -> None:
    count = 1_000_000
    images = splat(
        torch.tensor([[0.0, 0.0, 2.0]]).expand(count, 3),
        torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        torch.full((count, 3), 1e-3),
        torch.full((count,), 0.01),
        torch.zeros(count, 1, 3),
        torch.eye(4)[None],
        torch.tensor([[[10.0, 0.0, 4.5], [0.0, 10.0, 3.5], [0.0, 0.0, 1.0]]]),
        torch.zeros(1, 3),
        9,
        7,
        antialias=False,
        backend="native",
    )
    assert 1 - float(images.alpha[0, 0, 3, 4]) == pytest.approx(1e-4, rel=0.02)  # the floor of light
    assert float(images.rgb[0, 0, 3, 4]) == pytest.approx(0.5, abs=1e-3)


@backends
def test_impossible_sizes_are_refused(backend: Backend) -> None:
    scene = random_scene(splats=2, terms=1)
    with pytest.raises(StudioError, match="at least 1"):
        replace(scene, width=0).draw(backend)
    with pytest.raises(StudioError, match="1, 4, 9 or 16"):
        replace(scene, sh=torch.zeros(2, 5, 3)).draw(backend)


def test_sizes_beyond_the_kernels_are_refused() -> None:
    with pytest.raises(StudioError, match="65536"):
        replace(random_scene(splats=2), width=70_000, height=1).draw("native")
    # Ten thousand splats, each over all of a picture of 65536 x 65536 pixels, make 168 billion pairs.
    huge = random_scene(splats=10_000, terms=1, views=1, size=1e4)
    with pytest.raises(StudioError, match="4 billion tiles"):
        replace(huge, width=65536, height=65536, antialias=False).draw("native")


def test_double_is_the_reference_s_alone() -> None:
    scene = random_scene(splats=3).to("cpu", torch.float64)
    assert scene.draw("auto").rgb.dtype == torch.float64
    with pytest.raises(StudioError, match="float32"):
        scene.draw("native")


def test_operator_keeps_the_rules_of_torch() -> None:
    scene = random_scene(splats=30, views=2)
    arguments = (
        *scene.leaves[:5],
        *(scene.world_to_camera, scene.intrinsics, scene.background, scene.means2d_probe),
        *(scene.width, scene.height, True, 0),
    )
    before = torch.are_deterministic_algorithms_enabled()
    # Also fills what is left empty of the workspace, which is compared.
    torch.use_deterministic_algorithms(True)
    try:
        torch.library.opcheck(splatting._draw, arguments)
    finally:
        torch.use_deterministic_algorithms(before)


@backends
def test_mixed_types_are_refused(backend: Backend) -> None:
    with pytest.raises(StudioError, match="float64"):
        replace(random_scene(splats=2), scales=torch.ones(2, 3, dtype=torch.float64)).draw(backend)


def test_arguments_need_not_be_contiguous() -> None:
    scene = random_scene(splats=50)
    strided = replace(scene, means=scene.means.detach().T.contiguous().T.requires_grad_())
    for image, target in zip(strided.draw("native"), scene.draw("native"), strict=True):
        assert torch.equal(image, target)


@pytest.mark.parametrize("pairs", [0, 2**31])
def test_an_impossible_capacity_is_refused(pairs: int) -> None:
    with pytest.raises(StudioError, match=f"{pairs} pairs of splats and tiles, expected 1 to 2147483647"):
        SplatCapacity.of(pairs, "cpu")


def test_a_cpu_makes_the_room_that_it_needs() -> None:
    scene = random_scene(splats=30)
    capacity = SplatCapacity.of(1, "cpu")
    images = replace(scene, capacity=capacity).draw("native")
    assert torch.equal(images.rgb, scene.draw("native").rgb)
    capacity.check()
