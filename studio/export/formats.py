"""The formats that an asset can be written in, told by a file's suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from studio.errors import StudioError, nearest
from studio.recipes.config import AssetFormat

FORMATS: tuple[AssetFormat, ...] = get_args(AssetFormat)

_NAMES: dict[AssetFormat, str] = {
    "glb": "asset.glb",
    "obj": "asset.obj",
    "stl": "asset.stl",
    "ply": "asset.ply",
    "splat": "asset.splat",
    "spz": "asset.spz",
    "mp4": "turntable.mp4",
    "gif": "turntable.gif",
    "webp": "turntable.webp",
    "png": "contact_sheet.png",
}


def format_of(path: Path) -> AssetFormat:
    """The format that a path's suffix names.

    Raises:
        StudioError: there is no such format.
    """
    suffix = path.suffix.lower().removeprefix(".")
    for known in FORMATS:
        if suffix == known:
            return known
    wanted = f"the suffix .{suffix}" if suffix else "a name without a suffix"
    raise StudioError(
        f"cannot export to {path}: {wanted} is no known format.{nearest(suffix, FORMATS)} "
        f"Expected one of {', '.join('.' + known for known in FORMATS)}."
    )


def asset_paths(folder: Path, formats: Sequence[AssetFormat]) -> tuple[Path, ...]:
    """Where ``export_asset`` puts each format."""
    return tuple(folder / _NAMES[wanted] for wanted in formats)
