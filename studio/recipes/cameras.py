"""Where the scene is seen from, and when, if it moves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from studio.recipes.ramps import Ramp, Range, refuse_outside, refuse_range
from studio.recipes.values import STRICT, Count, Elevation, Positive

_MOST_VIEWS = 4096.0
"""A step."""


def _refuse_elevation(interval: Range) -> None:
    refuse_range("elevation_deg", interval, -90.0, 90.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FixedSetConfig:
    """Views drawn from a fixed set, spread evenly over a band of the sphere: a prior can cache what it
    shows."""

    kind: Literal["fixed_set"] = "fixed_set"
    views_per_step: Ramp = 4.0
    """Pictures a step, rounded."""
    count: Count = 96
    """Cameras in the set."""
    elevation_deg: tuple[Elevation, Elevation] = (-25.0, 65.0)
    """The band's lowest and highest elevation."""

    @model_validator(mode="after")
    def _in_order(self) -> FixedSetConfig:
        _refuse_elevation(self.elevation_deg)
        refuse_outside("views_per_step", self.views_per_step, 1.0, float(self.count), " (count)")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OrbitConfig:
    """Every view drawn anew."""

    kind: Literal["orbit"] = "orbit"
    views_per_step: Ramp = 4.0
    """Pictures a step, rounded; their azimuths are spread over the circle, each drawn within a sector of its
    own."""
    azimuth_deg: Ramp = 180.0
    """Half-width of the azimuth range around the front; a ramp widens it from the front to all sides."""
    elevation_deg: Range = (-20.0, 60.0)
    """Range of the elevation."""
    radius: Range = (1.9, 2.1)
    """Range of the distance from the origin."""
    field_of_view_deg: Range = (33.0, 37.0)
    """Range of the vertical field of view."""

    @model_validator(mode="after")
    def _in_order(self) -> OrbitConfig:
        refuse_outside("views_per_step", self.views_per_step, 1.0, _MOST_VIEWS)
        _refuse_elevation(self.elevation_deg)
        refuse_range("radius", self.radius, 0.1, 100.0)
        refuse_range("field_of_view_deg", self.field_of_view_deg, 1.0, 150.0)
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultiViewConfig:
    """Sets of views at one elevation, evenly spaced around the asset, as multi-view priors expect them."""

    kind: Literal["multi_view"] = "multi_view"
    sets_per_step: Ramp = 1.0
    """Sets a step, rounded."""
    views: Annotated[int, Field(ge=2)] = 4
    """Pictures a set."""
    elevation_deg: Range = (0.0, 30.0)
    """Range of a set's elevation."""

    @model_validator(mode="after")
    def _in_order(self) -> MultiViewConfig:
        refuse_outside("sets_per_step", self.sets_per_step, 1.0, _MOST_VIEWS)
        _refuse_elevation(self.elevation_deg)
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FrontConfig:
    """One view from the front that shows the canvas of clipart, and no more."""

    kind: Literal["front"] = "front"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AlignedConfig:
    """Views from a distance that is searched when the stage begins (Align4D, arXiv:2405.19957)."""

    kind: Literal["aligned"] = "aligned"
    to: Literal["video", "prior"] = "video"
    """``video``: from the front, as far away as the asset looks most like the first frame.
    ``prior``: sets of views around the asset, where the term's prior finds least to change, nearer than the
    video's."""
    distance: tuple[Positive, Positive] = (0.6, 4.0)
    """The nearest and the farthest that are tried, in world units; assets fit a ball of radius 0.5."""
    step: Annotated[float, Field(ge=0.01, le=0.5)] = 0.05
    """Between two that are tried; the best is refined in between."""
    field_of_view_deg: Annotated[float, Field(ge=1.0, le=150.0)] = 35.0
    """Vertical field of view."""
    views: Count = 4
    """Pictures a step: all from the video's place, each at an instant of its own, or a set for the prior."""
    elevation_deg: Range = (0.0, 30.0)
    """Range of a set's elevation, for the prior."""

    @model_validator(mode="after")
    def _in_order(self) -> AlignedConfig:
        _refuse_elevation(self.elevation_deg)
        nearest, farthest = self.distance
        if farthest - nearest < 2 * self.step:
            raise ValueError(
                f"distance is [{nearest:g}, {farthest:g}], expected to rise by at least two steps of "
                f"{self.step:g}"
            )
        return self


CamerasConfig = Annotated[
    FixedSetConfig | OrbitConfig | MultiViewConfig | FrontConfig | AlignedConfig, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RandomInstantsConfig:
    """Instants drawn anew in each step; the step's pictures share them out."""

    kind: Literal["random"] = "random"
    per_step: Count = 2
    """Instants a step, each drawn within its own sector of the time from 0 to 1."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FramesConfig:
    """Instants drawn from the frames of a clip; the step's pictures share them out. A prior can cache what
    it shows."""

    kind: Literal["frames"] = "frames"
    count: Annotated[int, Field(ge=2, le=1024)] = 16
    """Frames, evenly spaced from time 0 to time 1."""
    per_step: Count = 2
    """Instants a step, none twice."""

    @model_validator(mode="after")
    def _enough(self) -> FramesConfig:
        if self.per_step > self.count:
            raise ValueError(f"per_step ({self.per_step}) must not exceed count ({self.count})")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClipConfig:
    """Every camera of the step sees a whole clip: one picture a frame, in their order."""

    kind: Literal["clip"] = "clip"
    count: Annotated[int, Field(ge=2, le=1024)] = 16
    """Frames, evenly spaced from time 0 to time 1."""


InstantsConfig = Annotated[RandomInstantsConfig | FramesConfig | ClipConfig, Field(discriminator="kind")]
