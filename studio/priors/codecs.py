"""Between images in 0-1 and the variable that a diffusion model denoises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@runtime_checkable
class ImageCodec(Protocol):
    """Between images in 0-1 and the variable that a model denoises."""

    def encode(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hx wx"]:
        """Differentiable; images of any size are resized first."""

    def decode(self, x: Float[Tensor, "b c hx wx"]) -> Float[Tensor, "b 3 h w"]:
        """The inverse, not clamped."""


@dataclass(frozen=True)
class PixelUnshuffle:
    """``2 rgb - 1`` with each ``factor`` x ``factor`` square of pixels as the channels of one cell.

    An orthogonal permutation: distances and noise levels are those of the pixels.
    """

    factor: int
    image_size: int

    def encode(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hx wx"]:
        """Images of any size in 0-1 to cells."""
        return functional.pixel_unshuffle(2 * resized(rgb, self.image_size) - 1, self.factor)

    def decode(self, x: Float[Tensor, "b c hx wx"]) -> Float[Tensor, "b 3 h w"]:
        """Cells to images."""
        return (functional.pixel_shuffle(x, self.factor) + 1) / 2


@dataclass(frozen=True)
class Autoencoder:
    """A frozen diffusers ``AutoencoderKL``, its latents scaled to about unit variance.

    Encoding takes the posterior's mode: a deterministic encoder adds no noise of its own to the gradient.
    """

    vae: nn.Module
    image_size: int
    scaling_factor: float
    shift_factor: float

    def encode(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hx wx"]:
        """Images of any size in 0-1 to latents."""
        return (self.unscaled(rgb) - self.shift_factor) * self.scaling_factor

    def unscaled(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hx wx"]:
        """The latents as the autoencoder gives them; what Zero123 is shown of its reference image."""

        def mode(pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hx wx"]:
            found: Tensor = self.vae.encode(pixels.to(dtype_of(self.vae))).latent_dist.mode()  # type: ignore[operator]
            return found.to(pixels.dtype)

        return with_unit_gradient(mode, 2 * resized(rgb, self.image_size) - 1)

    def decode(self, x: Float[Tensor, "b c hx wx"]) -> Float[Tensor, "b 3 h w"]:
        """Latents to images."""
        latents = x / self.scaling_factor + self.shift_factor
        pixels: Tensor = self.vae.decode(latents.to(dtype_of(self.vae)), return_dict=False)[0]  # type: ignore[operator]
        return (pixels.to(x.dtype) + 1) / 2


def with_unit_gradient(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``network(x)``, through which the gradient flows back with its largest number between 1/2 and 1.

    In float16 gradients below 6e-8 vanish and above 65504 are infinite, and those of guidance can be either.
    Scaled by powers of two, others keep their bits.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return network(x)
    scale = x.new_ones(())

    def down(gradient: Tensor) -> Tensor:
        nonlocal scale
        largest = gradient.abs().max()
        power = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent)
        scale = torch.where(largest.isfinite() & (largest > 0), power, 1.0)
        return gradient / scale

    entered = x.view_as(x)
    entered.register_hook(lambda gradient: gradient * scale)  # type: ignore[no-untyped-call]
    left = network(entered)
    left.register_hook(down)  # type: ignore[no-untyped-call]
    return left.view_as(left)


def resized(rgb: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Square images at another size: bilinear, widened to the area of a pixel where it shrinks."""
    if rgb.shape[-2:] == (size, size):
        return rgb
    return functional.interpolate(rgb, (size, size), mode="bilinear", antialias=True)


def dtype_of(module: nn.Module) -> torch.dtype:
    """The precision that a network computes in: that of its first weight."""
    return next(module.parameters()).dtype
