"""Guidance without a diffusion model: pictures that are known, compared pixel by pixel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.ramps import Ramp
from studio.recipes.values import STRICT, Fraction, NotNegative, Positive


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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MeshesTarget:
    """A mesh of each frame, evenly spaced from time 0 to time 1, from any camera; the nearest in time shows.
    Image-to-mesh models make such meshes of a video's frames."""

    kind: Literal["meshes"] = "meshes"
    path: Annotated[str, Field(min_length=1)]
    """A folder of GLB, OBJ, PLY or STL files, one a frame in order of name."""
    fit: bool = True
    """Move and scale all of them by what puts the first into the ball of radius 0.5, as ``--asset`` does."""
    light: Literal["plain", "studio"] = "plain"
    """``plain`` shows their colours as they are, ``studio`` in the light of the exact prior's models."""


TargetConfig = Annotated[FootageConfig | TruthTarget | MeshesTarget, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PixelsConfig:
    """Mean squared error to pictures that are known. It asks no diffusion model."""

    kind: Literal["pixels"] = "pixels"
    target: TargetConfig
    """The pictures."""
    blur_px: Ramp = 0.0
    """Standard deviation of the Gaussian through which both are seen, in pixels: what moves far is drawn from
    farther away. 1 spans 5 by 5 pixels, 0 is sharp."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MeshContrastConfig:
    """Experimental: renders drawn to those of meshes (PLA4D's GS-mesh contrastive learning, whose losses the
    paper does not give). Mean absolute error and structural similarity to the mesh of the same instant from
    the same view and, where wished, away from those of the step's other instants. It asks no diffusion
    model."""

    kind: Literal["mesh_contrast"] = "mesh_contrast"
    target: Annotated[MeshesTarget | TruthTarget, Field(discriminator="kind")]
    """The pictures."""
    ssim: Fraction = 0.2
    """Share of structural dissimilarity in the error."""
    contrast: NotNegative = 0.0
    """Factor of the contrast between instants (InfoNCE); it draws the meshes once more for each instant of
    the step."""
    temperature: Positive = 0.1
    """Of the contrast: less, and only the most alike of the other instants count."""
