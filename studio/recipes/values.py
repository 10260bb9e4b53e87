"""Numbers that recipes are made of, and how strictly recipes are read."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
"""Of every type of a recipe: no unknown key, no number from a string."""

Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
"""A finite one; whole numbers are welcome."""
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Color = tuple[Fraction, Fraction, Fraction]
Elevation = Annotated[float, Field(ge=-90.0, le=90.0)]
