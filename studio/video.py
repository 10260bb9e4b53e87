"""Videos as the studio reads them: a file, or a folder of pictures, to frames."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from torch import Tensor
from torch.nn.functional import max_pool2d

from studio.errors import StudioError, nearest

_DEMUXERS = {
    ".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".webm": "matroska", ".mkv": "matroska", ".avi": "avi",
}  # fmt: skip
_ANIMATED = (".gif", ".webp", ".png", ".apng")
_STILLS = (".png", ".webp", ".jpg", ".jpeg")
SUFFIXES = (*_DEMUXERS, *_ANIMATED)
"""Of the files that can be read."""

MAX_FRAMES = 1024
MAX_FRAME_PIXELS = 2**25
"""Of one frame as it comes."""
MAX_PIXELS = 2**26
"""Of all frames as they are kept."""
_UNIFORM = 0.95
"""Of the border, where a background is plain."""
FOLDER_FPS = 24.0
"""Pictures in a folder say nothing of time."""


@dataclass(frozen=True)
class Footage:
    """The frames of a video, evenly spaced in time.

    Attributes:
        rgb: colours in 0-1; premultiplied with ``alpha`` where there is one.
        alpha: coverage in 0-1, or None where every frame is opaque.
        frames_per_second: on average.
    """

    rgb: Float[Tensor, "t 3 h w"]
    alpha: Float[Tensor, "t 1 h w"] | None
    frames_per_second: float

    def __len__(self) -> int:
        return len(self.rgb)


def read_footage(path: Path, longest_px: int = 512) -> Footage:
    """Reads MP4, MOV, WebM, MKV, AVI, animated GIF, WebP or PNG, or a folder of pictures in order of name.

    What a header claims is not believed: frames are counted as they come, and bounded.

    Args:
        longest_px: frames whose width or height is more are scaled down to it.

    Raises:
        StudioError: no such file; another suffix; a file that is damaged or no video; one frame, or more than
            ``MAX_FRAMES``; frames or a whole that is too large; pictures of a folder that differ in size.
    """
    if path.is_dir():
        frames, fps = _of_folder(path, longest_px), FOLDER_FPS
    elif not path.is_file():
        raise StudioError(f"There is no video {path}; expected a file, or a folder of pictures.")
    elif path.suffix.lower() in _DEMUXERS:
        frames, fps = _of_film(path, longest_px)
    elif path.suffix.lower() in _ANIMATED:
        frames, fps = _of_animated_picture(path, longest_px)
    else:
        raise StudioError(
            f"{path.name} has the suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}, or a folder "
            f"of pictures.{nearest(path.suffix, SUFFIXES)}"
        )
    if len(frames) < 2:
        raise StudioError(
            f"{path} has {len(frames)} frame, expected at least 2: a still picture does not say how it moves."
        )
    values = torch.from_numpy(frames).movedim(-1, 1).float() / 255
    rgb, alpha = values[:, :3], values[:, 3:]
    if values.shape[1] == 3 or bool((alpha == 1).all()):
        return Footage(rgb.contiguous(), None, fps)
    return Footage(rgb * alpha, alpha.contiguous(), fps)


def cut_out(footage: Footage, tolerance: float = 0.08) -> Footage:
    """The footage without its background: as it is where it has transparency, else keyed.

    Background is what has the border's median colour and is connected to the border, so that what looks like
    it inside the object stays. Along the outline coverage is the distance from that colour, as a share of the
    greatest beside it.

    Args:
        tolerance: greatest difference of a channel from the background's colour, of 0-1.

    Raises:
        StudioError: the border has several colours, or a frame shows nothing before it.
    """
    if footage.alpha is not None:
        return footage
    from scipy import ndimage

    rgb = footage.rgb
    edges = (rgb[:, :, 0], rgb[:, :, -1], rgb[..., 0], rgb[..., -1])
    border = torch.cat([edge.movedim(1, -1).reshape(-1, 3) for edge in edges])
    color = border.median(0).values
    uniform = float(((border - color).abs().amax(1) <= tolerance).float().mean())
    if uniform < _UNIFORM:
        raise StudioError(
            f"The video has no transparency, and only {uniform:.0%} of its border has one colour, expected "
            f"{_UNIFORM:.0%}: the object cannot be told from the background. Film it whole before a plain "
            "one, or write frames with transparency (PNG, WebP)."
        )
    distance = (rgb - color[:, None, None]).abs().amax(1, keepdim=True)
    alike = (distance <= tolerance).numpy()
    alpha = torch.ones_like(distance)
    for frame, (plain,) in enumerate(alike):
        parts, _ = ndimage.label(plain)
        at_border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        outside = np.isin(parts, at_border[at_border > 0])
        if outside.all():
            raise StudioError(
                f"Frame {frame + 1} of the video shows nothing but its background; expected the object in "
                "all of them."
            )
        outline = torch.from_numpy(ndimage.binary_dilation(outside) & ~outside)
        greatest = max_pool2d(distance[frame], 3, 1, 1)
        share = distance[frame] / greatest.clamp_min(tolerance)
        alpha[frame] = torch.where(outline, share, alpha[frame]).where(~torch.from_numpy(outside), 0.0)
    premultiplied = (rgb - (1 - alpha) * color[:, None, None]).clamp(0, 1) * (alpha > 0)
    return Footage(premultiplied, alpha, footage.frames_per_second)


def _of_film(path: Path, longest_px: int) -> tuple[NDArray[np.uint8], float]:
    """Frames ``[t, h, w, 3]`` and their rate, by ffmpeg, which reads nothing but this file."""
    import imageio_ffmpeg

    source = f"-protocol_whitelist file -max_pixels {MAX_FRAME_PIXELS} -f {_DEMUXERS[path.suffix.lower()]}"
    size = f"scale='min({longest_px},iw)':'min({longest_px},ih)':force_original_aspect_ratio=decrease"
    target = f"-vf {size} -fps_mode passthrough -frames:v {MAX_FRAMES + 1}"
    stream = imageio_ffmpeg.read_frames(
        f"file:{path}", input_params=source.split(), output_params=target.split()
    )
    try:
        about = next(stream)
        width, height = about["size"]
        pictures = (np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in stream)
        return _gathered(path, pictures), float(about["fps"]) or FOLDER_FPS
    except (OSError, RuntimeError, ValueError, IndexError, KeyError, StopIteration) as error:
        raise StudioError(
            f"{path} cannot be read as a video of at most {MAX_FRAME_PIXELS} pixels a frame: it is damaged, "
            "too large or something else. Try writing it again as MP4 with H.264."
        ) from error
    finally:
        stream.close()


def _of_animated_picture(path: Path, longest_px: int) -> tuple[NDArray[np.uint8], float]:
    """Frames ``[t, h, w, 4]`` and their mean rate."""
    durations_ms: list[float] = []

    def pictures() -> Iterator[NDArray[np.uint8]]:
        with _pillow_refusals(path), Image.open(path) as file:
            _refuse_large(path, file.width, file.height)
            for frame in ImageSequence.Iterator(file):
                yield _scaled(frame, longest_px)
                durations_ms.append(float(frame.info.get("duration", 0)))

    frames = _gathered(path, pictures())
    seconds = sum(durations_ms) / 1000
    return frames, len(frames) / seconds if seconds > 0 else FOLDER_FPS


def _of_folder(path: Path, longest_px: int) -> NDArray[np.uint8]:
    """Frames ``[t, h, w, 4]``, of one size."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _STILLS)
    if not files:
        raise StudioError(f"The folder {path} has no pictures; expected some of {', '.join(_STILLS)}.")

    def pictures() -> Iterator[NDArray[np.uint8]]:
        first = None
        for name in files:
            with _pillow_refusals(name), Image.open(name) as file:
                first = first or file.size
                _refuse_large(name, *file.size)
                if file.size != first:
                    raise StudioError(
                        f"{name} has {file.width}x{file.height} pixels and the pictures before it "
                        f"{first[0]}x{first[1]}; expected frames of one size."
                    )
                yield _scaled(file, longest_px)

    return _gathered(path, pictures())


def _gathered(path: Path, pictures: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The frames as one array, as long as they are few and small enough."""
    frames: list[NDArray[np.uint8]] = []
    for picture in pictures:
        frames.append(picture)
        if len(frames) > MAX_FRAMES or len(frames) * picture.shape[0] * picture.shape[1] > MAX_PIXELS:
            raise StudioError(
                f"{path} has more than {len(frames) - 1} frames of {picture.shape[1]}x{picture.shape[0]} "
                f"pixels, expected at most {MAX_FRAMES} frames and {MAX_PIXELS} pixels in all. Try a shorter "
                "cut, or fewer frames a second."
            )
    return np.stack(frames) if frames else np.empty((0, 1, 1, 3), np.uint8)


def _scaled(image: Image.Image, longest_px: int) -> NDArray[np.uint8]:
    """A picture ``[h, w, 4]``, not larger than allowed."""
    small = image.convert("RGBA")
    small.thumbnail((longest_px, longest_px))
    return np.asarray(small)


def _refuse_large(path: Path, width: int, height: int) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise StudioError(
            f"{path} has {width}x{height} pixels, expected at most {MAX_FRAME_PIXELS} a frame: make it "
            "smaller."
        )


@contextmanager
def _pillow_refusals(path: Path) -> Iterator[None]:
    """Say what Pillow makes of a damaged file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise StudioError(
            f"{path} cannot be read as a picture ({str(error).splitlines()[0]}): it is damaged, too large or "
            "something else."
        ) from error
