"""How pictures of the scene are drawn, on what background, and what is done to them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from studio.recipes.ramps import Ramp
from studio.recipes.values import STRICT, Color


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SplattingConfig:
    """3D Gaussian splatting."""

    kind: Literal["splatting"] = "splatting"
    backend: Literal["auto", "native", "torch", "gsplat"] = "auto"
    """``auto`` takes the compiled kernels where they are, else plain torch; gsplat needs CUDA."""
    antialias: bool = True
    """Thin splats fade instead of fattening (Mip-Splatting)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RasterConfig:
    """Rasterization of meshes, with soft outlines that have gradients."""

    kind: Literal["raster"] = "raster"
    supersample: Annotated[int, Field(ge=1, le=8)] = 1
    """Samples along each side of a pixel."""
    light: Literal["none", "studio"] = "none"
    """``none`` shows plain colours, so that the texture holds the light that the prior imagines; ``studio``
    is that of the exact prior's renderings."""
    backend: Literal["auto", "pytorch3d"] = "auto"
    """``auto`` takes the compiled kernels where they are, else plain torch; pytorch3d wants installing."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VolumeConfig:
    """Volume rendering of radiance fields."""

    kind: Literal["volume"] = "volume"
    step: Annotated[float, Field(ge=1e-3, le=0.1)] = 0.01
    """Between two samples of a ray, in world units."""
    normals: bool = False
    """Also draw normals, as ``regularizers.orientation`` wants them; costs about as much again."""
    backend: Literal["auto", "nerfacc"] = "auto"
    """What marches and composites: ``auto`` takes the compiled kernels where they are, else plain torch;
    nerfacc needs CUDA."""
    network: Literal["auto", "tinycudann"] = "auto"
    """What evaluates the field, likewise; tinycudann (tiny-cuda-nn) needs CUDA and has no normals."""

    @model_validator(mode="after")
    def _network_has_normals(self) -> VolumeConfig:
        if self.normals and self.network == "tinycudann":
            raise ValueError(
                "normals = true wants gradients of gradients, which tiny-cuda-nn's perceptron has none of; "
                "expected normals = false, or network = 'auto'"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CutoutConfig:
    """Drawing of flat pictures on planar meshes."""

    kind: Literal["cutout"] = "cutout"


RendererConfig = Annotated[
    SplattingConfig | RasterConfig | VolumeConfig | CutoutConfig, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FixedBackgroundConfig:
    """One colour behind every picture."""

    kind: Literal["fixed"] = "fixed"
    color: Color = (1.0, 1.0, 1.0)
    """Red, green and blue in 0-1."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RandomBackgroundConfig:
    """A new colour for each picture, so that a scene cannot hide behind its background."""

    kind: Literal["random"] = "random"
    grey: Ramp = 0.0
    """Share of pictures whose background is a random grey instead of a random colour, 0 to 1."""
    fixed: Ramp = 0.0
    """Share of pictures whose background is ``color``, 0 to 1; it comes before the share of grey."""
    color: Color = (1.0, 1.0, 1.0)
    """The colour of that share."""


BackgroundConfig = Annotated[FixedBackgroundConfig | RandomBackgroundConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentationConfig:
    """Pictures seen askew, as AniClipart shows them to a prior. One draw a step for all pictures, so that a
    clip keeps its motion; what comes in from outside has the colour of the background."""

    perspective: Annotated[float, Field(ge=0.0, le=0.9)] = 0.5
    """How far each corner may come in, as a share of half the width."""
    crop: Annotated[float, Field(gt=0.0, le=1.0)] = 0.4
    """Least share of the picture's area that is then cut out and enlarged; 1 shows all of it."""


DRAWN_BY = {
    "gaussians": "splatting",
    "surface": "raster",
    "mesh": "raster",
    "field": "volume",
    "clipart": "cutout",
}
"""The renderer of each kind of scene at rest."""
