"""One class a family of video diffusion models: how its denoiser is asked about whole clips.

Each is called as ``family(denoiser, x_t, timesteps, sigma, prompt)`` with clips ``[n, c, f, h, w]`` of ``f``
latent frames, one noise level and one row of prompt a clip, and returns the denoiser's own output, of which
`studio.priors.video.VideoPrior` makes noise. ``timesteps`` are indices of the schedule and ``sigma`` is the
noise at them: flow models are told the noise itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from studio.priors.codecs import dtype_of
from studio.types import PromptEmbedding

LTX_FRAMES_PER_SECOND = 25
"""How fast LTX is told that its clips play: as its pipeline has it."""


@runtime_checkable
class VideoFamily(Protocol):
    """How the denoisers of one family are asked."""

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "n c f h w"],
        timesteps: Float[Tensor, "n"],
        sigma: Float[Tensor, "n"],
        prompt: PromptEmbedding,
    ) -> Float[Tensor, "n k f h w"]:
        """The denoiser's output."""


@dataclass(frozen=True)
class Unet3d:
    """ModelScope (Wang et al. 2023, arXiv:2308.06571) and ZeroScope: a U-Net with convolutions and attention
    along time.
    """

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "n c f h w"],
        timesteps: Float[Tensor, "n"],
        sigma: Float[Tensor, "n"],
        prompt: PromptEmbedding,
    ) -> Float[Tensor, "n k f h w"]:
        """Text by cross-attention."""
        dtype = dtype_of(denoiser)
        output: Tensor = denoiser(x_t.to(dtype), timesteps, prompt.tokens.to(dtype), return_dict=False)[0]
        return output


@dataclass(frozen=True)
class AnimateDiff:
    """Stable Diffusion with AnimateDiff's motion modules (Guo et al. 2023, arXiv:2307.04725): the layers
    between them see frames, not clips.
    """

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "n c f h w"],
        timesteps: Float[Tensor, "n"],
        sigma: Float[Tensor, "n"],
        prompt: PromptEmbedding,
    ) -> Float[Tensor, "n k f h w"]:
        """Text by cross-attention of each frame."""
        dtype = dtype_of(denoiser)
        text = prompt.tokens.to(dtype).repeat_interleave(x_t.shape[2], dim=0)
        output: Tensor = denoiser(x_t.to(dtype), timesteps, text, return_dict=False)[0]
        return output


@dataclass(frozen=True)
class CogVideoX:
    """CogVideoX (Yang et al. 2024, arXiv:2408.06072): frames before channels; of the larger models, rotary
    embeddings of each patch's place.
    """

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "n c f h w"],
        timesteps: Float[Tensor, "n"],
        sigma: Float[Tensor, "n"],
        prompt: PromptEmbedding,
    ) -> Float[Tensor, "n k f h w"]:
        """Text and patches attend to each other together."""
        dtype = dtype_of(denoiser)
        output: Tensor = denoiser(
            hidden_states=x_t.transpose(1, 2).to(dtype),
            encoder_hidden_states=prompt.tokens.to(dtype),
            timestep=timesteps,
            image_rotary_emb=self._places(denoiser.config, x_t),
            return_dict=False,
        )[0]
        return output.transpose(1, 2)

    def _places(self, config: Any, x_t: Float[Tensor, "n c f h w"]) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines for each patch, the grid fitted into that of the model's own size."""
        if not config.use_rotary_positional_embeddings:
            return None
        from diffusers.models.embeddings import get_3d_rotary_pos_embed
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

        patch, (frames, height, width) = config.patch_size, x_t.shape[2:]
        grid = (height // patch, width // patch)
        fitted = get_resize_crop_region_for_grid(
            grid, config.sample_width // patch, config.sample_height // patch
        )
        cosines, sines = get_3d_rotary_pos_embed(
            config.attention_head_dim, fitted, grid, frames, device=x_t.device
        )
        return cosines, sines


@dataclass(frozen=True)
class Wan:
    """Wan 2.1 (Wan Team 2025, arXiv:2503.20314): a rectified flow, told 1000 sigma."""

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "n c f h w"],
        timesteps: Float[Tensor, "n"],
        sigma: Float[Tensor, "n"],
        prompt: PromptEmbedding,
    ) -> Float[Tensor, "n k f h w"]:
        """Noise minus clip."""
        # Its norms and its table stay in float32 whatever the rest computes in.
        dtype = dtype_of(denoiser.patch_embedding)  # type: ignore[arg-type]
        output: Tensor = denoiser(
            hidden_states=x_t.to(dtype),
            timestep=1000 * sigma,
            encoder_hidden_states=prompt.tokens.to(dtype),
            return_dict=False,
        )[0]
        return output


@dataclass(frozen=True)
class Ltx:
    """LTX-Video (HaCohen et al. 2024, arXiv:2501.00103): a rectified flow over single cells, told 1000 sigma
    and where each cell is, in pixels and seconds; padding of the text is masked.

    Attributes:
        cell_px: width and height of a cell of the latents.
        cell_frames: frames of a cell.
    """

    cell_px: int
    cell_frames: int

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "n c f h w"],
        timesteps: Float[Tensor, "n"],
        sigma: Float[Tensor, "n"],
        prompt: PromptEmbedding,
    ) -> Float[Tensor, "n k f h w"]:
        """Noise minus clip."""
        dtype = dtype_of(denoiser)
        frames, height, width = x_t.shape[2:]
        assert prompt.pooled is not None, "the family's own embedder gives the padding mask"
        output: Tensor = denoiser(
            hidden_states=x_t.flatten(2).mT.to(dtype),
            encoder_hidden_states=prompt.tokens.to(dtype),
            encoder_attention_mask=(prompt.pooled > 0).to(dtype),
            timestep=1000 * sigma,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(
                self.cell_frames / LTX_FRAMES_PER_SECOND,
                self.cell_px,
                self.cell_px,
            ),
            return_dict=False,
        )[0]
        return output.mT.reshape(len(x_t), -1, frames, height, width)
