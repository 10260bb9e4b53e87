"""The formats that an asset can be written in, told by a file's suffix or, of a project, by its name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import get_args

from studio.errors import StudioError, nearest
from studio.recipes.config import AssetFormat

FORMATS: tuple[AssetFormat, ...] = get_args(AssetFormat)

_NAMES: dict[AssetFormat, str] = {
    "glb": "asset.glb",
    "obj": "asset.obj",
    "stl": "asset.stl",
    "usdz": "asset.usdz",
    "3mf": "asset.3mf",
    "ply": "asset.ply",
    "splat": "asset.splat",
    "spz": "asset.spz",
    "mp4": "clip.mp4",
    "gif": "clip.gif",
    "webp": "clip.webp",
    "apng": "clip.apng",
    "svg": "animation.svg",
    "json": "animation.json",
    "zip": "frames.zip",
    "clipart.json": "clipart.json",
    "png": "contact_sheet.png",
}


HOLDS_MESH: frozenset[AssetFormat] = frozenset(("glb", "obj", "stl", "usdz", "3mf"))
HOLDS_SPLATS: frozenset[AssetFormat] = frozenset(("ply", "splat", "spz"))
TURNTABLE: frozenset[AssetFormat] = frozenset(("mp4", "gif", "webp", "apng"))
HOLDS_MOTION: frozenset[AssetFormat] = TURNTABLE | {"glb", "usdz", "ply", "png"}


HOLDS_CURVES: frozenset[AssetFormat] = frozenset(("svg", "json", "zip"))
FLAT: frozenset[AssetFormat] = HOLDS_CURVES | {"clipart.json"}
"""What clipart alone is written as."""
CLIP: frozenset[AssetFormat] = TURNTABLE | FLAT | {"png"}
"""What clipart in motion is written as."""


def suffixes(*, of: Collection[AssetFormat] = FORMATS, without: Collection[AssetFormat] = ()) -> str:
    """Formats as their suffixes, in the order that they are always named in, commas between."""
    return ", ".join(f".{known}" for known in FORMATS if known in of and known not in without)


def format_of(path: Path) -> AssetFormat:
    """The format that a path's suffix names.

    Raises:
        StudioError: there is no such format.
    """
    if f".{path.name.lower()}".endswith(".clipart.json"):
        return "clipart.json"
    suffix = path.suffix.lower().removeprefix(".")
    for known in FORMATS:
        if suffix == known:
            return known
    wanted = f"the suffix .{suffix}" if suffix else "a name without a suffix"
    raise StudioError(
        f"cannot export to {path}: {wanted} is no known format.{nearest(suffix, FORMATS)} "
        f"Expected one of {suffixes()}."
    )


def asset_paths(folder: Path, formats: Sequence[AssetFormat]) -> tuple[Path, ...]:
    """Where ``export_asset`` puts each format."""
    return tuple(folder / _NAMES[wanted] for wanted in formats)
