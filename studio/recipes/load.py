"""Recipes from TOML and back: presets, inheritance, overrides. What is wrong with one, ``mistakes.py`` says.

A file may begin with ``base = "other"``, the name of a preset or a path relative to the file. It then holds
only the lines that differ. Tables merge key by key, lists of tables element by element, and a table of
another ``kind`` takes the place of the old one whole. An override such as ``stages.0.steps=400`` is one such
line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from studio.errors import StudioError, nearest
from studio.prompts import clean_prompt
from studio.recipes.config import Recipe
from studio.recipes.mistakes import Table, known_keys, message, unknown_key
from studio.resources import presets_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def preset_names() -> list[str]:
    """The presets that ship with the studio."""
    return sorted(path.stem for path in presets_folder().glob("*.toml"))


def load(preset: str, prompt: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a preset, with a prompt and overrides put in.

    Args:
        preset: the name of a preset, or the path of a TOML file.
        prompt: what to make; None keeps the file's own.
        overrides: lines ``path.to.key=value``, the value in TOML; plain words need no quotes.

    Raises:
        StudioError: no such preset; a file that is not TOML; a key, kind, type or range that is not the
            recipe's; a prompt that is empty or too long.
    """
    path = find(preset)
    recipe = _load_file(path, ())
    table = _to_table(recipe)
    for override in overrides:
        _apply(override, table)
    recipe = _validated(table, None)
    if prompt is not None:
        recipe = replace(recipe, prompt=clean_prompt(prompt))
    return replace(recipe, preset=path.stem)


def read(path: Path) -> Recipe:
    """The recipe in a TOML file, its own preset name kept.

    Raises:
        StudioError: as ``load``.
    """
    return _load_file(path, ())


def parse(text: str, source: str) -> Recipe:
    """The recipe in TOML that ``to_toml`` wrote.

    Args:
        source: where it came from, for messages.

    Raises:
        StudioError: as ``load``.
    """
    return _validated(_parsed(text, source), source)


def to_toml(recipe: Recipe) -> str:
    """The whole recipe as TOML; ``read`` and ``parse`` give back an equal one."""
    import tomli_w

    return tomli_w.dumps(_to_table(recipe))


def find(preset: str, relative_to: Path | None = None) -> Path:
    """The file of a preset, by name or by path.

    Raises:
        StudioError: there is none.
    """
    if preset.endswith(".toml") or "/" in preset or "\\" in preset:
        path = Path(preset) if relative_to is None else relative_to / preset
        if not path.is_file():
            raise StudioError(
                f"There is no recipe file {path}; expected a TOML file or the name of a preset."
            )
        return path
    path = presets_folder() / f"{preset}.toml"
    if not preset or not path.is_file():
        names = preset_names()
        raise StudioError(
            f"There is no preset {preset!r}; expected one of {', '.join(names)}.{nearest(preset, names)}"
        )
    return path


# ------------------------------------------------------------------------------------- files and inheritance


def _load_file(path: Path, heirs: tuple[Path, ...]) -> Recipe:
    if path.resolve() in heirs:
        chain = " → ".join(heir.stem for heir in (*heirs, path))
        raise StudioError(f"{path}: base goes in a circle: {chain}. Let one of them stand on its own.")
    table = _read_toml(path)
    base = table.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise StudioError(f"{path}: base is {base!r}; expected the name of a preset or a path.")
        inherited = _load_file(find(base, relative_to=path.parent), (*heirs, path.resolve()))
        table = _merged(_to_table(replace(inherited, description="")), table)
    return _validated(table, path)


def _read_toml(path: Path) -> Table:
    try:
        return _parsed(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise StudioError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise StudioError(f"{path} is not valid TOML: {error}.") from error


def _parsed(text: str, source: Path | str) -> Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudioError(f"{source} is not valid TOML: {error}.") from error


def _merged(old: Any, new: Any) -> Any:
    """``new`` over ``old``; what ``new`` does not mention stays."""
    match old, new:
        case dict(), dict():
            if "kind" in new and new["kind"] != old.get("kind"):
                return new
            return old | {
                key: _merged(old[key], value) if key in old else value for key, value in new.items()
            }
        case list(), list() if new and all(isinstance(item, dict) for item in (*old, *new)):
            both = [_merged(before, after) for before, after in zip(old, new, strict=False)]
            return both + old[len(both) :] + new[len(both) :]
        case _:
            return new


def _apply(override: str, table: Table) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise StudioError(f"{override!r} is not an override; expected path.to.key=value, such as seed=7.")
    _assign(table, keys, _override_value(text.strip()))


def _assign(table: Table, keys: list[str], value: Any) -> None:
    here: Any = table
    for depth, key in enumerate(keys[:-1]):
        if isinstance(here, list):
            here = here[_index(here, keys[: depth + 1])]
        elif isinstance(here.get(key), dict | list):
            here = here[key]
        elif key in known_keys(table, keys[:depth]):
            here[key] = {}
            here = here[key]
        else:
            raise StudioError(unknown_key(table, keys[:depth], key))
    last = keys[-1]
    if isinstance(here, list):
        here[_index(here, keys)] = value
    elif last == "kind" and here.get("kind") != value:
        here.clear()
        here["kind"] = value
    else:
        here[last] = value


def _index(items: list[Any], keys: list[str]) -> int:
    """The last of the keys as a place in a list."""
    if not keys[-1].isdigit() or int(keys[-1]) >= len(items):
        raise StudioError(
            f"There is no {'.'.join(keys)}; expected a number from 0 to {len(items) - 1} there."
        )
    return int(keys[-1])


def _override_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


# ------------------------------------------------------------------------------------------------- types


_ADAPTER = TypeAdapter(Recipe)


def _to_table(recipe: Recipe) -> Table:
    table: Table = _ADAPTER.dump_python(recipe, mode="json", exclude_none=True)
    return table


def _validated(table: Table, source: Path | str | None) -> Recipe:
    try:
        # By way of JSON, whose lists pydantic's strict mode takes for tuples.
        return _ADAPTER.validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        # One at a time: what comes after the first is often only its consequence.
        said = message(error.errors()[0], table)
        raise StudioError(said if source is None else f"{source}: {said}") from error
