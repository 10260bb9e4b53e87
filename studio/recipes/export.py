"""Which files a finished run leaves, and what each format can hold."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.values import STRICT

AssetFormat = Literal[
    "glb", "obj", "stl", "usdz", "3mf", "ply", "splat", "spz", "skinned.zip", "4dgs", "usdc",
    "mp4", "gif", "webp", "apng", "front.mp4", "views.mp4", "svg", "json", "zip", "clipart.json", "png",
]  # fmt: skip
FORMATS: tuple[AssetFormat, ...] = get_args(AssetFormat)

HOLDS_MESH: frozenset[AssetFormat] = frozenset(("glb", "obj", "stl", "usdz", "3mf"))
HOLDS_SPLATS: frozenset[AssetFormat] = frozenset(("ply", "splat", "spz", "skinned.zip", "4dgs", "usdc"))
TURNTABLE: frozenset[AssetFormat] = frozenset(("mp4", "gif", "webp", "apng"))
HOLDS_ONE_INSTANT: frozenset[AssetFormat] = frozenset(("obj", "stl", "3mf", "splat", "spz"))
FILM: frozenset[AssetFormat] = frozenset(("front.mp4", "views.mp4"))
"""From cameras that stand still."""
NEEDS_MOTION: frozenset[AssetFormat] = FILM | {"skinned.zip", "4dgs"}
HOLDS_CURVES: frozenset[AssetFormat] = frozenset(("svg", "json", "zip"))
FLAT: frozenset[AssetFormat] = HOLDS_CURVES | {"clipart.json"}
"""What clipart alone is written as."""
CLIP: frozenset[AssetFormat] = TURNTABLE | FLAT | {"png"}
"""What clipart in motion is written as."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExportConfig:
    """Which files the finished run leaves."""

    formats: tuple[AssetFormat, ...] = ("glb", "ply", "mp4", "png")
    """Mesh: glb, obj, stl, usdz, 3mf. Splats: ply, splat, spz, usdc, in motion skinned.zip and 4dgs too.
    Turntable, or clip of clipart: mp4, gif, webp, apng. Motion from still cameras: front.mp4, views.mp4.
    Sheet: png. Clipart alone: svg that moves by itself, json for Lottie, zip of one svg a frame, clipart.json
    to be edited and animated again."""
    mesh_faces: Annotated[int, Field(ge=100, le=2_000_000)] = 20_000
    """Budget of the mesh."""
    texture_size: Annotated[int, Field(ge=64, le=8192)] = 1024
    """Width and height of the mesh's texture in pixels."""
    normal_map: bool = False
    """Keep what the simplified mesh has lost as a normal map, in glb, obj and usdz; a .glb is then lit."""
    turntable_frames: Annotated[int, Field(ge=1, le=10_000)] = 72
    """Frames of one turn, at 24 a second; of a scene in motion, about so many, for it to end as it began."""
    turntable_size: Annotated[int, Field(ge=16, le=4096)] = 384
    """Width and height of the turntable in pixels."""
    motion_frames: Annotated[int, Field(ge=1, le=1024)] = 24
    """Instants of a scene in motion that are written."""
    motion_seconds: Annotated[float, Field(gt=0.0, le=600.0)] = 2.0
    """How long it moves, from time 0 to time 1."""
    motion_loops: bool = False
    """Time 1 is time 0 again: the last instant goes over into the first."""
