"""Values that change over a run, as data: a recipe may give a ramp wherever a weight or a level is asked for.

A ramp is a function of *progress*, 0 at the first step of a stage and 1 after its last, so it means the same
however long the run is. A plain number is the constant ramp.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import assert_never

from studio.recipes.values import STRICT, Fraction, Number


def _refuse_reversed(start_at: float, end_at: float) -> None:
    if start_at > end_at:
        raise ValueError(f"start_at ({start_at}) must not lie after end_at ({end_at})")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Linear:
    """From ``start`` to ``end`` in a straight line between two moments; held before and after."""

    kind: Literal["linear"] = "linear"
    start: Number
    """The value before ``start_at``."""
    end: Number
    """The value after ``end_at``."""
    start_at: Fraction = 0.0
    """Progress at which the change begins."""
    end_at: Fraction = 1.0
    """Progress at which the change is over."""

    @model_validator(mode="after")
    def _in_order(self) -> Linear:
        _refuse_reversed(self.start_at, self.end_at)
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cosine:
    """From ``start`` to ``end`` along half a cosine, level at both ends."""

    kind: Literal["cosine"] = "cosine"
    start: Number
    """The value before ``start_at``."""
    end: Number
    """The value after ``end_at``."""
    start_at: Fraction = 0.0
    """Progress at which the change begins."""
    end_at: Fraction = 1.0
    """Progress at which the change is over."""

    @model_validator(mode="after")
    def _in_order(self) -> Cosine:
        _refuse_reversed(self.start_at, self.end_at)
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Piecewise:
    """Straight lines through points. Two points at one progress make a jump, taken at that progress."""

    kind: Literal["piecewise"] = "piecewise"
    points: Annotated[tuple[tuple[Fraction, Number], ...], Field(min_length=1)]
    """(progress, value) pairs in order of progress."""

    @model_validator(mode="after")
    def _in_order(self) -> Piecewise:
        moments = [progress for progress, _ in self.points]
        if moments != sorted(moments):
            raise ValueError(f"points must be in order of progress, got {moments}")
        return self


def _kind(ramp: Any) -> str | None:
    if isinstance(ramp, dict):
        return str(ramp.get("kind"))
    return getattr(ramp, "kind", "number")


Ramp = Annotated[
    Annotated[Number, Tag("number")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Piecewise, Tag("piecewise")],
    Discriminator(_kind),
]
"""A number, or a change over progress."""
Range = tuple[Ramp, Ramp]
"""The least and the greatest value that may be drawn; each may change over the stage."""

MOMENTS = tuple(moment / 64 for moment in range(65))
"""At which ramps are compared with one another."""


def value_at(ramp: Ramp, progress: float) -> float:
    """The ramp's value at ``progress`` in 0-1."""
    match ramp:
        case int() | float():
            return float(ramp)
        case Linear():
            return _blend(ramp.start, ramp.end, _elapsed(ramp, progress))
        case Cosine():
            return _blend(ramp.start, ramp.end, 0.5 - 0.5 * math.cos(math.pi * _elapsed(ramp, progress)))
        case Piecewise():
            return _through(ramp.points, progress)
        case _:
            assert_never(ramp)


def count_at(ramp: Ramp, progress: float) -> int:
    """The ramp's value at ``progress`` in 0-1, rounded to a whole number."""
    return round(value_at(ramp, progress))


def extremes(ramp: Ramp) -> tuple[float, float]:
    """The ramp's least and greatest value."""
    match ramp:
        case int() | float():
            values = [float(ramp)]
        case Linear() | Cosine():
            values = [ramp.start, ramp.end]
        case Piecewise():
            values = [value for _, value in ramp.points]
        case _:
            assert_never(ramp)
    return min(values), max(values)


def refuse_outside(name: str, ramp: Ramp, low: float, high: float, unit: str = "") -> None:
    """Refuse a ramp that leaves the interval."""
    least, greatest = extremes(ramp)
    if not low <= least <= greatest <= high:
        got = f"{least:g}" if least == greatest else f"{least:g} to {greatest:g}"
        raise ValueError(f"{name} must stay within {low:g} to {high:g}{unit}, got {got}")


def refuse_range(name: str, interval: Range, low: float, high: float) -> None:
    """Refuse a range that leaves the interval, or whose ends pass one another."""
    for end in interval:
        refuse_outside(name, end, low, high)
    for moment in MOMENTS:
        first, last = (value_at(end, moment) for end in interval)
        if first > last:
            raise ValueError(f"{name} must not fall, got [{first:g}, {last:g}]")


def _elapsed(ramp: Linear | Cosine, progress: float) -> float:
    if progress >= ramp.end_at:
        return 1.0
    if progress <= ramp.start_at:
        return 0.0
    return (progress - ramp.start_at) / (ramp.end_at - ramp.start_at)


def _through(points: tuple[tuple[float, float], ...], progress: float) -> float:
    passed = [point for point in points if point[0] <= progress]
    ahead = [point for point in points if point[0] > progress]
    if not passed:
        return ahead[0][1]
    if not ahead:
        return passed[-1][1]
    (earlier, first), (later, second) = passed[-1], ahead[0]
    return _blend(first, second, (progress - earlier) / (later - earlier))


def _blend(start: float, end: float, fraction: float) -> float:
    return start + (end - start) * fraction
