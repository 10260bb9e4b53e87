"""Writes a scene in any number of formats, and makes what they share (mesh, turntable) only once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import assert_never

from studio.cameras import orbit, turntable
from studio.errors import StudioError
from studio.export.files import check_writable
from studio.export.formats import asset_paths, format_of
from studio.export.glb import write_glb
from studio.export.images import to_pixels
from studio.export.obj import write_obj
from studio.export.pictures import write_animation, write_contact_sheet, write_mp4
from studio.export.ply import write_ply
from studio.export.reconstruction import Likeness, textured_field, textured_mesh, textured_surface
from studio.export.splat import write_splat
from studio.export.spz import write_spz
from studio.export.stl import write_stl
from studio.export.texture import with_gutters
from studio.export.views import pictures
from studio.interfaces import Renderer
from studio.ops.field import Field
from studio.ops.surfaces import Light
from studio.recipes.config import ExportConfig
from studio.renderers.raster import MeshRenderer
from studio.types import Mesh, Splats

_MESHES, _TURNTABLES = frozenset(("glb", "obj", "stl")), frozenset(("mp4", "gif", "webp"))
_SPLATS = frozenset(("ply", "splat", "spz"))
_NAMES = {Splats: "splats", Mesh: "surface", Field: "field"}
_SHEET_VIEWS, _SHEET_SIZE, _SHEET_ELEVATION_DEG = 8, 256, 15.0

Asset = Splats | Mesh | Field
"""What can be written: splats, a textured mesh, a surface with colours at its vertices, a radiance field."""


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        paths: the files asked for, in that order.
        likeness: how well the mesh stands for the scene, where one was made.
        seconds: wall time by part.
    """

    paths: tuple[Path, ...]
    likeness: Likeness | None
    seconds: Mapping[str, float]


def export_asset(
    asset: Asset,
    renderer: Renderer[Any],
    folder: Path,
    config: ExportConfig,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write a recipe's formats into a folder, under fixed names.

    Args, Raises: as ``export_files``.
    """
    return export_files(asset, renderer, asset_paths(folder, config.formats), config, progress)


def export_files(
    asset: Asset,
    renderer: Renderer[Any],
    paths: Sequence[Path],
    config: ExportConfig,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write files of any known format; the suffix says which.

    Every file is complete or absent, and a file that stood there before stays if its successor fails.

    Args:
        asset: what to write, without gradients.
        renderer: draws it.
        paths: where to write.
        config: sizes and budgets; its formats do not matter here.
        progress: is told what begins.

    Raises:
        StudioError: unknown suffix, or one that cannot hold this asset; unwritable folder, full disk; empty,
            transparent or non-finite scene.
    """
    formats = [format_of(path) for path in paths]
    for folder in {path.parent for path in paths}:
        check_writable(folder)
    for path, chosen in zip(paths, formats, strict=True):
        if chosen in _SPLATS and not isinstance(asset, Splats):
            raise StudioError(
                f"cannot export to {path}: .{chosen} holds splats and the scene has none. "
                "Expected one of .glb, .obj, .stl, .mp4, .gif, .webp, .png."
            )
    _check_finite(asset)
    device = _device_of(asset)

    clock = _Stopwatch(progress)
    mesh, likeness = None, None
    if not _MESHES.isdisjoint(formats):
        mesh, likeness = as_mesh(asset, renderer, config.mesh_faces, config.texture_size, clock.begin)
    frames = None
    if not _TURNTABLES.isdisjoint(formats):
        clock.begin("turntable")
        around = turntable(config.turntable_frames, config.turntable_size, config.turntable_size)
        frames = to_pixels(pictures(renderer, asset, around, 1.0, device).rgb)
    for path, chosen in zip(paths, formats, strict=True):
        clock.begin(path.name)
        match chosen:
            case "glb" | "obj" | "stl":
                assert mesh is not None
                _write_mesh(mesh, path, chosen)
            case "ply" | "splat" | "spz":
                assert isinstance(asset, Splats)
                _write_splats(asset, path, chosen)
            case "mp4" | "gif" | "webp":
                assert frames is not None
                write = write_mp4 if chosen == "mp4" else write_animation
                write(frames, path)
            case "png":
                copy = None if likeness is None else mesh
                write_contact_sheet(*_sheet(asset, renderer, copy, device), path)
            case _:
                assert_never(chosen)
    return ExportReport(tuple(paths), likeness, clock.stop())


def as_mesh(
    asset: Asset,
    renderer: Renderer[Any],
    most_faces: int,
    texture_size: int,
    progress: Callable[[str], None],
) -> tuple[Mesh, Likeness | None]:
    """The asset as a textured mesh on the CPU, and how like it that is where it had to be made.

    Args:
        asset: finite, without gradients.
        renderer: draws it.
        most_faces, texture_size: of a mesh that has to be made.
        progress: is told what begins.

    Raises:
        StudioError: there is no surface.
    """
    match asset:
        case Splats():
            return textured_mesh(asset, renderer, most_faces, texture_size, progress)
        case Mesh(uvs=None):
            surface = Mesh(asset.vertices.cpu(), asset.faces.cpu())
            sizes = most_faces, texture_size
            return textured_surface(surface, asset, renderer, asset.vertices.device, *sizes, progress)
        case Mesh():
            return with_gutters(asset), None
        case Field():
            return textured_field(asset, renderer, most_faces, texture_size, progress)
        case _:
            assert_never(asset)


def _write_splats(splats: Splats, path: Path, chosen: Literal["ply", "splat", "spz"]) -> None:
    match chosen:
        case "ply":
            write_ply(splats, path)
        case "splat":
            write_splat(splats, path)
        case "spz":
            write_spz(splats, path)
        case _:
            assert_never(chosen)


def _write_mesh(mesh: Mesh, path: Path, chosen: Literal["glb", "obj", "stl"]) -> None:
    match chosen:
        case "glb":
            write_glb(mesh, path)
        case "obj":
            write_obj(mesh, path)
        case "stl":
            write_stl(mesh, path)
        case _:
            assert_never(chosen)


def _sheet(
    asset: Asset, renderer: Renderer[Any], mesh: Mesh | None, device: torch.device
) -> tuple[NDArray[np.uint8], list[str], int]:
    """Pictures from all around, their labels and how many make a row; a mesh made of it has its own row."""
    azimuth = torch.arange(_SHEET_VIEWS) * (360.0 / _SHEET_VIEWS)
    elevation = torch.full_like(azimuth, _SHEET_ELEVATION_DEG)
    cameras = orbit(azimuth, elevation, _SHEET_SIZE, _SHEET_SIZE)
    rows = [to_pixels(pictures(renderer, asset, cameras, 1.0, device).rgb)]
    labels = [f"{angle:.0f}°" for angle in azimuth.tolist()]
    if mesh is None:
        return rows[0], labels, _SHEET_VIEWS // 2
    rows.append(to_pixels(pictures(MeshRenderer(supersample=3, light=Light()), mesh, cameras, 1.0).rgb))
    labels = [f"{kind} {label}" for kind in (_NAMES[type(asset)], "mesh") for label in labels]
    return np.concatenate(rows), labels, _SHEET_VIEWS


def _device_of(asset: Asset) -> torch.device:
    match asset:
        case Splats():
            return asset.means.device
        case Mesh():
            return asset.vertices.device
        case Field():
            return asset.table.device
        case _:
            assert_never(asset)


def _check_finite(asset: Asset) -> None:
    """Refuse what no format can hold."""
    match asset:
        case Splats():
            _check_finite_splats(asset)
        case Mesh():
            wrong = int((~asset.vertices.isfinite().all(dim=1)).sum())
            if wrong or len(asset.faces) == 0:
                raise StudioError(
                    f"the mesh has {len(asset.faces)} faces and {wrong} vertices that are not finite, "
                    "expected some and none. Try resuming from an earlier checkpoint with lower rates."
                )
        case Field():
            tensors = (asset.table, *asset.weights, *asset.biases)
            if wrong := sum(int((~tensor.isfinite()).sum()) for tensor in tensors):
                raise StudioError(
                    f"{wrong} numbers of the field are not finite, expected none. "
                    "Try resuming from an earlier checkpoint with a lower learning rate."
                )
        case _:
            assert_never(asset)


def _check_finite_splats(splats: Splats) -> None:
    count = len(splats.means)
    if count == 0:
        raise StudioError(
            "the scene is empty: 0 splats, expected at least one. "
            "Try more steps or a lower pruning threshold."
        )
    columns = (splats.means, splats.quats_wxyz, splats.scales, splats.opacities, splats.sh)
    finite = torch.cat([column.reshape(count, -1) for column in columns], dim=1).isfinite().all(dim=1)
    if not finite.all():
        raise StudioError(
            f"{count - int(finite.sum())} of {count} splats hold numbers that are not finite, expected none. "
            "Try resuming from an earlier checkpoint with a lower learning rate."
        )


class _Stopwatch:
    """Wall time by part; the next part's beginning is the last one's end."""

    def __init__(self, listener: Callable[[str], None] | None) -> None:
        self._listener = listener
        self._begun: list[tuple[str, float]] = []

    def begin(self, part: str) -> None:
        self._begun.append((part, time.perf_counter()))
        if self._listener is not None:
            self._listener(part)

    def stop(self) -> dict[str, float]:
        ends = [start for _, start in self._begun[1:]] + [time.perf_counter()]
        return {part: end - start for (part, start), end in zip(self._begun, ends, strict=True)}
