"""Turntables and contact sheets: how an asset looks from all around."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.export.files import replacing

FRAMES_PER_SECOND = 24.0
_LABEL_HEIGHT = 14


def write_mp4(frames: NDArray[np.uint8], path: Path, frames_per_second: float = FRAMES_PER_SECOND) -> None:
    """Write frames ``[n, h, w, 3]`` as H.264 in the pixel format that every player knows (yuv420p).

    An odd width or height, which that format cannot hold, loses its last column or row.

    Raises:
        StudioError: the file cannot be written.
    """
    import imageio_ffmpeg

    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    raw = np.ascontiguousarray(frames[:, :height, :width]).tobytes()
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {frames_per_second} -i -"
    target = "-c:v libx264 -crf 18 -pix_fmt yuv420p -movflags +faststart"
    with replacing(path) as temporary:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *source.split(), *target.split()]
        # No shell, and nothing of the command comes from outside but the path.
        done = subprocess.run([*command, str(temporary)], input=raw, capture_output=True, check=False)  # noqa: S603
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["it was stopped"]
            raise StudioError(
                f"cannot write {path}: ffmpeg says {said[-1]!r}. Try another output folder, or .gif instead."
            )


def write_animation(
    frames: NDArray[np.uint8], path: Path, frames_per_second: float = FRAMES_PER_SECOND
) -> None:
    """Write frames as an endless ``.gif``, ``.webp`` or ``.apng``, which takes as long as it should.

    Args:
        frames: [n, h, w, 3], or [n, h, w, 4] with straight alpha for ``.webp`` and ``.apng``.
        path: the suffix says what to write.
        frames_per_second: may be any number.

    Raises:
        StudioError: the file cannot be written.
    """
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    if path.suffix == ".gif":
        # One palette for all frames, from all around the asset: a palette a frame flickers.
        strip = np.concatenate(frames[:: max(1, len(frames) // 8)], axis=1)
        palette = Image.fromarray(strip).quantize(256)
        images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    # A .gif counts hundredths of a second: at 12 frames a second some take 8 of them and some 9.
    tick_ms = 10 if path.suffix == ".gif" else 1
    ends = np.round(np.arange(len(frames) + 1) * 1000 / frames_per_second / tick_ms).astype(int) * tick_ms
    with replacing(path) as temporary:
        images[0].save(
            temporary,
            save_all=True,
            append_images=images[1:],
            duration=np.diff(ends).tolist(),
            loop=0,
            quality=85,
        )


def write_contact_sheet(images: NDArray[np.uint8], labels: list[str], columns: int, path: Path) -> None:
    """Write images ``[n, h, w, 3]`` as one ``.png``, in rows of ``columns``, each above its label.

    Raises:
        StudioError: the file cannot be written.
    """
    from PIL import Image, ImageDraw

    count, height, width = images.shape[:3]
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + _LABEL_HEIGHT)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = index % columns * width, index // columns * (height + _LABEL_HEIGHT)
        sheet.paste(Image.fromarray(image), (left, top))
        draw.text((left + width // 2, top + height + _LABEL_HEIGHT // 2), label, fill="black", anchor="mm")
    with replacing(path) as temporary:
        sheet.save(temporary)
