"""Videos come back as another program wrote them; what is no video is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import avg_pool2d

from studio import video
from studio.errors import StudioError
from studio.video import Footage, cut_out, read_footage

COUNT, HEIGHT, WIDTH = 5, 32, 48


def moving_square(alpha: bool = False) -> NDArray[np.uint8]:
    """A square that goes to the right over a plain background, ``[t, h, w, 3 or 4]``."""
    frames = np.zeros((COUNT, HEIGHT, WIDTH, 4 if alpha else 3), np.uint8)
    frames[..., :3] = 0 if alpha else (40, 90, 160)
    for index, frame in enumerate(frames):
        frame[8:24, 8 * index : 8 * index + 16] = 255 if alpha else (240, 230, 40)
    return frames


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"square{suffix}"
    frames = moving_square()
    match suffix:
        case ".mp4":
            imageio.imwrite(path, frames, fps=10, codec="libx264", macro_block_size=1)
        case ".webm":
            imageio.imwrite(path, frames, fps=10, codec="libvpx-vp9", macro_block_size=1)
        case ".webp":
            imageio.imwrite(path, frames, duration=100, lossless=True)
        case _:
            imageio.imwrite(path, frames, duration=100)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".webp", ".png"])
def test_frames_are_read_back(tmp_path: Path, suffix: str) -> None:
    footage = read_footage(written(tmp_path, suffix))
    truth = torch.from_numpy(moving_square()).movedim(-1, 1) / 255
    assert footage.rgb.shape == truth.shape and footage.alpha is None
    assert footage.frames_per_second == pytest.approx(10, rel=0.01)
    # Films halve the resolution of colour: what a square's edges lose of it.
    assert float((footage.rgb - truth).abs().mean()) < (0.03 if suffix in (".mp4", ".webm") else 0.003)


def test_transparency_is_kept_and_colours_are_premultiplied(tmp_path: Path) -> None:
    frames = moving_square(alpha=True)
    frames[:, 10:20, :, 3] //= 2
    imageio.imwrite(tmp_path / "square.webp", frames, duration=50, lossless=True)
    footage = read_footage(tmp_path / "square.webp")
    alpha = torch.from_numpy(frames[..., 3:]).movedim(-1, 1) / 255
    assert footage.alpha is not None and torch.equal(footage.alpha, alpha)
    assert torch.equal(footage.rgb, alpha.expand_as(footage.rgb)), "white, premultiplied"
    assert footage.frames_per_second == pytest.approx(20)


def test_a_folder_of_pictures_in_order_of_name(tmp_path: Path) -> None:
    for index, frame in enumerate(moving_square()):
        Image.fromarray(frame).save(tmp_path / f"{index:03}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    footage = read_footage(tmp_path)
    assert torch.equal(footage.rgb, torch.from_numpy(moving_square()).movedim(-1, 1) / 255)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_large_frames_are_scaled_down(tmp_path: Path, suffix: str) -> None:
    footage = read_footage(written(tmp_path, suffix), longest_px=24)
    assert footage.rgb.shape == (COUNT, 3, 16, 24)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.mp4", None, "There is no video"),
        ("film.mpp4", b"x", "Did you mean '.mp4'?"),
        ("film.mp4", b"", "damaged"),
        ("film.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "damaged"),
        ("film.gif", b"GIF89a\x10\x00", "damaged"),
        ("film.webp", b"RIFF\x00\x00\x00\x00WEBPVP8 ", "damaged"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StudioError, match=says.replace("?", r"\?")):
        read_footage(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_half_a_file_is_refused_or_read_so_far(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    try:
        assert 2 <= len(read_footage(path)) <= COUNT
    except StudioError as error:
        assert "damaged" in str(error) or "at least 2" in str(error)


def test_one_frame_is_no_video(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "still.png")
    with pytest.raises(StudioError, match="1 frame, expected at least 2"):
        read_footage(tmp_path / "still.png")


def test_pictures_of_a_folder_have_one_size(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="has no pictures"):
        read_footage(tmp_path)
    for index, side in enumerate((8, 9)):
        Image.new("RGB", (side, 8)).save(tmp_path / f"{index}.png")
    with pytest.raises(StudioError, match="9x8 pixels and the pictures before it 8x8"):
        read_footage(tmp_path)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("bound", ["MAX_FRAMES", "MAX_FRAME_PIXELS", "MAX_PIXELS"])
def test_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, bound: str
) -> None:
    path = written(tmp_path, suffix)
    monkeypatch.setattr(video, bound, 4 if bound == "MAX_FRAMES" else HEIGHT * WIDTH - 1)
    with pytest.raises(StudioError, match="at most"):
        read_footage(path)


def disc(background: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A red disc with an eye in the background's colour, and its true coverage, antialiased."""
    fine = (torch.arange(256) - 127.5) / 4
    y, x = torch.meshgrid(fine, fine, indexing="ij")

    def covered(radius: float) -> torch.Tensor:
        return avg_pool2d((x.square() + y.square() < radius**2).float()[None], 4)

    alpha, eye = covered(20.0), covered(6.0)
    color = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    rgb = background * (1 - alpha) + color * (alpha - eye) + background * eye
    return rgb, alpha


@pytest.mark.parametrize("background", [0.0, 0.5, 1.0])
def test_an_object_is_cut_out_of_a_plain_background(background: float) -> None:
    rgb, alpha = disc(background)
    noise = 0.02 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.01
    cut = cut_out(Footage((rgb + noise).clamp(0, 1), None, 10.0))
    assert cut.alpha is not None and cut.alpha.shape == (2, 1, 64, 64)
    error = (cut.alpha - alpha).abs()
    assert float(error.mean()) < 0.005 and float(error.max()) < 0.35
    assert bool((cut.alpha[:, :, 28:36, 28:36] == 1).all()), "the eye is no background"
    # Over its own background it looks as it did; over another, nothing of the first is left.
    torch.testing.assert_close(
        cut.rgb + (1 - cut.alpha) * background, (rgb + noise).clamp(0, 1), atol=0.08, rtol=0
    )
    assert float(cut.rgb[:, :, 0].abs().max()) == 0.0


def test_what_cannot_be_cut_out_is_refused() -> None:
    rgb, alpha = disc(1.0)
    own = Footage((rgb * alpha).repeat(2, 1, 1, 1), alpha.repeat(2, 1, 1, 1), 10.0)
    assert cut_out(own) is own, "it has transparency"
    ramp = torch.linspace(0, 1, 64).expand(2, 3, 64, 64)
    with pytest.raises(StudioError, match="of its border has one colour, expected 95%"):
        cut_out(Footage(ramp, None, 10.0))
    empty = torch.stack([rgb, torch.ones(3, 64, 64)])
    with pytest.raises(StudioError, match="Frame 2 of the video shows nothing but its background"):
        cut_out(Footage(empty, None, 10.0))
