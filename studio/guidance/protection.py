"""Protecting a picture from being imitated: score distillation on the picture itself, by signs of gradients.

    x <- project(x + direction step sign(J^T (positive - noise)))

J is the encoder's Jacobian and ``project`` keeps x within a small box around the picture and in 0-1. After H.
Xue, C. Liang, X. Wu, Y. Chen, "Toward effective protection against diffusion-based mimicry through score
distillation", arXiv:2311.12832.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from studio.guidance.forward import fresh_noise
from studio.interfaces import Prior
from studio.types import Condition


@dataclass(frozen=True)
class Protection:
    """How far and which way.

    Attributes:
        radius: bound on the change of each channel of each pixel, in 0-1.
        step: change of each step, in 0-1.
        steps: how many.
        direction: ``"towards"`` what the prior expects, which blurs imitations, or ``"away"`` from it.
    """

    radius: float = 16 / 255
    step: float = 1 / 255
    steps: int = 100
    direction: Literal["towards", "away"] = "towards"


def protect(
    prior: Prior,
    rgb: Float[Tensor, "b 3 h w"],
    condition: Condition,
    protection: Protection,
    rng: torch.Generator,
) -> Float[Tensor, "b 3 h w"]:
    """The protected pictures, 0-1. Levels are drawn from the whole schedule, noise for each step.

    Args:
        rgb: pictures in 0-1.
        condition: what the pictures show, as their imitator would say it.
    """
    sign = 1.0 if protection.direction == "away" else -1.0
    protected = rgb.detach().clone()
    low, high = (rgb - protection.radius).clamp(min=0.0), (rgb + protection.radius).clamp(max=1.0)
    for _ in range(protection.steps):
        protected.requires_grad_()
        x = prior.encode_images(protected)
        with torch.no_grad():
            levels = torch.randint(len(prior.schedule), (len(x),), generator=rng, device=rng.device)
            timesteps = levels.float().to(x.device)
            noise = fresh_noise(x, rng)
            x_t = prior.schedule.add_noise(x, noise, timesteps)
            residual = prior.predict_noise(x_t, timesteps, condition) - noise
        (gradient,) = torch.autograd.grad(x, protected, residual)
        with torch.no_grad():
            protected = (protected + sign * protection.step * gradient.sign()).clamp(low, high)
    return protected.detach()
