"""What no format can hold, said before work is spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.export.formats import format_of, suffixes
from studio.export.shapes import Asset, Moving, at_rest
from studio.export.skinned import refuse_unskinned
from studio.ops.field import Field
from studio.recipes.config import FLAT, HOLDS_ONE_INSTANT, HOLDS_SPLATS, NEEDS_MOTION
from studio.types import Animation, Mesh, Splats

MOST_SECONDS = 600.0


def refuse_formats(asset: Asset | Moving, paths: Sequence[Path]) -> None:
    """Refuse files whose format cannot hold the asset.

    Raises:
        StudioError: a format that holds splats for a scene without, one instant for a scene in motion, or
            motion for one at rest; more nodes than a bundle of splats holds, or none.
    """
    unfit = FLAT if isinstance(at_rest(asset), Splats) else FLAT | HOLDS_SPLATS
    unfit |= frozenset() if isinstance(asset, Animation) else NEEDS_MOTION
    for path in paths:
        chosen = format_of(path)
        if chosen in FLAT:
            raise StudioError(
                f"cannot export to {path}: .{chosen} holds flat drawings and the scene is solid. "
                f"Expected one of {suffixes(without=unfit)}."
            )
        if chosen in NEEDS_MOTION and not isinstance(asset, Animation):
            raise StudioError(
                f"cannot export to {path}: .{chosen} holds motion and the scene is at rest. "
                f"Expected one of {suffixes(without=unfit)}."
            )
        if chosen in unfit:
            raise StudioError(
                f"cannot export to {path}: .{chosen} holds splats and the scene has none. "
                f"Expected one of {suffixes(without=unfit)}."
            )
        if chosen in HOLDS_ONE_INSTANT and isinstance(asset, Animation):
            raise StudioError(
                f"cannot export to {path}: .{chosen} holds one instant and the scene moves. "
                f"Expected one of {suffixes(without=unfit | HOLDS_ONE_INSTANT)}."
            )
        if chosen == "skinned.zip" and isinstance(asset, Animation):
            refuse_unskinned(asset.rig, path)


def refuse_unsound(asset: Asset | Moving) -> None:
    """Refuse what is empty or not finite, and frames that do not belong together.

    Raises:
        StudioError: says how many of which numbers are wrong.
    """
    match asset:
        case Animation():
            _refuse_unsound_motion(asset)
        case Splats():
            _refuse_unsound_splats(asset)
        case Mesh():
            _refuse_unsound_mesh(asset)
        case Field():
            tensors = (asset.table, *asset.weights, *asset.biases)
            if wrong := sum(_unsound(tensor) for tensor in tensors):
                raise StudioError(
                    f"{wrong} numbers of the field are not finite, expected none. "
                    "Try resuming from an earlier checkpoint with a lower learning rate."
                )
        case _:
            assert_never(asset)


def _refuse_unsound_mesh(mesh: Mesh) -> None:
    wrong = int((~mesh.vertices.isfinite().all(dim=1)).sum())
    if wrong or len(mesh.faces) == 0:
        raise StudioError(
            f"the mesh has {len(mesh.faces)} faces and {wrong} vertices that are not finite, "
            "expected some and none. Try resuming from an earlier checkpoint with lower rates."
        )
    dress = [mesh.uvs, mesh.vertex_colors, *(part.texture for part in mesh.materials)]
    if wrong := sum(_unsound(values) for values in dress if values is not None):
        raise StudioError(
            f"{wrong} numbers of the mesh's colours and texture coordinates are not finite, expected none. "
            "Try resuming from an earlier checkpoint with lower rates."
        )


def _refuse_unsound_splats(splats: Splats) -> None:
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


def _refuse_unsound_motion(animation: Moving) -> None:
    frames, times, rig = animation.frames, animation.times, animation.rig
    rises = bool((times.diff() > 0).all()) and bool(((times >= 0) & (times <= 1)).all())
    if not frames or len(times) != len(frames) or not rises:
        raise StudioError(
            f"the animation has {len(frames)} frames and {len(times)} times, "
            "expected one at least, and for each a time in 0-1 after the one before."
        )
    if not 0 < animation.seconds <= MOST_SECONDS:
        raise StudioError(
            f"the animation takes {animation.seconds:g} s, expected more than 0 and at most {MOST_SECONDS:g}."
        )
    shapes = (animation.rest, *frames)
    counts = sorted({_count(shape) for shape in shapes})
    if len(counts) != 1:
        raise StudioError(
            f"the animation's frames have {counts[0]} to {counts[-1]} points, expected one number in all. "
            "Try a scene whose topology is fixed while it moves."
        )
    for shape in shapes:
        refuse_unsound(shape)
        if isinstance(shape, Mesh) and isinstance(animation.rest, Mesh):
            if not torch.equal(shape.faces, animation.rest.faces):
                raise StudioError("the animation's frames have other faces than its rest, expected the same.")
    if rig is None:
        return
    fits = len(rig.carriers) == counts[0] and len(rig.quats_wxyz) == len(frames)
    if not fits or any(_unsound(values) for values in vars(rig).values()):
        raise StudioError(
            f"the animation's rig carries {len(rig.carriers)} points through {len(rig.quats_wxyz)} instants, "
            f"expected {counts[0]} through {len(frames)} and finite numbers."
        )


def _count(shape: Splats | Mesh) -> int:
    return len(shape.means if isinstance(shape, Splats) else shape.vertices)


def _unsound(values: Tensor) -> int:
    return int((~values.isfinite()).sum())
