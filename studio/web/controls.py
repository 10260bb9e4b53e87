"""The settings of a recipe that a form shows, drawn from the types that say what a recipe is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin

from studio.recipes.config import Recipe

LONGEST_VALUE = 200
"""Characters of a setting."""
# Of each part, what people turn most; every other key of a recipe is the command line's.
_SHOWN = (
    ("The run", "", ("particles", "view_words", "preview_every", "checkpoint_every")),
    ("The stage", "stages.0", ("resolution", "learning_rate")),
    (
        "Scene",
        "stages.0.scene",
        ("sh_degree", "resolution", "levels", "texture_size", "means_rate", "colors_rate"),
    ),
    ("Start", "stages.0.scene.initial", ("count", "radius")),
    ("Guidance", "stages.0.guidance.0.method", ("cfg_scale", "weighting", "inversion_steps")),
    ("Cameras", "stages.0.cameras", ("views_per_step", "count", "elevation_deg")),
    ("Topology", "stages.0.topology", ("max_count", "every")),
    ("Regularizers", "stages.0.regularizers", ("opacity", "scale", "entropy", "smoothness")),
    ("Export", "export", ("formats", "mesh_faces", "texture_size", "turntable_frames", "turntable_size")),
)


@dataclass(frozen=True)
class Control:
    """One setting.

    Attributes:
        key: where it stands in the recipe, as an override names it.
        part, label, help: for people; the help is the field's docstring.
        value: the preset's own, as TOML.
        choices: all that it may be; empty for a number or a list.
    """

    key: str
    part: str
    label: str
    help: str
    value: str
    choices: tuple[str, ...]


def controls(recipe: Recipe) -> tuple[Control, ...]:
    """The settings of a recipe, by part, in order."""
    return tuple(
        control for part, path, names in _SHOWN for control in _part(recipe, part, path, frozenset(names))
    )


def _part(recipe: Recipe, part: str, path: str, names: frozenset[str]) -> Iterator[Control]:
    owner: Any = recipe
    for word in path.split(".") if path else ():
        owner = owner[int(word)] if word.isdigit() else getattr(owner, word, None)
        if owner is None:
            return
    described = type(owner).__pydantic_fields__
    for field in fields(owner):
        if field.name in names:
            value = getattr(owner, field.name)
            yield Control(
                key=f"{path}.{field.name}" if path else field.name,
                part=part,
                label=field.name.replace("_deg", " (degrees)").replace("_", " "),
                help=re.sub(r"\s+", " ", (described[field.name].description or "").replace("``", "")),
                value=_toml(value),
                choices=_choices(described[field.name].annotation),
            )


def _choices(annotation: Any) -> tuple[str, ...]:
    if annotation is bool:
        return "true", "false"
    if get_origin(annotation) is Literal:
        return tuple(str(choice) for choice in get_args(annotation))
    return ()


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return (
                f"[{', '.join(_toml(item) if not isinstance(item, str) else repr(item) for item in value)}]"
            )
        case int() | float() | str():
            return str(value)
        case _:
            inner = ((field.name, getattr(value, field.name)) for field in fields(value))
            shown = (
                f"{name} = {repr(item) if isinstance(item, str) else _toml(item)}" for name, item in inner
            )
            return f"{{ {', '.join(shown)} }}"
