"""Drawings as pixels: SVG trees through resvg, and pictures cut from a plain background."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

import numpy as np
import numpy.typing as npt
from PIL import Image

from studio.clipart.resvg import png_of
from studio.clipart.svg_paths import Box, page_of
from studio.clipart.svg_tree import SVG_NAMESPACE, SvgTree
from studio.clipart.svg_writer import svg_column
from studio.clipart.vectors import CANVAS_PX, VectorPath
from studio.errors import StudioError

Pixels = npt.NDArray[np.uint8]
"""[h, w, 4], straight alpha."""
Bounds = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, right and bottom excluded."""

MARGIN_PX = 24
"""Canvas pixels that stay free on each side: room to move."""
VISIBLE_ALPHA = 0.1
MAX_PIXELS = 64_000_000
LOOK_PX = 512
_BACKGROUND_TOLERANCE = 24.0
"""Greatest distance in 8-bit RGB from a plain background's colour, noise of JPEG included."""
_EDGE_PX = 2
_PICTURES_AT_ONCE = 32


def draw_svg(tree: SvgTree, square: Box, size: int) -> Pixels:
    """A square part of a drawing at ``size`` pixels a side; transparent where nothing is drawn or no page is.

    Raises:
        StudioError: as ``png_of``.
    """
    page = page_of(tree)
    placing = dict(zip(("x", "y", "width", "height"), map(str, page), strict=True))
    inner = Element("svg", tree.root.attrib | placing | {"viewBox": _spaced(page), "overflow": "hidden"})
    inner.attrib.pop("preserveAspectRatio", None)
    inner.extend(tree.root)
    outer = Element("svg", {"xmlns": SVG_NAMESPACE, "viewBox": _spaced(square)})
    outer.attrib |= {"width": str(size), "height": str(size)}
    outer.append(inner)
    return _pixels(Image.open(io.BytesIO(png_of(tostring(outer, encoding="unicode")))))


def draw_paths(pictures: Sequence[Sequence[VectorPath]], size: int) -> Pixels:
    """Pictures ``[n, size, size, 4]`` of paths on the canvas, ``size`` pixels a side.

    Raises:
        StudioError: resvg refuses the drawing.
    """
    columns = []
    for start in range(0, len(pictures), _PICTURES_AT_ONCE):
        svg = svg_column(pictures[start : start + _PICTURES_AT_ONCE], size)
        columns.append(_pixels(Image.open(io.BytesIO(png_of(svg)))))
    return np.concatenate(columns).reshape(-1, size, size, 4)


def visible_square(tree: SvgTree) -> Box | None:
    """The square of a drawing's coordinates that centres what it shows and leaves ``MARGIN_PX`` free.

    None where nothing is visible.
    """
    x, y, width, height = page_of(tree)
    side = max(width, height)
    square = (x + (width - side) / 2, y + (height - side) / 2, side, side)
    for _ in range(2):  # a small drawing on a large page is looked at twice
        found = _bounds(draw_svg(tree, square, LOOK_PX))
        if found is None:
            return None
        texel = square[2] / LOOK_PX
        x, y, side, _ = _square_around(found)
        square = (square[0] + x * texel, square[1] + y * texel, side * texel, side * texel)
    return square


def picture_square(path: Path) -> tuple[Box, Box]:
    """All of a picture file, and the square of it that fills the canvas, in its own pixels.

    Raises:
        StudioError: as ``read_picture``.
    """
    pixels, bounds = _cut_free(path)
    return (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0])), _square_around(bounds)


def read_picture(path: Path, size: int) -> Pixels:
    """A picture file cut free and fitted into the canvas, at ``size`` pixels a side.

    Where no pixel is transparent and the border is of one colour, what is joined to the border and of that
    colour is removed.

    Raises:
        StudioError: a file that is no picture, or is broken, or has too many pixels; nothing visible.
    """
    return _fitted(*_cut_free(path), size)


def _cut_free(path: Path) -> tuple[Pixels, Bounds]:
    """The pixels of a picture file without its background, and what of them is visible.

    Raises:
        StudioError: a file that is no picture, or is broken, or has too many pixels; nothing visible.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                pixels = _pixels(file)
    except Image.DecompressionBombError as error:
        raise StudioError(
            f"{path.name} has more than {MAX_PIXELS / 1e6:.0f} million pixels: make it smaller."
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise StudioError(
            f"{path.name} cannot be read as a picture ({str(error).splitlines()[0]}): "
            "check that the file is whole, or save it as PNG."
        ) from error
    if (pixels[..., 3] == 255).all():
        pixels = _cut_out(pixels)
    bounds = _bounds(pixels)
    if bounds is None:
        raise StudioError(
            f"{path.name} shows nothing: every pixel is transparent. Expected a visible drawing."
        )
    return pixels, bounds


def _square_around(bounds: Bounds) -> Box:
    """The square around what is visible that leaves ``MARGIN_PX`` of the canvas free."""
    left, top, right, bottom = bounds
    side = max(right - left, bottom - top) * CANVAS_PX / (CANVAS_PX - 2 * MARGIN_PX)
    return (left + right - side) / 2, (top + bottom - side) / 2, side, side


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGBA"), dtype=np.uint8)


def _spaced(numbers: Box) -> str:
    return " ".join(f"{number:.9g}" for number in numbers)


def _bounds(pixels: Pixels) -> Bounds | None:
    """What is visible."""
    visible = pixels[..., 3] > VISIBLE_ALPHA * 255
    columns, rows = np.flatnonzero(visible.any(0)), np.flatnonzero(visible.any(1))
    if len(columns) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _fitted(pixels: Pixels, bounds: Bounds, size: int) -> Pixels:
    """What is within bounds, in the middle of a transparent square with the canvas's margin."""
    left, top, right, bottom = bounds
    room = size * (1 - 2 * MARGIN_PX / CANVAS_PX)
    scale = room / max(right - left, bottom - top)
    width, height = (max(1, round(side * scale)) for side in (right - left, bottom - top))
    part = Image.fromarray(pixels[top:bottom, left:right]).convert("RGBa")  # premultiplied: no dark fringes
    part = part.resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (size, size))
    square.paste(part, ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


def _cut_out(pixels: Pixels) -> Pixels:
    """The picture without its background, where that is of one colour; else the picture."""
    from scipy import ndimage

    colors = pixels[..., :3].astype(np.float32)
    border = np.concatenate([colors[0], colors[-1], colors[:, 0], colors[:, -1]])
    background = np.median(border, axis=0)
    if np.mean(np.linalg.norm(border - background, axis=-1) > _BACKGROUND_TOLERANCE) > 0.02:
        return pixels
    distance = np.linalg.norm(colors - background, axis=-1)
    regions, count = ndimage.label(distance <= _BACKGROUND_TOLERANCE)
    at_border = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    outside = np.isin(regions, at_border[at_border > 0])
    if count == 0 or outside.all():
        return pixels
    # Pixels at the edge are part background: their colour is that of the nearest pixel well inside, and their
    # alpha how far they have come from the background towards it.
    inside = ndimage.binary_erosion(~outside, iterations=_EDGE_PX, border_value=1)
    if not inside.any():
        inside = ~outside
    depth, (rows, columns) = ndimage.distance_transform_edt(~inside, return_indices=True)
    nearest = colors[rows, columns]
    towards = ((colors - background) * (nearest - background)).sum(-1)
    share = towards / np.maximum(((nearest - background) ** 2).sum(-1), 1.0)
    edge = (depth > 0) & (depth <= 2 * _EDGE_PX) & ~outside
    alpha = np.where(outside, 0.0, np.where(edge, np.clip(share, 0.0, 1.0), 1.0))
    rgb = np.where((edge & (alpha < 1))[..., None], nearest, colors)
    return np.asarray(np.concatenate([rgb, alpha[..., None] * 255], -1).round(), dtype=np.uint8)
