from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from studio.recipes.ramps import Cosine, Linear, Piecewise, Ramp, count_at, extremes, value_at

RAMPS = TypeAdapter(Ramp)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_a_number_is_constant(progress: float) -> None:
    assert value_at(7.5, progress) == 7.5


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 2.0), (0.2, 2.0), (0.35, 3.5), (0.5, 5.0), (0.8, 8.0), (1.0, 8.0)]
)
def test_linear_is_held_outside_its_interval(progress: float, value: float) -> None:
    assert value_at(Linear(start=2.0, end=8.0, start_at=0.2, end_at=0.8), progress) == pytest.approx(value)


def test_the_clamp_of_debiased_sds_is_five_half_way() -> None:
    assert value_at(Linear(start=2.0, end=8.0), 0.5) == 5.0


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 1.0), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (1.0, 0.0)]
)
def test_cosine_passes_its_known_points(progress: float, value: float) -> None:
    assert value_at(Cosine(start=1.0, end=0.0), progress) == pytest.approx(value)


def test_cosine_is_level_at_both_ends() -> None:
    ramp, small = Cosine(start=0.0, end=1.0), 1e-3
    slope_at_start = value_at(ramp, small) / small
    slope_at_end = (1.0 - value_at(ramp, 1.0 - small)) / small
    assert slope_at_start < 0.01 and slope_at_end < 0.01
    assert (value_at(ramp, 0.5 + small) - value_at(ramp, 0.5)) / small == pytest.approx(math.pi / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 1.0), (0.2, 1.0), (0.4, 2.0), (0.6, 3.0), (0.9, 3.0), (1.0, 3.0)]
)
def test_piecewise_joins_its_points(progress: float, value: float) -> None:
    assert value_at(Piecewise(points=((0.2, 1.0), (0.6, 3.0))), progress) == pytest.approx(value)


def test_two_points_at_one_moment_make_a_jump() -> None:
    ramp = Piecewise(points=((0.0, 0.98), (0.5, 0.98), (0.5, 0.5)))
    assert [value_at(ramp, p) for p in (0.0, 0.4999, 0.5, 1.0)] == pytest.approx([0.98, 0.98, 0.5, 0.5])


@pytest.mark.parametrize(
    "ramp",
    [
        Linear(start=1.0, end=2.0, start_at=0.5, end_at=0.5),
        Cosine(start=1.0, end=2.0, start_at=0.5, end_at=0.5),
    ],
)
def test_an_empty_interval_is_a_jump(ramp: Linear | Cosine) -> None:
    assert (value_at(ramp, 0.4999), value_at(ramp, 0.5)) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("ramp", "least", "greatest"),
    [
        (7.0, 7.0, 7.0),
        (Linear(start=4.0, end=-1.0, end_at=0.3), -1.0, 4.0),
        (Cosine(start=1.0, end=2.0), 1.0, 2.0),
        (Piecewise(points=((0.0, 3.0), (0.4, 9.0), (1.0, 1.0))), 1.0, 9.0),
    ],
)
def test_extremes_are_those_of_all_moments(ramp: Ramp, least: float, greatest: float) -> None:
    values = [value_at(ramp, moment / 1000) for moment in range(1001)]
    assert extremes(ramp) == (least, greatest) == (min(values), max(values))


def from_recipe(written: Any) -> Ramp:
    """A ramp as a recipe's file is read: strictly, by way of JSON."""
    ramp: Ramp = RAMPS.validate_json(json.dumps(written), strict=True)
    return ramp


def test_counts_are_rounded() -> None:
    ramp = Linear(start=1.0, end=4.0)
    assert [count_at(ramp, progress) for progress in (0.0, 0.4, 0.6, 1.0)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (7, 7.0),
        (0.5, 0.5),
        ({"kind": "linear", "start": 0, "end": 1}, Linear(start=0.0, end=1.0)),
        ({"kind": "cosine", "start": 0, "end": 1, "end_at": 0.5}, Cosine(start=0.0, end=1.0, end_at=0.5)),
        ({"kind": "piecewise", "points": [[0, 1], [0.5, 2]]}, Piecewise(points=((0.0, 1.0), (0.5, 2.0)))),
    ],
)
def test_ramps_are_read_from_toml_values(written: Any, read: Ramp) -> None:
    assert from_recipe(written) == read


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("7.5", "valid number"),
        (True, "valid number"),
        (float("nan"), "finite number"),
        ({"kind": "lin", "start": 0, "end": 1}, "'lin' found"),
        ({"kind": "linear", "start": 0}, "linear.end"),
        ({"kind": "linear", "start": 0, "end": 1, "until": 0.5}, "linear.until"),
        ({"kind": "linear", "start": 0, "end": 1, "end_at": 2}, "less than or equal to 1"),
        ({"kind": "linear", "start": 0, "end": 1, "start_at": 0.6, "end_at": 0.5}, "must not lie after"),
        ({"kind": "piecewise", "points": []}, "at least 1 item"),
        ({"kind": "piecewise", "points": [[0.5, 1], [0, 2]]}, "in order of progress"),
    ],
)
def test_wrong_ramps_are_refused(written: Any, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        from_recipe(written)
