"""Volume rendering of packed samples in plain torch: the kernels' oracle."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def composite_reference(
    optical_depths: Float[Tensor, "s"],
    colors: Float[Tensor, "s c"],
    t: Float[Tensor, "s"],
    starts: Int[Tensor, "_"],
    min_transmittance: float,
) -> tuple[
    Float[Tensor, "r c"], Float[Tensor, "r"], Float[Tensor, "r"], Float[Tensor, "s"], Float[Tensor, "s"]
]:
    """The five fields of ``Composite``."""
    counts = starts.diff()
    rays = len(counts)
    ray = torch.arange(rays, device=starts.device).repeat_interleave(counts)
    place = torch.arange(len(ray), device=starts.device) - starts[ray]
    # Sums along a ray are taken in a row of its own: those over all samples together would lose digits.
    dense = optical_depths.new_zeros(rays, int(counts.max()) + 1 if rays else 1)
    before = dense.index_put((ray, place + 1), optical_depths).cumsum(1)[ray, place]
    light = torch.exp(-before)
    light = light.where(~(light < min_transmittance), light.new_zeros(()))
    weights = light * -torch.expm1(-optical_depths)

    def along_rays(values: Float[Tensor, "s *_"]) -> Float[Tensor, "r *_"]:
        return values.new_zeros(rays, *values.shape[1:]).index_add(0, ray, values)

    return along_rays(weights[:, None] * colors), along_rays(weights), along_rays(weights * t), weights, light
