"""A scene, at each camera's instant, to pictures."""

from __future__ import annotations

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from studio.interfaces import Renderer, Scene
from studio.types import Cameras, RenderOutput

Primitives = TypeVar("Primitives")


def render(
    scene: Scene[Primitives],
    renderer: Renderer[Primitives],
    cameras: Cameras,
    background: Float[Tensor, "b 3"],
) -> RenderOutput:
    """Pictures of a scene; views of one instant, or at rest, are drawn together.

    What topology needs of the renders is there only where all views share an instant.
    """
    if cameras.time is None:
        return renderer(scene.at(None), cameras, background)
    instants, instant_of = torch.unique(cameras.time, return_inverse=True)
    if len(instants) == 1:
        return renderer(scene.at(instants[0]), cameras, background)
    parts, order = [], []
    for index, instant in enumerate(instants):
        here = (instant_of == index).nonzero().squeeze(1)
        parts.append(renderer(scene.at(instant), cameras[here], background[here]))
        order.append(here)
    places = torch.cat(order).argsort()
    together = joined(parts)
    return RenderOutput(
        rgb=together.rgb[places],
        alpha=together.alpha[places],
        depth=None if together.depth is None else together.depth[places],
        normal=None if together.normal is None else together.normal[places],
    )


def joined(parts: list[RenderOutput]) -> RenderOutput:
    """Pictures one after the other. Depth and normals are there where all have them; footprints are not."""
    depths = [part.depth for part in parts if part.depth is not None]
    normals = [part.normal for part in parts if part.normal is not None]
    return RenderOutput(
        rgb=torch.cat([part.rgb for part in parts]),
        alpha=torch.cat([part.alpha for part in parts]),
        depth=torch.cat(depths) if len(depths) == len(parts) else None,
        normal=torch.cat(normals) if len(normals) == len(parts) else None,
    )
