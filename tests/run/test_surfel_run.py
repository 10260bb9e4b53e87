"""Surfels through the loop: a stage of ellipsoids goes on as surfels, and resumes bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.run.checkpoint import load, save
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.scenes.gaussians import Gaussians
from tests.run.test_optimize import built
from tests.run.tiny import tiny_recipe

CPU = torch.device("cpu")


def test_ellipsoids_go_on_as_surfels(models: Path, tmp_path: Path) -> None:
    lines = (
        "stages.0.steps=3",
        "stages.0.regularizers={ normal_consistency = 0.1 }",
        "stages.0.topology={ kind = 'relocate', every = 2, start_at = 0.0, noise = 1.0 }",
    )
    recipe = tiny_recipe(models, *lines)
    flat = replace(recipe.stages[0], scene=replace(recipe.stages[0].scene, shape="surfels"))
    recipe = replace(recipe, stages=(recipe.stages[0], flat))
    whole, first = initial_state(recipe, CPU), initial_state(recipe, CPU)
    reports = list(optimize(recipe, built(recipe), whole))
    assert len(reports) == 6 and "normal_consistency" in reports[0].losses
    (particle,) = whole.particles
    assert isinstance(particle.scene, Gaussians) and not particle.scene.at().scales[:, 2].any()

    for report in optimize(recipe, built(recipe), first):
        if report.step == 5:
            break
    second = load(save(first, tmp_path / "half"), recipe, CPU)
    list(optimize(recipe, built(recipe), second))
    paths = [save(state, tmp_path / name) for state, name in ((whole, "whole"), (second, "resumed"))]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_consistency_without_normals_is_refused(models: Path) -> None:
    with pytest.raises(StudioError, match=r"gsplat backend does not draw.*renderer.backend = 'auto'"):
        tiny_recipe(
            models, "stages.0.regularizers.normal_consistency=0.1", "stages.0.renderer.backend='gsplat'"
        )
