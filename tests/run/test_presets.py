"""Every preset builds and takes two steps, with a small library in the place of its prior."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from studio.interfaces import Guidance
from studio.recipes.load import load, preset_names
from studio.run.build import build_prior, build_stages
from studio.run.optimize import initial_state, optimize


def asks_one_prior(preset: str) -> bool:
    """Others want two diffusion models: ``test_build_diffusion.py`` has them."""
    terms = [term for stage in load(preset).stages for term in stage.guidance]
    return all(term.prior is None and term.views_prior is None for term in terms)


@pytest.mark.parametrize("preset", filter(asks_one_prior, preset_names()))
def test_presets_take_two_steps(preset: str, models: Path) -> None:
    recipe = load(
        preset,
        "a red cube",
        [
            "prior.kind=library",
            f"prior.folder='{models}'",
            "stages.0.steps=2",
            "stages.0.resolution=16",
            "stages.0.scene.initial={ kind = 'ball', count = 40 }",
        ],
    )
    cpu = torch.device("cpu")
    stages = build_stages(recipe, build_prior(recipe, cpu).prior)
    assert all(isinstance(term.guidance, Guidance) for stage in stages for term in stage.terms)
    state = initial_state(recipe, cpu)
    before = state.particles[0].scene.tensors.means.detach().clone()
    reports = list(optimize(recipe, stages, state))
    assert len(reports) == 2
    assert not torch.equal(state.particles[0].scene.tensors.means, before)
    assert all(tensor.isfinite().all() for tensor in state.particles[0].scene.state().values())
