"""A run small enough for tests: a real prior of two meshes, a real loop, sixteen pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from studio.recipes.config import Recipe
from studio.recipes.load import load
from studio.run.build import BuiltStage
from studio.run.checkpoint import load as load_state
from studio.run.checkpoint import save
from studio.run.optimize import optimize
from studio.run.state import LoopState, initial_state

CPU = torch.device("cpu")

OVERRIDES = (
    "stages.0.steps=30",
    "stages.0.resolution=16",
    "stages.0.scene.initial={ kind = 'ball', count = 60 }",
    "stages.0.cameras={ kind = 'fixed_set', count = 4, views_per_step = 2 }",
    "stages.0.topology={ kind = 'relocate', every = 7, growth = 0.2, noise = 100.0 }",
    "checkpoint_every=10",
    "preview_every=10",
    "log_every=5",
)


def tiny_recipe(models: Path, *overrides: str) -> Recipe:
    """A recipe over a folder of models, with more lines changed."""
    return load(
        "default",
        "a red cube",
        [f"prior={{ kind = 'library', folder = '{models}' }}", *OVERRIDES, *overrides],
    )


def resumed(
    recipe: Recipe, built: Callable[[Recipe], tuple[BuiltStage, ...]], stop_at: int, folder: Path
) -> LoopState:
    """The state after all steps, saved after ``stop_at`` of them and loaded into a loop built anew."""
    first = initial_state(recipe, CPU)
    for report in optimize(recipe, built(recipe), first):
        if report.step == stop_at:
            break
    second = load_state(save(first, folder), recipe, CPU)
    assert second.step == stop_at
    for _ in optimize(recipe, built(recipe), second):
        pass
    return second


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are the same, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
