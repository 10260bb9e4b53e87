"""Textures in plain torch: the oracle of the native kernel, and what runs without it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def texture_reference(
    levels: Sequence[Float[Tensor, "t _h _w c"]],
    uv: Float[Tensor, "b 2 h w"],
    level: Float[Tensor, "b 1 h w"] | None,
    wrap: str,
) -> Float[Tensor, "b c h w"]:
    """See ``studio.ops.mesh_raster.sample``."""
    if level is None or len(levels) == 1:
        return _bilinear(levels[0], uv, wrap)
    # Between its bounds the level passes on its gradient, from the lowest on and up to before the highest.
    last = len(levels) - 1
    cut = torch.where((level >= 0) & (level < last), level, level.detach().nan_to_num(0.0).clamp(0, last))
    below = cut.detach().floor()
    image = uv.new_zeros(uv.shape[0], levels[0].shape[3], *uv.shape[2:])
    for index, texels in enumerate(levels):
        share = torch.where(below == index, 1 - (cut - below), 0.0)
        share = share + torch.where(below == index - 1, cut - below, 0.0)
        image = image + share * _bilinear(texels, uv, wrap)
    return image


def _bilinear(
    texels: Float[Tensor, "t _h _w c"], uv: Float[Tensor, "b 2 h w"], wrap: str
) -> Float[Tensor, "b c h w"]:
    height, width = texels.shape[1:3]
    finite = torch.where(uv.isfinite(), uv, 0.0)
    match wrap:
        case "repeat":
            turned = finite - finite.detach().floor()
        case "mirror":
            turned = finite - 2 * (finite.detach() / 2).floor()
        case _:
            turned = finite.clamp(-1, 2)
    x, y = turned[:, 0] * width - 0.5, (1 - turned[:, 1]) * height - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    s, t = (x - left)[..., None], (y - top)[..., None]
    texture = torch.zeros_like(left, dtype=torch.int64)
    if texels.shape[0] > 1:
        texture = texture + torch.arange(texels.shape[0], device=uv.device)[:, None, None]

    def read(right: int, lower: int) -> Tensor:
        row, column = _wrapped(top.long() + lower, height, wrap), _wrapped(left.long() + right, width, wrap)
        return texels[texture, row, column]

    upper = (1 - s) * read(0, 0) + s * read(1, 0)
    lower = (1 - s) * read(0, 1) + s * read(1, 1)
    return ((1 - t) * upper + t * lower).permute(0, 3, 1, 2)


def _wrapped(index: Int64[Tensor, "b h w"], size: int, wrap: str) -> Int64[Tensor, "b h w"]:
    match wrap:
        case "repeat":
            return index % size
        case "mirror":
            return torch.where(
                index % (2 * size) < size, index % (2 * size), 2 * size - 1 - index % (2 * size)
            )
        case _:
            return index.clamp(0, size - 1)
