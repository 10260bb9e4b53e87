"""Cameras on orbits around the origin, where every asset stands.

Assets fit the ball of radius 0.5. The default camera stands 2 units away with a vertical field of view of 35
degrees, so that ball fills about four fifths of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.recipes.config import (
    AlignedConfig,
    CamerasConfig,
    ClipConfig,
    FixedSetConfig,
    FramesConfig,
    FrontConfig,
    InstantsConfig,
    MultiViewConfig,
    OrbitConfig,
    RandomInstantsConfig,
    Range,
)
from studio.recipes.ramps import Ramp, count_at, value_at
from studio.types import Cameras

RADIUS = 2.0
FIELD_OF_VIEW_DEG = 35.0
CAMERA_FEATURES = 13


def camera_features(cameras: Cameras) -> Float[Tensor, "b 13"]:
    """What a camera-conditioned network is told of a view.

    ``[1, sin kφ (k = 1..4), cos kφ (k = 1..4), sin kθ (k = 1, 2), cos kθ (k = 1, 2)]`` for azimuth φ and
    elevation θ. The leading 1 says that there is a camera: the camera-free branch is the zero vector.
    """
    azimuth, elevation = torch.deg2rad(cameras.azimuth_deg), torch.deg2rad(cameras.elevation_deg)
    around = azimuth[:, None] * torch.arange(1, 5, dtype=azimuth.dtype, device=azimuth.device)
    above = elevation[:, None] * torch.arange(1, 3, dtype=azimuth.dtype, device=azimuth.device)
    present = torch.ones_like(azimuth)[:, None]
    return torch.cat([present, around.sin(), around.cos(), above.sin(), above.cos()], dim=1)


def look_at(position: Float[Tensor, "b 3"], target: Float[Tensor, "b 3"]) -> Float[Tensor, "b 4 4"]:
    """World-to-camera transforms of upright cameras at ``position`` that look at ``target``.

    Straight up or down, where "upright" has no meaning, the top of the picture points to -z or +z.
    """
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=position.dtype, device=position.device).expand_as(forward)
    right = torch.linalg.cross(forward, up)
    east = torch.tensor([1.0, 0.0, 0.0], dtype=position.dtype, device=position.device).expand_as(forward)
    vertical = right.norm(dim=-1, keepdim=True) < 1e-6
    right = torch.nn.functional.normalize(torch.where(vertical, east, right), dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward], dim=-2)
    world_to_camera = torch.eye(4, dtype=position.dtype, device=position.device).repeat(len(position), 1, 1)
    world_to_camera[:, :3, :3] = rotation
    world_to_camera[:, :3, 3] = -(rotation @ position.unsqueeze(-1)).squeeze(-1)
    return world_to_camera


def intrinsics_from_field_of_view(
    field_of_view_deg: Float[Tensor, "b"], width: int, height: int
) -> Float[Tensor, "b 3 3"]:
    """Square pixels, the principal point in the middle; the angle spans the image's height."""
    focal = 0.5 * height / torch.tan(torch.deg2rad(field_of_view_deg) / 2)
    matrix = torch.zeros(len(focal), 3, 3, dtype=focal.dtype, device=focal.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = focal
    matrix[:, 0, 2], matrix[:, 1, 2], matrix[:, 2, 2] = width / 2, height / 2, 1.0
    return matrix


def orbit(
    azimuth_deg: Float[Tensor, "b"],
    elevation_deg: Float[Tensor, "b"],
    width: int,
    height: int,
    radius: float | Float[Tensor, "b"] = RADIUS,
    field_of_view_deg: float | Float[Tensor, "b"] = FIELD_OF_VIEW_DEG,
) -> Cameras:
    """Cameras that look at the origin from the given angles. Azimuth 0 stands on +z, azimuth 90 on +x."""
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    radii = torch.as_tensor(radius, dtype=azimuth.dtype, device=azimuth.device).expand_as(azimuth)
    fields = torch.as_tensor(field_of_view_deg, dtype=azimuth.dtype, device=azimuth.device)
    direction = torch.stack(
        [elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], dim=-1
    )
    position = radii[:, None] * direction
    return Cameras(
        world_to_camera=look_at(position, torch.zeros_like(position)),
        intrinsics=intrinsics_from_field_of_view(fields.expand_as(azimuth), width, height),
        width=width,
        height=height,
        azimuth_deg=azimuth_deg,
        elevation_deg=elevation_deg,
    )


def front(width: int, height: int) -> Cameras:
    """One camera in front, whose picture the unit square around the origin fills."""
    angle = torch.zeros(1)
    return orbit(angle, angle, width, height, field_of_view_deg=math.degrees(2 * math.atan(0.5 / RADIUS)))


def turntable(frames: int, width: int, height: int, elevation_deg: float = 15.0) -> Cameras:
    """One turn around the asset, starting at the front."""
    azimuth = torch.arange(frames, dtype=torch.float32) * (360.0 / frames)
    return orbit(azimuth, torch.full_like(azimuth, elevation_deg), width, height)


def fibonacci_sphere(
    count: int,
    width: int,
    height: int,
    elevation_range_deg: tuple[float, float] = (-30.0, 60.0),
    offset: float = 0.5,
) -> Cameras:
    """Cameras spread evenly over a band of the sphere; another ``offset`` in 0-1 gives held-out views."""
    low, high = (math.sin(math.radians(angle)) for angle in elevation_range_deg)
    height_fraction = (torch.arange(count, dtype=torch.float32) + offset) / count
    elevation = torch.rad2deg(torch.asin(low + (high - low) * height_fraction))
    golden_angle_deg = 180.0 * (3.0 - math.sqrt(5.0))
    azimuth = (torch.arange(count, dtype=torch.float32) + offset) * golden_angle_deg % 360.0
    return orbit(azimuth, elevation, width, height)


@dataclass(frozen=True)
class FixedSet:
    """Draws views of a step from a fixed set, none twice. Implements ``CameraSampler``.

    Attributes:
        cameras: the set.
        views_per_step: how many are drawn.
    """

    cameras: Cameras
    views_per_step: Ramp

    def __call__(self, progress: float, rng: torch.Generator) -> Cameras:
        """Some of the set's cameras."""
        count = count_at(self.views_per_step, progress)
        drawn = torch.randperm(len(self.cameras), generator=rng, device=rng.device)[:count]
        return self.cameras[drawn.cpu()]


@dataclass(frozen=True)
class Orbit:
    """Draws every view anew. Implements ``CameraSampler``.

    Attributes:
        config: the ranges.
        size: width and height of the pictures in pixels.
    """

    config: OrbitConfig
    size: int

    def __call__(self, progress: float, rng: torch.Generator) -> Cameras:
        """Views whose azimuths share out the range: each is drawn within its own sector."""
        config, count = self.config, count_at(self.config.views_per_step, progress)
        half_width = value_at(config.azimuth_deg, progress)
        sector = (torch.arange(count) + torch.rand(count, generator=rng)) / count
        # The circle has no first view: turn it, so that no sector's edge is favoured.
        turn = torch.rand((), generator=rng) if half_width >= 180.0 else torch.zeros(())
        return orbit(
            (half_width * (2 * (sector + turn) - 1)) % 360.0,
            _between(config.elevation_deg, progress, count, rng),
            self.size,
            self.size,
            radius=_between(config.radius, progress, count, rng),
            field_of_view_deg=_between(config.field_of_view_deg, progress, count, rng),
        )


@dataclass(frozen=True)
class MultiView:
    """Draws sets of views at one elevation, evenly spaced around the asset. Implements ``CameraSampler``.

    Attributes:
        config: the ranges.
        size: width and height of the pictures in pixels.
    """

    config: MultiViewConfig
    size: int

    def __call__(self, progress: float, rng: torch.Generator) -> Cameras:
        """The sets one after the other; the views of each in the order of their azimuth."""
        config, count = self.config, count_at(self.config.sets_per_step, progress)
        azimuth = _around(count, config.views, rng)
        elevation = _between(config.elevation_deg, progress, count, rng)
        return orbit(azimuth.flatten(), elevation.repeat_interleave(config.views), self.size, self.size)


@dataclass(frozen=True)
class Front:
    """The same view from the front at each step. Implements ``CameraSampler``.

    Attributes:
        size: width and height of the pictures in pixels.
    """

    size: int

    def __call__(self, progress: float, rng: torch.Generator) -> Cameras:
        """One camera."""
        return front(self.size, self.size)


@dataclass(frozen=True)
class Aligned:
    """Draws the video's view from the front, or views for a prior, from a distance that was searched.
    Implements ``CameraSampler``.

    Attributes:
        config: what is searched.
        size: width and height of the pictures in pixels.
        distance: what was found; before, the usual one.
    """

    config: AlignedConfig
    size: int
    distance: float = RADIUS

    def __call__(self, progress: float, rng: torch.Generator) -> Cameras:
        """Cameras in front, or a set at one elevation in the order of azimuth."""
        config = self.config
        if config.to == "video":
            front = torch.zeros(config.views)
            return self.seen_from(front, front)
        (azimuth,) = _around(1, config.views, rng)
        return self.seen_from(azimuth, _between(config.elevation_deg, progress, 1, rng).expand_as(azimuth))

    def seen_from(
        self,
        azimuth_deg: Float[Tensor, "b"],
        elevation_deg: Float[Tensor, "b"],
        distance: Float[Tensor, "b"] | None = None,
    ) -> Cameras:
        """Cameras with the recipe's field of view; at the distance that was found, or at others."""
        radius = self.distance if distance is None else distance
        field = self.config.field_of_view_deg
        return orbit(azimuth_deg, elevation_deg, self.size, self.size, radius, field)

    def tried(self) -> Float[Tensor, "n"]:
        """The distances of the search."""
        nearest, farthest = self.config.distance
        return nearest + self.config.step * torch.arange(int((farthest - nearest) / self.config.step + 1.5))


def build_cameras(config: CamerasConfig, size: int) -> FixedSet | Orbit | MultiView | Front | Aligned:
    """The sampler that a recipe describes, for square pictures of ``size`` pixels."""
    match config:
        case FixedSetConfig():
            cameras = fibonacci_sphere(config.count, size, size, config.elevation_deg)
            return FixedSet(cameras, config.views_per_step)
        case OrbitConfig():
            return Orbit(config, size)
        case MultiViewConfig():
            return MultiView(config, size)
        case FrontConfig():
            return Front(size)
        case AlignedConfig():
            return Aligned(config, size)
        case _:
            assert_never(config)


def at_instants(cameras: Cameras, config: InstantsConfig, rng: torch.Generator) -> Cameras:
    """The cameras of a step, each at the instant that a recipe gives it; of a clip, each at every frame."""
    match config:
        case RandomInstantsConfig():
            count = min(config.per_step, len(cameras))
            times = (torch.arange(count) + torch.rand(count, generator=rng)) / count
        case FramesConfig(count=frames):
            count = min(config.per_step, len(cameras))
            times = frame_times(frames)[torch.randperm(frames, generator=rng)[:count].sort().values]
        case ClipConfig(count=frames):
            return filmed(cameras, frame_times(frames))
        case _:
            assert_never(config)
    # Neighbours in the batch, such as the views of one set, share an instant.
    share = torch.arange(len(cameras)) * len(times) // len(cameras)
    return replace(cameras, time=times[share])


def frame_times(count: int) -> Float[Tensor, "t"]:
    """Instants evenly spaced from 0 to 1."""
    return torch.linspace(0.0, 1.0, count)


def filmed(cameras: Cameras, times: Float[Tensor, "t"]) -> Cameras:
    """Each camera at each of some instants: one clip after the other."""
    rows = torch.arange(len(cameras)).repeat_interleave(len(times))
    return replace(cameras[rows], time=times.repeat(len(cameras)))


def _around(sets: int, views: int, rng: torch.Generator) -> Float[Tensor, "s v"]:
    """Azimuths in degrees of sets of views, evenly spaced from one that is drawn for each set."""
    return (360.0 * torch.rand(sets, 1, generator=rng) + torch.arange(views) * (360.0 / views)) % 360.0


def _between(interval: Range, progress: float, count: int, rng: torch.Generator) -> Float[Tensor, "n"]:
    low, high = (value_at(end, progress) for end in interval)
    return low + (high - low) * torch.rand(count, generator=rng)
