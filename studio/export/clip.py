"""Clipart in motion as files: curves that move, films, a sheet of its frames, its project."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from studio.cameras import front
from studio.clipart.drawing import read_drawing
from studio.clipart.puppet import to_canvas
from studio.errors import StudioError
from studio.export.animated_svg import write_animated_svg, write_svg_frames
from studio.export.animation import spread
from studio.export.files import check_writable, write_bytes
from studio.export.formats import among, format_of, suffixes
from studio.export.images import to_pixels
from studio.export.lottie import write_lottie
from studio.export.pictures import write_animation, write_contact_sheet, write_mp4
from studio.export.shapes import Clip
from studio.export.vector import MovingSheet, VectorClip, vector_clip
from studio.export.views import pictures
from studio.interfaces import Renderer
from studio.recipes.config import CLIP, FLAT, HOLDS_CURVES, ExportConfig
from studio.recipes.project import project_json
from studio.types import Animation, Cutout

_SHEET_FRAMES, _SHEET_SIZE = 12, 192


def write_clip(
    clip: Clip,
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
        StudioError: a suffix that holds no flat pictures, or curves where the drawing is a picture or gone;
            unwritable folder, full disk; numbers that are not finite.
    """
    for path in paths:
        if format_of(path) not in CLIP:
            raise StudioError(
                f"cannot export to {path}: .{format_of(path)} holds solid shapes and the scene is clipart. "
                f"Expected one of {suffixes(of=CLIP)}."
            )
    film = clip.film
    if wrong := sum(not bool(frame.vertices.isfinite().all()) for frame in film.frames):
        raise StudioError(
            f"{wrong} of the clip's {len(film.frames)} frames hold numbers that are not finite, expected "
            "none. Try resuming from an earlier checkpoint with a lower curves_rate_px."
        )
    for folder in {path.parent for path in paths}:
        check_writable(folder)
    if vectors := among(paths, HOLDS_CURVES):
        curves = _curves(clip)
        for path in vectors:
            begin(path.name)
            _write_curves(curves, path)
    for path in among(paths, FLAT - HOLDS_CURVES):
        begin(path.name)
        write_bytes(path, project_json(clip.project, path.parent))
    if films := among(paths, CLIP - FLAT):
        begin("frames")
        drawn = _drawn(film, renderer, config.turntable_size)
        for path in films:
            begin(path.name)
            _write_film(film, drawn, renderer, path)
    return tuple(paths)


def _write_curves(curves: VectorClip, path: Path) -> None:
    match format_of(path):
        case "svg":
            write_animated_svg(curves, path)
        case "json":
            write_lottie(curves, path)
        case "zip":
            write_svg_frames(curves, path)
        case other:
            raise AssertionError(f".{other} holds no curves")


def _write_film(
    film: Animation[Cutout], drawn: Float[Tensor, "t 4 h w"], renderer: Renderer[Any], path: Path
) -> None:
    rate = len(film.frames) / film.seconds
    match format_of(path):
        case "mp4":
            write_mp4(_over_white(drawn), path, rate)
        case "gif":
            write_animation(_over_white(drawn), path, rate)
        case "webp" | "apng":
            write_animation(_cut_out(drawn), path, rate)
        case "png":
            shown = spread(len(film.frames), _SHEET_FRAMES)
            labels = [f"{float(film.times[index]) * film.seconds:.2f} s" for index in shown]
            images = _over_white(_drawn(film, renderer, _SHEET_SIZE)[shown])
            write_contact_sheet(images, labels, min(len(shown), _SHEET_FRAMES // 2), path)
        case other:
            raise AssertionError(f".{other} holds no pictures")


def _drawn(film: Animation[Cutout], renderer: Renderer[Any], size: int) -> Float[Tensor, "t 4 h w"]:
    """The frames over nothing, premultiplied."""
    camera = front(size, size)
    device = film.rest.vertices.device
    frames = [pictures(renderer, frame, camera, 0.0, device) for frame in film.frames]
    return torch.cat([torch.cat([frame.rgb, frame.alpha], 1) for frame in frames])


def _over_white(drawn: Float[Tensor, "t 4 h w"]) -> NDArray[np.uint8]:
    return to_pixels(drawn[:, :3] + 1 - drawn[:, 3:])


def _cut_out(drawn: Float[Tensor, "t 4 h w"]) -> NDArray[np.uint8]:
    """Straight alpha."""
    return to_pixels(torch.cat([drawn[:, :3] / drawn[:, 3:].clamp(min=1e-6), drawn[:, 3:]], 1))


def _curves(clip: Clip) -> VectorClip:
    film = clip.film
    sheets = [
        MovingSheet(
            layer.paths.tolist(),
            clip.puppet.sheets[layer.sheet].sheet,
            torch.stack([to_canvas(frame.layers[number].vertices) for frame in film.frames]),
        )
        for number, layer in enumerate(clip.puppet.layers)
    ]
    drawing = read_drawing(clip.source, _SHEET_SIZE)
    if drawing.not_in_paths:
        warnings.warn(
            f"{drawing.name} has {', '.join(drawing.not_in_paths)}: {suffixes(of=HOLDS_CURVES)} are written "
            "without; films have them.",
            stacklevel=2,
        )
    return vector_clip(drawing, sheets, range(len(film.frames)), film.seconds, film.loops)
