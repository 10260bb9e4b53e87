"""What is wrong with a line of a recipe, in words: the key, what came, and what its type would take."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from studio.errors import nearest
from studio.recipes.config import Recipe

Table = dict[str, Any]
"""TOML as it was read, before the recipe's types have seen it: only ``load.py`` and this file hold one."""


def message(problem: Mapping[str, Any], table: Table) -> str:
    """What is wrong and what was expected instead, the nearest right name among it.

    Args:
        problem: one of pydantic's, as ``ValidationError.errors`` lists them.
        table: what was read.
    """
    keys, value = _locate(problem["loc"], table)
    path = ".".join(str(key) for key in keys)
    match problem["type"]:
        case "unexpected_keyword_argument":
            return unknown_key(table, keys[:-1], str(keys[-1]))
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


def unknown_key(table: Table, parents: Sequence[str | int], key: str) -> str:
    """What there is instead of a key that no type of the recipe has.

    Args:
        table: what was read.
        parents: the keys that lead to it.
    """
    known = known_keys(table, parents)
    path = ".".join(map(str, (*parents, key)))
    elsewhere = [where for where in _paths(table) if where.rpartition(".")[2] == key and where != path]
    hint = f" Did you mean {elsewhere[0]!r}?" if elsewhere else nearest(key, known)
    return f"There is no key {path!r}; expected one of {', '.join(known)}.{hint}"


def known_keys(table: Table, parents: Sequence[str | int]) -> list[str]:
    """The keys that the recipe's types have below ``parents``; none where there is no table."""
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
