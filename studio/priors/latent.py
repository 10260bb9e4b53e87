"""Diffusion models in diffusers' folder layout, as priors.

A folder holds ``unet/`` or ``transformer/``, ``scheduler/``, text encoders with their tokenizers and, for a
latent model, ``vae/``; what its denoiser's config says decides the family (`studio.priors.families`).
Additions of the studio's own:

* ``codec/config.json`` ``{"kind": "pixel_unshuffle", "factor": 4}`` instead of ``vae/``;
* a U-Net whose ``class_embed_type`` is ``"projection"`` is told the camera as its class: 13 numbers
  (`camera_features`), or 16 for a multi-view model (`camera_matrices`).

Only safetensors are read, and nothing is downloaded unless a hub id is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from studio.cameras import CAMERA_FEATURES
from studio.errors import StudioError
from studio.interfaces import Limits, TrainableNetwork
from studio.priors import mvdream
from studio.priors.adapters import (
    Adapters,
    ClipImageEmbedder,
    Identity,
    LastImages,
    load_control,
    load_identity,
    load_image_prompt,
)
from studio.priors.codecs import Autoencoder, ImageCodec
from studio.priors.families import (
    CAMERA_MATRIX,
    Family,
    Flux,
    MultiView,
    PixArt,
    StableDiffusion,
    StableDiffusion3,
    StableDiffusionXl,
    Zero123,
    across_views,
)
from studio.priors.folders import (
    VIDEO_DENOISERS,
    cells_of,
    denoiser_folder,
    existing,
    frozen,
    load_codec,
    load_network,
    load_schedule,
    load_tokenizer,
    network_name,
    read_json,
    text_fingerprints,
    user_cache_folder,
)
from studio.priors.lora import LearnedNull, LowRankCopy
from studio.priors.negative_attention import NegativeAttention, refuse_unsteerable
from studio.priors.styles import Style, load_style
from studio.priors.text import (
    CachedTextEmbedder,
    ClipTextEmbedder,
    FluxTextEmbedder,
    NoText,
    Pooling,
    Sd3TextEmbedder,
    SdxlTextEmbedder,
    T5TextEmbedder,
    TextEmbedder,
)
from studio.priors.weights import model_folder
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Condition, PromptEmbedding

IF_TOKENS, PIXART_ALPHA_TOKENS, PIXART_SIGMA_TOKENS, SD3_TOKENS, FLUX_TOKENS = 77, 120, 300, 256, 512
"""T5's length in each family, as diffusers' pipelines have it."""
FLUX_CELLS = 128
"""Width and height of FLUX's latents at 1024², which its config does not say."""


@dataclass(frozen=True)
class LatentPrior:
    """A frozen denoiser with its codec, its text embedder and its noise levels.

    Attributes:
        denoiser: a diffusers network.
        codec: images to the denoised variable.
        text: prompts to embeddings.
        noise_schedule: the levels it was trained on.
        prediction: what it outputs.
        differentiable: let gradients through the denoiser to ``x_t`` (its weights stay frozen).
        family: how the denoiser is asked.
        identity: tokens that guidance may let follow the prompt's; the prior itself does nothing with them.
    """

    denoiser: nn.Module
    codec: ImageCodec
    text: TextEmbedder
    noise_schedule: NoiseSchedule
    prediction: Prediction
    differentiable: bool = False
    family: Family = StableDiffusion()  # noqa: RUF009
    identity: Identity | None = None

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that the model knows."""
        return self.noise_schedule

    @property
    def limits(self) -> Limits:
        """What the model cannot be asked."""
        return self.family.limits

    @property
    def uses_camera(self) -> bool:
        """Whether the denoiser is told the camera itself, beside the prompt's view words."""
        return self.family.uses_camera

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One row of embedding for each prompt; the empty prompt is the unconditional branch."""
        return self.text(prompts)

    def encode_images(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hx wx"]:
        """Images in 0-1, resized to the model's size, to what the model denoises. Differentiable."""
        return self.codec.encode(rgb)

    def decode_images(self, x: Float[Tensor, "b c hx wx"]) -> Float[Tensor, "b 3 h w"]:
        """The inverse of ``encode_images``, clamped to 0-1, to look at."""
        with torch.no_grad():
            return self.codec.decode(x).clamp(0, 1)

    def predict_noise(
        self, x_t: Float[Tensor, "b c hx wx"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c hx wx"]:
        """The noise in ``x_t``.

        Raises:
            StudioError: the family cannot be asked that; see `studio.priors.families`.
        """
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            return self._predict(x_t, timesteps, condition)

    def tunable(self, rank: int, rng: torch.Generator) -> TrainableNetwork:
        """A copy that can be tuned; see `studio.interfaces.TunablePrior`.

        A network that knows no cameras is told them with the noise level.

        Raises:
            StudioError: only a prompt is to be learned, and the model reads none.
        """
        if rank == 0 and not self.limits.reads_text:
            raise StudioError(
                "critic.rank is 0, which learns an empty prompt, and this prior reads no words; try "
                "critic.rank = 4."
            )
        if rank == 0:
            return LearnedNull(self._predict, self.encode_prompts([""]))
        return LowRankCopy(self.denoiser, self._predict, rank, joins_camera=not self.uses_camera, rng=rng)

    def _predict(
        self, x_t: Float[Tensor, "b c hx wx"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c hx wx"]:
        """``predict_noise`` with gradients wherever they are on."""
        _, sigma = self.noise_schedule.alpha_sigma(timesteps, x_t.dtype)
        output = self.family(self.denoiser, x_t, timesteps, sigma.flatten(), condition)
        # Models that also learned a variance give it in a second half of the channels.
        output = output[:, : x_t.shape[1]].to(x_t.dtype)
        return self.noise_schedule.noise_from_output(output, x_t, timesteps, self.prediction)


@dataclass(frozen=True)
class Options:
    """How a model is loaded.

    Attributes:
        revision: of a hub id; by default the one that the registry pins, or the newest.
        image_size: width and height in pixels at which the model sees pictures; by default its own.
        autoencoder: folder or hub id of another autoencoder than the model's own.
        text_layer, pooling: see `ClipTextEmbedder`.
        controls: folders or hub ids of ControlNets.
        control_scale: factor of their residuals.
        image_prompt: folder or hub id of an IP-Adapter.
        image_within_deg: see `Adapters`.
        identity: a file with tokens that follow the prompt's.
        style: file, folder or hub id of a LoRA.
        style_scale: factor of the LoRA.
        negative_attention: a prompt that the cross-attention looks away from; see `NegativeAttention`.
        negative_attention_scale: how far.
        reference_elevation_deg, reference_distance: where the camera of Zero123's reference stood.
        embedded_guidance: the guidance scale that a distilled checkpoint is told.
        dtype: of the networks; by default half precision on CUDA and float32 elsewhere.
        cache_folder: of text embeddings; by default ``$STUDIO_CACHE/text``, or the user's cache.
        differentiable: see `LatentPrior`.
    """

    revision: str | None = None
    image_size: int | None = None
    autoencoder: str | None = None
    text_layer: int = 0
    pooling: Pooling = "none"
    controls: tuple[str, ...] = ()
    control_scale: float = 1.0
    image_prompt: str | None = None
    image_within_deg: float = 180.0
    identity: str | None = None
    style: str | None = None
    style_scale: float = 1.0
    negative_attention: str | None = None
    negative_attention_scale: float = 0.25
    reference_elevation_deg: float = 0.0
    reference_distance: float = 2.0
    embedded_guidance: float = 3.5
    dtype: torch.dtype | None = None
    cache_folder: Path | None = None
    differentiable: bool = False


def load_latent_prior(
    source: str | Path, device: torch.device | str = "cpu", options: Options | None = None
) -> LatentPrior:
    """A model from a folder in diffusers' layout, or from the hub.

    On CUDA it computes in half precision with channels last: float16, and bfloat16 for flow models, whose
    activations overflow float16. The text encoders are loaded only for prompts that this machine has not
    embedded before, and freed again.

    Args:
        source: a folder, or a hub id "owner/name"; only an id may use the network.

    Raises:
        StudioError: the model is not there, not readable, gated, or not of a kind that the studio knows.
    """
    options = options or Options()
    prior = _Loading(model_folder(source, options.revision), source, torch.device(device), options).prior()
    if options.negative_attention is None:
        return prior
    if options.image_prompt is not None:
        raise StudioError(
            "prior.negative_attention and prior.image_prompt share the cross-attention of a model, expected "
            "one of them; leave out the other."
        )
    refuse_unsteerable(source, prior.denoiser, prior.limits)
    negative, empty = (prior.encode_prompts([text]) for text in (options.negative_attention, ""))
    steered = NegativeAttention(prior.family, negative, empty, options.negative_attention_scale)
    return replace(prior, family=steered)


class _Loading:
    """One model on its way from a folder."""

    def __init__(self, folder: Path, source: str | Path, device: torch.device, options: Options) -> None:
        self.folder, self.source, self.device, self.options = folder, source, device, options
        path = denoiser_folder(folder)
        self.kind = network_name(path)
        flow = self.kind in ("SD3Transformer2DModel", "FluxTransformer2DModel")
        half = torch.bfloat16 if flow else torch.float16
        self.dtype = options.dtype or (half if device.type == "cuda" else torch.float32)
        existing(folder, "scheduler")
        if self.kind in VIDEO_DENOISERS:
            raise StudioError(
                f"{source} denoises clips ({self.kind}), expected a model of pictures; use "
                "prior.kind = 'video'."
            )
        if self.kind == mvdream.CLASS_NAME:
            self.denoiser = mvdream.load_multi_view(path, self.dtype)
            self.kind = "UNet2DConditionModel"
        else:
            self.denoiser = load_network(path, self.dtype)
        self.style: Style | None = None
        if options.style is not None:
            self.style = load_style(options.style)
            self.style.merge_denoiser(self.denoiser, options.style_scale)
        frozen(self.denoiser, device)

    def prior(self) -> LatentPrior:
        config = self.denoiser.config
        if self.kind == "UNet2DConditionModel":
            return self._unet()
        self._refuse_adapters()
        if self.kind == "PixArtTransformer2DModel":
            return self._made(PixArt(), self._pixart_text, int(config.in_channels))
        if self.kind == "SD3Transformer2DModel":
            return self._made(StableDiffusion3(), self._sd3_text, int(config.in_channels))
        if self.kind == "FluxTransformer2DModel":
            told = self.options.embedded_guidance if config.guidance_embeds else None
            return self._made(Flux(told), self._flux_text, int(config.in_channels) // 4)
        raise StudioError(
            f"The denoiser of {self.source} is a {self.kind}, expected a U-Net of Stable Diffusion 1, 2 or "
            "XL, DeepFloyd IF, MVDream or Zero123, or a transformer of PixArt, Stable Diffusion 3 or FLUX."
        )

    def _unet(self) -> LatentPrior:
        config = self.denoiser.config
        added, classes = config.get("addition_embed_type"), config.get("class_embed_type")
        told = config.get("projection_class_embeddings_input_dim") if classes == "projection" else None
        channels = int(config.in_channels)
        if added not in (None, "text", "text_time") or classes not in (None, "projection"):
            raise StudioError(
                f"{self.source} wants an additional embedding {added or classes!r}, expected Stable "
                "Diffusion 1, 2 or XL, DeepFloyd IF, MVDream or Zero123; try one of these."
            )
        if (self.folder / "image_encoder").is_dir() and (projection := self._projection_folder()) is not None:
            self._refuse_adapters()
            return self._zero123(projection, channels // 2)
        if classes == "projection" and added != "text_time" and told == CAMERA_MATRIX:
            self._refuse_adapters()
            family = MultiView()
            across_views(self.denoiser, family.views)
            return self._made(family, self._plain_text, channels)
        adapters = self._adapters()
        if added == "text_time":
            size = self.options.image_size or 8 * int(config.sample_size)
            return self._made(StableDiffusionXl(size, adapters), self._sdxl_text, channels)
        if told not in (None, CAMERA_FEATURES):
            raise StudioError(
                f"The denoiser of {self.source} is told a class of {told} numbers, expected "
                f"{CAMERA_FEATURES} (a view) or {CAMERA_MATRIX} (a camera matrix); try another model."
            )
        return self._made(StableDiffusion(told is not None, adapters), self._plain_text, channels)

    def _zero123(self, projection_folder: Path, channels: int) -> LatentPrior:
        def no_text() -> TextEmbedder:
            return NoText(self.device)

        codec = self._codec(channels)
        if not isinstance(codec, Autoencoder):
            raise StudioError(
                f"{self.folder} has no vae/, expected the autoencoder that Zero123 was trained with."
            )
        encoder = frozen(load_network(existing(self.folder, "image_encoder"), self.dtype), self.device)
        projection = _linear(projection_folder).to(self.dtype).requires_grad_(False).to(self.device)
        family = Zero123(
            LastImages(ClipImageEmbedder(encoder)),
            LastImages(codec.unscaled),
            projection,
            self.options.reference_elevation_deg,
            self.options.reference_distance,
        )
        schedule, prediction = load_schedule(self.folder)
        return LatentPrior(
            self.denoiser, codec, no_text(), schedule, prediction, self.options.differentiable, family
        )

    def _projection_folder(self) -> Path | None:
        for name in ("clip_camera_projection", "cc_projection"):
            if (self.folder / name).is_dir():
                return self.folder / name
        return None

    def _made(self, family: Family, text: Callable[[], TextEmbedder], channels: int) -> LatentPrior:
        codec = self._codec(channels)
        schedule, prediction = load_schedule(self.folder, (self._cells() // 2) ** 2)
        style = "" if self.style is None else f"{self.style.identity} {self.options.style_scale}"
        identity = (
            *text_fingerprints(self.folder),
            type(family).__name__,
            str(self.options.text_layer),
            self.options.pooling,
            str(self.dtype),
            style,
        )
        folder = self.options.cache_folder or user_cache_folder() / "text"
        cached = CachedTextEmbedder(text, identity, folder, self.device)
        face = self.options.identity
        return LatentPrior(
            self.denoiser,
            codec,
            cached,
            schedule,
            prediction,
            self.options.differentiable,
            family,
            None if face is None else load_identity(Path(face), self.device),
        )

    def _cells(self) -> int:
        """Width and height of what the denoiser takes."""
        cells = FLUX_CELLS if self.kind == "FluxTransformer2DModel" else int(self.denoiser.config.sample_size)
        return cells_of(self.folder, cells, self.options.image_size)

    def _codec(self, channels: int) -> ImageCodec:
        name = self.options.autoencoder
        autoencoder = None if name is None else model_folder(name)
        return load_codec(self.folder, channels, self._cells(), self.dtype, self.device, autoencoder)

    def _adapters(self) -> Adapters:
        controls = tuple(
            load_control(model_folder(control, None), self.denoiser, self.options.control_scale, self.device)
            for control in self.options.controls
        )
        if self.options.image_prompt is None:
            return Adapters(controls)
        folder = model_folder(self.options.image_prompt, None)
        image_prompt, width = load_image_prompt(folder, self.denoiser, self.device)
        return Adapters(controls, image_prompt, width, self.options.image_within_deg)

    def _refuse_adapters(self) -> None:
        wanted = self.options
        if wanted.controls or wanted.image_prompt is not None or wanted.identity is not None:
            raise StudioError(
                f"{self.source} takes no ControlNet, no image prompt and no identity, expected a U-Net of "
                "Stable Diffusion 1, 2 or XL for these; leave out prior.controls, prior.image_prompt and "
                "prior.identity."
            )

    # -------------------------------------------------------------------------------------------- text

    def _encoder(self, suffix: str = "") -> Any:
        name = f"text_encoder{suffix}"
        encoder = load_network(existing(self.folder, name), self.dtype)
        if self.style is not None:
            self.style.merge_text(encoder, name, self.options.style_scale)
        return frozen(encoder, self.device)

    def _tokenizer(self, suffix: str = "") -> Any:
        return load_tokenizer(existing(self.folder, f"tokenizer{suffix}"))

    def _plain_text(self) -> TextEmbedder:
        encoder, tokenizer = self._encoder(), self._tokenizer()
        if type(encoder).__name__ == "T5EncoderModel":
            return T5TextEmbedder(tokenizer, encoder, IF_TOKENS)
        return ClipTextEmbedder(tokenizer, encoder, self.options.text_layer, self.options.pooling)

    def _sdxl_text(self) -> TextEmbedder:
        index = self.folder / "model_index.json"
        config = read_json(index) if index.is_file() else {}
        zero_empty = bool(config.get("force_zeros_for_empty_prompt", True))
        return SdxlTextEmbedder(
            (self._tokenizer(), self._tokenizer("_2")), (self._encoder(), self._encoder("_2")), zero_empty
        )

    def _pixart_text(self) -> TextEmbedder:
        # α's autoencoder is Stable Diffusion 1's, Σ's is XL's, and with it came longer prompts.
        index = self.folder / "model_index.json"
        sigma = index.is_file() and "Sigma" in str(read_json(index).get("_class_name", ""))
        length = PIXART_SIGMA_TOKENS if sigma else PIXART_ALPHA_TOKENS
        return T5TextEmbedder(self._tokenizer(), self._encoder(), length, keep_mask=True)

    def _sd3_text(self) -> TextEmbedder:
        has_t5 = (self.folder / "text_encoder_3").is_dir()
        return Sd3TextEmbedder(
            (self._tokenizer(), self._tokenizer("_2")),
            (self._encoder(), self._encoder("_2")),
            (self._tokenizer("_3"), self._encoder("_3")) if has_t5 else None,
            SD3_TOKENS,
            int(self.denoiser.config.joint_attention_dim),
        )

    def _flux_text(self) -> TextEmbedder:
        return FluxTextEmbedder(
            self._tokenizer(), self._encoder(), self._tokenizer("_2"), self._encoder("_2"), FLUX_TOKENS
        )


def _linear(folder: Path) -> nn.Linear:
    """The one linear layer in a folder, whatever its weights are called."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    state = load_file(files[0]) if files else {}
    weights = [value for value in state.values() if value.ndim == 2]
    biases = [value for value in state.values() if value.ndim == 1]
    if len(weights) != 1 or len(biases) != 1:
        raise StudioError(
            f"{folder} holds no single linear layer as safetensors, expected Zero123's camera projection; "
            "try another copy of the model."
        )
    layer = nn.Linear(weights[0].shape[1], weights[0].shape[0])
    layer.load_state_dict({"weight": weights[0], "bias": biases[0]})
    return layer
