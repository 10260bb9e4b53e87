"""Pictures as bytes."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor


def to_bytes(values: Float[Tensor, "*shape"]) -> NDArray[np.uint8]:
    """Round to the nearest byte; what lies outside 0-255 is clamped."""
    return values.detach().cpu().round().clamp(0, 255).numpy().astype(np.uint8)


def to_pixels(images: Float[Tensor, "b c h w"]) -> NDArray[np.uint8]:
    """Images in 0-1 as ``[b, h, w, c]`` bytes."""
    return to_bytes(255 * images.permute(0, 2, 3, 1))


def texture_png(texture: Float[Tensor, "h w 4"]) -> bytes:
    """A texture as PNG, without its alpha channel where that is 1 everywhere."""
    pixels = to_bytes(255 * texture)
    channels = 4 if (pixels[..., 3] < 255).any() else 3
    return _png(pixels[..., :channels])


def normal_map_png(normals: Float[Tensor, "h w 3"]) -> bytes:
    """Unit normals as PNG: -1 to 1 become 0 to 255."""
    return _png(to_bytes(127.5 * (normals + 1)))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()
