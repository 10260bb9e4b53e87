"""Looks at a file that a browser sent, in a process of its own, which a hostile file may cost its life."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from PIL import Image

from studio.clipart.drawing import read_drawing
from studio.clipart.raster import read_picture
from studio.clipart.sheet import sheet_of
from studio.errors import StudioError
from studio.export.files import replacing, write_bytes
from studio.export.images import to_pixels
from studio.meshes import load_mesh, normalised
from studio.recipes.project import Project, project_json
from studio.run.views import shape_from_front
from studio.splats import read_ply
from studio.video import read_footage

PICTURE, PROJECT = "picture.png", "project.json"
_DRAWING_PX, _FILM_PX, _START_PX = 512, 256, 256
PICTURE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
MOST_BYTES = 4 * 2**30
"""Of memory, for one look."""
START_SUFFIXES = (".ply", ".glb", ".stl", *PICTURE_SUFFIXES)
"""Of what may begin to move. A .obj names other files, which do not come with it."""


def inspect_drawing(drawing: Path, folder: Path) -> None:
    """Writes a picture of a drawing's canvas, and its keypoints and bones as a project.

    Raises:
        StudioError: as ``read_drawing`` and ``sheet_of``.
    """
    drawn = read_drawing(drawing, _DRAWING_PX)
    sheet = sheet_of(drawn)
    keypoints = tuple((round(x, 2), round(y, 2)) for x, y in sheet.vertices[sheet.keypoints].tolist())
    bones = tuple((first, second) for first, second in sheet.bones.tolist())
    _write_picture(Image.fromarray(drawn.rgba.numpy()), folder)
    write_bytes(folder / PROJECT, project_json(Project(keypoints=keypoints, bones=bones)))


def inspect_film(film: Path, folder: Path) -> None:
    """Writes a picture of a video's first frame.

    Raises:
        StudioError: as ``read_footage``.
    """
    footage = read_footage(film, _FILM_PX)
    _write_picture(Image.fromarray(to_pixels(footage.rgb[:1])[0]), folder)


def inspect_start(file: Path, folder: Path) -> None:
    """Writes a picture of an asset, from a little above, or of a picture.

    Raises:
        StudioError: as ``read_ply``, ``load_mesh`` and ``read_picture``.
    """
    if file.suffix in PICTURE_SUFFIXES:
        _write_picture(Image.fromarray(read_picture(file, _START_PX)), folder)
        return
    shape = read_ply(file) if file.suffix == ".ply" else normalised(load_mesh(file))
    _write_picture(Image.fromarray(to_pixels(shape_from_front(shape, _START_PX))[0]), folder)


def _write_picture(picture: Image.Image, folder: Path) -> None:
    with replacing(folder / PICTURE) as temporary:
        picture.save(temporary)


def main() -> int:
    """``drawing``, ``film`` or ``start``, the file, and the folder to write into."""
    kind, file, folder = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    try:
        {"drawing": inspect_drawing, "film": inspect_film, "start": inspect_start}[kind](
            Path(file), Path(folder)
        )
    except StudioError as error:
        print(error, file=sys.stderr)
        return 2
    except MemoryError:
        print(f"the {kind} takes more than {MOST_BYTES >> 30} GiB to be read", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
