"""Pictures seen askew: what a prior is shown instead of the renders themselves.

One warp for all pictures of a step: frames of a clip that are warped apart would be given a motion that is
not the scene's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from studio.recipes.config import AugmentationConfig
from studio.types import RenderOutput

_CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)


def augmented(
    pictures: RenderOutput, background: Float[Tensor, "b 3"], warp: Float[Tensor, "3 3"]
) -> RenderOutput:
    """Colours and coverage through a warp, over the same backgrounds. Differentiable.

    Args:
        warp: see `drawn_warp`.
    """
    batch, _, height, width = pictures.rgb.shape
    identity = torch.eye(2, 3, dtype=torch.float64)[None]
    places = functional.affine_grid(identity, [1, 1, height, width], align_corners=False)
    homogeneous = functional.pad(places, (0, 1), value=1.0) @ warp.mT
    grid = (homogeneous[..., :2] / homogeneous[..., 2:]).to(pictures.rgb).expand(batch, -1, -1, -1)
    behind = background.to(pictures.rgb)[:, :, None, None]

    def seen(images: Tensor) -> Tensor:
        return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)

    return replace(pictures, rgb=behind + seen(pictures.rgb - behind), alpha=seen(pictures.alpha))


def drawn_warp(config: AugmentationConfig, rng: torch.Generator) -> Float[Tensor, "3 3"]:
    """A homography from places in what is shown to places in the render, both in -1 to 1 from edge to edge.

    The render's corners come in by up to ``perspective`` half widths, each by its own; of that, a square of
    at least the area ``crop`` is shown, its place drawn as well.
    """
    inward = torch.rand(4, 2, generator=rng, dtype=torch.float64) * config.perspective
    area, *middle = torch.rand(3, generator=rng, dtype=torch.float64).tolist()
    side = (config.crop + (1 - config.crop) * area) ** 0.5
    right, down = ((2 * place - 1) * (1 - side) for place in middle)
    cropped = torch.tensor([[side, 0, right], [0, side, down], [0, 0, 1]], dtype=torch.float64)
    return _homography(_CORNERS * (1 - inward), _CORNERS) @ cropped


def _homography(before: Float[Tensor, "4 2"], after: Float[Tensor, "4 2"]) -> Float[Tensor, "3 3"]:
    """The projective map that takes four points to four others; its last entry is 1."""
    rows, right = [], []
    for (x, y), place in zip(before.tolist(), after.tolist(), strict=True):
        u, v = place
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    solved: Tensor = torch.linalg.solve(
        torch.tensor(rows, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    )
    return functional.pad(solved, (0, 1), value=1.0).view(3, 3)
