"""From how far a video films an asset, and from how far a prior expects to see it.

Align4D (the journal form of PLA4D, Miao et al. 2024, arXiv:2405.19957) searches both on a row of distances.
From the first the asset at rest looks most like the first frame; at the second, nearer one the prior of
unseen views finds least to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import Aligned, orbit
from studio.errors import StudioError
from studio.guidance.pixels import Filmed, PixelGuidance, Target
from studio.interfaces import Prior, Renderer, Scene
from studio.run.build import BuiltStage, Views
from studio.run.conditioning import Told
from studio.run.views import drawn
from studio.scenes.kinds import device_of
from studio.types import Condition

VIDEO = "video"
"""The name of the video's distance."""

LEVELS = (0.7, 0.8, 0.9)
"""Noise levels at which the prior is asked, as shares of its schedule; below them its curve says nothing."""
AZIMUTHS_DEG = (-90.0, 0.0, 90.0, 180.0)
"""From which it is asked: a set of views in the order of their azimuth."""


@dataclass(frozen=True)
class DistanceCurve:
    """How unlike something an asset is, seen from each of a row of distances.

    Attributes:
        distances: of the camera from the origin, in world units, evenly spaced and rising.
        errors: one a distance; only their differences mean anything.
    """

    distances: Float[Tensor, "n"]
    errors: Float[Tensor, "n"]

    @property
    def minima(self) -> tuple[int, ...]:
        """The places between the ends that are lower than both neighbours."""
        before, here, after = self.errors[:-2], self.errors[1:-1], self.errors[2:]
        return tuple((1 + ((here < before) & (here < after)).nonzero().flatten()).tolist())

    def refined(self, place: int) -> float:
        """The lowest point of the parabola through a minimum and its neighbours, as a distance."""
        before, here, after = map(float, self.errors[place - 1 : place + 2])
        step = float(self.distances[1] - self.distances[0])
        return float(self.distances[place]) + 0.5 * step * (before - after) / (before - 2 * here + after)

    def video_distance(self) -> float:
        """The distance of the lowest error, which lies between the ends.

        Raises:
            StudioError: it is at an end: the asset should be as near, or as far, as can be.
        """
        lowest = int(self.errors.argmin())
        if lowest in self.minima:
            return self.refined(lowest)
        nearest, farthest = float(self.distances[0]), float(self.distances[-1])
        where = "near" if lowest == 0 else "far"
        raise StudioError(
            f"The asset looks most like the video's first frame from as {where} as was tried, {nearest:g} to "
            f"{farthest:g}, so the two hardly show the same; expected a video of the whole object from the "
            "front before a plain or transparent background. Else widen cameras.distance."
        )

    def prior_distance(self, video_distance: float) -> float:
        """The distance of the lowest of the minima nearer than the video's; without any, the video's.

        Farther away the errors fall again: an empty picture leaves a prior little to change.
        """
        nearer = [place for place in self.minima if float(self.distances[place]) < video_distance]
        if not nearer:
            return video_distance
        return self.refined(min(nearer, key=lambda place: float(self.errors[place])))


def front_curve(scene: Scene[Any], renderer: Renderer[Any], target: Target, view: Aligned) -> DistanceCurve:
    """Mean squared error between the scene at rest, from the front, and a target's first picture.

    Both are shown over black and over white, so that what is covered counts as well as its colour.
    """
    distances = view.tried()
    front = torch.zeros_like(distances)
    cameras = view.seen_from(front, front, distances)
    errors = torch.zeros_like(distances)
    for grey in (0.0, 1.0):
        pictures = target(cameras, torch.full((len(distances), 3), grey))
        errors += (drawn(scene, renderer, cameras, grey).rgb - pictures.cpu()).square().mean((1, 2, 3)) / 2
    return DistanceCurve(distances, errors)


def prior_curve(
    scene: Scene[Any], renderer: Renderer[Any], prior: Prior, told: Told, view: Aligned, rng: torch.Generator
) -> DistanceCurve:
    """How far the noise that a prior finds in views of the scene at rest is from that which was added.

    Args:
        told: what the prior is told of cameras; here of those at the usual distance, where it expects assets.
        rng: draws the noise, which is the same at all distances, levels and views.
    """
    device = device_of(scene)
    azimuth_deg = torch.tensor(AZIMUTHS_DEG) % 360
    level = torch.zeros_like(azimuth_deg)
    usual, white = orbit(azimuth_deg, level, view.size, view.size), torch.ones(len(level), 3)
    condition = told(usual.to(device), white.to(device)).positive
    distances, errors, noise = view.tried(), [], None
    for distance in distances:
        cameras = view.seen_from(azimuth_deg, level, distance.expand_as(level))
        with torch.no_grad():
            x = prior.encode_images(drawn(scene, renderer, cameras).rgb.to(device))
            if noise is None:
                noise = torch.randn(x.shape[1:], generator=rng).to(x).expand_as(x)
            errors.append(float(_mean_error(prior, x, noise, condition)))
    return DistanceCurve(distances, torch.tensor(errors))


def _mean_error(
    prior: Prior, x: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], condition: Condition
) -> Float[Tensor, ""]:
    """Over the levels, of the noise that the prior finds."""
    errors = []
    for level in LEVELS:
        timesteps = torch.full((len(x),), level * (len(prior.schedule) - 1)).to(x)
        x_t = prior.schedule.add_noise(x, noise, timesteps)
        errors.append((prior.predict_noise(x_t, timesteps, condition) - noise).square().mean())
    return torch.stack(errors).mean()


def found_distances(stage: BuiltStage, scene: Scene[Any], rng: torch.Generator) -> dict[str, float]:
    """The distances of the stage's aligned cameras: of the video, and of each term's prior by its name.

    Raises:
        StudioError: the asset and the video do not show the same.
    """
    aligned = [views.cameras for views in stage.views.values() if isinstance(views.cameras, Aligned)]
    targets = [term.guidance.target for term in stage.terms if isinstance(term.guidance, PixelGuidance)]
    films = [target for target in targets if isinstance(target, Filmed)]
    if not aligned or not films:
        return {}
    video = front_curve(scene, stage.renderer, films[0], aligned[0]).video_distance()
    found = {VIDEO: video}
    for place, term in enumerate(stage.terms):
        cameras = stage.views[place].cameras if place in stage.views else None
        if isinstance(cameras, Aligned) and cameras.config.to == "prior" and term.prior is not None:
            curve = prior_curve(scene, stage.renderer, term.prior, term.conditioning, cameras, rng)
            found[term.name] = curve.prior_distance(video)
    return found


def at_distances(stage: BuiltStage, distances: Mapping[str, float]) -> BuiltStage:
    """The stage with its aligned cameras where ``found_distances`` says."""

    def moved(place: int | None, views: Views) -> Views:
        if not isinstance(views.cameras, Aligned):
            return views
        if place is None or views.cameras.config.to == "video":
            distance = distances[VIDEO]
        else:
            distance = distances[stage.terms[place].name]
        return replace(views, cameras=replace(views.cameras, distance=distance))

    return replace(stage, views={place: moved(place, views) for place, views in stage.views.items()})
