"""Runs that follow pictures which are known: a model in motion, a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from studio.cameras import filmed, frame_times, orbit
from studio.errors import StudioError
from studio.export.pictures import write_mp4
from studio.priors.library import LibraryPrior
from studio.recipes.config import Recipe
from studio.recipes.guidance import TruthTarget
from studio.run.build import build_stages
from studio.run.build_prior import build_prior
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.run.targets import build_target
from tests.run.test_moving_run import moving_recipe
from tests.run.tiny import tiny_recipe

CPU = torch.device("cpu")
TRUTH = "stages.0.guidance=[{ method = { kind = 'pixels', target = { kind = 'truth' } } }]"


def test_a_model_in_motion_is_known_from_every_side(models: Path) -> None:
    recipe = moving_recipe(models, TRUTH)
    prior = build_prior(recipe, CPU).prior
    assert isinstance(prior, LibraryPrior)
    target = build_target(TruthTarget(), recipe.prompt, prior)
    cameras = filmed(orbit(torch.tensor([0.0, 100.0]), torch.tensor([0.0, 20.0]), 16, 16), frame_times(3))
    grey = torch.full((len(cameras), 3), 0.3)
    truth = prior.true_renderings(recipe.prompt, cameras, grey)[0]
    assert torch.equal(target(cameras, grey), truth) and bool(target.knows(cameras).all())


def test_a_run_towards_the_truth_asks_no_denoiser_and_comes_nearer(models: Path) -> None:
    recipe = moving_recipe(models, TRUTH, "stages.0.steps=20", "stages.0.background={ kind = 'fixed' }")
    reports = list(
        optimize(recipe, build_stages(recipe, build_prior(recipe, CPU).prior), initial_state(recipe, CPU))
    )
    losses = [report.losses["pixels"] for report in reports]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert all(report.statistics["denoiser_calls"] == 0 for report in reports)
    assert all(report.statistics["pixels_known"] == 1 for report in reports)


def test_without_a_prior_there_is_nothing_to_ask(models: Path, tmp_path: Path) -> None:
    def recipe(*lines: str) -> Recipe:
        return tiny_recipe(models, "prior={ kind = 'none' }", *lines)

    with pytest.raises(StudioError, match="the method sds asks one"):
        recipe()
    with pytest.raises(StudioError, match=r"expected prior\.kind = 'library'"):
        build_stages(recipe(TRUTH), build_prior(recipe(TRUTH), CPU).prior)
    path = tmp_path / "film.mp4"
    write_mp4(np.zeros((3, 16, 16, 3), np.uint8), path, 8.0)
    film = recipe(TRUTH.replace("'truth'", f"'video', path = '{path}'"))
    report = next(optimize(film, build_stages(film, build_prior(film, CPU).prior), initial_state(film, CPU)))
    assert report.statistics["pixels_known"] == 0, "no view of this stage is from the front"
    assert report.losses["pixels"] == 0
