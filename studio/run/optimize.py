"""The loop: a generator of step reports. Whoever iterates it decides what is kept; closing it stops it.

Nothing here is drawn from a global source of randomness: each draw is named by (seed, purpose, step), so the
loop goes on from a saved ``LoopState`` exactly as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from studio.errors import StudioError
from studio.interfaces import Renderer
from studio.randomness import generator
from studio.recipes.config import Recipe
from studio.reports import StepReport
from studio.run.align import at_distances, found_distances
from studio.run.build import BuiltStage
from studio.run.handover import handed_over
from studio.run.state import LoopState, Particle
from studio.run.step import take_step


def optimize(recipe: Recipe, stages: Sequence[BuiltStage], state: LoopState) -> Iterator[StepReport]:
    """Take the steps that are left, one a report. ``state`` is up to date whenever a report is out.

    Raises:
        StudioError: the watchdogs see no hope; the message names the key to change.
    """
    if state.step < recipe.total_steps:
        load_learned(stages[state.stage], state)
    while state.step < recipe.total_steps:
        index, stage_step = locate(recipe, state.step)
        if index != state.stage:
            _begin_stage(recipe, index, stages[state.stage].renderer, state)
            load_learned(stages[index], state)
        if stage_step == 0:
            scene = state.particles[0].scene
            state.distances = found_distances(stages[index], scene, generator(recipe.seed, "align", index))
        stage = at_distances(stages[index], state.distances)
        yield take_step(recipe, index, stage, stage_step, state)
        if state.alarms.hopeless:
            raise StudioError(state.alarms.hopeless)


def locate(recipe: Recipe, step: int) -> tuple[int, int]:
    """The stage that comes after ``step`` steps, and how many of its steps are done."""
    for index, stage in enumerate(recipe.stages):
        if step < stage.steps:
            return index, step
        step -= stage.steps
    return len(recipe.stages) - 1, recipe.stages[-1].steps


def _begin_stage(recipe: Recipe, index: int, renderer: Renderer[Any], state: LoopState) -> None:
    """Hand the scenes over to the next stage: new learning rates, fresh moments and statistics."""
    config = recipe.stages[index].scene
    scenes = [
        handed_over(particle.scene, renderer, config, generator(recipe.seed, f"motion {number}", index))
        for number, particle in enumerate(state.particles)
    ]
    state.stage, state.particles = index, tuple(Particle.beginning(scene) for scene in scenes)
    state.learned = {}


def load_learned(stage: BuiltStage, state: LoopState) -> None:
    """Let a stage's guidance go on from what the state says that it has learned."""
    for term in stage.terms:
        prefix = f"{term.name}/"
        own = {name: tensor for name, tensor in state.learned.items() if name.startswith(prefix)}
        term.guidance.load_state({name.removeprefix(prefix): tensor for name, tensor in own.items()})
