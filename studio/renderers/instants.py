"""A scene, at each camera's instant, to pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.interfaces import Renderer, Scene
from studio.types import Cameras, RenderOutput

Primitives = TypeVar("Primitives")
_VIEWS_AT_ONCE = 8


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
    return joined(parts, torch.cat(order).argsort())


def joined(parts: Sequence[RenderOutput], places: Int[Tensor, "b"] | None = None) -> RenderOutput:
    """Pictures one after the other, or in the order of ``places``.

    What not all parts show is left out; so are footprints.
    """

    def whole(images: list[Tensor]) -> Tensor:
        images_in_a_row = torch.cat(images)
        return images_in_a_row if places is None else images_in_a_row[places]

    def whole_if_all(images: list[Tensor | None]) -> Tensor | None:
        known = [image for image in images if image is not None]
        return whole(known) if len(known) == len(images) else None

    return RenderOutput(
        rgb=whole([part.rgb for part in parts]),
        alpha=whole([part.alpha for part in parts]),
        depth=whole_if_all([part.depth for part in parts]),
        normal=whole_if_all([part.normal for part in parts]),
        facing_away=whole_if_all([part.facing_away for part in parts]),
    )


def looked_at(
    draw: Callable[[Cameras, Float[Tensor, "b 3"]], RenderOutput],
    cameras: Cameras,
    brightness: float,
    device: torch.device | str,
) -> RenderOutput:
    """Pictures over a grey background, without gradients, on the CPU; a few at a time to bound memory.

    Args:
        draw: from cameras over a background colour for each, on ``device``.
        brightness: of the background, 0-1.
    """
    parts = []
    with torch.no_grad():
        for start in range(0, len(cameras), _VIEWS_AT_ONCE):
            some = cameras[start : start + _VIEWS_AT_ONCE].to(device)
            part = draw(some, torch.full((len(some), 3), brightness, device=device))
            depth = None if part.depth is None else part.depth.cpu()
            parts.append(RenderOutput(part.rgb.cpu(), part.alpha.cpu(), depth))
    return joined(parts)
