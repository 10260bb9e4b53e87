"""From a recipe to the objects that run it: one ``match`` a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from typing_extensions import assert_never

from studio.cameras import build_cameras
from studio.errors import StudioError
from studio.guidance.identity import with_identity
from studio.guidance.methods import (
    asks_critic,
    build_guidance,
    descends_through_prior,
    negative_prompts,
)
from studio.guidance.refusals import limits_of
from studio.interfaces import CameraSampler, Guidance, Prior, Renderer
from studio.ops.surfaces import Light
from studio.priors import weights
from studio.priors.catalogue import Catalogue
from studio.priors.debiasing import debiased_prompts
from studio.priors.latent import LatentPrior, Options, load_latent_prior
from studio.priors.library import LibraryPrior
from studio.prompts import Direction, ViewPrompts, clean_prompt
from studio.recipes.config import (
    AutoPriorConfig,
    GuidanceTerm,
    LatentPriorConfig,
    LibraryPriorConfig,
    MultiViewConfig,
    PriorConfig,
    RasterConfig,
    Recipe,
    RendererConfig,
    SmallPriorConfig,
    SplattingConfig,
    Stage,
    VolumeConfig,
)
from studio.recipes.guidance import VpcsmConfig
from studio.recipes.ramps import Ramp
from studio.renderers.meshes import RasterRenderer
from studio.renderers.raster import studio_light
from studio.renderers.splatting import SplatRenderer
from studio.renderers.volume import VolumeRenderer
from studio.resources import assets_folder
from studio.run.controls import load_landmarks, with_control
from studio.scenes.topology import Topology, build_topology
from studio.types import Cameras, Conditioning


@dataclass(frozen=True)
class ChosenPrior:
    """A prior, and in words which one it is and why.

    Attributes:
        beside: the priors that terms of guidance name for themselves.
    """

    prior: Prior
    reason: str
    beside: Mapping[PriorConfig, Prior] = field(default_factory=dict)


@dataclass(frozen=True)
class BuiltTerm:
    """One guidance method of a stage.

    Attributes:
        name: of its loss.
        weight: factor of its loss.
        guidance: the method, asking the prior.
        conditioning: the branches for a batch of cameras over given background colours.
        share: odds of the term among those that have a share; None counts in every step.
    """

    name: str
    weight: Ramp
    guidance: Guidance
    conditioning: Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning]
    share: Ramp | None = None


@dataclass(frozen=True)
class BuiltStage:
    """A stage's recipe and what it says, built. The scene is not here: it goes on from stage to stage."""

    config: Stage
    cameras: CameraSampler
    renderer: Renderer[Any]
    terms: tuple[BuiltTerm, ...]
    topology: Topology


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
        StudioError: a prior cannot serve its method or the stage's cameras, or cannot be had.
    """
    if beside is None:
        chosen = _priors_beside(recipe, build_device(recipe))
        beside = {config: other.prior for config, other in chosen.items()}
    priors = {**beside, recipe.prior: prior}
    return tuple(_build_stage(stage, recipe, priors) for stage in recipe.stages)


def build_prior(recipe: Recipe, device: torch.device) -> ChosenPrior:
    """The prior that the recipe asks for, and those that its terms of guidance name for themselves.

    Raises:
        StudioError: weights or models are missing or damaged, or the prompt names nothing that it knows.
    """
    chosen, others = _build_prior(recipe.prior, recipe, device), _priors_beside(recipe, device)
    reason = "; beside it ".join([chosen.reason, *(other.reason for other in others.values())])
    if (told := _debiased(recipe)) is not None:
        prompt = clean_prompt(recipe.prompt)
        fewer = [f"the {view.value} is told {text!r}" for view, text in told.items() if text != prompt]
        reason = f"{reason}; of the prompt, {', '.join(fewer) or 'every view is told every word'}"
    return ChosenPrior(chosen.prior, reason, {config: other.prior for config, other in others.items()})


def _priors_beside(recipe: Recipe, device: torch.device) -> dict[PriorConfig, ChosenPrior]:
    """Each prior that some term names and the recipe does not, once."""
    terms = [term for stage in recipe.stages for term in stage.guidance]
    named = dict.fromkeys(config for term in terms for config in (term.prior, term.views_prior))
    return {
        config: _build_prior(config, recipe, device)
        for config in named
        if config is not None and config != recipe.prior
    }


def build_renderer(config: RendererConfig, footprints: bool = False) -> Renderer[Any]:
    """What draws a stage's kind of scene; with ``footprints``, and shows topology what it watches."""
    match config:
        case SplattingConfig():
            return SplatRenderer(config.backend, config.antialias, footprints)
        case RasterConfig():
            light = studio_light() if config.light == "studio" else Light()
            return RasterRenderer(config.supersample, light)
        case VolumeConfig():
            return VolumeRenderer(config.step, config.normals)
        case _:
            assert_never(config)


def _build_stage(stage: Stage, recipe: Recipe, priors: Mapping[PriorConfig, Prior]) -> BuiltStage:
    for term in stage.guidance:
        for config in (term.prior or recipe.prior, term.views_prior):
            if config is not None:
                _refuse_unservable_views(stage, priors[config])
    topology = build_topology(stage.topology)
    return BuiltStage(
        config=stage,
        cameras=build_cameras(stage.cameras, stage.resolution_at(1.0)),
        renderer=build_renderer(stage.renderer, footprints=topology.watches),
        terms=tuple(_build_term(index, term, recipe, priors) for index, term in enumerate(stage.guidance)),
        topology=topology,
    )


def _build_term(
    index: int, term: GuidanceTerm, recipe: Recipe, priors: Mapping[PriorConfig, Prior]
) -> BuiltTerm:
    config = term.prior or recipe.prior
    prior = priors[config]
    _refuse_unshown_image(term, config, prior)
    prompts = ViewPrompts(
        prior,
        recipe.prompt,
        negatives=negative_prompts(term.method),
        null_prompt=recipe.negative_prompt,
        turned_null_prompt=recipe.turned_negative_prompt,
        view_words=recipe.view_words,
        camera=recipe.tell_camera,
        threshold_deg=recipe.view_threshold_deg,
        perp_neg=term.method.scores.perp_neg != 0.0,
        plain=asks_critic(term.method),
        blend=recipe.view_blend,
        by_view=_debiased(recipe),
    )
    if descends_through_prior(term.method) and isinstance(prior, LatentPrior):
        prior = replace(prior, differentiable=True)
    name = term.method.kind if index == 0 else f"{term.method.kind}_{index}"
    conditioning = _with_face(prompts, config, prior)
    conditioning = _with_control(conditioning, config, prior)
    conditioning = _with_image(conditioning, config, prior)
    second = None if term.views_prior is None else priors[term.views_prior]
    if second is not None:
        conditioning = _with_second(conditioning, recipe, second)
    return BuiltTerm(name, term.weight, build_guidance(term.method, prior, second), conditioning, term.share)


def _with_second(
    prompts: Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning], recipe: Recipe, prior: Prior
) -> Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning]:
    """The same branches, with those that a second prior of several views understands beside them."""
    seen = ViewPrompts(
        prior,
        recipe.prompt,
        null_prompt=recipe.negative_prompt,
        turned_null_prompt=recipe.turned_negative_prompt,
        view_words=recipe.view_words,
        threshold_deg=recipe.view_threshold_deg,
        blend=recipe.view_blend,
        by_view=_debiased(recipe),
    )

    def conditioning(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
        return replace(prompts(cameras, background), second=seen(cameras, background))

    return conditioning


def _debiased(recipe: Recipe) -> Mapping[Direction, str] | None:
    """What of the prompt each view is told, where the recipe wants words dropped."""
    if recipe.prompt_debiasing is None:
        return None
    return debiased_prompts(recipe.prompt_debiasing, clean_prompt(recipe.prompt))


def _build_prior(config: PriorConfig, recipe: Recipe, device: torch.device) -> ChosenPrior:
    match config:
        case LibraryPriorConfig():
            return _library(config, recipe)
        case SmallPriorConfig():
            folder = small_prior_folder()
            if not (folder / "model_index.json").is_file():
                raise StudioError(
                    f"The learned prior is not in {folder}; use prior.kind = 'library', or train it with "
                    "'studio prior train'."
                )
            return ChosenPrior(
                load_latent_prior(str(folder), device), "the learned prior that ships with the studio"
            )
        case LatentPriorConfig():
            prior = load_latent_prior(config.source, device, _options(config))
            return ChosenPrior(prior, f"the diffusion model {config.source}")
        case AutoPriorConfig():
            return _best(recipe, device)
        case _:
            assert_never(config)


def _library(config: LibraryPriorConfig, recipe: Recipe) -> ChosenPrior:
    catalogue = Catalogue.load() if config.folder is None else Catalogue.from_folder(Path(config.folder))
    prior = LibraryPrior(
        catalogue,
        resolution=recipe.stages[-1].resolution_at(1.0),
        camera=config.camera,
        null=config.null,
        std=config.std,
    )
    prior.load_models(recipe.prompt)
    named = [catalogue.entries[index].id for index in prior.match(recipe.prompt).members]
    where = "that ship with the studio" if config.folder is None else f"in {config.folder}"
    shown = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    return ChosenPrior(
        prior, f"the exact prior: of the {len(catalogue)} models {where} the prompt names {shown}"
    )


def _best(recipe: Recipe, device: torch.device) -> ChosenPrior:
    """A downloaded diffusion model where there is a GPU to run it, else the exact prior."""
    if device.type != "cuda":
        why_not = "there is no GPU for a diffusion model"
    elif (source := _downloaded_model()) is not None:
        chosen = _build_prior(LatentPriorConfig(source=source), recipe, device)
        return ChosenPrior(chosen.prior, f"{chosen.reason}: there is a GPU, and the model is on this machine")
    else:
        why_not = f"of the diffusion models {', '.join(weights.AUTOMATIC)} none is on this machine"
    chosen = _library(LibraryPriorConfig(), recipe)
    return ChosenPrior(chosen.prior, f"{chosen.reason} ({why_not})")


def _downloaded_model() -> str | None:
    """The first of the models for ``auto`` that the hub's cache holds whole."""
    folders = ((model, weights.cached(model)) for model in weights.AUTOMATIC)
    return next(
        (model for model, folder in folders if folder is not None and not weights.missing_file(folder)), None
    )


def _options(config: LatentPriorConfig) -> Options:
    return Options(
        revision=config.revision,
        image_size=config.image_size,
        autoencoder=config.autoencoder,
        controls=config.controls,
        control_scale=config.control_scale,
        image_prompt=config.image_prompt,
        image_within_deg=config.face_within_deg,
        identity=config.identity,
        style=config.style,
        style_scale=config.style_scale,
        negative_attention=config.negative_attention,
        negative_attention_scale=config.negative_attention_scale,
        reference_elevation_deg=config.image_elevation_deg,
        embedded_guidance=config.embedded_guidance,
        dtype=None if config.precision == "auto" else getattr(torch, config.precision),
    )


def _refuse_unservable_views(stage: Stage, prior: Prior) -> None:
    """A multi-view prior sees whole sets of views."""
    views = limits_of(prior).views
    if views > 1 and not (isinstance(stage.cameras, MultiViewConfig) and stage.cameras.views == views):
        raise StudioError(
            f"The prior sees {views} views of the asset at once and the stage's cameras are "
            f"{stage.cameras.kind!r}; use cameras.kind = 'multi_view' with views = {views}."
        )


def _with_control(
    prompts: Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning], config: PriorConfig, prior: Prior
) -> Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning]:
    """The same branches, the ControlNets shown the recipe's points from each camera."""
    if not isinstance(config, LatentPriorConfig) or not limits_of(prior).needs_control:
        return prompts
    if config.control_points is None:
        raise StudioError(
            "prior.controls names ControlNets and the recipe has no pictures for them; expected "
            "prior.control_points = 'POINTS.ply', or leave out prior.controls."
        )
    landmarks = load_landmarks(
        Path(config.control_points), config.control_point_radius, config.face_within_deg
    )

    def conditioning(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
        return with_control(prompts(cameras, background), landmarks(cameras).to(background))

    return conditioning


def _with_image(
    prompts: Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning], config: PriorConfig, prior: Prior
) -> Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning]:
    """The same branches, the recipe's image shown with the prompt; the null branch sees none."""
    path = config.image if isinstance(config, LatentPriorConfig) else None
    if path is None:
        if limits_of(prior).needs_image:
            raise StudioError(
                "The prior shows an object from a reference image and the recipe has none; expected "
                "prior.image = 'PICTURE.png'."
            )
        return prompts
    picture = _square_picture(Path(path))

    def conditioning(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
        image = picture.to(background.device).expand(len(cameras), *picture.shape[1:])
        branches = prompts(cameras, background)
        plain = None if branches.plain is None else replace(branches.plain, image=image)
        return replace(branches, positive=replace(branches.positive, image=image), plain=plain)

    return conditioning


def _refuse_unshown_image(term: GuidanceTerm, config: PriorConfig, prior: Prior) -> None:
    """A method that compares the prompt with and without an image wants one to be seen."""
    if not isinstance(term.method, VpcsmConfig):
        return
    shown = None
    if isinstance(config, LatentPriorConfig) and (config.image_prompt or limits_of(prior).needs_image):
        shown = config.image
    if shown is None:
        raise StudioError(
            f"{term.method.kind} compares the prompt with and without an image, and the prior is shown none; "
            "expected prior.image_prompt and prior.image, or use csm, which is the same without an image."
        )


def _with_face(
    prompts: Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning], config: PriorConfig, prior: Prior
) -> Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning]:
    """The same branches, the recipe's identity told to views that show the face."""
    if not isinstance(config, LatentPriorConfig) or not isinstance(prior, LatentPrior):
        return prompts
    told, within_deg = prior.identity, config.face_within_deg
    if told is None:
        return prompts

    def conditioning(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
        return with_identity(prompts(cameras, background), told.identity, told.nobody, within_deg)

    return conditioning


def _square_picture(path: Path) -> Float[Tensor, "1 3 s s"]:
    """A picture in 0-1 over white, padded to a square."""
    try:
        with Image.open(path) as file:
            drawn = file.convert("RGBA")
    except (OSError, ValueError) as error:
        raise StudioError(
            f"prior.image is {path}, expected a picture such as a PNG ({str(error).splitlines()[0]})."
        ) from error
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    pixels = torch.from_numpy(np.asarray(square.convert("RGB"), dtype=np.float32) / 255)
    return pixels.movedim(-1, 0)[None]


def small_prior_folder() -> Path:
    """Where the learned prior that ships with the studio is."""
    return assets_folder() / "prior" / "small"
