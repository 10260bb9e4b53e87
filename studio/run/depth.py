"""How well the depth of a motion can be known from where it was seen."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from studio.cameras import build_cameras
from studio.guidance.pixels import from_the_front
from studio.randomness import generator
from studio.recipes.config import DeformableConfig, Recipe, Stage
from studio.recipes.ramps import extremes

_MOMENTS = 32
"""At which cameras are drawn."""


def depth_confidence(recipe: Recipe) -> float | None:
    """Of the stage that knows most of a scene's motion, 0-1; None where nothing moves in space."""
    found = [seen_apart(stage) for stage in recipe.stages if isinstance(stage.scene, DeformableConfig)]
    return max(found, default=None)


def seen_apart(stage: Stage) -> float:
    """How far apart the directions are from which guidance sees a scene: 0 if all are one, 1 if evenly all.

    With D the mean of d dᵀ over the cameras' directions d it is ``1.5 (1 - λ)``, λ the largest eigenvalue of
    D: of a step along that eigenvector, pictures show the share ``1 - λ`` of the square.
    """
    directions = []
    for term in stage.guidance:
        cameras, _ = stage.looks(term)
        if extremes(term.weight) == (0.0, 0.0):
            continue
        sampler = build_cameras(cameras, 16)
        for moment in range(_MOMENTS):
            drawn = sampler(moment / _MOMENTS, generator(0, "depth", moment))
            away = normalize(drawn.positions, dim=1)
            directions.append(away[from_the_front(drawn)] if term.compares_with_video else away)
    seen = torch.cat([torch.zeros(0, 3), *directions]).double()
    if len(seen) == 0:
        return 0.0
    largest = torch.linalg.eigvalsh(seen.mT @ seen / len(seen))[-1]
    return float((1.5 * (1 - largest)).clamp(0, 1))
