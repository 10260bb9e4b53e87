"""The drawings that may be animated: those that ship with the studio, and those that a browser sent."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from studio.clipart.drawing import SUFFIXES
from studio.export.files import replacing_folder
from studio.resources import assets_folder, clipart
from studio.web.inspection import PICTURE, PROJECT
from studio.web.uploads import Look, Uploads

Wanted = Literal["picture", "project"]


def shipped() -> tuple[str, ...]:
    """The names of those that ship with the studio."""
    return tuple(sorted(path.stem for path in (assets_folder() / "clipart").glob("*.svg")))


class Drawings:
    """What is known of each drawing, in a folder of its own.

    Args:
        folder: of all of them.
        look: finds out what is not known yet.
    """

    def __init__(self, folder: Path, look: Look) -> None:
        self._sent = Uploads(folder, "drawing", SUFFIXES, look)
        self._look = look

    def keep(self, data: bytes, name: str) -> str:
        """As ``Uploads.keep``."""
        return self._sent.keep(data, name)

    def tidy(self, named: Collection[str]) -> None:
        """As ``Uploads.tidy``."""
        self._sent.tidy(named)

    def path(self, called: str) -> str:
        """What a recipe calls a drawing: its name if it ships with the studio, else its file.

        Raises:
            StudioError: there is no such drawing.
        """
        return called if called in shipped() else str(self._sent.path(called))

    def file(self, called: str, wanted: Wanted) -> Path:
        """The picture of a drawing, or its keypoints and bones.

        Raises:
            StudioError: there is no such drawing.
        """
        drawing, folder = self.path(called), self._sent.folder / called
        if drawing == called and not folder.is_dir():
            with replacing_folder(folder) as made:
                self._look(clipart(called), made)
        return folder / (PICTURE if wanted == "picture" else PROJECT)
