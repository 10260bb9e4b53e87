"""Marching and compositing by nerfacc (Li et al. 2023, arXiv:2305.04966), in the terms of ``studio.ops``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from studio.ops.compositing import Composite
from studio.ops.marching import OccupancyGrid, PackedSamples

if TYPE_CHECKING:
    from nerfacc import OccGridEstimator


def march(
    origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"], grid: OccupancyGrid, *, step: float
) -> PackedSamples:
    """As ``studio.ops.marching.march``; the steps of a ray are counted from where nerfacc begins them."""
    estimator = _estimator(len(grid.occupied), origins.device)
    estimator.binaries = grid.occupied[None]
    ray_indices, begin, end = estimator.sampling(origins, directions, render_step_size=step)
    starts = pad(torch.bincount(ray_indices, minlength=len(origins)).cumsum(0), (1, 0))
    t = (begin + end) / 2
    return PackedSamples(starts, t, origins[ray_indices] + t[:, None] * directions[ray_indices])


def composite(
    densities: Float[Tensor, "s"],
    length: float,
    colors: Float[Tensor, "s c"],
    samples: PackedSamples,
) -> Composite:
    """As ``studio.ops.compositing.composite``, but rays do not end where hardly any light is left."""
    from nerfacc import accumulate_along_rays, render_weight_from_density

    rays, ray_indices = len(samples.starts) - 1, samples.ray_indices
    begin = torch.zeros_like(densities)
    weights, transmittance, _ = render_weight_from_density(
        begin, begin + length, densities, ray_indices=ray_indices, n_rays=rays
    )

    def along_rays(values: Float[Tensor, "s c"] | None) -> Float[Tensor, "r c"]:
        found: Tensor = accumulate_along_rays(weights, values, ray_indices, rays)
        return found

    opacity, depth = along_rays(None)[:, 0], along_rays(samples.t[:, None])[:, 0]
    return Composite(along_rays(colors), opacity, depth, weights, transmittance)


@functools.cache
def _estimator(side: int, device: torch.device) -> OccGridEstimator:
    """Over the unit cube. Kept, because it lists all its cells when it is made."""
    from nerfacc import OccGridEstimator

    return OccGridEstimator([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], side, 1).to(device)
