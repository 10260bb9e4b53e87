"""Turntables and contact sheets: how an asset looks from all around."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.export.files import replacing

_LABEL_HEIGHT = 14


def write_mp4(frames: NDArray[np.uint8], path: Path, frames_per_second: int = 24) -> None:
    """Write frames ``[n, h, w, 3]`` as H.264 in the pixel format that every player knows (yuv420p).

    An odd width or height, which that format cannot hold, loses its last column or row.

    Raises:
        StudioError: the file cannot be written.
    """
    import imageio_ffmpeg

    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2
    even = np.ascontiguousarray(frames[:, :height, :width])
    with replacing(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            size=(width, height),
            fps=frames_per_second,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            output_params=["-crf", "18", "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )
        writer.send(None)
        for frame in even:
            writer.send(frame)
        writer.close()
        # ffmpeg reports a full disk on its standard error only.
        if temporary.stat().st_size == 0:
            raise StudioError(f"cannot write {path}: ffmpeg wrote nothing. Try a folder with space left.")


def write_animation(frames: NDArray[np.uint8], path: Path, frames_per_second: int = 24) -> None:
    """Write frames ``[n, h, w, 3]`` as an endless ``.gif`` or ``.webp``.

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
    duration_ms = round(1000 / frames_per_second)
    with replacing(path) as temporary:
        images[0].save(
            temporary, save_all=True, append_images=images[1:], duration=duration_ms, loop=0, quality=85
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
