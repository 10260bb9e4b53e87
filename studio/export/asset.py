"""Writes a scene in any number of formats, and makes what they share (mesh, turntable) only once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from studio.cameras import turntable
from studio.export.animation import rate_of, shape_at, spread, turntable_times
from studio.export.clip import write_clip
from studio.export.files import check_writable
from studio.export.film import film_of_views, front_film
from studio.export.formats import among, asset_paths, format_of
from studio.export.four_dgs import write_4dgs
from studio.export.glb import write_glb
from studio.export.images import to_pixels
from studio.export.motion import moving, redressed
from studio.export.obj import write_obj
from studio.export.pictures import FRAMES_PER_SECOND, write_animation, write_contact_sheet, write_mp4
from studio.export.ply import write_ply, write_ply_sequence
from studio.export.reconstruction import (
    Likeness,
    MeshBudget,
    likeness,
    textured_field,
    textured_mesh,
    textured_surface,
)
from studio.export.refusals import refuse_formats, refuse_unsound
from studio.export.shapes import Asset, Clip, Moving, at_rest, device_of
from studio.export.sheet import contact_sheet
from studio.export.skinned import write_skinned
from studio.export.splat import write_splat
from studio.export.spz import write_spz
from studio.export.stl import write_stl
from studio.export.texture import with_gutters
from studio.export.three_mf import write_3mf
from studio.export.usdc import write_usdc
from studio.export.usdz import write_usdz
from studio.export.views import pictures, unlit
from studio.interfaces import Renderer
from studio.ops.field import Field
from studio.recipes.config import FILM, HOLDS_MESH, HOLDS_SPLATS, TURNTABLE, ExportConfig
from studio.types import Animation, Mesh, Splats

_JUDGED_INSTANTS = 8


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        paths: the files asked for, in that order; in the place of a sequence its folder.
        likeness: how well the mesh stands for the scene, where one was written.
        seconds: wall time by part.
    """

    paths: tuple[Path, ...]
    likeness: Likeness | None
    seconds: Mapping[str, float]


def export_asset(
    asset: Asset | Moving,
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
    asset: Asset | Moving | Clip,
    renderer: Renderer[Any],
    paths: Sequence[Path],
    config: ExportConfig,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write files of any known format; the suffix says which.

    Every file is complete or absent, and a file that stood there before stays if its successor fails.

    What moves is written with its motion: as an animated ``.glb`` or ``.usdz``, as turntables in which time
    runs while the camera turns, as films from cameras that stand still, and splats as a folder of numbered
    ``.ply`` or with the nodes that carry them.

    Args:
        asset: what to write, without gradients.
        renderer: draws it.
        paths: where to write.
        config: sizes and budgets; its formats do not matter here.
        progress: is told what begins.

    Raises:
        StudioError: unknown suffix, one that cannot hold this asset, or one whose library is not installed;
            unwritable folder, full disk; empty, transparent or non-finite scene; frames that do not fit.
    """
    clock = _Stopwatch(progress)
    if isinstance(asset, Clip):
        written_clip = write_clip(asset, renderer, paths, config, clock.begin)
        return ExportReport(written_clip, None, clock.stop())
    refuse_formats(asset, paths)
    refuse_unsound(asset)
    for folder in {path.parent for path in paths}:
        check_writable(folder)

    mesh, found = None, None
    if meshes := among(paths, HOLDS_MESH):
        budget = MeshBudget(config.mesh_faces, config.texture_size, config.normal_map)
        mesh, found, lit = _judged_mesh(asset, renderer, budget, clock.begin)
        for path in meshes:
            clock.begin(path.name)
            _write_mesh(mesh, path, lit)
    if turntables := among(paths, TURNTABLE):
        clock.begin("turntable")
        frames = _turntable(asset, renderer, config)
        for path in turntables:
            clock.begin(path.name)
            write = write_mp4 if format_of(path) == "mp4" else write_animation
            write(frames, path)
    written = {path: path for path in paths}
    for path in among(paths, HOLDS_SPLATS):
        clock.begin(path.name)
        written[path] = _write_splats(asset, path)
    if isinstance(asset, Animation):
        for path in among(paths, FILM):
            clock.begin(path.name)
            film = front_film if format_of(path) == "front.mp4" else film_of_views
            write_mp4(film(asset, renderer, config.turntable_size), path, rate_of(asset))
    for path in among(paths, {"png"}):
        clock.begin(path.name)
        write_contact_sheet(*contact_sheet(asset, renderer, mesh), path)
    return ExportReport(tuple(written[path] for path in paths), found, clock.stop())


def as_mesh(
    asset: Asset, renderer: Renderer[Any], budget: MeshBudget, progress: Callable[[str], None]
) -> tuple[Mesh, float]:
    """The asset as a textured mesh on the CPU, and the level at which its surface was taken; 0 if it had one.

    Args:
        asset: finite, without gradients.
        renderer: draws it.
        budget: of the mesh.
        progress: is told what begins.

    Raises:
        StudioError: there is no surface.
    """
    match asset:
        case Splats():
            return textured_mesh(asset, renderer, budget, progress)
        case Mesh():
            if _is_dressed(asset, budget):
                return with_gutters(asset), 0.0
            surface = Mesh(asset.vertices.cpu(), asset.faces.cpu())
            device = asset.vertices.device
            return textured_surface(surface, asset, unlit(renderer), device, budget, progress), 0.0
        case Field():
            return textured_field(asset, renderer, budget, progress)
        case _:
            assert_never(asset)


def _is_dressed(shape: Mesh, budget: MeshBudget) -> bool:
    """Whether a mesh has a texture and few enough faces: whether it can be written as it is."""
    return shape.uvs is not None and len(shape.faces) <= budget.faces


def _judged_mesh(
    asset: Asset | Moving, renderer: Renderer[Any], budget: MeshBudget, progress: Callable[[str], None]
) -> tuple[Mesh | Animation[Mesh], Likeness, bool]:
    """The asset as a mesh, how like it that is, and whether its colours are to be seen in light."""
    device = device_of(asset)
    shape = at_rest(asset)
    plain = unlit(renderer) if isinstance(shape, Mesh) else renderer
    still, level = as_mesh(shape, renderer, budget, progress)
    if not isinstance(asset, Animation):
        progress("likeness")
        return still, likeness([(asset, still)], plain, device, level), plain is not renderer
    progress("motion")
    keeps_its_shape = isinstance(shape, Mesh) and _is_dressed(shape, budget)
    mesh = redressed(still, asset) if keeps_its_shape else moving(still, asset)
    progress("likeness")
    judged = spread(len(asset.frames), _JUDGED_INSTANTS)
    instants = [(asset.frames[index], mesh.frames[index]) for index in judged]
    return mesh, likeness(instants, plain, device, level), plain is not renderer


def _turntable(asset: Asset | Moving, renderer: Renderer[Any], config: ExportConfig) -> NDArray[np.uint8]:
    """The frames of one turn; time runs meanwhile."""
    device, size = device_of(asset), config.turntable_size
    if not isinstance(asset, Animation):
        around = turntable(config.turntable_frames, size, size)
        return to_pixels(pictures(renderer, asset, around, 1.0, device).rgb)
    times = turntable_times(asset, config.turntable_frames / FRAMES_PER_SECOND)
    around = turntable(len(times), size, size)
    frames = [
        to_pixels(pictures(renderer, shape_at(asset, time), around[[index]], 1.0, device).rgb)
        for index, time in enumerate(times)
    ]
    return np.concatenate(frames)


def _write_splats(asset: Asset | Moving, path: Path) -> Path:
    """Writes splats, at rest or in motion; returns what was written."""
    splats = at_rest(asset)
    assert isinstance(splats, Splats)
    motion = cast("Animation[Splats]", asset) if isinstance(asset, Animation) else None
    match format_of(path), motion:
        case "ply", None:
            write_ply(splats, path)
        case "ply", Animation():
            return write_ply_sequence(motion.frames, path)
        case "usdc", _:
            write_usdc(motion or splats, path)
        case "splat", None:
            write_splat(splats, path)
        case "spz", None:
            write_spz(splats, path)
        case "skinned.zip", Animation():
            write_skinned(motion, path)
        case "4dgs", Animation():
            write_4dgs(motion, path)
        case other, _:
            raise AssertionError(f".{other} cannot hold these splats")
    return path


def _write_mesh(mesh: Mesh | Animation[Mesh], path: Path, lit: bool) -> None:
    match format_of(path), mesh:
        case "glb", _:
            write_glb(mesh, path, unlit=not lit)
        case "usdz", _:
            write_usdz(mesh, path)
        case "obj", Mesh():
            write_obj(mesh, path)
        case "stl", Mesh():
            write_stl(mesh, path)
        case "3mf", Mesh():
            write_3mf(mesh, path)
        case other, _:
            raise AssertionError(f".{other} cannot hold this mesh")


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
