"""A run is a folder: what lies where in it, how it begins, and which version of the studio can read it.

* ``recipe.toml``   the resolved recipe
* ``events.jsonl``  what happened, see ``events.py``
* ``metrics.json``  figures of the finished scene
* ``state/``        the last checkpoints, and the folder's format
* ``previews/``     the scene from four sides, now and then
* ``assets/``       the exported files
"""

from __future__ import annotations

import json
import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from studio.errors import StudioError
from studio.prompts import LONGEST_NAME, slug
from studio.recipes.config import Recipe
from studio.recipes.load import read, to_toml

RECIPE, EVENTS, METRICS = "recipe.toml", "events.jsonl", "metrics.json"
_MARKER = "state/format.json"
FORMAT = 1
"""Of run folders and checkpoints; a reader takes its own and older ones."""


def new_folder(recipe: Recipe, output: Path, name: str | None) -> Path:
    """A fresh folder with the recipe in it, made under another name first: it appears when it is whole.

    Args:
        output: where it is made.
        name: of the folder; None takes the prompt's words, and a number where those are taken.

    Raises:
        StudioError: ``output`` cannot be written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output, prefix=".new-") as temporary:
            whole = Path(temporary) / "run"
            for inner in ("state", "previews", "assets"):
                (whole / inner).mkdir(parents=True)
            (whole / RECIPE).write_text(to_toml(recipe), encoding="utf-8")
            made_by = {"format": FORMAT, "studio": _version()}
            (whole / _MARKER).write_text(json.dumps(made_by), encoding="utf-8")
            if name is not None:
                return whole.rename(output / name)
            return _renamed(whole, output, slug(recipe.prompt))
    except OSError as error:
        raise StudioError(
            f"Cannot write to {output}: {error.strerror or error}; expected a folder with space left. "
            "Try another output folder."
        ) from error


def recipe_in(folder: Path) -> Recipe:
    """The recipe of the run in a folder.

    Raises:
        StudioError: the folder is not a run's, is damaged, or is from a newer version of the studio.
    """
    marker = folder / _MARKER
    if not (folder / RECIPE).is_file() or not marker.is_file():
        what = "is not a run" if folder.is_dir() else "does not exist"
        raise StudioError(f"{folder} {what}; expected a folder made by 'studio generate'.")
    try:
        found = int(json.loads(marker.read_text(encoding="utf-8"))["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudioError(f"{marker} is damaged; the run cannot be opened.") from error
    check_format(found, folder)
    return read(folder / RECIPE)


def check_format(found: int, path: Path) -> None:
    """Refuses what a newer studio has written.

    Raises:
        StudioError: the format is newer than this studio's.
    """
    if found > FORMAT:
        raise StudioError(
            f"{path} has format {found} and this studio reads up to {FORMAT}; it is from a newer version. "
            "Upgrade the studio."
        )


def latest_preview(folder: Path) -> Path | None:
    """The newest preview picture of the run in a folder, if there is one yet."""
    previews = folder / "previews"
    try:
        # By names alone: the app asks this of many runs, twice a second.
        newest = max((name for name in os.listdir(previews) if name.endswith(".png")), default=None)
    except OSError:
        return None
    return None if newest is None else previews / newest


def _renamed(whole: Path, output: Path, name: str) -> Path:
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        target = output / (name[: LONGEST_NAME - len(suffix)] + suffix)
        number += 1
        if target.exists():
            continue
        try:
            return whole.rename(target)
        except OSError:
            # Another run took the name in between; anything else is a reason to give up.
            if not target.exists():
                raise


def _version() -> str:
    try:
        return version("studio")
    except PackageNotFoundError:
        return "unknown"
