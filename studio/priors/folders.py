"""Reading a model's folder in diffusers' layout: networks, tokenizers, noise levels, the codec.

Only safetensors are read; every weight that a config describes must be there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

from studio.errors import StudioError
from studio.priors.codecs import Autoencoder, ImageCodec, PixelUnshuffle
from studio.schedule import NoiseSchedule, Prediction

T = TypeVar("T")

UNREADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError)
"""What the loaders raise for a part that is not there, not readable or not what its config says."""

VIDEO_DENOISERS = (
    "UNet3DConditionModel", "UNetMotionModel", "CogVideoXTransformer3DModel", "WanTransformer3DModel",
    "LTXVideoTransformer3DModel",
)  # fmt: skip
"""Those that denoise clips: `studio.priors.video`."""
_DENOISERS = ("unet", "transformer")
_NETWORKS = {
    "diffusers": (
        "UNet2DConditionModel", "PixArtTransformer2DModel", "SD3Transformer2DModel", "FluxTransformer2DModel",
        "AutoencoderKL", "ControlNetModel", "MotionAdapter", *VIDEO_DENOISERS,
        "AutoencoderKLCogVideoX", "AutoencoderKLWan", "AutoencoderKLLTXVideo",
    ),
    "transformers": (
        "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel", "CLIPVisionModelWithProjection",
        "UMT5EncoderModel", "BertForMaskedLM",
    ),
}  # fmt: skip
"""The classes that a folder may ask for, by the library that has them."""


def denoiser_folder(folder: Path) -> Path:
    """Where the denoiser lies.

    Raises:
        StudioError: there is none.
    """
    for name in _DENOISERS:
        if (folder / name).is_dir():
            return folder / name
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise StudioError(
        f"{folder} holds {found}, expected unet/ or transformer/, scheduler/, text_encoder/ and tokenizer/: "
        "diffusers' layout, as 'DiffusionPipeline.save_pretrained' writes it."
    )


def existing(folder: Path, part: str) -> Path:
    """The folder of a part that must be there.

    Raises:
        StudioError: it is not.
    """
    path = folder / part
    if not path.is_dir():
        raise StudioError(
            f"{folder} has no {part}/, expected diffusers' layout; download or save the model again."
        )
    return path


def read_json(path: Path) -> Any:
    """A config, or one line about why it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def network_name(path: Path) -> str:
    """The class that a network's config names."""
    config = read_json(path / "config.json")
    try:
        return str(config.get("_class_name") or config["architectures"][0])
    except UNREADABLE as error:
        raise unreadable(path / "config.json", error) from error


def load_network(path: Path, dtype: torch.dtype) -> Any:
    """A diffusers or transformers network with every weight from the file.

    Raises:
        StudioError: it is of a class that the studio does not know, damaged, or weights are missing.
    """
    import diffusers
    import transformers

    name = network_name(path)
    library = next((library for library, names in _NETWORKS.items() if name in names), None)
    if library is None:
        raise StudioError(
            f"{path} holds a {name}, expected one of "
            f"{', '.join(n for ns in _NETWORKS.values() for n in ns)}; try another model ('studio doctor' "
            "lists those that are known)."
        )
    kind = getattr(diffusers if library == "diffusers" else transformers, name)
    if not list(path.glob("*.safetensors")):
        raise StudioError(
            f"{path} has no .safetensors file, expected the weights there; pickled weights are not read: "
            "save the model again with safe_serialization=True."
        )
    try:
        with quiet_libraries():
            if name == "WanTransformer3DModel":
                module, missing = _partly_float32(kind, path, dtype)
            else:
                module, report = kind.from_pretrained(
                    path,
                    torch_dtype=dtype,
                    variant=_variant(path),
                    use_safetensors=True,
                    output_loading_info=True,
                )
                missing = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if missing:
        raise StudioError(
            f"{path} has no weights of the right shape for {missing[0]} and {len(missing) - 1} others, "
            "expected all that its config.json describes; download the model again."
        )
    return module


def _partly_float32(kind: Any, path: Path, dtype: torch.dtype) -> tuple[Any, list[str]]:
    """A network that its class wants partly in float32, and the weights that the files lack.

    diffusers loads these only where accelerate is installed.
    """
    from safetensors.torch import load_file

    module = kind.from_config(kind.load_config(path))
    state = {
        name: value for file in sorted(path.glob("*.safetensors")) for name, value in load_file(file).items()
    }
    missing = module.load_state_dict(state, strict=False).missing_keys
    for name, parameter in module.named_parameters():
        kept = any(part in name.split(".") for part in kind._keep_in_fp32_modules)
        parameter.data = parameter.data.to(torch.float32 if kept else dtype)
    return module, sorted(missing)


def _variant(path: Path) -> str | None:
    """``"fp16"`` where a folder holds half-precision weights only."""
    names = [file.name for file in path.glob("*.safetensors")]
    return "fp16" if all(".fp16" in name for name in names) else None


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in a folder."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except UNREADABLE as error:
        raise unreadable(path, error) from error


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without the libraries' progress bars and advice: what matters becomes an error of the studio's own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    verbosities = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    shows_bars = transformers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosities[0])
        transformers_logging.set_verbosity(verbosities[1])
        if shows_bars:
            transformers_logging.enable_progress_bar()


def load_schedule(
    folder: Path, tokens: int = 4096, beta_schedule: str | None = None
) -> tuple[NoiseSchedule, Prediction]:
    """The noise levels, and what the network outputs.

    Args:
        tokens: patches of a picture or clip, on which FLUX's and LTX's shift towards noise depends.
        beta_schedule: diffusers' name of another curve than the folder's own.
    """
    from diffusers import CogVideoXDDIMScheduler, DDIMScheduler

    path = existing(folder, "scheduler") / "scheduler_config.json"
    config = read_json(path)
    try:
        name = str(config.get("_class_name", ""))
        if "flow" in name.lower() or config.get("use_flow_sigmas"):
            return _flow_schedule(config, tokens), Prediction.FLOW
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        betas = {name: config[name] for name in names if config.get(name) is not None}
        if beta_schedule is not None:
            betas["beta_schedule"] = beta_schedule
        kind = DDIMScheduler
        if name.startswith("CogVideoX"):
            # It divides the signal-to-noise ratio.
            kind, betas["snr_shift_scale"] = CogVideoXDDIMScheduler, config.get("snr_shift_scale", 3.0)
        rescale = bool(config.get("rescale_betas_zero_snr", False))
        alphas_cumprod = kind(**betas, rescale_betas_zero_snr=rescale).alphas_cumprod.double()
        prediction = Prediction(config.get("prediction_type", "epsilon"))
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    return NoiseSchedule.from_alphas_cumprod(alphas_cumprod), prediction


def _flow_schedule(config: dict[str, Any], tokens: int) -> NoiseSchedule:
    """Stable Diffusion 3 and Wan shift by a constant; FLUX and LTX by e^mu with mu linear in the number of
    patches.
    """
    levels = int(config.get("num_train_timesteps", 1000))
    shift = float(config.get("flow_shift", config.get("shift", 1.0)))
    if config.get("use_dynamic_shifting"):
        fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        shift = math.exp(low + (high - low) * (tokens - fewest) / (most - fewest))
    return NoiseSchedule.rectified_flow(levels, shift)


def cells_of(folder: Path, cells: int, image_size: int | None) -> int:
    """Width and height of what a U-Net or a transformer of pictures takes.

    Args:
        cells: its own.
        image_size: of the pictures that it is to be shown instead, in pixels; None, or no autoencoder, keeps
            its own.

    Raises:
        StudioError: the denoiser cannot take pictures of that size.
    """
    if image_size is None or not (folder / "vae").is_dir():
        return cells
    down = 2 ** (len(read_json(folder / "vae" / "config.json")["block_out_channels"]) - 1)
    step = 8 * down
    if image_size % step:
        raise StudioError(
            f"prior.image_size is {image_size}, expected a multiple of {step}; try "
            f"{step * max(1, round(image_size / step))}."
        )
    return image_size // int(down)


def load_codec(
    folder: Path,
    channels: int,
    cells: int,
    dtype: torch.dtype,
    device: torch.device,
    autoencoder: Path | None = None,
) -> ImageCodec:
    """The codec, which must make what the denoiser takes.

    The autoencoder computes in float32 where its config says ``force_upcast``, as Stable Diffusion XL's does:
    in half precision its gradients overflow. The repaired one (madebyollin/sdxl-vae-fp16-fix) says no.

    Args:
        channels: what the denoiser takes.
        cells: width and height of what the denoiser takes.
        autoencoder: a folder with another autoencoder than the model's own.

    Raises:
        StudioError: it cannot be read, or makes something else.
    """
    made = 3
    codec: ImageCodec
    path = autoencoder or folder / "vae"
    if path.is_dir():
        upcast = bool(read_json(path / "config.json").get("force_upcast", False))
        vae = frozen(load_network(path, torch.float32 if upcast else dtype), device)
        size = cells * 2 ** (len(vae.config.block_out_channels) - 1)
        shift = float(vae.config.shift_factor or 0.0)
        codec = Autoencoder(vae, size, float(vae.config.scaling_factor), shift)
        made = int(vae.config.latent_channels)
    elif (path := folder / "codec" / "config.json").is_file():
        config = read_json(path)
        try:
            kind, factor = config["kind"], int(config["factor"])
        except UNREADABLE as error:
            raise unreadable(path, error) from error
        if kind != "pixel_unshuffle":
            raise StudioError(f"{path} names a codec {kind!r}, expected 'pixel_unshuffle'.")
        codec, made = PixelUnshuffle(factor, cells * factor), 3 * factor**2
    elif channels == 3:  # a model on pixels as they are
        codec = PixelUnshuffle(1, cells)
    else:
        raise StudioError(f"{folder} has neither vae/ nor codec/config.json; expected one of them.")
    if made != channels:
        raise StudioError(
            f"The denoiser of {folder} takes {channels} channels, expected the {made} that its codec makes; "
            "in-painting and depth models cannot be used, try the base model."
        )
    return codec


def frozen(module: T, device: torch.device) -> T:
    """The module on a device, in evaluation mode, its weights without gradients."""
    assert isinstance(module, nn.Module)
    module.requires_grad_(False).eval().to(device)
    if device.type == "cuda":
        channels_last(module)
    return module


def channels_last(module: nn.Module) -> None:
    """Lay out the weights of pictures' convolutions as CUDA likes them in half precision; those of clips'
    convolutions, which have a dimension more, stay as they are.
    """
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def text_fingerprints(folder: Path) -> tuple[str, ...]:
    """What of a model's files its embeddings of prompts depend on.

    Raises:
        StudioError: it has no text encoder.
    """
    for part in ("text_encoder", "tokenizer"):
        existing(folder, part)
    parts = sorted(path for path in folder.iterdir() if path.name.startswith(("text_encoder", "tokenizer")))
    return tuple(fingerprint(part) for part in parts)


def fingerprint(folder: Path) -> str:
    """A hash of every file in a folder: what embeddings are cached under, wherever the model lies."""
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.iterdir() if file.is_file()):
        with path.open("rb") as file:
            digest.update(path.name.encode())
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def user_cache_folder() -> Path:
    """``$STUDIO_CACHE``, or where the platform keeps a user's caches."""
    if chosen := os.environ.get("STUDIO_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "studio"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "studio"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "studio"


def unreadable(path: Path, error: Exception) -> StudioError:
    """One line about a part that cannot be read."""
    if isinstance(error, StudioError):
        return error
    return StudioError(
        f"{path} is missing or damaged ({first_line(error)}), expected a part of a diffusers model; download "
        "or save the model again."
    )


def first_line(error: Exception) -> str:
    """The beginning of what an exception says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
