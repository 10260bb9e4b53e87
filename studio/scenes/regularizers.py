"""What is asked of a scene beside guidance: small losses, each one line of reason."""

from __future__ import annotations

from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.recipes.config import RegularizersConfig
from studio.recipes.ramps import value_at
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene
from studio.types import RenderOutput

_MARGIN = 1e-5


def regularization(
    config: RegularizersConfig, scene: AnyScene, render: RenderOutput, progress: float
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms that a recipe asks for, by name; those of weight 0 are left out and cost nothing.

    Raises:
        StudioError: a term means nothing to this kind of scene.
    """
    weights = {field.name: value_at(getattr(config, field.name), progress) for field in fields(config)}
    return {name: weight * _term(name, scene, render) for name, weight in weights.items() if weight != 0.0}


def _term(name: str, scene: AnyScene, render: RenderOutput) -> Float[Tensor, ""]:
    match name, scene:
        case "sparsity", _:
            return render.alpha.mean()
        case "entropy", _:
            return binary_entropy(render.alpha)
        case "opacity", Gaussians():
            return scene.opacities.mean()
        case "scale", Gaussians():
            return scene.scales.mean()
        case _:
            raise StudioError(
                f"regularizers.{name} means nothing to a scene of kind '{scene.config.kind}'; expected 0."
            )


def binary_entropy(alpha: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean of ``-a ln a - (1 - a) ln(1 - a)``, in nats: 0 where coverage is decided, ln 2 at one half."""
    a = alpha.clamp(_MARGIN, 1 - _MARGIN)
    return -(a * torch.log(a) + (1 - a) * torch.log1p(-a)).mean()
