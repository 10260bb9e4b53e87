"""Between the pictures of clips in 0-1 and the variable that a video diffusion model denoises.

A clip is shown to the model as ``order`` says: indices of its pictures, which may come more than once. Clips
are neighbours in the batch, and so are the latent frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from studio.priors.codecs import ImageCodec, dtype_of, resized


@runtime_checkable
class ClipCodec(Protocol):
    """Between the pictures of clips and what a model denoises."""

    @property
    def frames_a_latent(self) -> int:
        """Frames that one latent frame stands for, but for the first one's, which stands for itself."""

    @property
    def step(self) -> int:
        """A clip is shown a multiple of it, and one frame more."""

    def encode(
        self, rgb: Float[Tensor, "b 3 h w"], pictures: int, order: Sequence[int]
    ) -> Float[Tensor, "r c hx wx"]:
        """Differentiable; clips of ``pictures`` pictures of any size to the latent frames of all clips."""

    def decode(self, x: Float[Tensor, "r c hx wx"], latents: int) -> Float[Tensor, "k 3 h w"]:
        """Clips of ``latents`` latent frames to all frames that were shown, not clamped."""


@dataclass(frozen=True)
class FrameCodec:
    """Each picture by itself, and once, however often it is shown.

    Attributes:
        images: of single pictures.
        at_once: pictures that are encoded together; the backward pass then encodes them again, so that only
            so many are held in memory. None for all, and once.
    """

    images: ImageCodec
    at_once: int | None = None
    frames_a_latent: ClassVar[int] = 1
    step: ClassVar[int] = 1

    def encode(
        self, rgb: Float[Tensor, "b 3 h w"], pictures: int, order: Sequence[int]
    ) -> Float[Tensor, "r c hx wx"]:
        """The pictures' latents, each where it is shown."""
        if self.at_once is None:
            latents = self.images.encode(rgb)
        else:
            parts = torch.split(rgb, self.at_once)
            latents = torch.cat(
                [cast(Tensor, checkpoint(self.images.encode, part, use_reentrant=False)) for part in parts]
            )
        return latents[rows_shown(len(rgb), pictures, order).to(latents.device)]

    def decode(self, x: Float[Tensor, "r c hx wx"], latents: int) -> Float[Tensor, "k 3 h w"]:
        """Each latent frame by itself."""
        return self.images.decode(x)


@dataclass(frozen=True)
class VideoAutoencoder:
    """A frozen autoencoder that squeezes time as well, its latents brought to mean 0 and unit variance.

    Encoding takes the posterior's mode, as that of single pictures does.

    Attributes:
        vae: diffusers' autoencoder of CogVideoX, Wan or LTX.
        image_size: width and height of the frames that it sees, in pixels.
        cell_px: width and height of a cell of its latents, in pixels.
        mean, std: of each channel of its latents.
        frames_a_latent: how much it squeezes time.
        step: see `ClipCodec`.
    """

    vae: nn.Module
    image_size: int
    cell_px: int
    mean: Float[Tensor, "c"]
    std: Float[Tensor, "c"]
    frames_a_latent: int
    step: int

    def encode(
        self, rgb: Float[Tensor, "b 3 h w"], pictures: int, order: Sequence[int]
    ) -> Float[Tensor, "r c hx wx"]:
        """Whole clips at once."""
        pixels = 2 * resized(rgb, self.image_size) - 1
        shown = pixels[rows_shown(len(rgb), pictures, order).to(rgb.device)]
        clips = in_clips(shown, len(order)).transpose(1, 2).to(dtype_of(self.vae))
        mode: Tensor = self.vae.encode(clips).latent_dist.mode()  # type: ignore[operator]
        latents = mode.to(rgb.dtype).transpose(1, 2).flatten(0, 1)
        return (latents - self._each(self.mean, latents)) / self._each(self.std, latents)

    def decode(self, x: Float[Tensor, "r c hx wx"], latents: int) -> Float[Tensor, "k 3 h w"]:
        """Whole clips at once."""
        clips = in_clips(x * self._each(self.std, x) + self._each(self.mean, x), latents)
        pixels: Tensor = self.vae.decode(  # type: ignore[operator]
            clips.transpose(1, 2).to(dtype_of(self.vae)), return_dict=False
        )[0]
        return (pixels.to(x.dtype).transpose(1, 2).flatten(0, 1) + 1) / 2

    @staticmethod
    def _each(values: Float[Tensor, "c"], like: Tensor) -> Float[Tensor, "c 1 1"]:
        return values.to(like)[:, None, None]


def video_autoencoder(vae: Any, image_size: int) -> VideoAutoencoder:
    """A frozen autoencoder of CogVideoX, Wan or LTX with the numbers that its config has of it."""
    config = vae.config
    match type(vae).__name__:
        case "AutoencoderKLCogVideoX":
            cell_px, squeezed = (
                2 ** (len(config.block_out_channels) - 1),
                int(config.temporal_compression_ratio),
            )
            mean = torch.zeros(config.latent_channels)
            std = torch.full_like(mean, 1 / float(config.scaling_factor))
            # Of an even number of latent frames it makes more frames than they were made of.
            return VideoAutoencoder(vae, image_size, cell_px, mean, std, squeezed, step=2 * squeezed)
        case "AutoencoderKLWan":
            cell_px, squeezed = int(config.scale_factor_spatial), int(config.scale_factor_temporal)
            mean, std = torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
        case _:
            cell_px, squeezed = int(vae.spatial_compression_ratio), int(vae.temporal_compression_ratio)
            mean, std = vae.latents_mean.float().cpu(), vae.latents_std.float().cpu() / config.scaling_factor
    return VideoAutoencoder(vae, image_size, cell_px, mean, std, squeezed, step=squeezed)


def in_clips(rows: Float[Tensor, "r ..."], frames: int) -> Float[Tensor, "n f ..."]:
    """Rows of a batch as clips of ``frames`` frames."""
    return rows.reshape(-1, frames, *rows.shape[1:])


def rows_shown(batch: int, pictures: int, order: Sequence[int]) -> Int[Tensor, "k"]:
    """The batch's rows of all frames that are shown, clip by clip."""
    first = torch.arange(0, batch, pictures)[:, None]
    return (first + torch.tensor(order)).flatten()


def shown_order(pictures: int, there_and_back: int, step: int) -> tuple[int, ...]:
    """The pictures of a clip in the order in which a model is shown them.

    Args:
        there_and_back: how often they go to the end and back, both ends shown twice (AniClipart); 0 for once
            and there only.
        step: see `ClipCodec`: the last picture is held until the clip fits.
    """
    there = list(range(pictures))
    order = (there + there[::-1]) * there_and_back or there
    return (*order, *order[-1:] * ((1 - len(order)) % step))
