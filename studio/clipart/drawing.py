"""Drawings as the studio animates them: an SVG or a picture, cut free and fitted into the canvas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from studio.clipart.raster import draw_svg, picture_square, read_picture, visible_square
from studio.clipart.svg_paths import Box, page_of, paths_of, unpainted
from studio.clipart.svg_tree import SvgTree, read_svg
from studio.clipart.vectors import CANVAS_PX as CANVAS_PX
from studio.clipart.vectors import VectorPath as VectorPath
from studio.errors import StudioError, nearest

SUFFIXES = (".svg", ".png", ".webp", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Drawing:
    """A flat drawing in the middle of a transparent square canvas.

    Attributes:
        rgba: the picture, straight alpha, 8-bit sRGB; texel (row, column) covers the square around
            ((column + 0.5), (row + 0.5)) · CANVAS_PX / h of the canvas.
        paths: the same drawing as curves in canvas pixels, in the order of drawing; empty for a picture.
        name: the file's name without its suffix.
        left_out: what the file has and the drawing has not: "text", "embedded pictures" …
        not_in_paths: what ``rgba`` shows and ``paths`` do not: "masks", "filter effects" …
    """

    rgba: UInt8[Tensor, "h w 4"]
    paths: tuple[VectorPath, ...]
    name: str
    left_out: tuple[str, ...] = ()
    not_in_paths: tuple[str, ...] = ()


def read_drawing(path: Path, texture_size: int = 1024) -> Drawing:
    """Reads an SVG, PNG, WebP or JPEG file.

    Nothing but the file is read, and nothing in it runs. Text is left out, as it would look different on
    every machine. Where a picture is not transparent anywhere and stands on a plain background, the
    background is removed.

    Args:
        path: the file.
        texture_size: width and height of ``rgba``.

    Raises:
        StudioError: another suffix; a file that is missing, empty, too large, broken or that refers to other
            files; nothing visible, or only text; the libraries for SVG are not installed.
    """
    check_file(path)
    if path.suffix.lower() != ".svg":
        return Drawing(torch.from_numpy(read_picture(path, texture_size).copy()), (), path.stem)
    with svg_libraries():
        tree, square = _placed(path)
        rgba = torch.from_numpy(draw_svg(tree, square, texture_size).copy())
        return Drawing(rgba, paths_of(tree, square), path.stem, tree.left_out, unpainted(tree))


def place_of(path: Path) -> tuple[Box, Box]:
    """The page of a drawing's file, and the square that fills the canvas, in the file's own coordinates.

    The page of an SVG is its viewBox, or as large as it says that it is; of a picture, all of its pixels.

    Raises:
        StudioError: as ``read_drawing``.
    """
    check_file(path)
    if path.suffix.lower() != ".svg":
        return picture_square(path)
    with svg_libraries():
        tree, square = _placed(path)
        return page_of(tree), square


@contextmanager
def svg_libraries() -> Iterator[None]:
    """Names the library for SVG that is missing.

    Raises:
        StudioError: it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise StudioError(f"SVG files need {error.name}; try: pip install 'studio[clipart]'") from error


def check_file(path: Path) -> None:
    """That a path is a file of a drawing.

    Raises:
        StudioError: another suffix; a file that is missing or empty.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise StudioError(
            f"{path.name} has the suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}."
            f"{nearest(path.suffix, SUFFIXES)} Or export the drawing as SVG or PNG first."
        )
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError:
        size = None
    if size is None:
        raise StudioError(f"There is no file {path}: check the path.")
    if size == 0:
        raise StudioError(f"{path.name} is empty, expected a drawing: export it again.")


def _placed(path: Path) -> tuple[SvgTree, Box]:
    """An SVG file, and the square of its coordinates that fills the canvas."""
    tree = read_svg(path.read_bytes(), path.name)
    square = visible_square(tree)
    if square is None and "text" in tree.left_out:
        raise StudioError(
            f"{path.name} has only text, expected outlines: convert the text to paths in a drawing program."
        )
    if square is None:
        without = f" (left out: {', '.join(tree.left_out)})" if tree.left_out else ""
        raise StudioError(
            f"{path.name} shows nothing on its page{without}, expected a visible drawing: "
            "check its size, viewBox and colours, or export it as PNG."
        )
    return tree, square
