"""The paths of an SVG tree as cubic curves on the canvas, with their paint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from xml.etree.ElementTree import Element

import torch
from torch import Tensor

from studio.clipart.svg_tree import SvgTree, reference
from studio.clipart.vectors import CANVAS_PX, Color, Gradient, PathStyle, Stroke, VectorPath

if TYPE_CHECKING:
    from svgelements import Matrix, Path

Box = tuple[float, float, float, float]
"""x, y, width, height."""

# What every element hands down to its children, and its value where nobody says.
_INHERITED = {
    "fill": "black", "fill-opacity": "1", "fill-rule": "nonzero", "stroke": "none", "stroke-width": "1",
    "stroke-opacity": "1", "stroke-linecap": "butt", "stroke-linejoin": "miter", "stroke-miterlimit": "4",
    "stroke-dasharray": "none", "stroke-dashoffset": "0", "color": "black", "visibility": "visible",
}  # fmt: skip
_MOST_ISLANDS = 64
"""Paths of more parts stay whole."""
_GRADIENT_STEPS = 8
"""Gradients may inherit from one another; longer chains are cut."""


@dataclass(frozen=True)
class _Context:
    """Where and how the children of an element are drawn."""

    style: dict[str, str]
    to_canvas: Matrix
    opacity: float
    view: tuple[float, float]
    """Width and height that percentages are of."""

    @property
    def diagonal(self) -> float:
        """What percentages are of that are neither along x nor along y."""
        return math.hypot(*self.view) / math.sqrt(2)


def page_of(tree: SvgTree) -> Box:
    """What part of its coordinates an SVG shows: its viewBox, else its size, else SVG's default."""
    box = _view_box(tree.root)
    if box is not None:
        return box
    width = length(tree.root.attrib.get("width"), 300.0, 300.0)
    height = length(tree.root.attrib.get("height"), 150.0, 150.0)
    return (0.0, 0.0, width, height) if min(width, height) > 0 else (0.0, 0.0, 300.0, 150.0)


def paths_of(tree: SvgTree, square: Box) -> tuple[VectorPath, ...]:
    """All painted paths of a drawing, in the order in which they are drawn; islands of a path one by one.

    Text, pictures, patterns, masks, clip paths, filters and markers are not paths: they are left out, and
    what they would hide is not hidden, nor is what lies off the page.

    Args:
        tree: the drawing.
        square: the part of its own coordinates that fills the canvas.
    """
    from svgelements import Matrix

    scale = CANVAS_PX / square[2]
    placed = Matrix(scale, 0, 0, scale, -square[0] * scale, -square[1] * scale)
    context = _Context(dict(_INHERITED), placed, 1.0, page_of(tree)[2:])
    root = Element("g", {key: value for key, value in tree.root.attrib.items() if key != "transform"})
    root.extend(tree.root)
    return tuple(island for path in _walk(root, context, tree) for island in _islands(path))


def unpainted(tree: SvgTree) -> tuple[str, ...]:
    """What of the tree its picture shows and ``paths_of`` does not."""
    kinds = {"clip-path": "clip paths", "mask": "masks", "filter": "filter effects"}
    kinds |= {f"marker{end}": "markers" for end in ("", "-start", "-mid", "-end")}
    found = {
        kinds[key]: None
        for element in tree.root.iter()
        for key, value in element.attrib.items()
        if key in kinds and reference(value) in tree.by_id
    }
    if any(True for _ in tree.root.iter("pattern")):
        found["patterns"] = None
    return tuple(found)


def length(text: str | None, percent_of: float, default: float = 0.0) -> float:
    """A length of SVG in its user units, at 96 per inch."""
    from svgelements import Length

    if text is None:
        return default
    try:
        value = Length(text).value(ppi=96, relative_length=percent_of, font_size=16, font_height=8)
        return float(value) if math.isfinite(float(value)) else default
    except (ValueError, TypeError):
        return default


def _walk(element: Element, context: _Context, tree: SvgTree) -> Iterator[VectorPath]:
    attributes = element.attrib
    style = context.style | {
        key: attributes[key] for key in _INHERITED if attributes.get(key, "inherit") != "inherit"
    }
    context = replace(
        context,
        style=style,
        to_canvas=_matrix(attributes.get("transform", "")) * context.to_canvas,
        opacity=context.opacity * _unit(attributes.get("opacity", "1")),
    )
    match element.tag:
        case "g":
            children = list(element)
        case "switch":
            children = [child for child in element if "requiredExtensions" not in child.attrib][:1]
        case "svg":
            context, children = _inside(element, context), list(element)
        case "use":
            target = tree.by_id.get(attributes.get("href", "")[1:])
            if target is None:
                return
            moved = _offset(element, context) * context.to_canvas
            context, children = replace(context, to_canvas=moved), [target]
            if target.tag == "symbol":
                sized = {key: attributes[key] for key in ("width", "height") if key in attributes}
                viewport = Element("svg", target.attrib | sized)
                viewport.extend(target)
                children = [viewport]
        case _:
            path = _painted(element, context, tree)
            if path is not None:
                yield path
            return
    for child in children:
        yield from _walk(child, context, tree)


def _view_box(element: Element) -> Box | None:
    """The ``viewBox`` of an element where it has a sensible one."""
    try:
        numbers = [float(number) for number in element.attrib.get("viewBox", "").replace(",", " ").split()]
    except ValueError:
        return None
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _inside(element: Element, context: _Context) -> _Context:
    """The coordinates within a nested ``svg``."""
    box = _view_box(element)
    width = length(element.attrib.get("width"), context.view[0], context.view[0])
    height = length(element.attrib.get("height"), context.view[1], context.view[1])
    inner, view = _offset(element, context), (width, height)
    if box is not None:
        scale = min(width / box[2], height / box[3])
        margins = f"translate({(width - scale * box[2]) / 2} {(height - scale * box[3]) / 2})"
        inner = _matrix(f"{margins} scale({scale}) translate({-box[0]} {-box[1]})") * inner
        view = box[2:]
    return replace(context, to_canvas=inner * context.to_canvas, view=view)


def _offset(element: Element, context: _Context) -> Matrix:
    x, y = (length(element.attrib.get(key), size) for key, size in zip("xy", context.view, strict=True))
    return _matrix(f"translate({x} {y})")


def _islands(path: VectorPath) -> list[VectorPath]:
    """The same in parts that are apart, so that each may move alone: two hands that are one path.

    What is within another part's box may be a hole in it, and stays with it.
    """
    count = len(path.subpaths)
    if not 2 <= count <= _MOST_ISLANDS:
        return [path]
    points = [subpath.reshape(-1, 2) for subpath in path.subpaths]
    low = torch.stack([part.amin(0) for part in points])
    high = torch.stack([part.amax(0) for part in points])
    meet = ((low[:, None] <= high) & (low <= high[:, None])).all(-1)
    island = torch.arange(count)
    for _ in range(count):  # as the smallest number among those that it meets, over and over
        island = torch.where(meet, island, count).amin(1)
    return [
        replace(
            path,
            subpaths=tuple(path.subpaths[part] for part in parts),
            closed=tuple(path.closed[part] for part in parts),
        )
        for parts in (
            (island == number).nonzero().flatten().tolist() for number in sorted(set(island.tolist()))
        )
    ]


# --------------------------------------------------------------------------------------------------- shapes


def _painted(element: Element, context: _Context, tree: SvgTree) -> VectorPath | None:
    if context.style["visibility"] != "visible":
        return None
    outline = _outline(element, context)
    if outline is None:
        return None
    subpaths, closed = _cubics(outline)
    if not subpaths:
        return None
    points = torch.cat([subpath.reshape(-1, 2) for subpath in subpaths])
    low, high = points.amin(0).tolist(), points.amax(0).tolist()
    box = (low[0], low[1], high[0] - low[0], high[1] - low[1])
    style = _style(context, box, tree)
    if style.fill is None and style.stroke is None:
        return None
    placed = tuple(_moved(subpath, context.to_canvas) for subpath in subpaths)
    if not all(bool(subpath.isfinite().all()) for subpath in placed):
        return None
    return VectorPath(placed, closed, style)


def _outline(element: Element, context: _Context) -> Path | None:
    """The element's outline in its own coordinates; None for what is no shape, or not a sensible one."""
    import svgelements

    attributes: dict[str, Any] = dict(element.attrib)
    for key in ("transform", "fill", "stroke", "stroke-width"):
        attributes.pop(key, None)
    for key, size in _sizes(context):
        if key in attributes:
            attributes[key] = length(attributes[key], size)
    kinds = {
        "circle": svgelements.Circle, "ellipse": svgelements.Ellipse, "rect": svgelements.Rect,
        "line": svgelements.SimpleLine, "polyline": svgelements.Polyline, "polygon": svgelements.Polygon,
    }  # fmt: skip
    try:
        if element.tag == "path":
            outline = svgelements.Path()
            _parse_prefix(outline, attributes.get("d", ""))
        elif element.tag in kinds:
            outline = svgelements.Path(kinds[element.tag](attributes))
        else:
            return None
        outline.approximate_arcs_with_cubics()
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError):
        return None
    return outline


def _sizes(context: _Context) -> Iterator[tuple[str, float]]:
    """The lengths that place a shape, and what their percentages are of."""
    width, height = context.view
    yield from ((key, width) for key in ("x", "x1", "x2", "cx", "width", "rx"))
    yield from ((key, height) for key in ("y", "y1", "y2", "cy", "height", "ry"))
    yield "r", context.diagonal


def _parse_prefix(outline: Path, data: str) -> None:
    """Reads path data up to the first mistake, as SVG asks for."""
    try:
        outline.parse(data)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError):
        return


def _cubics(outline: Path) -> tuple[list[Tensor], tuple[bool, ...]]:
    import svgelements

    subpaths: list[list[list[complex]]] = []
    closed: list[bool] = []
    here, start = 0j, 0j
    for segment in outline:
        if isinstance(segment, svgelements.Move):
            here = start = complex(segment.end)
            subpaths.append([])
            closed.append(False)
            continue
        if not subpaths or closed[-1]:  # drawing goes on where the last subpath was closed
            subpaths.append([])
            closed.append(False)
        if isinstance(segment, svgelements.CubicBezier):
            controls = [complex(segment.control1), complex(segment.control2), complex(segment.end)]
        elif isinstance(segment, svgelements.QuadraticBezier):
            end, middle = complex(segment.end), complex(segment.control)
            controls = [here + (middle - here) * (2 / 3), end + (middle - end) * (2 / 3), end]
        else:
            end = start if isinstance(segment, svgelements.Close) else complex(segment.end)
            controls = [here + (end - here) / 3, here + (end - here) * (2 / 3), end]
        if not isinstance(segment, svgelements.Close) or controls[-1] != here or not subpaths[-1]:
            subpaths[-1].append([here, *controls])
        here = controls[-1]
        if isinstance(segment, svgelements.Close):
            closed[-1] = True
    kept = [index for index, subpath in enumerate(subpaths) if subpath]
    curves = [torch.view_as_real(torch.tensor(subpaths[index], dtype=torch.complex128)) for index in kept]
    return curves, tuple(closed[index] for index in kept)


def _moved(points: Tensor, matrix: Matrix) -> Tensor:
    linear = torch.tensor([[matrix.a, matrix.b], [matrix.c, matrix.d]], dtype=torch.float64)
    shift = torch.tensor([matrix.e, matrix.f], dtype=torch.float64)
    return (points @ linear + shift).float()


def _matrix(text: str) -> Matrix:
    from svgelements import Matrix

    try:
        matrix = Matrix(text)
        matrix.render(ppi=96, width=CANVAS_PX, height=CANVAS_PX)
        return matrix if all(map(math.isfinite, _numbers(matrix))) else Matrix()
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError):
        return Matrix()


def _numbers(matrix: Matrix) -> tuple[float, float, float, float, float, float]:
    a, b, c, d, e, f = (float(getattr(matrix, key)) for key in "abcdef")
    return a, b, c, d, e, f


# ---------------------------------------------------------------------------------------------------- paint


def _style(context: _Context, box: Box, tree: SvgTree) -> PathStyle:
    style, matrix = context.style, context.to_canvas
    scale = math.sqrt(abs(matrix.a * matrix.d - matrix.b * matrix.c))
    fill = _paint(style["fill"], context.opacity * _unit(style["fill-opacity"]), context, box, tree)
    paint = _paint(style["stroke"], context.opacity * _unit(style["stroke-opacity"]), context, box, tree)
    width_px = length(style["stroke-width"], context.diagonal, 1.0) * scale
    dashes = tuple(
        length(dash, context.diagonal) * scale
        for dash in style["stroke-dasharray"].replace("none", "").replace(",", " ").split()
    )
    stroke = None
    if paint is not None and width_px > 0:
        stroke = Stroke(
            paint,
            width_px,
            _one_of(style["stroke-linecap"], _CAPS),
            _one_of(style["stroke-linejoin"], _JOINS),
            max(1.0, length(style["stroke-miterlimit"], 1.0, 4.0)),
            dashes if sum(dashes) > 0 and min(dashes) >= 0 else (),
            length(style["stroke-dashoffset"], context.diagonal) * scale,
        )
    return PathStyle(fill, stroke, _one_of(style["fill-rule"], _RULES))


_CAPS: tuple[Literal["butt", "round", "square"], ...] = ("butt", "round", "square")
_JOINS: tuple[Literal["miter", "round", "bevel"], ...] = ("miter", "round", "bevel")
_RULES: tuple[Literal["nonzero", "evenodd"], ...] = ("nonzero", "evenodd")
_SPREADS: tuple[Literal["pad", "reflect", "repeat"], ...] = ("pad", "reflect", "repeat")


def _one_of(text: str, words: tuple[Any, ...]) -> Any:
    """The word of SVG that the text is, else the first."""
    return text if text in words else words[0]


def _paint(text: str, opacity: float, context: _Context, box: Box, tree: SvgTree) -> Color | Gradient | None:
    target = reference(text)
    if target is not None:
        element = tree.by_id.get(target)
        if element is not None and element.tag.endswith("Gradient"):
            return _gradient(element, opacity, context, box, tree)
        fallback = text.partition(")")[2].strip()  # a pattern has none, or what stands after it
        text = fallback or ("#808080" if element is not None else "none")
    color = _color(text, context.style["color"])
    return None if color is None else Color(color.rgb, color.opacity * opacity)


def _color(text: str, current: str) -> Color | None:
    from svgelements import Color as AnyColor

    text = current if text == "currentColor" else text
    if text in ("none", "transparent"):
        return None
    try:
        color = AnyColor(text.partition(" icc-color")[0])
        if color.value is None:
            return None
        return Color((color.red / 255, color.green / 255, color.blue / 255), color.alpha / 255)
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def _gradient(
    element: Element, opacity: float, context: _Context, box: Box, tree: SvgTree
) -> Color | Gradient | None:
    chain = [element]
    while len(chain) < _GRADIENT_STEPS:
        parent = tree.by_id.get(chain[-1].attrib.get("href", "")[1:])
        if parent is None or not parent.tag.endswith("Gradient"):
            break
        chain.append(parent)
    attributes = {key: value for parent in reversed(chain) for key, value in parent.attrib.items()}
    stops = next((found for found in (_stops(parent, opacity, context) for parent in chain) if found), ())
    if len(stops) < 2:
        return stops[0][1] if stops else None
    whole = attributes.get("gradientUnits") != "userSpaceOnUse"
    if whole and min(box[2:]) <= 0:
        return stops[-1][1]
    width, height, round_size = (1.0, 1.0, 1.0) if whole else (*context.view, context.diagonal)
    units = _matrix(f"matrix({box[2]} 0 0 {box[3]} {box[0]} {box[1]})") if whole else _matrix("")
    to_canvas = _matrix(attributes.get("gradientTransform", "")) * units * context.to_canvas

    def at(key: str, size: float, default: str) -> float:
        return length(attributes.get(key, default), size)

    focus = None
    if element.tag == "linearGradient":
        x1, y1 = at("x1", width, "0%"), at("y1", height, "0%")
        dx, dy = at("x2", width, "100%") - x1, at("y2", height, "0%") - y1
        own = _matrix(f"matrix({dx} {dy} {-dy} {dx} {x1} {y1})")
        if dx == dy == 0:
            return stops[-1][1]
    else:
        cx, cy, r = at("cx", width, "50%"), at("cy", height, "50%"), at("r", round_size, "50%")
        if r <= 0:
            return stops[-1][1]
        fx, fy = length(attributes.get("fx"), width, cx), length(attributes.get("fy"), height, cy)
        focus = ((fx - cx) / r, (fy - cy) / r)
        own = _matrix(f"matrix({r} 0 0 {r} {cx} {cy})")
    matrix = own * to_canvas
    return Gradient(
        stops,
        _numbers(matrix),
        focus,
        _one_of(attributes.get("spreadMethod", "pad"), _SPREADS),
    )


def _stops(element: Element, opacity: float, context: _Context) -> tuple[tuple[float, Color], ...]:
    stops: list[tuple[float, Color]] = []
    for stop in element.iter("stop"):
        color = _color(
            stop.attrib.get("stop-color", "black"), stop.attrib.get("color", context.style["color"])
        )
        alpha = opacity * _unit(stop.attrib.get("stop-opacity", "1"))
        offset = max(_unit(stop.attrib.get("offset", "0")), stops[-1][0] if stops else 0.0)
        rgb, own = ((0.0, 0.0, 0.0), 0.0) if color is None else (color.rgb, color.opacity)
        stops.append((offset, Color(rgb, own * alpha)))
    return tuple(stops)


def _unit(text: str) -> float:
    """A number or percentage, clamped to 0-1; 1 where it is neither."""
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return 1.0
    return min(1.0, max(0.0, number)) if math.isfinite(number) else 1.0
