"""Editing directions in what a prior reads: where the loss of score distillation curves most.

    H = d² / dz²  mean over levels and noise of  |noise(alpha x + sigma noise, prompt) - noise|² / 2

z is the image or the prompt's tokens. H is never made: what it does to a vector is the derivative of a
gradient along it, and orthogonal iteration finds its eigenvectors of largest absolute eigenvalue.

After the Hessian score distillation sampling of Z. Shuai, C. Wu, Z. Tang, B. Song, L. Shen, "Latent Space
Disentanglement in Diffusion Transformers Enables Precise Zero-shot Semantic Editing", arXiv:2411.08196
(before, 2408.13335), which looks for directions in the joint latent space of pictures and words. Its
equations were not checked: the unweighted loss and its eigenvectors as directions are this studio's reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from studio.errors import StudioError
from studio.guidance.forward import fresh_noise
from studio.interfaces import Prior
from studio.types import Condition


@dataclass(frozen=True)
class Search:
    """What is looked for. It costs ``iterations * draws * (1 + count)`` passes backwards.

    Attributes:
        of: whose directions: the image's or the prompt's.
        count: how many.
        iterations: of orthogonal iteration; the error falls by the ratio of neighbouring eigenvalues in each.
        draws: of level and noise, the same in all iterations.
        levels: range of the levels, as fractions of the schedule.
    """

    of: Literal["image", "prompt"] = "prompt"
    count: int = 1
    iterations: int = 30
    draws: int = 4
    levels: tuple[float, float] = (0.02, 0.98)


@dataclass(frozen=True)
class Directions:
    """Directions at right angles to one another.

    Attributes:
        vectors: of length 1, each in the shape of the image or of the tokens; add a multiple to edit.
        curvatures: of the loss along them, falling in absolute value; the accuracy is that of the iteration.
    """

    vectors: Float[Tensor, "k *shape"]
    curvatures: Float[Tensor, "k"]


def editing_directions(
    prior: Prior, x: Float[Tensor, "1 c h w"], condition: Condition, search: Search, rng: torch.Generator
) -> Directions:
    """Where the loss curves most around an image and what it shows.

    Args:
        prior: lets gradients through, twice (``LatentPrior.differentiable``).
        x: the image in the prior's own variable.
        condition: one row.

    Raises:
        StudioError: the prior lets no gradients through.
    """
    prompt = condition.prompt

    def loss(at: Tensor, timesteps: Float[Tensor, "1"], noise: Float[Tensor, "1 c h w"]) -> Tensor:
        image, told = at, condition
        if search.of == "prompt":
            image, told = x, replace(condition, prompt=replace(prompt, tokens=at))
        x_t = prior.schedule.add_noise(image, noise, timesteps)
        return (prior.predict_noise(x_t, timesteps, told) - noise).square().sum() / 2

    start = (x if search.of == "image" else prompt.tokens).detach()
    low, high = search.levels
    draws = []
    for _ in range(search.draws):
        level = low + (high - low) * torch.rand(1, generator=rng, device=rng.device)
        draws.append(((level * (len(prior.schedule) - 1)).to(x.device), fresh_noise(x, rng)))

    def curved(vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        products = [
            hessian_products(lambda at, draw=draw: loss(at, *draw), start, vectors)  # type: ignore[misc]
            for draw in draws
        ]
        return torch.stack(products).mean(dim=0)

    shape = (start[0].numel(), search.count)
    vectors = torch.randn(shape, generator=rng, device=rng.device, dtype=start.dtype).to(start.device)
    for _ in range(search.iterations):
        vectors = torch.linalg.qr(curved(torch.linalg.qr(vectors).Q)).Q
    curvatures = (vectors * curved(vectors)).sum(dim=0)
    order = curvatures.abs().argsort(descending=True)
    return Directions(vectors.T[order].reshape(-1, *start.shape[1:]), curvatures[order])


def hessian_products(
    loss: Callable[[Tensor], Tensor], at: Float[Tensor, "*shape"], vectors: Float[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    """The Hessian of a scalar times each column, by two passes backwards.

    Raises:
        StudioError: no gradient comes back.
    """
    at = at.clone().requires_grad_()
    # Fused attention has no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        value = loss(at)
        if not value.requires_grad:
            raise StudioError(
                "editing directions are derivatives through the prior, and it lets no gradients through; "
                "expected a differentiable one, try differentiable = True"
            )
        (gradient,) = torch.autograd.grad(value, at, create_graph=True)
        products = [
            torch.autograd.grad(gradient, at, vector.reshape(at.shape), retain_graph=True)[0].flatten()
            for vector in vectors.T
        ]
    return torch.stack(products, dim=1)
