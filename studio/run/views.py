"""The cameras from which a run looks at its own scene, and what they see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import fibonacci_sphere, filmed, front, orbit
from studio.interfaces import Renderer, Scene
from studio.renderers.instants import looked_at, render
from studio.renderers.raster import MeshRenderer
from studio.renderers.splatting import SplatRenderer
from studio.scenes.kinds import device_of
from studio.types import Cameras, Mesh, RenderOutput, Splats

HELD_OUT = 16


def side_cameras(size: int) -> Cameras:
    """Front, right, back and left, from a little above."""
    azimuth = torch.tensor([0.0, 90.0, 180.0, 270.0])
    return orbit(azimuth, torch.full_like(azimuth, 15.0), size, size)


def clip_cameras(size: int, times: Sequence[float]) -> Cameras:
    """What clipart is looked at from: the front, at each of some times."""
    return filmed(front(size, size), torch.tensor(times))


def held_out_cameras(size: int, moving: bool = False) -> Cameras:
    """Sixteen views spread over the usual band, none of which a run has optimised.

    Args:
        moving: each at an instant of its own, spread from 0 to 1.
    """
    cameras = fibonacci_sphere(HELD_OUT, size, size, (-20.0, 60.0), offset=0.25)
    if not moving:
        return cameras
    # Elevations rise from view to view; in steps of seven, times do not rise with them.
    return replace(cameras, time=(7 * torch.arange(HELD_OUT) % HELD_OUT + 0.5) / HELD_OUT)


def detached(value: Any) -> Any:
    """A tensor, or a tree of frozen values and tuples, whose tensors have left the graph."""
    match value:
        case torch.Tensor():
            return value.detach()
        case tuple():
            return type(value)(detached(item) for item in value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            changed = {field.name: detached(getattr(value, field.name)) for field in fields(value)}
            return replace(value, **changed)
        case _:
            return value


def shape_from_front(shape: Mesh | Splats, size: int) -> Float[Tensor, "1 3 h w"]:
    """A shape that no scene holds, over white, from a little above."""
    view, white = side_cameras(size)[[0]], torch.ones(1, 3)
    if isinstance(shape, Splats):
        return SplatRenderer()(shape, view, white).rgb
    return MeshRenderer()(shape, view, white).rgb


def drawn(scene: Scene[Any], renderer: Renderer[Any], cameras: Cameras, grey: float = 1.0) -> RenderOutput:
    """The scene over a grey (white unless said otherwise), without gradients, on the CPU."""
    return looked_at(partial(render, scene, renderer), cameras, grey, device_of(scene))
