"""A table of prompts that came through the browser: a row is what a form would hold, and chooses no more."""

from __future__ import annotations

from collections.abc import Mapping

from studio.errors import StudioError
from studio.jobs.table import cells_of, count_of, lines_of
from studio.recipes.config import Recipe
from studio.web.forms import OWN, Form
from studio.web.options import Options

_TOLD = 5
_COLUMNS = ("prompt", "negative", "preset", "prior", "steps", "seed")


def recipes_of(data: bytes, name: str, options: Options) -> list[Recipe]:
    """What the rows of a CSV file ask for, with the columns of ``studio batch``.

    Args:
        name: of the file, for messages.

    Raises:
        StudioError: it is no such file, has too few or too many rows, or some that do not fit.
    """
    columns, lines = lines_of(data, name)
    if not 1 <= len(lines) <= options.most_waiting:
        raise StudioError(f"{name} has {len(lines)} rows; expected 1 to {options.most_waiting}.")
    recipes, wrong = [], []
    for number, line in enumerate(lines, start=1):
        try:
            recipes.append(_form(cells_of(columns, line)).recipe(options))
        except StudioError as error:
            wrong.append(f"Row {number}: {error}")
    if wrong:
        raise StudioError(
            f"{len(wrong)} of {len(lines)} rows do not fit, so none is queued. {' '.join(wrong[:_TOLD])}"
        )
    return recipes


def _form(cells: Mapping[str, str]) -> Form:
    return Form(
        cells.get("prompt", ""),
        cells.get("negative", ""),
        cells.get("preset") or "default",
        cells.get("prior") or OWN,
        steps=count_of("steps", cells.get("steps", "")),
        seed=count_of("seed", cells.get("seed", "")),
        details=tuple((key, value) for key, value in cells.items() if key not in _COLUMNS and value),
    )
