"""Splatting on CUDA against the reference on the CPU: the CPU's assertions again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from studio.cameras import orbit
from studio.errors import StudioError
from studio.ops import library
from studio.ops.splatting import SplatCapacity
from studio.renderers.splatting import MeasuredCapacity, SplatRenderer
from studio.types import Splats
from tests.truth.splatting import SplatScene, assert_agrees, gradients, random_scene


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_library_is_built() -> None:
    assert isinstance(library.find("cuda"), library.Library)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"terms": 1, "antialias": False},
        {"terms": 16, "width": 65, "height": 33, "views": 2},
        {"splats": 1, "terms": 1},
        {"splats": 2000, "terms": 9, "size": 0.005},
        {"splats": 40, "size": 0.4, "width": 50, "height": 20},
    ],
    ids=str,
)
def test_cuda_agrees_with_the_reference(options: dict[str, int], device: str) -> None:
    scene = random_scene(**options)
    assert_agrees(scene.to(device, torch.float32), scene.to("cpu", torch.float64), "native")


def test_no_splats_is_background(device: str) -> None:
    scene = random_scene(splats=0).to(device, torch.float32)
    images = scene.draw("native")
    assert torch.equal(images.rgb, scene.background[:, :, None, None].expand_as(images.rgb))
    assert all(gradient.isfinite().all() for gradient in gradients(scene, images))


def test_broken_splats_are_not_drawn(device: str) -> None:
    scene = random_scene(splats=30).to(device, torch.float32)
    with torch.no_grad():
        scene.means[3, 0], scene.scales[4, 1], scene.quats_wxyz[5] = float("nan"), float("inf"), 0.0
    images = scene.draw("native")
    assert all(image.isfinite().all() for image in images)
    for gradient in gradients(scene, images)[:5]:
        assert gradient.isfinite().all() and not gradient[3:6].any()


def test_images_are_reproducible(device: str) -> None:
    scene = random_scene(splats=3000, width=100, height=60).to(device, torch.float32)
    for one, two in zip(scene.draw("native"), scene.draw("native"), strict=True):
        assert torch.equal(one, two)


def needed(scene: SplatScene) -> int:
    """How many pairs of splats and tiles the scene has."""
    capacity = SplatCapacity.of(1, scene.means.device)
    replace(scene, capacity=capacity).draw("native")
    return int(capacity.left_out) + 1


def test_a_capacity_changes_nothing_where_it_is_enough(device: str) -> None:
    scene = random_scene(splats=300).to(device, torch.float32)
    expected = scene.draw("native")
    targets = gradients(scene, expected)
    for room in (needed(scene), 5 * needed(scene)):
        capacity = SplatCapacity.of(room, device)
        bounded = replace(scene, capacity=capacity)
        images = bounded.draw("native")
        for one, two in zip(images, expected, strict=True):
            assert torch.equal(one, two)
        for got, target in zip(gradients(bounded, images), targets, strict=True):
            torch.testing.assert_close(got, target, rtol=1e-4, atol=1e-5 * float(target.abs().max()))
        capacity.check()


def test_splats_beyond_the_capacity_are_left_out_and_reported(device: str) -> None:
    """With room for the first 100 of 200 splats, these alone are drawn."""
    scene = random_scene(views=1).to(device, torch.float32)
    first = SplatScene(
        *(leaf.detach()[:100].requires_grad_() for leaf in scene.leaves[:5]),
        scene.background, scene.means2d_probe.detach()[:, :100].requires_grad_(),
        scene.world_to_camera, scene.intrinsics, scene.width, scene.height, scene.antialias,
    )  # fmt: skip
    capacity = SplatCapacity.of(needed(first), device)
    bounded = replace(scene, capacity=capacity)
    images, expected = bounded.draw("native"), first.draw("native")
    for one, two in zip(images[:4], expected[:4], strict=True):
        assert torch.equal(one, two)
    for got, target in zip(gradients(bounded, images)[:5], gradients(first, expected)[:5], strict=True):
        torch.testing.assert_close(got[:100], target, rtol=1e-4, atol=1e-5)
        assert not got[100:].any()
    missing = needed(scene) - capacity.pairs
    replace(first, capacity=capacity).draw("native")  # has room, which makes nothing undone
    with pytest.raises(StudioError, match=rf"{missing} pairs .* capacity of {needed(scene)} or more"):
        capacity.check()


def test_a_measured_capacity_draws_all_splats(device: str) -> None:
    """Whatever the room is when a drawing begins: the least, enough, and too little for splats that grew."""
    scene = random_scene(splats=300).to(device, torch.float32)
    cameras = orbit(torch.tensor([0.0, 90.0]), torch.zeros(2), 60, 40).to(device)
    background = torch.ones(2, 3, device=device)
    measured = SplatRenderer("native", capacity=MeasuredCapacity(device))
    assert measured.capacity is not None
    rooms = []
    for size in (1.0, 0.9, 4.0, 1.0):
        gradients = []
        for renderer in (measured, SplatRenderer("native")):
            splats = Splats(scene.means, scene.quats_wxyz, size * scene.scales, scene.opacities, scene.sh)
            render = renderer(splats, cameras, background)
            gradients.append([render.rgb, *torch.autograd.grad(render.rgb.square().sum(), scene.leaves[:5])])
        for one, two in zip(*gradients, strict=True):
            largest = float(two.detach().abs().max())
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5 * largest)
        rooms.append(measured.capacity.capacity.pairs)
        measured.capacity.check()
    assert 1 < rooms[0] == rooms[1] < rooms[2] == rooms[3]


def test_a_measured_capacity_says_what_a_graph_left_out(device: str) -> None:
    scene = random_scene(splats=300).to(device, torch.float32)
    capacity = MeasuredCapacity(device)
    replace(scene, capacity=capacity.capacity).draw("native")  # as a graph does: it looks at nothing
    with pytest.raises(StudioError, match="capture the step again"):
        capacity.check()
    assert capacity.capacity.pairs >= 1.5 * needed(scene)
    replace(scene, capacity=capacity.capacity).draw("native")
    capacity.check()
