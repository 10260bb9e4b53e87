"""What happens to a gradient between the combination of scores and the rendered images.

In order: the spread of the guided x0 is rescaled, the weight multiplies, elements are clamped, the gradient
is injected, and once it is back through the prior's encoder it may be clipped pixel by pixel. Nothing here
hides a value that is not finite: it passes through, is counted, and makes the loss say so.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from studio.guidance.citation import Citation

DEBIASING = Citation(
    authors="S. Hong, D. Ahn, S. Kim",
    title="Debiasing Scores and Prompts of 2D Diffusion for View-consistent Text-to-3D Generation",
    year=2023,
    arxiv="2303.15413",
)

PIXEL_CLIPPING = Citation(
    authors="Z. Pan, J. Lu, X. Zhu, L. Zhang",
    title="Enhancing High-Resolution 3D Generation through Pixel-wise Gradient Clipping",
    year=2023,
    arxiv="2310.12474",
)

RESCALING = Citation(
    authors="Y. Shi, P. Wang, J. Ye, M. Long, K. Li, X. Yang",
    title="MVDream: Multi-view Diffusion for 3D Generation",
    year=2023,
    arxiv="2308.16512",
)


def rescale_std(
    direction: Float[Tensor, "b c h w"],
    unguided_x0: Float[Tensor, "b c h w"],
    clean: Float[Tensor, "b c h w"],
    sigma_over_alpha: Float[Tensor, "b 1 1 1"],
    strength: float,
) -> Float[Tensor, "b c h w"]:
    """A direction whose implied denoised image is scaled towards the spread of the unguided one.

    A direction d leads from the image to ``x0 = clean - sigma/alpha d``. MVDream (arXiv:2308.16512) scales
    that image by ``std(unguided_x0) / std(x0)``, over the whole batch at once.

    Args:
        unguided_x0: denoised images without classifier-free guidance.
        strength: how much of the scaling to apply, 0-1.
    """
    guided_x0 = clean - sigma_over_alpha * direction
    scale = strength * unguided_x0.std() / guided_x0.std() + (1 - strength)
    return (clean - scale * guided_x0) / sigma_over_alpha


def inject(x: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """A loss whose gradient on ``x`` is exactly ``gradient / b``.

    The reconstruction loss ``0.5 |x - (x - gradient).detach()|² / b``, written so that the difference is not
    rounded. Its value is half the squared norm of the gradient: it need never fall.
    """
    residual = gradient.detach() + (x - x.detach()).to(gradient.dtype)
    return 0.5 * residual.square().sum() / len(x)


def clip_pixels(gradient: Float[Tensor, "b c h w"], bound: float) -> Float[Tensor, "b c h w"]:
    """Pixel-wise gradient clipping: no channel beyond ``bound``, each pixel's direction kept.

    The variant of arXiv:2310.12474 that keeps colours. Pixels without gradient stay without.
    """
    largest = gradient.abs().amax(dim=1, keepdim=True)
    return gradient * (bound / largest).clamp(max=1.0)


def with_clipped_gradient(rgb: Float[Tensor, "b c h w"], bound: float) -> Float[Tensor, "b c h w"]:
    """The same images; what flows back through this copy, and nothing else, is clipped pixel-wise."""
    copy = rgb.view_as(rgb)
    if copy.requires_grad:
        copy.register_hook(lambda gradient: clip_pixels(gradient, bound))  # type: ignore[no-untyped-call]
    return copy


def nonfinite_fraction(values: Float[Tensor, "..."]) -> float:
    """The share of elements that are NaN or infinite."""
    # One bad element makes the sum bad: the common case costs one pass.
    if bool(torch.isfinite(values.sum())):
        return 0.0
    return 1.0 - float(torch.isfinite(values).double().mean())
