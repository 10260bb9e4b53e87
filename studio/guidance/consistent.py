"""Noise that is one thing in the world and looks different from everywhere.

Grains of white noise lie on a sphere around the scene. A camera sums the grains that fall into each pixel and
divides by the square root of their number. A grain falls into one pixel only, so pixels stay independent and
of unit variance, whatever the camera: what a denoiser expects.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.errors import StudioError
from studio.guidance.forward import Rounds, diffused, fresh_noise
from studio.guidance.state import Levels, State, Term
from studio.guidance.terms import ScoreBank
from studio.randomness import generator
from studio.recipes.guidance import ConsistentNoise
from studio.schedule import NoiseSchedule
from studio.types import Cameras


def sphere(count: int) -> Float[Tensor, "n 3"]:
    """Unit vectors spread evenly: a Fibonacci lattice."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    height = 1 - 2 * index / count
    turn = math.pi * (1 + math.sqrt(5)) * index
    ring = (1 - height**2).sqrt()
    return torch.stack([ring * turn.cos(), height, ring * turn.sin()], dim=1).float()


def seen_noise(
    grains: Float[Tensor, "n 3"], values: Float[Tensor, "n c"], cameras: Cameras
) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "b 1 h w"]]:
    """The noise of a sphere of grains around the origin as the cameras see it, and where they see any.

    Args:
        grains: where they lie in the world.
        values: independent standard normal numbers.

    Returns:
        Noise of unit variance, independent between pixels; 0 in pixels without a grain.
    """
    width, height, channels = cameras.width, cameras.height, values.shape[1]
    images = values.new_zeros(len(cameras), channels, height * width)
    counts = values.new_zeros(len(cameras), height * width)
    for image, count, world_to_camera, intrinsics, eye in zip(
        images, counts, cameras.world_to_camera, cameras.intrinsics, cameras.positions, strict=True
    ):
        points = grains @ world_to_camera[:3, :3].mT + world_to_camera[:3, 3]
        column, row = ((points @ intrinsics.mT)[:, :2] / points[:, 2:]).floor().unbind(1)
        faces_eye = (grains * (eye - grains)).sum(dim=1) > 0
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        drawn = faces_eye & inside & (points[:, 2] > 0)
        pixel = (row * width + column)[drawn].long()
        image.index_add_(1, pixel, values[drawn].mT)
        count.index_add_(0, pixel, torch.ones_like(pixel, dtype=count.dtype))
    covered = (counts > 0).view(-1, 1, height, width)
    return images.view(-1, channels, height, width) / counts.clamp(min=1).sqrt().view(covered.shape), covered


@dataclass(frozen=True)
class Consistent:
    """Noise locked to a sphere in the world; pixels beside the sphere get fresh noise."""

    config: ConsistentNoise

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """The images under the noise as their cameras see it.

        Raises:
            StudioError: the conditioning holds no cameras.
        """
        cameras = bank.conditioning.positive.cameras
        if cameras is None:
            raise StudioError(
                "noise.kind = 'consistent' and the conditioning has no cameras; expected the camera of each "
                "image, try tell_camera = true or noise.kind = 'random'"
            )
        channels, height, width = clean.shape[1:]
        count = round(self.config.cells_per_pixel * height * width)
        source = generator(self.config.seed, "consistent noise")
        values = torch.randn(count, channels, generator=source).to(clean)
        grains = self.config.radius * sphere(count).to(cameras.world_to_camera)
        locked, covered = seen_noise(grains, values, cameras.resized(width, height))
        fresh = fresh_noise(clean, rng)
        share = self.config.share
        mixed = math.sqrt(share) * locked + math.sqrt(1 - share) * fresh
        return diffused(clean, torch.where(covered, mixed, fresh), levels, schedule)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """Nothing."""
        return ()

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """Nothing."""
        return ()
