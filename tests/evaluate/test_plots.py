"""Plots are read back as XML: dots lie where the values say, and no two names lie on each other."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest

from studio.evaluate.plots import Axis, Series, curve, lines, scatter, strip


def items(drawn: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(drawn).iter(tag))  # noqa: S314 - the studio's own text


def dots_of(drawn: str) -> list[tuple[float, float]]:
    return [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in items(drawn, "circle")]


def names(drawn: str) -> dict[str, tuple[float, float]]:
    """Each text of a plot and where it begins."""
    return {
        str(text.text): (float(text.attrib["x"]), float(text.attrib["y"])) for text in items(drawn, "text")
    }


def test_ticks_are_round_and_within() -> None:
    assert Axis("", 0.0, 1.0).ticks() == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert Axis("", -0.45, 0.38).ticks() == (-0.4, -0.2, 0.0, 0.2)
    assert Axis.around("", [800.0, 12000.0], is_log=True).ticks() == (1000.0, 2000.0, 5000.0, 10000.0)
    assert Axis.around("", [240.0, 1200.0], is_log=True).ticks() == (300.0, 500.0, 700.0, 1000.0)
    assert Axis.around("", [1.0, 20.0], marks=[1.0, 7.5, 20.0]).ticks() == (1.0, 7.5, 20.0)
    # A single value, be it zero, has an axis too, and lies in its middle.
    assert Axis.around("", [0.0, 0.0]).at(0.0) == pytest.approx(0.5)
    assert Axis.around("", [7.0]).at(7.0) == pytest.approx(0.5)


def test_a_log_axis_keeps_ratios() -> None:
    axis = Axis.around("", [1.0, 100.0], is_log=True)
    assert axis.at(10.0) == pytest.approx(0.5)
    assert axis.at(10.0) - axis.at(1.0) == pytest.approx(axis.at(100.0) - axis.at(10.0))


def test_dots_lie_where_the_values_say() -> None:
    points = [Series(str(x), ((x, y),)) for x, y in ((0.0, 0.0), (1.0, 10.0), (2.0, 5.0))]
    drawn = scatter(points, Axis("x", 0.0, 2.0), Axis("y", 0.0, 10.0))
    (x0, y0), (x1, y1), (x2, y2) = dots_of(drawn)
    assert x1 - x0 == pytest.approx(x2 - x1) and x1 > x0
    # Down is more.
    assert y0 - y2 == pytest.approx(y2 - y1) and y1 < y0


def test_no_two_names_lie_on_each_other() -> None:
    """Thirty dots in three heaps: every name is there, and is 6 letters' room away from the others."""
    spread = 0.02 * np.random.default_rng(0).normal(size=(30, 2))
    points = [
        Series(f"name{index}", ((float(index % 3 + dx), float(index % 2 + dy)),))
        for index, (dx, dy) in enumerate(spread)
    ]
    axes = (Axis.around(title, [s.points[0][i] for s in points]) for i, title in enumerate("xy"))
    drawn = scatter(points, *axes)
    places = [place for name, place in names(drawn).items() if name.startswith("name")]
    assert len(places) == 30
    for (xa, ya), (xb, yb) in itertools.combinations(places, 2):
        assert abs(ya - yb) >= 12 - 0.11 or abs(xa - xb) >= 5 * 6.2 - 0.11


def test_lines_are_named_at_their_ends_without_overlap() -> None:
    drawn_series = [Series(f"s<{index}>", ((1.0, 0.0), (20.0, 0.5 + index / 1000))) for index in range(20)]
    x = Axis.around("scale", [1.0, 20.0], is_log=True, marks=[1.0, 20.0])
    drawn = lines(drawn_series, x, Axis.around("saturation", [0.0, 0.52]), level=0.1)
    places = names(drawn)
    ends = [places[series.name][1] for series in drawn_series]
    # The higher a line ends, the higher its name.
    assert ends == sorted(ends, reverse=True)
    assert min(above - below for above, below in itertools.pairwise(ends)) >= 12 - 0.11
    assert all(0 < y < 330 for y in ends)
    assert 'class="level"' in drawn and {"1", "20"} <= places.keys()


def test_a_strip_has_a_row_for_each_name_and_a_bar_at_the_median() -> None:
    drawn = strip([("a", [0.0, 0.1, 1.0]), ("b", [0.5])], Axis("x", 0.0, 1.0), level=0.5)
    dots = dots_of(drawn)
    assert [y for _, y in dots] == [dots[0][1]] * 3 + [dots[3][1]] and dots[3][1] > dots[0][1]
    bars = [line.attrib for line in items(drawn, "line") if line.attrib["class"] == "median"]
    medians = [float(bar["x1"]) for bar in bars]
    assert medians == [dots[1][0]], "one value needs no bar"


def test_a_curve_ends_at_its_last_step() -> None:
    drawn = curve(Series("alpha", ((1.0, 0.0), (3.0, 1.0))), 5, (0.0, 1.0), is_log=False)
    (points,) = [line.attrib["points"] for line in items(drawn, "polyline")]
    assert points == "0.0,44.0 120.0,0.0"
    assert "step 5" in names(drawn)
    # What has no logarithm is left out.
    assert 'points="240.0,0.0"' in curve(Series("", ((1.0, 0.0), (5.0, 1.0))), 5, (0.1, 1.0), is_log=True)
