"""Recipes from TOML and back: presets, inheritance, overrides, and what to say when a line is wrong.

A file may begin with ``base = "other"``, the name of a preset or a path relative to the file. It then holds
only the lines that differ. Tables merge key by key, lists of tables element by element, and a table of
another ``kind`` takes the place of the old one whole. An override such as ``stages.0.steps=400`` is one such
line.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from studio.errors import StudioError, nearest
from studio.prompts import clean_prompt
from studio.recipes.config import Recipe
from studio.resources import presets_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = dict[str, Any]
"""TOML as it was read, before the recipe's types have seen it: nothing outside this file holds one."""


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
        so_far = ".".join(keys[: depth + 1])
        if isinstance(here, list):
            if not key.isdigit() or int(key) >= len(here):
                raise StudioError(f"There is no {so_far}; expected a number from 0 to {len(here) - 1} there.")
            here = here[int(key)]
        elif isinstance(here.get(key), dict | list):
            here = here[key]
        elif key in _known_keys(table, keys[:depth]):
            here[key] = {}
            here = here[key]
        else:
            raise StudioError(_unknown_key(table, keys[:depth], key, ""))
    last = keys[-1]
    if isinstance(here, list):
        if not last.isdigit() or int(last) >= len(here):
            raise StudioError(
                f"There is no {'.'.join(keys)}; expected a number from 0 to {len(here) - 1} there."
            )
        here[int(last)] = value
    elif last == "kind" and here.get("kind") != value:
        here.clear()
        here["kind"] = value
    else:
        here[last] = value


def _override_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


# ---------------------------------------------------------------------------------------- types and messages


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
        message = _message(error.errors()[0], table)
        raise StudioError(message if source is None else f"{source}: {message}") from error


def _message(problem: Mapping[str, Any], table: Table) -> str:
    keys, value = _locate(problem["loc"], table)
    path = ".".join(str(key) for key in keys)
    match problem["type"]:
        case "unexpected_keyword_argument":
            return _unknown_key(table, keys[:-1], str(keys[-1]), path)
        case "missing" if not isinstance(value, list):
            return f"{path} is missing; expected {_expected(_annotation_at(keys, table))}."
        case "value_error":
            return f"{path or 'the recipe'}: {problem['ctx']['error']}."
        case "union_tag_invalid" if isinstance(value, dict) and "kind" in value:
            kinds = _kinds(_annotation_at(keys, table))
            return (
                f"{path}.kind is {value['kind']!r}; expected one of {', '.join(map(repr, kinds))}."
                f"{nearest(str(value['kind']), kinds)}"
            )
        case "union_tag_invalid" | "union_tag_not_found" if isinstance(value, dict):
            kinds = _kinds(_annotation_at(keys, table))
            return f"{path} has no kind; expected kind = one of {', '.join(map(repr, kinds))}."
        case _:
            annotation = _annotation_at(keys, table)
            hint = nearest(value, _choices(annotation)) if isinstance(value, str) else ""
            return f"{path} is {_shown(value)}; expected {_expected(annotation)}.{hint}"


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _locate(location: Iterable[str | int], table: Table) -> tuple[list[str | int], Any]:
    """Keys into the table without the names of union members that pydantic mixes in, and what lies there."""
    keys: list[str | int] = []
    value: Any = table
    parts = list(location)
    for position, part in enumerate(parts):
        if isinstance(value, list) and isinstance(part, int):
            if part >= len(value):  # An element is missing: what is wrong is the list.
                break
            value = value[part]
            keys.append(part)
        elif isinstance(value, dict) and part in value:
            value = value[part]
            keys.append(part)
        elif isinstance(value, dict) and position == len(parts) - 1 and part != value.get("kind"):
            keys.append(part)
            value = None
    return keys, value


def _unknown_key(table: Table, parents: Sequence[str | int], key: str, path: str) -> str:
    known = _known_keys(table, parents)
    path = path or ".".join(map(str, (*parents, key)))
    elsewhere = [where for where in _paths(table) if where.rpartition(".")[2] == key and where != path]
    hint = f" Did you mean {elsewhere[0]!r}?" if elsewhere else nearest(key, known)
    return f"There is no key {path!r}; expected one of {', '.join(known)}.{hint}"


def _known_keys(table: Table, parents: Sequence[str | int]) -> list[str]:
    cls = _class_of(_annotation_at(parents, table), _at(table, parents))
    return [] if cls is None else list(_fields(cls))


def _paths(value: Any, prefix: str = "") -> list[str]:
    match value:
        case dict():
            children = list(value.items())
        case list():
            children = [(str(index), item) for index, item in enumerate(value)]
        case _:
            return [prefix]
    return [path for key, child in children for path in _paths(child, f"{prefix}.{key}" if prefix else key)]


def _at(table: Table, keys: Sequence[str | int]) -> Any:
    """What lies at ``keys``; list indices may be digits."""
    value: Any = table
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value.get(key)
    return value


def _fields(cls: type) -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
    return fields


def _annotation_at(keys: Sequence[str | int], table: Table) -> Any:
    """The type of the value at ``keys``, as the recipe's classes declare it."""
    annotation: Any = Recipe
    value: Any = table
    for key in keys:
        if isinstance(value, list):
            members = get_args(_bare(annotation))
            index = int(key)
            annotation = members[0] if members[-1] is Ellipsis else members[min(index, len(members) - 1)]
            value = value[index] if index < len(value) else None
        else:
            cls = _class_of(annotation, value)
            hints = {} if cls is None else get_type_hints(cls, include_extras=True)
            if key not in hints:
                return None
            annotation = hints[str(key)]
            value = value.get(key) if isinstance(value, dict) else None
    return annotation


def _bare(annotation: Any) -> Any:
    """The type without ``Annotated``; of an optional type, the type."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = [member for member in _members(annotation) if member is not type(None)]
    return _bare(members[0]) if len(members) == 1 and members[0] is not annotation else annotation


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, those of the unions in it too; of any other type, itself."""
    plain = annotation
    while get_origin(plain) is Annotated:
        plain = get_args(plain)[0]
    if get_origin(plain) not in (Union, types.UnionType):
        return (annotation,)
    return tuple(member for part in get_args(plain) for member in _members(part))


def _class_of(annotation: Any, value: Any) -> type | None:
    """Which of a union's classes a table is, by its ``kind``."""
    classes = [bare for member in _members(annotation) if is_dataclass(bare := _bare(member))]
    if len(classes) == 1 and isinstance(classes[0], type):
        return classes[0]
    kind = value.get("kind") if isinstance(value, dict) else None
    return next((cls for cls in classes if isinstance(cls, type) and _kind(cls) == kind), None)


def _kind(cls: type) -> str:
    return str(_fields(cls)["kind"].default)


def _kinds(annotation: Any) -> list[str]:
    bare = (_bare(member) for member in _members(annotation))
    return [
        _kind(cls) for cls in bare if isinstance(cls, type) and is_dataclass(cls) and "kind" in _fields(cls)
    ]


def _choices(annotation: Any) -> list[str]:
    bare = _bare(annotation)
    return list(get_args(bare)) if get_origin(bare) is Literal else []


def _expected(annotation: Any) -> str:
    """What may stand there, in words."""
    if (kinds := _kinds(annotation)) and len(_members(annotation)) > 1:
        plain = {float: "a number, or ", str: "text in quotes, or "}
        simpler = "".join(plain.get(_bare(member), "") for member in _members(annotation))
        return f"{simpler}a table of kind {', '.join(map(repr, kinds))}"
    bare = _bare(annotation)
    bounds = _bounds(annotation)
    if bare is bool:
        return "true or false"
    if bare is int:
        return f"a whole number{_range(bounds)}"
    if bare is float:
        return f"a number{_range(bounds)}"
    if bare is str:
        longest = bounds.get("max_length")
        return "text in quotes" + (f" of at most {longest} characters" if longest else "")
    if get_origin(bare) is Literal:
        return f"one of {', '.join(map(repr, get_args(bare)))}"
    if get_origin(bare) is tuple:
        members = get_args(bare)
        if members[-1] is Ellipsis:
            some = "a list with at least one element" if bounds.get("min_length") else "a list"
            return f"{some}, each {_expected(members[0])}"
        return f"[{', '.join(_expected(member) for member in members)}]"
    return "a table"


def _range(bounds: Mapping[str, Any]) -> str:
    match bounds:
        case {"ge": low, "le": high}:
            return f" from {low} to {high}"
        case {"gt": low, "lt": high}:
            return f" between {low} and {high}, both excluded"
        case {"gt": low, "le": high}:
            return f" above {low}, up to {high}"
        case {"ge": low, "lt": high}:
            return f" from {low} to below {high}"
        case {"ge": low}:
            return f" of at least {low}"
        case {"gt": low}:
            return f" above {low}"
        case _:
            return ""


def _bounds(annotation: Any) -> dict[str, Any]:
    """Limits in an annotation's metadata, by the names of ``annotated_types``."""
    found: dict[str, Any] = {}
    for member in (annotation, *_members(annotation)):
        inner = member
        while get_origin(inner) is Annotated:
            inner, *metadata = get_args(inner)
            for item in metadata:
                for constraint in item.metadata if isinstance(item, FieldInfo) else (item,):
                    for name in ("ge", "gt", "le", "lt", "min_length", "max_length"):
                        if hasattr(constraint, name):
                            found.setdefault(name, getattr(constraint, name))
    return found
