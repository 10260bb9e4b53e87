"""From a recipe to the objects that run it: one ``match`` a part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from typing_extensions import assert_never

from studio.cameras import build_cameras
from studio.errors import StudioError
from studio.guidance.mesh_contrast import MeshContrast
from studio.guidance.methods import build_guidance, descends_through_prior
from studio.guidance.pixels import PixelGuidance
from studio.guidance.refusals import limits_of
from studio.interfaces import CameraSampler, Guidance, Prior, Renderer
from studio.ops.surfaces import Light
from studio.priors.latent import LatentPrior
from studio.priors.video import VideoPrior
from studio.recipes.config import (
    AlignedConfig,
    CamerasConfig,
    ClipConfig,
    CutoutConfig,
    DeformableConfig,
    GuidanceTerm,
    InstantsConfig,
    MultiViewConfig,
    PriorConfig,
    RasterConfig,
    Recipe,
    RendererConfig,
    SplattingConfig,
    Stage,
    VolumeConfig,
)
from studio.recipes.guidance import PictureGuidanceConfig, PixelsConfig
from studio.recipes.ramps import Ramp
from studio.renderers import optional
from studio.renderers.cutouts import CutoutRenderer
from studio.renderers.meshes import RasterRenderer
from studio.renderers.raster import studio_light
from studio.renderers.splatting import SplatRenderer
from studio.renderers.volume import VolumeRenderer
from studio.run.build_prior import priors_beside
from studio.run.conditioning import Told, told_in, views_alone
from studio.run.depth import depth_confidence
from studio.run.targets import build_target
from studio.scenes.topology import Topology, build_topology


@dataclass(frozen=True)
class Views:
    """Where from a scene is seen and, of one that moves, when."""

    cameras: CameraSampler
    instants: InstantsConfig | None


@dataclass(frozen=True)
class BuiltTerm:
    """One guidance method of a stage.

    Attributes:
        name: of its loss.
        weight: factor of its loss.
        guidance: the method, asking the prior.
        conditioning: what it tells the prior.
        share: odds of the term among those that have a share; None counts in every step.
        prior: that the method asks, if any.
    """

    name: str
    weight: Ramp
    guidance: Guidance
    conditioning: Told
    share: Ramp | None = None
    prior: Prior | None = None


@dataclass(frozen=True)
class BuiltStage:
    """A stage's recipe and what it says, built. The scene is not here: it goes on from stage to stage.

    Attributes:
        views: what is seen: the stage's under None, unless all terms look elsewhere; then, under the place of
            each term that does, its own.
        depth_confidence: how well the depth of a motion can be known, 0-1; None where nothing moves in space.
    """

    config: Stage
    views: Mapping[int | None, Views]
    renderer: Renderer[Any]
    terms: tuple[BuiltTerm, ...]
    topology: Topology
    depth_confidence: float | None = None


def build_device(recipe: Recipe) -> torch.device:
    """Where the run computes.

    Raises:
        StudioError: CUDA is asked for and not there.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise StudioError("device is 'cuda' and this torch sees no CUDA device; use device = 'auto'.")
    if recipe.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def build_stages(
    recipe: Recipe, prior: Prior, beside: Mapping[PriorConfig, Prior] | None = None
) -> tuple[BuiltStage, ...]:
    """Everything but the scene, for each stage.

    Args:
        prior: the recipe's.
        beside: the priors that terms of guidance name for themselves; None builds them here.

    Raises:
        StudioError: a prior cannot serve its method or the stage's cameras, or cannot be had; a package that
            the renderer is to draw with cannot run here.
    """
    for stage in recipe.stages:
        _refuse_absent_packages(stage.renderer, build_device(recipe))
    if beside is None:
        chosen = priors_beside(recipe, build_device(recipe))
        beside = {config: other.prior for config, other in chosen.items()}
    priors = {**beside, recipe.prior: prior}
    return tuple(_build_stage(stage, recipe, priors) for stage in recipe.stages)


def build_renderer(config: RendererConfig, footprints: bool = False) -> Renderer[Any]:
    """What draws a stage's kind of scene; with ``footprints``, and shows topology what it watches."""
    match config:
        case SplattingConfig():
            return SplatRenderer(config.backend, config.antialias, footprints)
        case RasterConfig():
            light = studio_light() if config.light == "studio" else Light()
            return RasterRenderer(config.supersample, light, config.backend)
        case VolumeConfig():
            return VolumeRenderer(config.step, config.normals, config.backend, config.network)
        case CutoutConfig():
            return CutoutRenderer()
        case _:
            assert_never(config)


def _refuse_absent_packages(config: RendererConfig, device: torch.device) -> None:
    """Refuse what the first drawing would refuse."""
    chosen = {getattr(config, option, "auto") for option in ("backend", "network")}
    for package in optional.PACKAGES:
        if package.name in chosen:
            package.insist(device)


def _build_stage(stage: Stage, recipe: Recipe, priors: Mapping[PriorConfig, Prior]) -> BuiltStage:
    for term in stage.guidance:
        if isinstance(term.method, PictureGuidanceConfig):
            continue
        for config in (term.prior or recipe.prior, term.views_prior):
            if config is not None:
                _refuse_unservable_views(*stage.looks(term), priors[config])
    topology = build_topology(stage.topology)
    return BuiltStage(
        config=stage,
        views=_build_views(stage),
        renderer=build_renderer(stage.renderer, footprints=topology.watches),
        terms=tuple(
            _build_term(index, term, stage, recipe, priors) for index, term in enumerate(stage.guidance)
        ),
        topology=topology,
        depth_confidence=depth_confidence(recipe) if isinstance(stage.scene, DeformableConfig) else None,
    )


def _build_term(
    index: int, term: GuidanceTerm, stage: Stage, recipe: Recipe, priors: Mapping[PriorConfig, Prior]
) -> BuiltTerm:
    config = term.prior or recipe.prior
    prior = priors[config]
    name = term.method.kind if index == 0 else f"{term.method.kind}_{index}"
    if isinstance(term.method, PictureGuidanceConfig):
        target = build_target(term.method.target, recipe.prompt, prior)
        guidance: Guidance = (
            PixelGuidance(target, term.method)
            if isinstance(term.method, PixelsConfig)
            else MeshContrast(target, term.method)
        )
        return BuiltTerm(name, term.weight, guidance, views_alone, term.share)
    second = None if term.views_prior is None else priors[term.views_prior]
    told = told_in(recipe, term.method, config, prior, second)
    if descends_through_prior(term.method) and isinstance(prior, LatentPrior | VideoPrior):
        prior = replace(prior, differentiable=True)
    method = build_guidance(term.method, prior, second)
    return BuiltTerm(name, term.weight, method, told, term.share, prior)


def _build_views(stage: Stage) -> dict[int | None, Views]:
    def views(term: GuidanceTerm | None) -> Views:
        cameras, instants = stage.looks(term)
        return Views(build_cameras(cameras, stage.resolution_at(1.0)), instants)

    elsewhere: dict[int | None, Views] = {
        place: views(term) for place, term in enumerate(stage.guidance) if term.looks_elsewhere
    }
    return elsewhere if len(elsewhere) == len(stage.guidance) else {None: views(None), **elsewhere}


def _refuse_unservable_views(cameras: CamerasConfig, instants: InstantsConfig | None, prior: Prior) -> None:
    """A multi-view prior sees whole sets of views; one of clips, whole clips."""
    limits = limits_of(prior)
    views = cameras.views if isinstance(cameras, MultiViewConfig | AlignedConfig) else 1
    frames = instants.count if isinstance(instants, ClipConfig) else 1
    if limits.views > 1 and (limits.views, 1) != (views, frames):
        raise StudioError(
            f"The prior sees {limits.views} views of the asset at once and is shown those of cameras of kind "
            f"{cameras.kind!r}; use cameras.kind = 'multi_view' with views = {limits.views}, and no clips."
        )
    if limits.frames > 1 and limits.frames != frames:
        raise StudioError(
            f"The prior sees clips of {limits.frames} frames and is shown "
            f"{'none' if frames == 1 else frames}; use instants.kind = 'clip' with count = {limits.frames}."
        )
