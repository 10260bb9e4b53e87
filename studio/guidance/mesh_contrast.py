"""Experimental: renders of splats drawn to renders of meshes, frame by frame.

    loss = (1 - s) mean |rgb - mesh| + s (1 - SSIM(rgb, mesh)) / 2 + c InfoNCE

PLA4D calls it GS-mesh contrastive learning and does not give its losses: these are the studio's. Coverage is
compared with the colours, as both are shown over the same random backgrounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, normalize

from studio.guidance.citation import Citation
from studio.guidance.pixels import Target, blurred, views_of
from studio.recipes.guidance import MeshContrastConfig
from studio.types import Cameras, Conditioning, GuidanceOutput

CITATION = Citation(
    authors="Q. Miao, J. Quan, K. Li, Y. Luo",
    title="PLA4D: Pixel-Level Alignments for Text-to-4D Gaussian Splatting",
    year=2024,
    arxiv="2405.19957",
)
_CELLS = 8
"""Along a side of what the contrast sees of a picture."""


class MeshContrast:
    """Draws renders towards those of meshes: implements ``Guidance``."""

    def __init__(self, target: Target, config: MeshContrastConfig) -> None:
        self.target = target
        self.config = config

    def __call__(
        self,
        rgb: Float[Tensor, "b 3 h w"],
        conditioning: Conditioning,
        progress: float,
        rng: torch.Generator,
    ) -> GuidanceOutput:
        """The error and its gradient.

        Args:
            conditioning: says which cameras and backgrounds; texts are not read.
            rng: nothing is drawn.

        Raises:
            StudioError: the positive branch comes without cameras.
        """
        cameras, background = views_of(conditioning, rgb)
        with torch.enable_grad():
            shown = rgb.detach().requires_grad_()
            value = self._error(shown, cameras, background)
            (gradient,) = torch.autograd.grad(value, shown)
        return GuidanceOutput(
            loss=value.detach() + (gradient * (rgb - rgb.detach())).sum(),
            gradient=len(rgb) * gradient,
            timesteps=rgb.new_zeros(len(rgb)),
            denoiser_calls=0,
            terms={},
        )

    def _error(
        self, rgb: Float[Tensor, "b 3 h w"], cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> Float[Tensor, ""]:
        config = self.config
        wanted = self.target(cameras, background).to(rgb)
        unlike = (1 - similarity(rgb, wanted).mean()) / 2
        error: Tensor = (1 - config.ssim) * (rgb - wanted).abs().mean() + config.ssim * unlike
        if config.contrast == 0.0 or cameras.time is None:
            return error
        count = len(rgb)
        rows, columns = torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count)
        each = replace(cameras[rows], time=cameras.time[columns])
        instants = self.target(each, background[rows]).to(rgb)
        instants = instants.reshape(count, count, *rgb.shape[1:])
        contrast = info_nce(rgb, instants, cameras.time, config.temperature)
        return error + config.contrast * contrast

    def denoiser_calls(self, batch: int) -> int:
        """None."""
        return 0

    def state(self) -> Mapping[str, Tensor]:
        """It learns nothing."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """There is nothing to go on from."""


def similarity(a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Structural similarity around each pixel, of values in 0-1: 1 where they are equal.

    Wang et al. 2004, with a Gaussian of 1.5 pixels that ends after two deviations; black around.
    """
    mean_a, mean_b = blurred(a, 1.5), blurred(b, 1.5)
    variance_a = blurred(a.square(), 1.5) - mean_a.square()
    variance_b = blurred(b.square(), 1.5) - mean_b.square()
    covariance = blurred(a * b, 1.5) - mean_a * mean_b
    light = (2 * mean_a * mean_b + 0.01**2) / (mean_a.square() + mean_b.square() + 0.01**2)
    return light * (2 * covariance + 0.03**2) / (variance_a + variance_b + 0.03**2)


def info_nce(
    rgb: Float[Tensor, "b 3 h w"],
    instants: Float[Tensor, "b b 3 h w"],
    times: Float[Tensor, "b"],
    temperature: float,
) -> Float[Tensor, ""]:
    """How hard it is to tell from a render which instant it shows (van den Oord et al. 2018, 1807.03748).

    Pictures are compared by the cosine between what of their coarse colours differs from the mean of the
    row's instants. Instants at the same time are no alternatives to each other.

    Args:
        instants: in row i, what is known from view i at each image's time.
    """
    count = len(rgb)
    known = adaptive_avg_pool2d(instants.flatten(0, 1), _CELLS).reshape(count, count, -1)
    middle = known.mean(1, keepdim=True)
    seen = normalize(adaptive_avg_pool2d(rgb, _CELLS).flatten(1)[:, None] - middle, dim=-1)
    likeness = (seen * normalize(known - middle, dim=-1)).sum(-1) / temperature
    own = torch.eye(count, dtype=torch.bool, device=rgb.device)
    same_time = (times[:, None] == times).to(rgb.device)
    likeness = likeness.masked_fill(same_time & ~own, -torch.inf)
    return cross_entropy(likeness, torch.arange(count, device=rgb.device))
