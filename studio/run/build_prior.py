"""From a recipe to the diffusion models that it asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from typing_extensions import assert_never

from studio.clipart.gestures import gestures_in
from studio.errors import StudioError
from studio.interfaces import Prior
from studio.priors import weights
from studio.priors.catalogue import Catalogue
from studio.priors.clips import ClipPrior
from studio.priors.latent import Options, load_latent_prior
from studio.priors.library import LibraryPrior
from studio.priors.motions import motion_named
from studio.priors.nobody import NoPrior
from studio.priors.video import VideoOptions, load_video_prior
from studio.prompts import clean_prompt
from studio.recipes.config import (
    AutoPriorConfig,
    ClipartConfig,
    ClipConfig,
    ClipPriorConfig,
    LatentPriorConfig,
    LibraryPriorConfig,
    NoPriorConfig,
    PriorConfig,
    Recipe,
    SmallPriorConfig,
    VideoPriorConfig,
)
from studio.resources import assets_folder
from studio.run.conditioning import debiased
from studio.scenes.clipart import puppet_of


@dataclass(frozen=True)
class ChosenPrior:
    """A prior, and in words which one it is and why.

    Attributes:
        beside: the priors that terms of guidance name for themselves.
    """

    prior: Prior
    reason: str
    beside: Mapping[PriorConfig, Prior] = field(default_factory=dict)


def build_prior(recipe: Recipe, device: torch.device) -> ChosenPrior:
    """The prior that the recipe asks for, and those that its terms of guidance name for themselves.

    Raises:
        StudioError: weights or models are missing or damaged, or the prompt names nothing that it knows.
    """
    chosen, others = _build_prior(recipe.prior, recipe, device), priors_beside(recipe, device)
    reason = "; beside it ".join([chosen.reason, *(other.reason for other in others.values())])
    if (told := debiased(recipe)) is not None:
        prompt = clean_prompt(recipe.prompt)
        fewer = [f"the {view.value} is told {text!r}" for view, text in told.items() if text != prompt]
        reason = f"{reason}; of the prompt, {', '.join(fewer) or 'every view is told every word'}"
    return ChosenPrior(chosen.prior, reason, {config: other.prior for config, other in others.items()})


def priors_beside(recipe: Recipe, device: torch.device) -> dict[PriorConfig, ChosenPrior]:
    """Each prior that some term names and the recipe does not, once."""
    terms = [term for stage in recipe.stages for term in stage.guidance]
    named = dict.fromkeys(config for term in terms for config in (term.prior, term.views_prior))
    return {
        config: _build_prior(config, recipe, device)
        for config in named
        if config is not None and config != recipe.prior
    }


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
            return ChosenPrior(prior, f"the diffusion model {_with_licence(config.source)}")
        case VideoPriorConfig():
            video = load_video_prior(config.source, _video_options(config, recipe), device)
            return ChosenPrior(video, f"the video diffusion model {_with_licence(config.source)}")
        case ClipPriorConfig():
            return _clips(config, recipe)
        case NoPriorConfig():
            return ChosenPrior(NoPrior(), "none: the guidance asks no diffusion model")
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
        motions=[motion_named(name) for name in config.motions],
    )
    prior.load_models(recipe.prompt)
    named = [catalogue.entries[index].id for index in prior.match(recipe.prompt).members]
    where = "that ship with the studio" if config.folder is None else f"in {config.folder}"
    shown = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    moves = f", which {' or '.join(config.motions)}" if config.motions else ""
    return ChosenPrior(
        prior, f"the exact prior: of the {len(catalogue)} models {where} the prompt names {shown}{moves}"
    )


def _clips(config: ClipPriorConfig, recipe: Recipe) -> ChosenPrior:
    """Clips of the drawing that the recipe moves."""
    stage = recipe.stages[-1]
    if not isinstance(stage.scene, ClipartConfig) or not isinstance(stage.instants, ClipConfig):
        raise StudioError(
            "The exact motion prior knows clips of clipart and the last scene is of kind "
            f"{stage.scene.kind!r}; expected scene.kind = 'clipart' and instants.kind = 'clip', or "
            "prior.kind = 'library'."
        )
    puppet = puppet_of(stage.scene)
    prior = ClipPrior(puppet, stage.instants.count, stage.resolution_at(1.0), config.std, config.reach)
    meant = ", ".join(gesture.name for gesture in gestures_in(clean_prompt(recipe.prompt)))
    return ChosenPrior(prior, f"the exact motion prior: of its gestures the prompt names {meant}")


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


def _with_licence(source: str) -> str:
    """A model's name, and under which licence it is published where that is known."""
    entry = weights.known(source)
    return source if entry is None else f"{source} (licence: {entry.licence})"


def _video_options(config: VideoPriorConfig, recipe: Recipe) -> VideoOptions:
    """The clips are those of the terms that ask the prior.

    Raises:
        StudioError: they show it no clips, or clips of several lengths.
    """
    instants = [
        stage.looks(term)[1]
        for stage in recipe.stages
        for term in stage.guidance
        if config in (term.prior or recipe.prior, term.views_prior)
    ]
    lengths = {each.count if isinstance(each, ClipConfig) else 1 for each in instants}
    if len(lengths) != 1 or lengths == {1}:
        raise StudioError(
            "A video prior sees clips of one length, and the terms of guidance that ask it show "
            f"{' and '.join(map(str, sorted(lengths)))} frames; expected a scene that moves with "
            "instants.kind = 'clip', of the same count in each."
        )
    return VideoOptions(
        pictures=lengths.pop(),
        there_and_back=config.there_and_back,
        revision=config.revision,
        motion_adapter=config.motion_adapter,
        image_size=config.image_size,
        frames_at_once=config.frames_at_once,
        dtype=_dtype(config.precision),
    )


def _dtype(precision: str) -> torch.dtype | None:
    return None if precision == "auto" else getattr(torch, precision)


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
        dtype=_dtype(config.precision),
    )


def small_prior_folder() -> Path:
    """Where the learned prior that ships with the studio is."""
    return assets_folder() / "prior" / "small"
