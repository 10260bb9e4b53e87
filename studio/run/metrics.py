"""What is measured of a finished scene. No network is needed for any of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import frame_times, front
from studio.evaluate.metrics import (
    alpha_statistics,
    clipped_fraction,
    front_back_similarity,
    psnr,
    resembles_front,
    saturation,
    sharpness,
    silhouette_iou,
    view_variance,
)
from studio.interfaces import Prior, Renderer
from studio.ops.mesh_raster import texture_levels
from studio.priors.clips import ClipPrior
from studio.priors.library import LibraryPrior
from studio.recipes.config import ClipConfig, Recipe
from studio.recipes.guidance import PictureGuidanceConfig
from studio.reports import Figure
from studio.run.depth import depth_confidence
from studio.run.targets import build_target
from studio.run.views import clip_cameras, drawn, held_out_cameras, side_cameras
from studio.scenes.clipart import Clipart
from studio.scenes.deformation import Deformable
from studio.scenes.kinds import AnyScene
from studio.types import Cutout


def final_metrics(
    scene: AnyScene, renderer: Renderer[Any], recipe: Recipe, prior: Prior
) -> dict[str, Figure]:
    """Figures by name, from 16 held-out views; with the exact prior also the distance to the truth.

    Of what moves, each view is at an instant of its own; sides are at rest.
    """
    size = recipe.stages[-1].resolution_at(1.0)
    if isinstance(scene, Clipart):
        return clip_metrics(scene, renderer, recipe, prior, size)
    views = drawn(scene, renderer, held_out_cameras(size, isinstance(scene, Deformable)))
    sides = drawn(scene, renderer, side_cameras(size)).rgb
    found: dict[str, Figure] = {"steps": recipe.total_steps, "primitives": len(scene)}
    found |= picture_metrics(views.rgb, views.alpha, sides)
    if (confidence := depth_confidence(recipe)) is not None:
        found["depth_confidence"] = confidence
    if isinstance(scene, Deformable):
        found["acceleration"] = scene.largest_acceleration()
    if isinstance(prior, LibraryPrior):
        found |= truth_metrics(scene, renderer, recipe.prompt, prior, size)
    return found


def clip_metrics(
    scene: Clipart, renderer: Renderer[Any], recipe: Recipe, prior: Prior, size: int
) -> dict[str, Figure]:
    """How far the keypoints go, the share of flipped triangles, ``identity_db`` and, with the exact motion
    prior, the nearest gesture; after a video, the PSNR to it."""
    instants = recipe.stages[-1].instants
    count = instants.count if isinstance(instants, ClipConfig) else 6
    times = frame_times(count)
    cameras = clip_cameras(size, times.tolist())
    rgb = drawn(scene, renderer, cameras).rgb
    with torch.no_grad():
        travel = (scene.keypoints(times) - scene.puppet.keypoints).norm(dim=-1).amax(0)
        flipped = (scene.area_shares(times) < 0).float().mean()
    found: dict[str, Figure] = {
        "steps": recipe.total_steps,
        "primitives": len(scene),
        "keypoints": len(travel),
        "travel_px": float(travel.mean()),
        "flipped": float(flipped),
        "identity_db": identity_db(scene, renderer, times),
    }
    for term in recipe.stages[-1].guidance:
        if isinstance(term.method, PictureGuidanceConfig):
            truth = build_target(term.method.target, recipe.prompt, prior)(cameras, torch.ones(count, 3))
            found["reference_db"] = float(psnr(rgb, truth).mean())
    if isinstance(prior, ClipPrior):
        likeness = prior.nearest(rgb)
        found |= {"nearest_motion": likeness.performance.gesture.name, "psnr_db": likeness.psnr_db}
    return found


def identity_db(scene: Clipart, renderer: Renderer[Any], times: Float[Tensor, "t"], size: int = 512) -> float:
    """How like the drawing the frames of a clip are once their motion is undone.

    Each frame is laid over the sheets at rest, every triangle taking from it what it shows there, and
    compared with the drawing, both over white: PSNR in dB over all frames together, where both show one sheet
    once, not one before another or before itself.
    """
    camera, white = front(size, size), torch.ones(1, 3)
    with torch.no_grad():
        rest = scene.at(None)
        still = renderer(rest, camera, white)
        bare = _sheets(scene, rest)
        drawn_at_rest = (still.alpha > 0.5) & (renderer(_veiled(bare), camera, white).alpha < 0.6)
        errors = []
        for time in times:
            posed = scene.at(time)
            sheets = _sheets(scene, posed)
            once = (renderer(_veiled(sheets), camera, white).alpha < 0.6).float().expand(-1, 3, -1, -1)
            undone, seen = (
                renderer(_worn(bare, sheets, picture), camera, white).rgb
                for picture in (renderer(posed, camera, white).rgb, once)
            )
            compared = (drawn_at_rest & (seen[:, :1] > 0.99)).expand_as(undone)
            errors.append((undone - still.rgb)[compared].square())
        error = torch.cat(errors).mean().clamp_min(1e-10)
    return float(-10 * error.log10())


def _sheets(scene: Clipart, cutout: Cutout) -> Cutout:
    """One layer of each sheet."""
    first = {layer.sheet: number for number, layer in reversed([*enumerate(scene.puppet.layers)])}
    return Cutout(tuple(cutout.layers[number] for number in sorted(first.values())))


def _veiled(sheets: Cutout) -> Cutout:
    """Sheets half transparent: denser where they lie twice."""
    veil = (sheets.vertices.new_full((1, 1, 1, 4), 0.5),)
    return Cutout(tuple(replace(layer, levels=veil) for layer in sheets.layers))


def _worn(rest: Cutout, posed: Cutout, picture: Float[Tensor, "1 3 h w"]) -> Cutout:
    """Sheets at rest, showing what a picture of the posed sheets shows of each of their triangles."""
    texture = torch.cat([picture, torch.ones_like(picture[:, :1])], dim=1).movedim(1, -1)
    levels = tuple(texture_levels(texture))
    return Cutout(
        tuple(
            replace(layer, uvs=moved.vertices + 0.5, levels=levels)
            for layer, moved in zip(rest.layers, posed.layers, strict=True)
        )
    )


def combined(figures: Sequence[Mapping[str, Figure]]) -> dict[str, Figure]:
    """Those of several scenes together: means of numbers; words one after the other, commas between."""
    if len(figures) == 1:
        return dict(figures[0])
    columns = {name: [own[name] for own in figures] for name in figures[0]}
    return {
        name: ", ".join(map(str, column))
        if isinstance(column[0], str)
        else statistics.fmean(float(value) for value in column)
        for name, column in columns.items()
    }


def picture_metrics(
    rgb: Float[Tensor, "b 3 h w"], alpha: Float[Tensor, "b 1 h w"], sides: Float[Tensor, "4 3 h w"]
) -> dict[str, Figure]:
    """What pictures over white say without a truth; ``sides`` are front, right, back and left."""
    coverage = alpha_statistics(alpha)
    return {
        "alpha_mean": coverage.mean,
        "alpha_undecided": coverage.undecided,
        "alpha_border": coverage.border,
        "saturation": float(saturation(rgb, alpha).mean()),
        "clipped": float(clipped_fraction(rgb, alpha).mean()),
        "sharpness": float(sharpness(rgb).mean()),
        "view_variance": view_variance(rgb),
        "front_back_similarity": float(front_back_similarity(sides[0:1], sides[2:3])),
    }


def truth_metrics(
    scene: AnyScene, renderer: Renderer[Any], prompt: str, prior: LibraryPrior, size: int
) -> dict[str, Figure]:
    """Distance to the nearest of the models that the prompt names, and of their motions, over 16 held-out
    views.

    ``psnr_db`` is the mean over the views' PSNR over white; ``silhouette_iou`` compares coverages above 0.5;
    ``second_face`` is 1 where the back is nearer to a model's front than to any model's back.
    """
    cameras = held_out_cameras(size, isinstance(scene, Deformable))
    white, black = torch.ones(len(cameras), 3), torch.zeros(len(cameras), 3)
    truths = prior.true_renderings(prompt, cameras, white)
    views = drawn(scene, renderer, cameras)
    rgb, alpha = views.rgb, views.alpha
    scores = torch.stack([psnr(rgb, truth).mean() for truth in truths])
    best = int(scores.argmax())
    on_black = prior.true_renderings(prompt, cameras, black)[best]
    sides = side_cameras(size)[[0, 2]]
    fronts, backs = prior.true_renderings(prompt, sides, white[:2]).unbind(1)
    back = drawn(scene, renderer, sides[1:]).rgb[0]
    true_alpha = 1 - (truths[best] - on_black).mean(1, keepdim=True)
    nearest = prior.members(prompt, at_rest=cameras.time is None)[best]
    moves: dict[str, Figure] = {} if nearest.motion is None else {"nearest_motion": nearest.motion.name}
    return moves | {
        "nearest_model": prior.catalogue.entries[nearest.entry].id,
        "psnr_db": float(scores[best]),
        "silhouette_iou": float(silhouette_iou(alpha, true_alpha).mean()),
        "second_face": int(resembles_front(back, fronts, backs)),
    }
