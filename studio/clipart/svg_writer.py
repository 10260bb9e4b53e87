"""Vector paths as SVG: elements, and whole files of a still drawing.

Everything is written from numbers and a few words of SVG; no markup of the drawing's own file is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

import torch
from jaxtyping import Float
from torch import Tensor

from studio.clipart.vectors import CANVAS_PX, Color, Gradient, Stroke, VectorPath

SHOWN_PX = 512
"""Width and height that the files ask for."""
_SAMPLES = 33


def svg_of(paths: Sequence[VectorPath]) -> bytes:
    """An SVG file of paths at rest."""
    root, definitions = new_document()
    for path in paths:
        path_element(root, definitions, path).set("d", path_data(path.subpaths, path.closed))
    return encoded(root)


def svg_column(pictures: Sequence[Sequence[VectorPath]], size: int) -> str:
    """An SVG of several pictures of the canvas, one below the other, ``size`` pixels a side."""
    root, definitions = new_document()
    root.set("width", str(size))
    root.set("height", str(size * len(pictures)))
    root.set("viewBox", f"0 0 {size} {size * len(pictures)}")
    placed = {"x": "0", "width": str(size), "height": str(size), "viewBox": f"0 0 {CANVAS_PX} {CANVAS_PX}"}
    for number, paths in enumerate(pictures):
        picture = SubElement(root, "svg", placed | {"y": str(size * number)})
        for path in paths:
            path_element(picture, definitions, path).set("d", path_data(path.subpaths, path.closed))
    return encoded(root).decode()


def path_data(subpaths: Sequence[Float[Tensor, "_ 4 2"]], closed: Sequence[bool]) -> str:
    """SVG's ``d`` of cubic curves: the same commands wherever their points are."""
    parts = []
    for curves, ends in zip(subpaths, closed, strict=True):
        words = [
            rounded(value)
            for value in torch.cat([curves[0, :1], curves[:, 1:].reshape(-1, 2)]).reshape(-1).tolist()
        ]
        parts.append(f"M{words[0]} {words[1]}C{' '.join(words[2:])}{'Z' if ends else ''}")
    return "".join(parts)


def new_document() -> tuple[Element, Element]:
    """The root of an SVG of the canvas, and its element for gradients."""
    size = str(SHOWN_PX)
    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "width": size, "height": size})
    root.set("viewBox", f"0 0 {CANVAS_PX} {CANVAS_PX}")
    return root, SubElement(root, "defs")


def encoded(root: Element) -> bytes:
    """A document as the bytes of a file."""
    definitions = root[0]
    if len(definitions) == 0:
        root.remove(definitions)
    text: str = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def path_element(root: Element, definitions: Element, path: VectorPath) -> Element:
    """A new ``path`` element with all but its ``d``, and the gradients that it needs."""
    style = path.style
    attributes = _paint("fill", style.fill, path, definitions)
    if style.fill is not None and style.fill_rule != "nonzero":
        attributes["fill-rule"] = style.fill_rule
    if style.stroke is not None:
        attributes |= _paint("stroke", style.stroke.paint, path, definitions) | _line(style.stroke)
    return SubElement(root, "path", attributes)


def _line(stroke: Stroke) -> dict[str, str]:
    attributes = {"stroke-width": rounded(stroke.width_px, 4)}
    if stroke.cap != "butt":
        attributes["stroke-linecap"] = stroke.cap
    if stroke.join != "miter":
        attributes["stroke-linejoin"] = stroke.join
    elif stroke.miter_limit != 4.0:
        attributes["stroke-miterlimit"] = rounded(stroke.miter_limit)
    if stroke.dashes_px:
        attributes["stroke-dasharray"] = " ".join(rounded(dash, 4) for dash in stroke.dashes_px)
        attributes["stroke-dashoffset"] = rounded(stroke.dash_offset_px, 4)
    return attributes


def _paint(
    kind: str, paint: Color | Gradient | None, path: VectorPath, definitions: Element
) -> dict[str, str]:
    if paint is None:
        return {kind: "none"}
    if isinstance(paint, Gradient):
        return {kind: f"url(#{_defined(paint, path, definitions)})"}
    return {kind: _hex(paint)} | _opacity(f"{kind}-opacity", paint)


def _opacity(key: str, color: Color) -> dict[str, str]:
    return {} if color.opacity >= 1 else {key: rounded(color.opacity, 4)}


def _hex(color: Color) -> str:
    return "#" + "".join(f"{round(255 * min(1.0, max(0.0, channel))):02x}" for channel in color.rgb)


def _defined(gradient: Gradient, path: VectorPath, definitions: Element) -> str:
    """The id of a gradient's new element, in units of the bounding box of the path, given at rest."""
    linear = gradient.focus is None
    name = f"g{len(definitions)}"
    attributes = {"id": name, "spreadMethod": gradient.spread}
    a, b, c, d, e, f = gradient.matrix
    x, y, width, height = bounding_box(path.subpaths)
    if min(width, height) > 1e-3:
        a, c, e, b, d, f = a / width, c / width, (e - x) / width, b / height, d / height, (f - y) / height
    else:
        attributes["gradientUnits"] = "userSpaceOnUse"
    attributes["gradientTransform"] = f"matrix({' '.join(rounded(value, 6) for value in (a, b, c, d, e, f))})"
    if gradient.focus is None:
        attributes |= {"x1": "0", "y1": "0", "x2": "1", "y2": "0"}
    else:
        attributes |= {"cx": "0", "cy": "0", "r": "1"}
        attributes |= {
            key: rounded(value, 6) for key, value in zip(("fx", "fy"), gradient.focus, strict=True)
        }
    element = SubElement(definitions, "linearGradient" if linear else "radialGradient", attributes)
    for offset, color in gradient.stops:
        stop = {"offset": rounded(offset, 5), "stop-color": _hex(color)} | _opacity("stop-opacity", color)
        SubElement(element, "stop", stop)
    return name


def bounding_box(subpaths: Sequence[Float[Tensor, "_ 4 2"]]) -> tuple[float, float, float, float]:
    """x, y, width and height of curves, by points along them."""
    t = torch.linspace(0, 1, _SAMPLES)[:, None]
    basis = torch.cat([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], -1)
    points = torch.einsum("sk,nkd->nsd", basis, torch.cat(list(subpaths))).reshape(-1, 2)
    (x, y), (right, bottom) = points.amin(0).tolist(), points.amax(0).tolist()
    return x, y, right - x, bottom - y


def rounded(value: float, digits: int = 2) -> str:
    """A number as short as it is exact to so many digits."""
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
