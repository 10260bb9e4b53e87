"""What is asked of a scene beside guidance: small losses, each one line of reason."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from studio.recipes.config import RegularizersConfig
from studio.recipes.ramps import value_at
from studio.types import RenderOutput, Splats

_MARGIN = 1e-5


def regularization(
    config: RegularizersConfig, splats: Splats, render: RenderOutput, progress: float
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms that a recipe asks for, by name; those of weight 0 are left out and cost nothing."""
    weights = {name: value_at(getattr(config, name), progress) for name in _TERMS}
    return {name: weights[name] * _TERMS[name](splats, render) for name in _TERMS if weights[name] != 0.0}


def binary_entropy(alpha: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean of ``-a ln a - (1 - a) ln(1 - a)``, in nats: 0 where coverage is decided, ln 2 at one half."""
    a = alpha.clamp(_MARGIN, 1 - _MARGIN)
    return -(a * torch.log(a) + (1 - a) * torch.log1p(-a)).mean()


_TERMS: dict[str, Callable[[Splats, RenderOutput], Float[Tensor, ""]]] = {
    "opacity": lambda splats, render: splats.opacities.mean(),
    "scale": lambda splats, render: splats.scales.mean(),
    "sparsity": lambda splats, render: render.alpha.mean(),
    "entropy": lambda splats, render: binary_entropy(render.alpha),
}
