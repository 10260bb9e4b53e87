"""Plots as inline SVG: no library, no script. Lines, dots and letters take their looks from the page's style.

Coordinates are those of the view box: x to the right, y down, one unit a pixel where there is room.
"""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_WIDTH, _HEIGHT = 430.0, 330.0
_LEFT, _TOP, _BOTTOM = 46.0, 12.0, 40.0
_ROW = 16.0
_LETTER, _LINE = 6.2, 12.0
"""Width of a letter and height of a line, about, in the page's 11 pixel type."""
_LOG_STEPS = ((1.0, (1, 2, 3, 5, 7)), (2.0, (1, 2, 5)), (math.inf, (1,)))
"""Ticks in a decade, for axes of less than so many decades."""


@dataclass(frozen=True)
class Axis:
    """A range of values, of base 10 logarithms where ``is_log``; ``marks`` replace the usual ticks."""

    title: str
    low: float
    high: float
    is_log: bool = False
    marks: tuple[float, ...] = ()

    @staticmethod
    def around(
        title: str, values: Sequence[float], is_log: bool = False, marks: Sequence[float] = ()
    ) -> Axis:
        """An axis with a little room about some values."""
        scaled = [math.log10(value) if is_log else value for value in values]
        low, high = min(scaled), max(scaled)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
        return Axis(title, low - room, high + room, is_log, tuple(marks))

    def at(self, value: float) -> float:
        """Where a value lies, from 0 at the low end to 1 at the high end."""
        return ((math.log10(value) if self.is_log else value) - self.low) / (self.high - self.low)

    def ticks(self) -> tuple[float, ...]:
        """Round values within the range."""
        if self.marks:
            return self.marks
        if self.is_log:
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            steps = next(few for wide, few in _LOG_STEPS if self.high - self.low < wide)
            found = [step * 10.0**decade for decade in decades for step in steps]
        else:
            rough = (self.high - self.low) / 7
            unit = 10.0 ** math.floor(math.log10(rough))
            step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
            # Multiples, not sums: 0.30000000000000004 is no tick.
            multiples = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
            found = [round(multiple * step, 12) for multiple in multiples]
        return tuple(value for value in found if 0 <= self.at(value) <= 1)


@dataclass(frozen=True)
class Series:
    """Named points (x, y)."""

    name: str
    points: tuple[tuple[float, float], ...]


def scatter(points: Sequence[Series], x: Axis, y: Axis) -> str:
    """A dot for each point; each name once, as near to its first dot as there is room."""
    across, down = _placers(x, y, _WIDTH - 12)
    placed = [(series.name, [(across(a), down(b)) for a, b in series.points]) for series in points]
    taken = [_Box(a - 4, b - 4, a + 4, b + 4) for _, dots in placed for a, b in dots]
    parts = [_frame(x, y, across, down)]
    for name, dots in placed:
        parts += [_dot(a, b, name) for a, b in dots]
        label = _label_near(*dots[0], name, taken)
        if label is not None:
            taken.append(label)
            middle = (min(max(dots[0][0], label.left), label.right), (label.top + label.bottom) / 2)
            if math.dist(middle, dots[0]) > _LINE:
                parts.append(_segment("leader", *dots[0], *middle))
            parts.append(_words(label.left + 2, label.bottom - 3, name))
    return _svg(_HEIGHT, f"{y.title} against {x.title}", "".join(parts))


def lines(drawn: Sequence[Series], x: Axis, y: Axis, level: float | None = None) -> str:
    """A line for each series, named at its right end; a dashed one at ``level``."""
    longest = max(len(series.name) for series in drawn)
    across, down = _placers(x, y, _WIDTH - 14 - _LETTER * longest)
    parts = [_frame(x, y, across, down)]
    if level is not None:
        parts.append(_segment("level", across.start, down(level), across.stop, down(level)))
    ends = [down(series.points[-1][1]) for series in drawn]
    for index, (series, end) in enumerate(zip(drawn, _apart(ends, _HEIGHT - _BOTTOM), strict=True)):
        places = [(across(a), down(b)) for a, b in series.points]
        parts.append(
            f'<g class="line" style="--hue:{360 * index // len(drawn)}">'
            + _polyline(places)
            + "".join(_dot(a, b, series.name) for a, b in places)
            + _words(across.stop + 6, end + 4, series.name)
            + "</g>"
        )
    return _svg(_HEIGHT, f"{y.title} against {x.title}", "".join(parts))


def strip(rows: Sequence[tuple[str, Sequence[float]]], x: Axis, level: float | None = None) -> str:
    """A row for each name: a dot for each value and a bar at their median; a dashed line at ``level``."""
    height = _TOP + _ROW * len(rows) + _BOTTOM
    left = 12 + _LETTER * max(len(name) for name, _ in rows)
    across = _Placer(x, left, _WIDTH - 12)
    bottom = height - _BOTTOM
    parts = [_across_ticks(x, across, bottom)]
    if level is not None:
        parts.append(_segment("level", across(level), _TOP, across(level), bottom))
    for index, (name, values) in enumerate(rows):
        middle = _TOP + _ROW * (index + 0.5)
        parts.append(_words(left - 8, middle + 4, name, "end"))
        parts += [_dot(across(value), middle, f"{name}: {value:.2f}") for value in values]
        if len(values) > 1:
            median = across(statistics.median(values))
            parts.append(_segment("median", median, middle - 6, median, middle + 6))
    return _svg(height, x.title, "".join(parts))


def curve(values: Series, last_step: int, limits: tuple[float, float], is_log: bool) -> str:
    """A small line over the steps of a run, from 1 to the last, with the range of its axis."""
    width, height = 240.0, 44.0
    scaled: Callable[[float], float] = math.log10 if is_log else float
    low, high = scaled(limits[0]), scaled(limits[1])
    places = [
        (
            (step - 1) / max(last_step - 1, 1) * width,
            height * (1 - (scaled(value) - low) / max(high - low, 1e-9)),
        )
        for step, value in values.points
        if math.isfinite(value) and (value > 0 or not is_log)
    ]
    return (
        f'<svg viewBox="-2 -12 {width + 4:g} {height + 26:g}" role="img" aria-label="{_text(values.name)}">'
        + _segment("axis", 0.0, height, width, height)
        + _polyline(places)
        + _words(0.0, -3.0, f"{limits[1]:.2g}")
        + _words(width, -3.0, values.name, "end")
        + _words(0.0, height + 12, f"{limits[0]:.2g}")
        + _words(width, height + 12, f"step {last_step}", "end")
        + "</svg>"
    )


# ------------------------------------------------------------------------------------------------ parts


@dataclass(frozen=True)
class _Placer:
    """From an axis' values to pixels; ``start`` is where its low end lies."""

    axis: Axis
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + self.axis.at(value) * (self.stop - self.start)


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def _placers(x: Axis, y: Axis, right: float) -> tuple[_Placer, _Placer]:
    return _Placer(x, _LEFT, right), _Placer(y, _HEIGHT - _BOTTOM, _TOP)


def _label_near(x: float, y: float, name: str, taken: Sequence[_Box]) -> _Box | None:
    """The free place for a name that is nearest to a dot: rings of growing radius are tried."""
    width = _LETTER * len(name) + 4
    for radius in range(10, 120, 10):
        for turn in range(16):
            angle = turn / 16 * 2 * math.pi
            # The label's near edge, not its middle, lies on the ring.
            middle_x = x + (radius + width / 2) * math.cos(angle)
            middle_y = y + (radius + _LINE / 4) * math.sin(angle)
            box = _Box(middle_x - width / 2, middle_y - _LINE / 2, middle_x + width / 2, middle_y + _LINE / 2)
            inside = box.left >= _LEFT and box.right <= _WIDTH and 0 <= box.top
            if inside and box.bottom <= _HEIGHT - _BOTTOM and not any(box.meets(other) for other in taken):
                return box
    return None


def _apart(places: Sequence[float], bottom: float) -> list[float]:
    """The same places in the same order, a line's height from each other, none below ``bottom``."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for above, index in pairwise(order):
        moved[index] = max(moved[index], moved[above] + _LINE)
    limit = bottom
    for index in reversed(order):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - _LINE
    return moved


def _frame(x: Axis, y: Axis, across: _Placer, down: _Placer) -> str:
    sideways = "".join(
        _segment("axis", across.start, down(tick), across.stop, down(tick))
        + _words(across.start - 6, down(tick) + 4, f"{tick:g}", "end")
        for tick in y.ticks()
    )
    title = _words(
        0.0, 0.0, y.title, "middle", f"translate(10 {(down.start + down.stop) / 2:.0f}) rotate(-90)"
    )
    return _across_ticks(x, across, down.start) + sideways + title


def _across_ticks(x: Axis, across: _Placer, bottom: float) -> str:
    ticks = "".join(
        _segment("axis", across(tick), _TOP, across(tick), bottom)
        + _words(across(tick), bottom + 15, f"{tick:g}", "middle")
        for tick in x.ticks()
    )
    return ticks + _words((across.start + across.stop) / 2, bottom + 32, x.title, "middle")


def _svg(height: float, says: str, inner: str) -> str:
    box = f"0 0 {_WIDTH} {height:g}"
    return f'<svg class="plot" viewBox="{box}" role="img" aria-label="{_text(says)}">{inner}</svg>'


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _polyline(places: Sequence[tuple[float, float]]) -> str:
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'


def _dot(x: float, y: float, says: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"><title>{_text(says)}</title></circle>'


def _words(x: float, y: float, words: str, anchor: str = "start", transform: str = "") -> str:
    turned = f' transform="{transform}"' if transform else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{_text(words)}</text>'


def _text(value: str) -> str:
    return html.escape(value)
