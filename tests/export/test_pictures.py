from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from studio.errors import StudioError
from studio.export.pictures import write_animation, write_contact_sheet, write_mp4
from tests.export.test_files import full_disk


def moving_bar(frames: int, height: int, width: int) -> np.ndarray:
    """A white bar that moves to the right over grey."""
    video = np.full((frames, height, width, 3), 90, dtype=np.uint8)
    for index in range(frames):
        left = index * width // frames
        video[index, :, left : left + width // frames] = 255
    return video


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97)])
def test_mp4_read_back(tmp_path: Path, height: int, width: int) -> None:
    frames = moving_bar(12, height, width)
    write_mp4(frames, tmp_path / "a.mp4", frames_per_second=24.0)
    read = imageio.imread(tmp_path / "a.mp4")
    assert read.shape == (12, 64, 96, 3)
    assert np.abs(read.astype(float) - frames[:, :64, :96]).mean() < 4
    about = imageio.immeta(tmp_path / "a.mp4")
    assert about["codec"] == "h264" and about["fps"] == 24 and about["pix_fmt"].startswith("yuv420p")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng"])
def test_animations_read_back(tmp_path: Path, suffix: str) -> None:
    frames = moving_bar(6, 40, 60)
    write_animation(frames, tmp_path / f"a{suffix}", frames_per_second=20.0)
    with Image.open(tmp_path / f"a{suffix}") as animation:
        assert animation.n_frames == 6 and animation.info["loop"] == 0
        for index in range(6):
            animation.seek(index)
            error = np.abs(np.asarray(animation.convert("RGB")).astype(float) - frames[index])
            assert error.mean() < 4
            assert animation.info["duration"] == 50


def test_contact_sheet_places_its_pictures(tmp_path: Path) -> None:
    shades = np.array([10, 60, 110, 160, 210], dtype=np.uint8)
    images = np.broadcast_to(shades[:, None, None, None], (5, 20, 30, 3))
    write_contact_sheet(images, [f"{i}" for i in range(5)], 3, tmp_path / "a.png")
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    row_height = sheet.shape[0] // 2
    assert sheet.shape[1] == 90 and row_height > 20
    for index, shade in enumerate(shades):
        top, left = index // 3 * row_height, index % 3 * 30
        assert (sheet[top : top + 20, left : left + 30] == shade).all()
        label = sheet[top + 20 : top + row_height, left : left + 30]
        assert label.min() < 100 and label.max() == 255


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 128, 128, 3), dtype=np.uint8)
    with full_disk(4096), pytest.raises(StudioError, match=rf"cannot write .*{name}"):
        match name:
            case "a.mp4":
                write_mp4(noise, tmp_path / name)
            case "a.gif":
                write_animation(noise, tmp_path / name)
            case _:
                write_contact_sheet(noise, [""] * 8, 4, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
