"""Video diffusion models in diffusers' folder layout, as priors of clips.

The pictures of a clip are neighbours in the batch and share one noise level; each has noise of its own. What
is denoised are the latent frames of the clips, one row of the batch each: as many as frames are shown for a
model that encodes each picture by itself, fewer for one whose autoencoder squeezes time.

Folders are read as `studio.priors.latent` reads those of models of pictures: ``unet/`` or ``transformer/``
decides the family (`studio.priors.video_families`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.errors import StudioError
from studio.interfaces import Limits
from studio.priors.folders import (
    UNREADABLE,
    VIDEO_DENOISERS,
    cells_of,
    denoiser_folder,
    existing,
    first_line,
    frozen,
    load_codec,
    load_network,
    load_schedule,
    load_tokenizer,
    network_name,
    quiet_libraries,
    text_fingerprints,
    user_cache_folder,
)
from studio.priors.text import CachedTextEmbedder, ClipTextEmbedder, TextEmbedder, VideoTextEmbedder
from studio.priors.video_codecs import (
    ClipCodec,
    FrameCodec,
    VideoAutoencoder,
    in_clips,
    shown_order,
    video_autoencoder,
)
from studio.priors.video_families import AnimateDiff, CogVideoX, Ltx, Unet3d, VideoFamily, Wan
from studio.priors.weights import model_folder
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Condition, PromptEmbedding

COGVIDEOX_TOKENS, WAN_TOKENS, LTX_TOKENS = 226, 512, 128
"""T5's length in each family, as diffusers' pipelines have it."""
MODELSCOPE_CELLS = 32
"""Width and height of ModelScope's latents, for U-Nets whose config does not say."""
COGVIDEOX_SIZE, WAN_SIZE, LTX_SIZE = 480, 480, 512
"""Width and height in pixels at which these are shown clips unless told otherwise: about their own height."""


@dataclass(frozen=True)
class VideoPrior:
    """A frozen denoiser of clips with its codec, its text embedder and its noise levels: implements ``Prior``
    and ``LimitedPrior``.

    Attributes:
        denoiser: a diffusers network.
        codec: clips to the denoised variable.
        text: prompts to embeddings.
        noise_schedule: the levels it was trained on.
        prediction: what it outputs.
        family: how the denoiser is asked.
        pictures: of a clip.
        order: in which the model is shown them.
        differentiable: let gradients through the denoiser to ``x_t`` (its weights stay frozen).
    """

    denoiser: nn.Module
    codec: ClipCodec
    text: TextEmbedder
    noise_schedule: NoiseSchedule
    prediction: Prediction
    family: VideoFamily
    pictures: int
    order: tuple[int, ...]
    differentiable: bool = False

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that the model knows."""
        return self.noise_schedule

    @property
    def limits(self) -> Limits:
        """It is asked for whole clips."""
        return Limits(frames=self.pictures)

    @property
    def latent_frames(self) -> int:
        """Rows of the denoised variable a clip."""
        return latent_frames(self.order, self.codec)

    def first_pictures(self, batch: int) -> Int[Tensor, "r"]:
        """For each latent frame of ``batch`` pictures, the one that its clip begins with."""
        return torch.arange(0, batch, self.pictures).repeat_interleave(self.latent_frames)

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One row of embedding for each prompt; the empty prompt is the unconditional branch."""
        return self.text(prompts)

    def encode_images(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "r c hx wx"]:
        """Clips in 0-1, resized to the model's size, to latent frames. Differentiable.

        Raises:
            StudioError: pictures that are no whole clips.
        """
        if len(rgb) % self.pictures:
            raise StudioError(
                f"{len(rgb)} pictures came; the video prior expected clips of {self.pictures} frames. Use "
                f"instants.kind = 'clip' with count = {self.pictures}."
            )
        return self.codec.encode(rgb, self.pictures, self.order)

    def decode_images(self, x: Float[Tensor, "r c hx wx"]) -> Float[Tensor, "b 3 h w"]:
        """The inverse of ``encode_images``, clamped to 0-1, to look at."""
        with torch.no_grad():
            shown = self.codec.decode(x, self.latent_frames).clamp(0, 1)
        first = torch.tensor([self.order.index(picture) for picture in range(self.pictures)])
        return in_clips(shown, len(self.order))[:, first].flatten(0, 1)

    def predict_noise(
        self, x_t: Float[Tensor, "r c hx wx"], timesteps: Float[Tensor, "r"], condition: Condition
    ) -> Float[Tensor, "r c hx wx"]:
        """The noise in clips that come one after the other.

        Raises:
            StudioError: latent frames that are no whole clips, or of one clip at different noise levels.
        """
        frames = self.latent_frames
        if len(x_t) % frames:
            raise StudioError(
                f"{len(x_t)} latent frames came; the video prior expected clips of {frames}, which "
                f"{self.pictures} pictures make."
            )
        levels = in_clips(timesteps, frames)
        if bool((levels != levels[:, :1]).any()):
            raise StudioError(
                "The video prior needs one noise level for the frames of a clip; try times.shared = true."
            )
        prompt = condition.prompt.expanded(len(x_t))
        pooled = None if prompt.pooled is None else prompt.pooled[::frames]
        of_clips = PromptEmbedding(prompt.tokens[::frames], pooled)
        clips = in_clips(x_t, frames).transpose(1, 2)
        _, sigma = self.noise_schedule.alpha_sigma(levels[:, 0], x_t.dtype)
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            output = self.family(self.denoiser, clips, levels[:, 0], sigma.flatten(), of_clips)
            output = output.transpose(1, 2).flatten(0, 1).to(x_t.dtype)
            return self.noise_schedule.noise_from_output(output, x_t, timesteps, self.prediction)


@dataclass(frozen=True)
class VideoOptions:
    """How a video model is loaded.

    Attributes:
        pictures: of a clip.
        there_and_back: see `shown_order`.
        revision: of a hub id; by default the one that the registry pins, or the newest.
        motion_adapter: folder or hub id of AnimateDiff's motion modules for a Stable Diffusion of pictures.
        image_size: width and height in pixels at which the model sees clips; by default its own.
        frames_at_once: see `FrameCodec`.
        dtype: of the networks; by default half precision on CUDA and float32 elsewhere.
    """

    pictures: int
    there_and_back: int = 0
    revision: str | None = None
    motion_adapter: str | None = None
    image_size: int | None = None
    frames_at_once: int | None = None
    dtype: torch.dtype | None = None


def load_video_prior(
    source: str | Path, options: VideoOptions, device: torch.device | str = "cpu"
) -> VideoPrior:
    """A model from a folder in diffusers' layout, or from the hub.

    On CUDA U-Nets compute in float16 and transformers in bfloat16. The text encoder is loaded only for
    prompts that this machine has not embedded before, and freed again.

    Args:
        source: a folder, or a hub id "owner/name"; only an id may use the network.

    Raises:
        StudioError: the model is not there, not readable, gated, not of a kind that the studio knows, or does
            not take clips of that length.
    """
    folder = model_folder(source, options.revision)
    return _Loading(folder, source, torch.device(device), options).prior()


class _Loading:
    """One model on its way from a folder."""

    def __init__(self, folder: Path, source: str | Path, device: torch.device, options: VideoOptions) -> None:
        self.folder, self.source, self.device, self.options = folder, source, device, options
        path = denoiser_folder(folder)
        self.kind = network_name(path)
        half = torch.float16 if self.kind.startswith("UNet") else torch.bfloat16
        self.dtype = options.dtype or (half if device.type == "cuda" else torch.float32)
        existing(folder, "scheduler")
        if self.kind not in (*VIDEO_DENOISERS, "UNet2DConditionModel"):
            raise StudioError(
                f"The denoiser of {source} is a {self.kind}, expected a video model: ModelScope, ZeroScope, "
                "AnimateDiff, CogVideoX, Wan or LTX; use prior.kind = 'latent' for models of pictures."
            )
        if (folder / "transformer_2").is_dir():
            raise StudioError(
                f"{source} has two denoisers, for high and for low noise, expected one; try Wan 2.1."
            )
        if (self.kind == "UNet2DConditionModel") != (options.motion_adapter is not None):
            raise StudioError(
                f"{source} is a {self.kind} and prior.motion_adapter is {options.motion_adapter!r}; expected "
                "AnimateDiff's motion modules with a Stable Diffusion of pictures, such as "
                "'guoyww/animatediff-motion-adapter-v1-5-2', and with nothing else."
            )
        self.denoiser: Any = load_network(path, self.dtype)
        if options.motion_adapter is not None:
            self.denoiser = self._in_motion(options.motion_adapter)
        frozen(self.denoiser, device)

    def prior(self) -> VideoPrior:
        config = self.denoiser.config
        match self.kind:
            case "UNet3DConditionModel":
                return self._made(Unet3d(), self._frame_codec())
            case "CogVideoXTransformer3DModel":
                if config.patch_size_t is not None:
                    raise StudioError(f"{self.source} is CogVideoX 1.5, which is not read; try CogVideoX-2b.")
                cogvideox = self._autoencoder("AutoencoderKLCogVideoX", COGVIDEOX_SIZE)
                return self._made(CogVideoX(), cogvideox, COGVIDEOX_TOKENS)
            case "WanTransformer3DModel":
                return self._made(Wan(), self._autoencoder("AutoencoderKLWan", WAN_SIZE), WAN_TOKENS)
            case "LTXVideoTransformer3DModel":
                ltx = self._autoencoder("AutoencoderKLLTXVideo", LTX_SIZE)
                return self._made(Ltx(ltx.cell_px, ltx.frames_a_latent), ltx, LTX_TOKENS)
            case _:
                if config.get("addition_embed_type") is not None:
                    raise StudioError(
                        f"{self.source} is told more than a prompt ({config.addition_embed_type}), expected "
                        "motion modules in Stable Diffusion 1.5."
                    )
                return self._made(AnimateDiff(), self._frame_codec())

    def _made(self, family: VideoFamily, codec: ClipCodec, tokens: int | None = None) -> VideoPrior:
        """The prior.

        Args:
            tokens: T5's length; None for models that read CLIP.
        """

        def text() -> TextEmbedder:
            encoder = frozen(load_network(existing(self.folder, "text_encoder"), self.dtype), self.device)
            tokenizer = load_tokenizer(existing(self.folder, "tokenizer"))
            if tokens is None:
                return ClipTextEmbedder(tokenizer, encoder)
            masked, keep_mask = isinstance(family, Wan), isinstance(family, Ltx)
            return VideoTextEmbedder(tokenizer, encoder, tokens, masked, keep_mask)

        order = shown_order(self.options.pictures, self.options.there_and_back, codec.step)
        self._refuse_too_long(order)
        schedule, prediction = self._levels(codec, order)
        identity = (*text_fingerprints(self.folder), type(family).__name__, str(self.dtype))
        return VideoPrior(
            denoiser=self.denoiser,
            codec=codec,
            text=CachedTextEmbedder(text, identity, user_cache_folder() / "text", self.device),
            noise_schedule=schedule,
            prediction=prediction,
            family=family,
            pictures=self.options.pictures,
            order=order,
        )

    def _levels(self, codec: ClipCodec, order: tuple[int, ...]) -> tuple[NoiseSchedule, Prediction]:
        if isinstance(codec, VideoAutoencoder):
            cells = codec.image_size // codec.cell_px
            return load_schedule(self.folder, latent_frames(order, codec) * cells**2)
        # AnimateDiff was trained on Stable Diffusion's first and last beta with a straight line between.
        adapted = self.options.motion_adapter is not None
        return load_schedule(self.folder, beta_schedule="linear" if adapted else None)

    def _refuse_too_long(self, order: tuple[int, ...]) -> None:
        most = self.denoiser.config.get("motion_max_seq_length")
        if most is not None and len(order) > most:
            raise StudioError(
                f"{self.source} knows clips of up to {most} frames and would be shown {len(order)}; expected "
                "fewer: lower instants.count or prior.there_and_back."
            )

    def _in_motion(self, adapter: str) -> Any:
        """The U-Net of pictures with motion modules between its layers."""
        from diffusers import UNetMotionModel

        modules = load_network(model_folder(adapter), self.dtype)
        try:
            with quiet_libraries():
                return UNetMotionModel.from_unet2d(self.denoiser, modules)
        except UNREADABLE as error:
            raise StudioError(
                f"The motion adapter {adapter} does not fit {self.source} ({first_line(error)}): it was made "
                "for another base; try Stable Diffusion 1.5 with 'guoyww/animatediff-motion-adapter-v1-5-2'."
            ) from error

    def _frame_codec(self) -> FrameCodec:
        config = self.denoiser.config
        own = int(config.sample_size or MODELSCOPE_CELLS)
        cells = cells_of(self.folder, own, self.options.image_size)
        images = load_codec(self.folder, int(config.in_channels), cells, self.dtype, self.device)
        return FrameCodec(images, self.options.frames_at_once)

    def _autoencoder(self, expected: str, own_size: int) -> VideoAutoencoder:
        """The autoencoder of clips, which must make what the denoiser takes.

        Args:
            own_size: of the clips in pixels, unless the options say otherwise.
        """
        size = self.options.image_size or own_size
        path = existing(self.folder, "vae")
        if (found := network_name(path)) != expected:
            raise StudioError(f"{path} holds a {found}, expected the {expected} that {self.kind} denoises.")
        if self.options.frames_at_once is not None:
            raise StudioError(
                f"The autoencoder of {self.source} sees clips as a whole; leave out prior.frames_at_once."
            )
        # Half precision breaks that of Wan.
        dtype = torch.promote_types(self.dtype, torch.float32) if self.kind.startswith("Wan") else self.dtype
        autoencoder = video_autoencoder(frozen(load_network(path, dtype), self.device), size)
        made, wanted = len(autoencoder.mean), int(self.denoiser.config.in_channels)
        if made != wanted:
            raise StudioError(
                f"The denoiser of {self.source} takes {wanted} channels, expected the {made} that its "
                "autoencoder makes; models that begin with a picture cannot be used, try text to video."
            )
        patch = self.denoiser.config.patch_size  # along time, height and width, or along the last two
        patch_px = autoencoder.cell_px * int(patch if isinstance(patch, int) else patch[-1])
        if size % patch_px:
            raise StudioError(
                f"prior.image_size is {size}, expected a multiple of {patch_px}; try "
                f"{patch_px * max(1, round(size / patch_px))}."
            )
        return autoencoder


def latent_frames(order: Sequence[int], codec: ClipCodec) -> int:
    """Latent frames of a clip that is shown in an order."""
    return 1 + (len(order) - 1) // codec.frames_a_latent
