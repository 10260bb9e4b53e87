"""Guidance without a diffusion model: pictures that are known, compared pixel by pixel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.ramps import Ramp
from studio.recipes.values import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FootageConfig:
    """The frames of a video. As a target they are what is seen from the front; other views are not
    compared."""

    kind: Literal["video"] = "video"
    path: str = ""
    """An MP4, MOV, WebM, MKV, AVI, GIF, WebP or APNG file, or a folder of pictures."""
    cut_out: bool = False
    """Tell the object from a plain background, where the video has no transparency of its own."""
    between: Literal["linear", "nearest"] = "linear"
    """What shows between two frames: both, blended, or the nearer one. Time 0 is the first frame and time 1
    the last."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TruthTarget:
    """What the exact prior knows of the prompt: the first model that it names, in its first motion, from any
    camera at any time. The term's prior must be ``library``."""

    kind: Literal["truth"] = "truth"


TargetConfig = Annotated[FootageConfig | TruthTarget, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PixelsConfig:
    """Mean squared error to pictures that are known. It asks no diffusion model."""

    kind: Literal["pixels"] = "pixels"
    target: TargetConfig
    """The pictures."""
    blur_px: Ramp = 0.0
    """Standard deviation of the Gaussian through which both are seen, in pixels: what moves far is drawn from
    farther away. 1 spans 5 by 5 pixels, 0 is sharp."""
