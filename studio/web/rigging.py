"""Looks at a drawing in a process of its own, which a hostile file may cost its life."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from studio.clipart.drawing import read_drawing
from studio.clipart.sheet import sheet_of
from studio.errors import StudioError
from studio.export.files import replacing, write_bytes
from studio.recipes.project import Project, project_json

PICTURE, PROJECT = "picture.png", "project.json"
_SIZE = 512


def rig(drawing: Path, folder: Path) -> None:
    """Writes a picture of a drawing's canvas, and its keypoints and bones as a project.

    Raises:
        StudioError: as ``read_drawing`` and ``sheet_of``.
    """
    drawn = read_drawing(drawing, _SIZE)
    sheet = sheet_of(drawn)
    keypoints = tuple((round(x, 2), round(y, 2)) for x, y in sheet.vertices[sheet.keypoints].tolist())
    bones = tuple((first, second) for first, second in sheet.bones.tolist())
    with replacing(folder / PICTURE) as temporary:
        Image.fromarray(drawn.rgba.numpy()).save(temporary)
    write_bytes(folder / PROJECT, project_json(Project(keypoints=keypoints, bones=bones)))


def main() -> int:
    """The drawing, and the folder to write into."""
    drawing, folder = map(Path, sys.argv[1:])
    try:
        rig(drawing, folder)
    except StudioError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
