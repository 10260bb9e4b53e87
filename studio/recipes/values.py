"""Numbers that recipes are made of, and how strictly recipes are read."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from studio.recipes.ramps import Ramp, extremes, value_at

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
UnitInterval = Annotated[float, Field(ge=0.0, le=1.0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Color = tuple[UnitInterval, UnitInterval, UnitInterval]
Elevation = Annotated[float, Field(ge=-90.0, le=90.0)]
Range = tuple[Ramp, Ramp]
"""The least and the greatest value that may be drawn; each may change over the stage."""

MOMENTS = tuple(moment / 64 for moment in range(65))
"""At which ramps are compared with one another."""


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
