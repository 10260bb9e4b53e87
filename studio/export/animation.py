"""When an animation shows which of its frames, and the shape between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from studio.export.pictures import FRAMES_PER_SECOND
from studio.ops.rotations import aligned
from studio.types import Animation, Mesh, Shape, Splats


def keys_of(
    animation: Animation[Shape], shown: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The seconds at which frames are shown, and which of ``shown`` it is; the first again where time loops.

    Args:
        shown: frames, rising, the first of them frame 0.
    """
    seconds = animation.times[list(shown)].double().cpu().numpy() * animation.seconds
    order = np.arange(len(shown))
    if animation.loops:
        seconds, order = np.append(seconds, animation.seconds), np.append(order, 0)
    return seconds.astype(np.float32), order


def shape_at(animation: Animation[Mesh] | Animation[Splats], time: float) -> Mesh | Splats:
    """The shape at a time in 0-1: straight on from one frame to the next, as players of .glb show it."""
    times = animation.times.double().cpu()
    later = int(torch.searchsorted(times, torch.tensor(time, dtype=torch.double), right=True))
    if later == 0 or (later == len(times) and not animation.loops):
        return animation.frames[max(later - 1, 0)]
    before = animation.frames[later - 1]
    after, end = (animation.frames[later], times[later]) if later < len(times) else (animation.frames[0], 1.0)
    start = times[later - 1]
    share = float((time - start) / (end - start)) if end > start else 0.0
    return before if share == 0.0 else _between(before, after, share)


def rate_of(animation: Animation[Mesh] | Animation[Splats]) -> float:
    """Frames a second, of evenly spread ones: the last is at the end or, in a loop, one before it."""
    count = len(animation.frames)
    return max(count if animation.loops else count - 1, 1) / animation.seconds


def spread(count: int, most: int) -> list[int]:
    """At most so many of ``count`` frames, evenly spread, the first and the last among them."""
    return [int(index) for index in np.unique(np.linspace(0, count - 1, min(count, most)).round())]


def turntable_times(animation: Animation[Mesh] | Animation[Splats], seconds: float) -> list[float]:
    """The times in 0-1 that a video of about so many seconds shows, a frame each, for it to end as it began.

    The animation keeps its pace and is shown whole, as often as comes nearest to the length asked for.
    """
    repeats = max(1, round(seconds / animation.seconds))
    count = max(1, round(repeats * animation.seconds * FRAMES_PER_SECOND))
    return [index * repeats / count % 1.0 for index in range(count)]


def _between(before: Mesh | Splats, after: Mesh | Splats, share: float) -> Mesh | Splats:
    if isinstance(before, Splats) and isinstance(after, Splats):
        turned = aligned(after.quats_wxyz, before.quats_wxyz)
        return Splats(
            means=before.means.lerp(after.means, share),
            quats_wxyz=before.quats_wxyz.lerp(turned, share),
            scales=before.scales.lerp(after.scales, share),
            opacities=before.opacities.lerp(after.opacities, share),
            sh=before.sh.lerp(after.sh, share),
        )
    assert isinstance(before, Mesh) and isinstance(after, Mesh)
    normals = before.vertex_normals
    if normals is not None and after.vertex_normals is not None:
        normals = normals.lerp(after.vertex_normals, share)
    return replace(before, vertices=before.vertices.lerp(after.vertices, share), vertex_normals=normals)
