"""A table of prompts, as a pipeline writes it: one recipe a row, or what is wrong with the row."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from studio.errors import StudioError, nearest
from studio.prompts import clean_prompt, slug
from studio.recipes.config import AssetFormat, Recipe
from studio.recipes.load import to_toml
from studio.run.asked import Asked

COLUMNS = ("prompt", "negative", "seed", "preset", "prior", "steps")
"""Those with names of their own; any other is a key of the recipe, such as ``stages.0.resolution``."""
_LONGEST_CELL = 100_000


@dataclass(frozen=True)
class Row:
    """One row that can be made.

    Attributes:
        number: of the row, from 1, the heading not counted.
        recipe: what it makes.
        folder: name of its run's folder: the same for the same row, wherever it stands in the table.
    """

    number: int
    recipe: Recipe
    folder: str


@dataclass(frozen=True)
class BadRow:
    """One row that cannot be made, and why."""

    number: int
    prompt: str
    reason: str


def read_table(
    path: Path, preset: str = "default", formats: Sequence[AssetFormat] | None = None
) -> list[Row | BadRow]:
    """The rows of a CSV file, good and bad.

    Commas, semicolons or tabs separate the cells; UTF-8, with or without a byte order mark. An empty cell
    leaves the preset's own.

    Args:
        preset: of rows that name none.
        formats: of all rows, instead of the presets' own.

    Raises:
        StudioError: there is no such file, it is no CSV in UTF-8, it has no column ``prompt``, or one that is
            no key of a recipe.
    """
    columns, lines = lines_of(_bytes(path), str(path))
    rows: list[Row | BadRow] = []
    seen: Counter[str] = Counter()
    chosen = () if formats is None else (f"export.formats={list(formats)}",)
    for number, line in enumerate(lines, start=1):
        try:
            recipe = _recipe(cells_of(columns, line), preset, chosen)
        except StudioError as error:
            prompt = dict(zip(columns, line, strict=False)).get("prompt", "")
            rows.append(BadRow(number, prompt.strip(), str(error)))
            continue
        digest = hashlib.sha256(to_toml(recipe).encode()).hexdigest()[:12]
        seen[digest] += 1
        again = f"-{seen[digest]}" if seen[digest] > 1 else ""
        rows.append(Row(number, recipe, f"{slug(recipe.prompt)[:40].rstrip('-')}-{digest}{again}"))
    return rows


def _recipe(cells: Mapping[str, str], preset: str, chosen: tuple[str, ...]) -> Recipe:
    prompt = clean_prompt(cells.get("prompt", ""))
    seed = count_of("seed", cells.get("seed", ""))
    others = tuple(f"{key}={value}" for key, value in cells.items() if key not in COLUMNS and value)
    base = _without_prompt(
        Asked(
            "",
            cells.get("preset") or preset,
            negative_prompt=cells.get("negative") or None,
            prior=cells.get("prior") or None,
            steps=count_of("steps", cells.get("steps", "")),
            overrides=(*chosen, *others),
        )
    )
    return replace(base, prompt=prompt, seed=base.seed if seed is None else seed)


@functools.lru_cache(maxsize=256)
def _without_prompt(asked: Asked) -> Recipe:
    """Rows that differ in prompt and seed alone are one recipe, read once."""
    return replace(replace(asked, prompt="-").recipe(), prompt="")


def count_of(column: str, text: str) -> int | None:
    """A cell's whole number; None of an empty one.

    Raises:
        StudioError: it is something else.
    """
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise StudioError(f"{column} is {text!r}; expected a whole number of at least 0, or nothing.")
    return int(text)


def cells_of(columns: Sequence[str], line: Sequence[str]) -> dict[str, str]:
    """A line's cells by column.

    Raises:
        StudioError: it has more cells than there are columns.
    """
    if len(line) > len(columns):
        raise StudioError(
            f"{len(line)} cells, expected {len(columns)}; put quotes around cells that hold commas."
        )
    return dict(zip(columns, (cell.strip() for cell in line), strict=False))


def lines_of(data: bytes, name: str) -> tuple[list[str], list[list[str]]]:
    """The heading of a CSV file, checked, and the cells of every line that has any.

    Args:
        name: of the file, for messages.

    Raises:
        StudioError: as ``read_table``.
    """
    csv.field_size_limit(_LONGEST_CELL)
    try:
        file = io.StringIO(data.decode("utf-8-sig"), newline="")
        heading = file.readline()
        if not heading.strip():
            raise StudioError(f"{name} is empty; expected a heading such as: prompt,seed,preset")
        file.seek(0)
        reader = csv.reader(file, delimiter=max(",;\t", key=heading.count), strict=True)
        columns = [column.strip() for column in next(reader)]
        _check_columns(name, columns)
        return columns, [line for line in reader if any(cell.strip() for cell in line)]
    except UnicodeDecodeError as error:
        raise StudioError(
            f"{name} is not in UTF-8 (byte {error.start}); save it as CSV UTF-8, or convert it with: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {Path(name).name}"
        ) from error
    except csv.Error as error:
        raise StudioError(f"{name} is no CSV: {error}. Put quotes around cells that hold commas.") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StudioError(f"Cannot read {path}: {error.strerror or error}; expected a CSV file.") from error


def _check_columns(name: str, columns: Sequence[str]) -> None:
    for column, count in Counter(columns).items():
        if count > 1:
            raise StudioError(f"{name} has {count} columns {column!r}; expected each once.")
        known = column in COLUMNS or "." in column or column in Recipe.__dataclass_fields__
        if not known:
            names = (*COLUMNS, *Recipe.__dataclass_fields__)
            raise StudioError(
                f"{name} has a column {column!r}; expected {', '.join(COLUMNS)} or a key of a recipe such as "
                f"stages.0.resolution.{nearest(column, names)}"
            )
    if "prompt" not in columns:
        raise StudioError(f"{name} has no column 'prompt'; its heading is: {', '.join(columns)}")
