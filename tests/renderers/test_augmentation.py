"""Pictures seen askew, against another library's warp, straight lines, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from studio.recipes.config import AugmentationConfig
from studio.renderers.augmentation import augmented, drawn_warp
from studio.types import RenderOutput

SIZE = 64


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramps() -> Tensor:
    """Red tells the column and green the row of each pixel, in 0.25 to 0.75."""
    along = 0.25 + 0.5 * (torch.arange(SIZE) + 0.5) / SIZE
    return torch.stack([along.expand(SIZE, SIZE), along[:, None].expand(SIZE, SIZE), torch.ones(SIZE, SIZE)])[
        None
    ]


def places(rgb: Tensor) -> Tensor:
    """Where each pixel of a warped ramp was, in -1 to 1, where it is still within the picture."""
    return 4 * (rgb[0, :2] - 0.5)


def shown(warp: Tensor, rgb: Tensor, color: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> RenderOutput:
    background = torch.tensor([color]).expand(len(rgb), 3)
    return augmented(RenderOutput(rgb, rgb.new_ones(len(rgb), 1, *rgb.shape[2:])), background, warp)


def test_as_another_library_warps() -> None:
    warp = drawn_warp(AugmentationConfig(), rng(3))
    # Pillow wants the eight numbers that lead from pixels of the result to pixels of the source.
    to_unit = np.array([[2 / SIZE, 0, -1], [0, 2 / SIZE, -1], [0, 0, 1]])
    pixels = np.linalg.inv(to_unit) @ warp.numpy() @ to_unit
    numbers = (pixels / pixels[2, 2]).flatten()[:8]
    smooth = torch.rand(1, 3, 8, 8, generator=rng(1))
    smooth = torch.nn.functional.interpolate(smooth, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    channels = [
        Image.fromarray(channel.numpy()).transform(
            (SIZE, SIZE),
            Image.Transform.PERSPECTIVE,
            numbers.tolist(),
            Image.Resampling.BILINEAR,
            fillcolor=-9,
        )
        for channel in smooth[0]
    ]
    expected = torch.stack([torch.from_numpy(np.array(channel)) for channel in channels])
    ours = shown(warp, smooth).rgb[0]
    inside = expected > -1
    assert 0.2 < float(inside.float().mean())
    # At its rim Pillow holds the last pixel, and ours fades into the background.
    rim = torch.nn.functional.max_pool2d((~inside[:1]).float(), 5, 1, 2)[0] > 0
    inner = inside & ~rim & (shown(warp, smooth).alpha[0] > 1 - 1e-4)
    assert float((ours - expected)[inner].abs().max()) < 2e-3


def test_a_crop_shows_an_upright_square_of_at_least_its_share() -> None:
    for seed in range(20):
        seen = places(
            shown(drawn_warp(AugmentationConfig(perspective=0.0, crop=0.4), rng(seed)), ramps()).rgb
        )
        middle = slice(4, SIZE - 4)  # beyond the outermost pixel centres colours fade into the background
        across, down = seen[0, middle, middle].diff(dim=1), seen[1, middle, middle].diff(dim=0)
        side = float(across.mean()) * SIZE / 2
        assert 0.4**0.5 - 1e-4 < side < 1 + 1e-4
        assert float(down.mean()) * SIZE / 2 == pytest.approx(side, abs=1e-4)
        assert float((across - across.mean()).abs().max()) < 1e-4
        assert float(seen[:, middle, middle].abs().max()) <= 1


def test_perspective_brings_the_corners_in_and_keeps_lines_straight() -> None:
    config = AugmentationConfig(perspective=0.5, crop=1.0)
    for seed in range(20):
        warp = drawn_warp(config, rng(seed))
        picture = shown(warp, ramps(), (0.0, 0.0, 0.0))
        assert float(picture.alpha.amax()) == pytest.approx(1.0)
        # All corners of what is shown lie beyond the render or on it, and the middle of it is seen.
        assert float(picture.alpha[0, 0, SIZE // 2, SIZE // 2]) == pytest.approx(1.0)
        row = places(picture.rgb)[:, SIZE // 2][:, SIZE // 4 : -SIZE // 4].double()
        direction = row[:, -1] - row[:, 0]
        aside = (row[0] - row[0, 0]) * direction[1] - (row[1] - row[1, 0]) * direction[0]
        assert float(aside.abs().max()) < 1e-4
        for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            corner = torch.linalg.inv(warp) @ torch.tensor([x, y, 1.0], dtype=torch.float64)
            place = corner[:2] / corner[2] * torch.tensor([x, y])
            assert bool((place <= 1 + 1e-9).all()) and bool((place >= 0.5 - 1e-9).all())
    straight = drawn_warp(AugmentationConfig(perspective=0.0, crop=1.0), rng(0))
    torch.testing.assert_close(straight, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(shown(straight, ramps()).rgb, ramps())


def test_every_frame_of_a_clip_is_warped_alike_over_its_own_background() -> None:
    clip = torch.rand(5, 3, SIZE, SIZE, generator=rng(2))
    clip[3:] = clip[:1]
    colors = torch.tensor([[1.0, 1, 1]] * 4 + [[0.2, 0.4, 0.6]])
    warp = drawn_warp(AugmentationConfig(crop=1.0), rng(7))
    pictures = RenderOutput(clip, torch.ones(5, 1, SIZE, SIZE))
    seen = augmented(pictures, colors, warp)
    for index, picture in enumerate(clip):
        alone = shown(warp, picture[None], tuple(colors[index].tolist()))
        torch.testing.assert_close(seen.rgb[index], alone.rgb[0])
    assert torch.equal(seen.rgb[0], seen.rgb[3]) and torch.equal(seen.alpha[0], seen.alpha[4])
    outside = seen.alpha[0, 0] == 0
    assert bool(outside.any())
    assert torch.equal(seen.rgb[0][:, outside], torch.ones(3, int(outside.sum())))
    torch.testing.assert_close(seen.rgb[4][:, outside], colors[4][:, None].expand(3, int(outside.sum())))
    assert torch.equal(drawn_warp(AugmentationConfig(), rng(7)), drawn_warp(AugmentationConfig(), rng(7)))


def test_gradients_reach_the_pictures() -> None:
    small = torch.rand(2, 3, 6, 6, generator=rng(4), dtype=torch.float64).requires_grad_()
    warp = drawn_warp(AugmentationConfig(), rng(5))
    assert torch.autograd.gradcheck(lambda rgb: shown(warp, rgb).rgb, small)
