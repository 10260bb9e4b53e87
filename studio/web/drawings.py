"""The drawings that may be animated: those that ship with the studio, and those that a browser sent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from studio.clipart.drawing import SUFFIXES
from studio.errors import StudioError
from studio.export.files import replacing_folder
from studio.resources import assets_folder, clipart
from studio.web.rigging import PICTURE, PROJECT

Wanted = Literal["picture", "project"]
Rig = Callable[[Path, Path], None]
"""Writes a drawing's picture and project into a folder, somewhere else; may refuse."""
_NAME = re.compile(r"[0-9a-f]{32}")
_LONGEST_NAME = 40


def shipped() -> tuple[str, ...]:
    """The names of those that ship with the studio."""
    return tuple(sorted(path.stem for path in (assets_folder() / "clipart").glob("*.svg")))


class Drawings:
    """What is known of each drawing, in a folder of its own; that of an upload is called by its digest.

    Args:
        folder: of all of them.
        rig: finds out what is not known yet.
    """

    def __init__(self, folder: Path, rig: Rig) -> None:
        self._folder = folder
        self._rig = rig

    def keep(self, data: bytes, name: str) -> str:
        """Keeps a file that came; returns what the drawing is called from now on.

        Args:
            name: of the file; what it ends with says what it is.

        Raises:
            StudioError: it is no drawing.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise StudioError(f"The file's name ends with {suffix[:10]!r}; expected {', '.join(SUFFIXES)}.")
        called = hashlib.sha256(suffix.encode() + data).hexdigest()[:32]
        if not (self._folder / called).is_dir():
            with replacing_folder(self._folder / called) as made:
                path = made / f"drawing{suffix}"
                path.write_bytes(data)
                self._rig(path, made)
        return called

    def path(self, called: str) -> str:
        """What a recipe calls a drawing: its name if it ships with the studio, else its file.

        Raises:
            StudioError: there is no such drawing.
        """
        if called in shipped():
            return called
        found = list((self._folder / called).glob("drawing.*")) if _NAME.fullmatch(called) else []
        if not found:
            raise StudioError(
                f"There is no drawing {called[:_LONGEST_NAME]!r}; expected one of {', '.join(shipped())}, or "
                "a file."
            )
        return str(found[0])

    def file(self, called: str, wanted: Wanted) -> Path:
        """The picture of a drawing, or its keypoints and bones.

        Raises:
            StudioError: there is no such drawing.
        """
        drawing, folder = self.path(called), self._folder / called
        if drawing == called and not folder.is_dir():
            with replacing_folder(folder) as made:
                self._rig(clipart(called), made)
        return folder / (PICTURE if wanted == "picture" else PROJECT)
