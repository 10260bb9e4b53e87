"""Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598) in one convention."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def cfg(
    null: Float[Tensor, "b c h w"], positive: Float[Tensor, "b c h w"], scale: float
) -> Float[Tensor, "b c h w"]:
    """``null + scale (positive - null)``: 0 gives ``null``, 1 gives ``positive``."""
    return null + scale * (positive - null)
