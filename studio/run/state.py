"""All that changes while a run goes on: its scenes, their optimisers, and what else the loop remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from studio.randomness import generator
from studio.recipes.config import Recipe
from studio.run.watchdogs import Alarms
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene, device_of, initial_scene, scene_from_state
from studio.scenes.topology import TopologyState

ADAM_BETAS = (0.9, 0.99)
ADAM_EPSILON = 1e-15  # Gradients of single splats are tiny; the usual 1e-8 would hold them back.


@dataclass
class Particle:
    """One of the scenes that a run optimises side by side, and what is its alone.

    Attributes:
        scene: what is optimised.
        optimizer: Adam, one group for each of the scene's tensors.
        statistics: what topology has seen.
    """

    scene: AnyScene
    optimizer: torch.optim.Adam
    statistics: TopologyState

    @staticmethod
    def beginning(scene: AnyScene) -> Particle:
        """A scene with fresh moments and statistics."""
        watched = len(scene) if isinstance(scene, Gaussians) else 0
        return Particle(scene, adam(scene), TopologyState.empty(watched, device_of(scene)))


@dataclass
class LoopState:
    """All that changes while the loop runs: with the recipe, enough to go on.

    Attributes:
        step: steps done, over all stages.
        stage: index of the stage that the optimisers belong to.
        particles: as many scenes as the recipe asks for.
        alarms: what the watchdogs remember.
        learned: what the stage's guidance has learned: the guidance's own tensors, as they are now.
        distances: of the stage's aligned cameras, by name; found when it begins.
    """

    step: int
    stage: int
    particles: tuple[Particle, ...]
    alarms: Alarms
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)


def initial_state(recipe: Recipe, device: torch.device) -> LoopState:
    """The state before the first step.

    Raises:
        StudioError: the file that the scene starts from cannot be read.
    """
    config = recipe.stages[0].scene

    def begin(index: int) -> Particle:
        scene = initial_scene(config, generator(recipe.seed, "initialise", index))
        on_device = {name: tensor.to(device) for name, tensor in scene.state().items()}
        return Particle.beginning(scene_from_state(on_device, config))

    return LoopState(0, 0, tuple(begin(index) for index in range(recipe.particles)), Alarms())


def adam(scene: AnyScene) -> torch.optim.Adam:
    """A fresh optimiser for a scene's tensors."""
    groups = [
        {"name": group.name, "params": [group.parameter], "lr": group.learning_rate}
        for group in scene.parameter_groups()
    ]
    return torch.optim.Adam(groups, betas=ADAM_BETAS, eps=ADAM_EPSILON, fused=True)
