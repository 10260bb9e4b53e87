"""The formats that an asset can be written in, told by a file's suffix or, of a project, by its name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from studio.errors import StudioError, nearest
from studio.recipes.config import FORMATS as FORMATS
from studio.recipes.config import AssetFormat

_NAMES: dict[AssetFormat, str] = {
    "glb": "asset.glb",
    "obj": "asset.obj",
    "stl": "asset.stl",
    "usdz": "asset.usdz",
    "3mf": "asset.3mf",
    "ply": "asset.ply",
    "splat": "asset.splat",
    "spz": "asset.spz",
    "skinned.zip": "asset.skinned.zip",
    "4dgs": "asset.4dgs",
    "usdc": "asset.usdc",
    "mp4": "clip.mp4",
    "gif": "clip.gif",
    "webp": "clip.webp",
    "apng": "clip.apng",
    "front.mp4": "clip.front.mp4",
    "views.mp4": "clip.views.mp4",
    "svg": "animation.svg",
    "json": "animation.json",
    "zip": "frames.zip",
    "clipart.json": "clipart.json",
    "png": "contact_sheet.png",
}


def suffixes(*, of: Collection[AssetFormat] = FORMATS, without: Collection[AssetFormat] = ()) -> str:
    """Formats as their suffixes, in the order that they are always named in, commas between."""
    return ", ".join(f".{known}" for known in FORMATS if known in of and known not in without)


def format_of(path: Path) -> AssetFormat:
    """The format that a path's suffix names; where two do, as in ``bear.front.mp4``, the longer one's.

    Raises:
        StudioError: there is no such format.
    """
    suffix = path.suffix.lower().removeprefix(".")
    name = f".{path.name.lower()}"
    fitting = [known for known in FORMATS if suffix == known or ("." in known and name.endswith(f".{known}"))]
    if fitting:
        return max(fitting, key=len)
    wanted = f"the suffix .{suffix}" if suffix else "a name without a suffix"
    raise StudioError(
        f"cannot export to {path}: {wanted} is no known format.{nearest(suffix, FORMATS)} "
        f"Expected one of {suffixes()}."
    )


def among(paths: Sequence[Path], formats: Collection[AssetFormat]) -> list[Path]:
    """The paths whose format is one of these.

    Raises:
        StudioError: a path's suffix names no format.
    """
    return [path for path in paths if format_of(path) in formats]


def asset_paths(folder: Path, formats: Sequence[AssetFormat]) -> tuple[Path, ...]:
    """Where ``export_asset`` puts each format."""
    return tuple(folder / _NAMES[wanted] for wanted in formats)


def numbered(path: Path, number: int) -> Path:
    """``bear-2.front.mp4`` for ``bear.front.mp4``.

    Raises:
        StudioError: its suffix names no format.
    """
    ending = path.name[-len(format_of(path)) :]
    stem = path.name.removesuffix(ending).rstrip(".")
    return path.with_name(f"{stem}-{number}.{ending}" if stem else f"{number}.{ending}")
