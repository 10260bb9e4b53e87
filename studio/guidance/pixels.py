"""Pixel guidance: the mean squared error to pictures that are known.

    g = 2 K² (rgb - target) / (3 h w),   K a Gaussian blur

A drop-in for score distillation where the truth is at hand: a video, or a model in a known motion. It asks no
denoiser, so it also shows what a scene and its optimiser can do at best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from studio.errors import StudioError
from studio.recipes.guidance import PixelsConfig
from studio.recipes.ramps import value_at
from studio.types import Cameras, Conditioning, GuidanceOutput
from studio.video import Footage
from studio.view_prompts import from_front_deg

_FRONT_DEG = 0.5
"""Views as near to the front as this are those of the video."""


@runtime_checkable
class Target(Protocol):
    """Pictures that are known."""

    def knows(self, cameras: Cameras) -> Bool[Tensor, "b"]:
        """Which of the views it can answer for."""

    def __call__(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 h w"]:
        """What each camera sees at its time, over its background, in 0-1; of views that are known."""


class PixelGuidance:
    """Draws renders towards a target: implements ``Guidance``."""

    def __init__(self, target: Target, config: PixelsConfig) -> None:
        self.target = target
        self.config = config

    def __call__(
        self,
        rgb: Float[Tensor, "b 3 h w"],
        conditioning: Conditioning,
        progress: float,
        rng: torch.Generator,
    ) -> GuidanceOutput:
        """The error and its gradient. Views that the target does not know have neither.

        Args:
            conditioning: says which cameras and backgrounds; texts are not read.
            rng: nothing is drawn.

        Returns:
            The mean squared error over all elements of the batch as the loss; ``terms["known"]`` is the share
            of the views that were compared.

        Raises:
            StudioError: the positive branch comes without cameras.
        """
        cameras, background = views_of(conditioning, rgb)
        known = self.target.knows(cameras).to(rgb.device)
        rows = known.nonzero().squeeze(1)
        wanted = rgb.detach().clone()
        if len(rows):
            wanted[rows] = self.target(cameras[rows], background[rows]).to(wanted)
        std_px = value_at(self.config.blur_px, progress)
        error = blurred(rgb - wanted, std_px)
        # Padded with zeros, the blur is its own transpose.
        gradient = 2 * blurred(error.detach(), std_px) / error[0].numel()
        return GuidanceOutput(
            loss=error.square().mean(),
            gradient=gradient,
            timesteps=rgb.new_zeros(len(rgb)),
            denoiser_calls=0,
            terms={"known": float(known.float().mean())},
        )

    def denoiser_calls(self, batch: int) -> int:
        """None."""
        return 0

    def state(self) -> Mapping[str, Tensor]:
        """It learns nothing."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """There is nothing to go on from."""


def views_of(
    conditioning: Conditioning, rgb: Float[Tensor, "b 3 h w"]
) -> tuple[Cameras, Float[Tensor, "b 3"]]:
    """The cameras and backgrounds of renders.

    Raises:
        StudioError: the positive branch comes without cameras.
    """
    cameras, background = conditioning.positive.cameras, conditioning.positive.background
    if cameras is None:
        raise StudioError("Guidance that compares views was told no cameras; expected tell_camera = true.")
    return cameras, rgb.new_ones(len(rgb), 3) if background is None else background.to(rgb)


class Filmed:
    """The frames of a video as a target, for views from the front.

    A picture of another shape stands in the middle of what is asked for; around it is the background.

    Args:
        footage: time 0 is its first frame, time 1 its last; without a time, its first.
        nearest: show the nearer of two frames between them, instead of blending them.
    """

    def __init__(self, footage: Footage, nearest: bool = False) -> None:
        self._nearest = nearest
        alpha = torch.ones_like(footage.rgb[:, :1]) if footage.alpha is None else footage.alpha
        self._rgba = torch.cat([footage.rgb, alpha], dim=1)
        self._fitted: dict[tuple[int, int], Float[Tensor, "t 4 h w"]] = {}

    def knows(self, cameras: Cameras) -> Bool[Tensor, "b"]:
        """Views from the front."""
        return from_the_front(cameras)

    @property
    def side(self) -> int:
        """Width and height in pixels of the square that a frame stands in as it is."""
        return max(self._rgba.shape[2:])

    def __call__(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 h w"]:
        """The frames at the cameras' times."""
        return self.at(cameras.time, background, cameras.height, cameras.width)

    def at(
        self, time: Float[Tensor, "b"] | None, background: Float[Tensor, "b 3"], height: int, width: int
    ) -> Float[Tensor, "b 3 h w"]:
        """The frames at instants in 0-1, over given colours; without instants, the first."""
        frames = self._at_size(height, width)
        time = torch.zeros(len(background)) if time is None else time.cpu()
        place = time.clamp(0, 1) * (len(frames) - 1)
        if self._nearest:
            place = place.round()
        before = place.floor().long()
        after = (before + 1).clamp(max=len(frames) - 1)
        share = (place - before).to(frames)[:, None, None, None]
        rgba = frames[before].lerp(frames[after], share).to(background)
        return rgba[:, :3] + (1 - rgba[:, 3:]) * background[:, :, None, None]

    def _at_size(self, height: int, width: int) -> Float[Tensor, "t 4 h w"]:
        """All frames, premultiplied, as large as fits."""
        if (height, width) not in self._fitted:
            own_height, own_width = self._rgba.shape[2:]
            scale = min(height / own_height, width / own_width)
            inner = max(1, round(scale * own_height)), max(1, round(scale * own_width))
            frames = interpolate(self._rgba, inner, mode="bilinear", antialias=True, align_corners=False)
            top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
            around = (left, width - inner[1] - left, top, height - inner[0] - top)
            self._fitted[height, width] = pad(frames, around).clamp(0, 1)
        return self._fitted[height, width]


def from_the_front(cameras: Cameras) -> Bool[Tensor, "b"]:
    """Which views are those of a video."""
    turned_deg = from_front_deg(cameras.azimuth_deg)
    return (turned_deg <= _FRONT_DEG) & (cameras.elevation_deg.abs() <= _FRONT_DEG)


def blurred(images: Float[Tensor, "b c h w"], std_px: float) -> Float[Tensor, "b c h w"]:
    """Images through a Gaussian that reaches two standard deviations, black around; 0 leaves them sharp."""
    if std_px <= 0:
        return images
    reach = math.ceil(2 * std_px)
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (places / std_px).square())
    weights = (weights / weights.sum()).expand(images.shape[1], 1, -1)
    across = conv2d(images, weights[:, :, None], padding=(0, reach), groups=images.shape[1])
    return conv2d(across, weights[..., None], padding=(reach, 0), groups=images.shape[1])
