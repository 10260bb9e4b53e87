"""Several conditions as one batch, so that a prior answers them in one forward pass."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch

from studio.types import Cameras, Condition, PromptEmbedding


def layout(condition: Condition) -> Hashable:
    """Two conditions with the same layout can share a forward pass."""
    prompt, cameras = condition.prompt, condition.cameras
    return (
        prompt.tokens.shape[1:],
        None if prompt.pooled is None else prompt.pooled.shape[1:],
        None if cameras is None else (cameras.width, cameras.height, cameras.time is None),
        condition.background is None,
        None if condition.image is None else condition.image.shape[1:],
        None if condition.control is None else condition.control.shape[1:],
    )


def concatenate(conditions: Sequence[Condition], batch: int) -> Condition:
    """Conditions of one layout, each with ``batch`` rows, one after the other.

    The rows of one condition stay together, as in ``x.repeat(len(conditions), 1, 1, 1)``: row
    ``k * batch + i`` is what condition k says of image i.
    """
    first = conditions[0]
    prompts = [condition.prompt.expanded(batch) for condition in conditions]
    return Condition(
        prompt=PromptEmbedding(
            tokens=torch.cat([prompt.tokens for prompt in prompts]),
            pooled=None
            if first.prompt.pooled is None
            else torch.cat([prompt.pooled for prompt in prompts if prompt.pooled is not None]),
        ),
        cameras=None
        if first.cameras is None
        else _concatenate_cameras([c.cameras for c in conditions if c.cameras is not None]),
        background=None
        if first.background is None
        else torch.cat([c.background for c in conditions if c.background is not None]),
        image=None
        if first.image is None
        else torch.cat([c.image for c in conditions if c.image is not None]),
        control=None
        if first.control is None
        else torch.cat([c.control for c in conditions if c.control is not None]),
    )


def _concatenate_cameras(parts: Sequence[Cameras]) -> Cameras:
    return replace(
        parts[0],
        world_to_camera=torch.cat([part.world_to_camera for part in parts]),
        intrinsics=torch.cat([part.intrinsics for part in parts]),
        azimuth_deg=torch.cat([part.azimuth_deg for part in parts]),
        elevation_deg=torch.cat([part.elevation_deg for part in parts]),
        time=None if parts[0].time is None else torch.cat([p.time for p in parts if p.time is not None]),
    )
