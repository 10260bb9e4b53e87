"""Splatting on CUDA against the reference on the CPU: the CPU's assertions again."""

from __future__ import annotations

import pytest
import torch

from studio.ops import library
from tests.truth.splatting import assert_agrees, gradients, random_scene

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


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
def test_cuda_agrees_with_the_reference(options: dict[str, int]) -> None:
    scene = random_scene(**options)
    assert_agrees(scene.to("cuda", torch.float32), scene.to("cpu", torch.float64), "native")


def test_no_splats_is_background() -> None:
    scene = random_scene(splats=0).to("cuda", torch.float32)
    images = scene.draw("native")
    assert torch.equal(images.rgb, scene.background[:, :, None, None].expand_as(images.rgb))
    assert all(gradient.isfinite().all() for gradient in gradients(scene, images))


def test_broken_splats_are_not_drawn() -> None:
    scene = random_scene(splats=30).to("cuda", torch.float32)
    with torch.no_grad():
        scene.means[3, 0], scene.scales[4, 1], scene.quats_wxyz[5] = float("nan"), float("inf"), 0.0
    images = scene.draw("native")
    assert all(image.isfinite().all() for image in images)
    for gradient in gradients(scene, images)[:5]:
        assert gradient.isfinite().all() and not gradient[3:6].any()


def test_images_are_reproducible() -> None:
    scene = random_scene(splats=3000, width=100, height=60).to("cuda", torch.float32)
    for one, two in zip(scene.draw("native"), scene.draw("native"), strict=True):
        assert torch.equal(one, two)
