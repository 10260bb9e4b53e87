"""Clipart in motion as files: films, and a sheet of its frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.cameras import front
from studio.errors import StudioError
from studio.export.animation import spread
from studio.export.formats import CLIP, format_of, suffixes
from studio.export.images import to_pixels
from studio.export.pictures import write_animation, write_contact_sheet, write_mp4
from studio.export.views import pictures
from studio.interfaces import Renderer
from studio.recipes.config import ExportConfig
from studio.types import Animation, Cutout

_SHEET_FRAMES, _SHEET_SIZE = 12, 192


def write_clip(
    clip: Animation[Cutout],
    renderer: Renderer[Any],
    paths: Sequence[Path],
    config: ExportConfig,
    begin: Callable[[str], None],
) -> tuple[Path, ...]:
    """Write a clip in any of the formats that hold one; the suffix says which.

    Args:
        clip: what to write, without gradients.
        renderer: draws it.
        paths: where to write.
        config: sizes.
        begin: is told what begins.

    Raises:
        StudioError: a suffix that holds no flat pictures; unwritable folder, full disk; numbers that are not
            finite.
    """
    for path in paths:
        if format_of(path) not in CLIP:
            raise StudioError(
                f"cannot export to {path}: .{format_of(path)} holds solid shapes and the scene is clipart. "
                f"Expected one of {suffixes(of=CLIP)}."
            )
    if wrong := sum(not bool(frame.vertices.isfinite().all()) for frame in clip.frames):
        raise StudioError(
            f"{wrong} of the clip's {len(clip.frames)} frames hold numbers that are not finite, expected "
            "none. Try resuming from an earlier checkpoint with a lower curves_rate_px."
        )
    begin("frames")
    frames = filmed_clip(clip, renderer, config.turntable_size)
    rate = len(clip.frames) / clip.seconds
    for path in paths:
        begin(path.name)
        match format_of(path):
            case "mp4":
                write_mp4(frames, path, rate)
            case "png":
                shown = spread(len(frames), _SHEET_FRAMES)
                labels = [f"{float(clip.times[index]) * clip.seconds:.2f} s" for index in shown]
                images = filmed_clip(clip, renderer, _SHEET_SIZE)[shown]
                write_contact_sheet(images, labels, min(len(shown), _SHEET_FRAMES // 2), path)
            case _:
                write_animation(frames, path, rate)
    return tuple(paths)


def filmed_clip(clip: Animation[Cutout], renderer: Renderer[Any], size: int) -> NDArray[np.uint8]:
    """The frames ``[t, size, size, 3]`` over white."""
    camera = front(size, size)
    device = clip.rest.vertices.device
    return np.concatenate(
        [to_pixels(pictures(renderer, frame, camera, 1.0, device).rgb) for frame in clip.frames]
    )
