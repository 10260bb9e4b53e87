"""The project of a drawing in motion, ``clipart.json``: what an illustrator may edit and animate again.

Points are pixels of a canvas of 256, x right, y down; keypoints are counted from 0.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from studio.errors import StudioError
from studio.prompts import MAX_CHARACTERS
from studio.recipes.config import (
    Bone,
    CanvasPoint,
    ClipartConfig,
    CurveOffsets,
    LayerConfig,
    Loop,
)
from studio.recipes.values import STRICT, Count, Positive

MOST_BYTES = 2**20
_DRAWN = ClipartConfig(path="crab")
"""Where the defaults stand."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProjectMotion:
    """How the keypoints move."""

    delta: tuple[CurveOffsets, ...]
    """For each keypoint the three control points of its curve, beside its place at rest."""
    loop: Loop = _DRAWN.loop
    """What follows when the curves end."""
    frames: Annotated[Count, Field(le=1024)] = 24
    """Of the clip."""
    fps: Positive = 12.0
    """Frames a second."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProjectMesh:
    """The sheet under the drawing; see ``ClipartConfig``."""

    edge_px: float = _DRAWN.edge_px
    margin_px: float = _DRAWN.margin_px


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Project:
    """A drawing, its keypoints and their motion. A file written by hand needs nothing but ``keypoints``."""

    version: Literal[1] = 1
    drawing: str = ""
    """The drawing's file as seen from the project's folder, or the name of one that ships with the studio."""
    canvas: Literal[256] = 256
    """Width and height that all points are pixels of."""
    texture_size: int = _DRAWN.texture_size
    """Width and height of the drawing as it is animated, in its own pixels."""
    prompt: Annotated[str, Field(max_length=MAX_CHARACTERS)] = ""
    """What it was animated as."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """That it was animated from."""
    keypoints: tuple[CanvasPoint, ...]
    """What moves."""
    bones: tuple[Bone, ...] | None = None
    """Pairs of keypoints; None for the shortest tree over them."""
    layers: tuple[LayerConfig, ...] = ()
    """Groups of paths that move on sheets of their own; see ``ClipartConfig``."""
    motion: ProjectMotion | None = None
    """None for a drawing at rest."""
    mesh: ProjectMesh = ProjectMesh()


_ADAPTER = TypeAdapter(Project)


def read_project(path: Path) -> Project:
    """The project in a file; its drawing as seen from here.

    Raises:
        StudioError: the file cannot be read, is too large, is no JSON or no project.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise StudioError(
                f"{path} has more than {MOST_BYTES} bytes; expected a project, which is smaller."
            )
        data = path.read_bytes()
    except OSError as error:
        raise StudioError(
            f"Cannot read {path}: {error.strerror or error}; expected a project file."
        ) from error
    return project_of(data, str(path), path.parent)


def project_of(data: bytes, name: str, folder: Path = Path()) -> Project:
    """The project in the bytes of a file.

    Args:
        data: JSON.
        name: what to call it in messages.
        folder: where the file is, from which its drawing is found.

    Raises:
        StudioError: no JSON, or no project.
    """
    try:
        project = _ADAPTER.validate_json(data, strict=True)
    except ValidationError as error:
        # One at a time: what comes after the first is often only its consequence.
        raise StudioError(f"{name} is no project of clipart: {_message(error.errors()[0])}.") from error
    return replace(project, drawing=str(folder / project.drawing)) if _is_file(project) else project


def project_json(project: Project, folder: Path = Path()) -> bytes:
    """A project as the text of a file in ``folder``: a line a key, the same bytes of the same project."""
    table: dict[str, Any] = _ADAPTER.dump_python(project, mode="json", exclude_none=True)
    if _is_file(project):
        table["drawing"] = Path(os.path.relpath(project.drawing, folder)).as_posix()
    lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _is_file(project: Project) -> bool:
    return bool(Path(project.drawing).suffix)


def _message(problem: Any) -> str:
    where, came = ".".join(map(str, problem["loc"])), problem["input"]
    said: str = problem["msg"].replace("Input should be", "expected")
    if problem["type"] == "json_invalid":
        return said
    if problem["type"].startswith("missing"):
        return f"{where} is missing; expected {', '.join(_keys(problem['loc']))}"
    if problem["type"] == "unexpected_keyword_argument":
        return f"there is no key {where}; expected {', '.join(_keys(problem['loc']))}"
    shown = repr(came) if len(repr(came)) <= 40 else f"{repr(came)[:37]}..."
    return f"{where} is {shown}; {said[:1].lower()}{said[1:]}"


def _keys(where: tuple[str | int, ...]) -> list[str]:
    """The keys of the table in which something is."""
    owner: Any = {"motion": ProjectMotion, "mesh": ProjectMesh, "layers": LayerConfig}.get(
        str(where[0]), Project
    )
    return [field.name for field in fields(owner if len(where) > 1 else Project)]
