"""What is behind the asset while it is optimised.

A scene that meets one background only can hide in it; colours drawn anew for each picture force it to say by
its coverage where it ends.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.recipes.config import BackgroundConfig, FixedBackgroundConfig, RandomBackgroundConfig
from studio.recipes.ramps import value_at


def background_colors(
    config: BackgroundConfig, batch: int, progress: float, rng: torch.Generator
) -> Float[Tensor, "b 3"]:
    """A colour in 0-1 for each picture, on the generator's device.

    Args:
        config: the recipe's policy.
        batch: how many pictures.
        progress: 0 at the stage's first step, 1 after its last.
        rng: not touched where nothing is random.
    """
    match config:
        case FixedBackgroundConfig():
            return torch.tensor(config.color, device=rng.device).repeat(batch, 1)
        case RandomBackgroundConfig():
            colors = torch.rand(batch, 3, generator=rng, device=rng.device)
            choice = torch.rand(batch, 1, generator=rng, device=rng.device)
            greys = colors[:, :1].expand(-1, 3)
            fixed = torch.tensor(config.color, device=rng.device).expand(batch, -1)
            fixed_share = value_at(config.fixed, progress)
            colors = torch.where(choice < fixed_share + value_at(config.grey, progress), greys, colors)
            return torch.where(choice < fixed_share, fixed, colors)
        case _:
            assert_never(config)
