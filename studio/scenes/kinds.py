"""Every kind of scene: how it begins, how it is read from a checkpoint, how a stage hands it to the next."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import assert_never

from studio.recipes.config import GaussiansConfig, SceneConfig
from studio.scenes.gaussians import Gaussians
from studio.scenes.initialise import initial_gaussians

AnyScene = Gaussians


def initial_scene(config: SceneConfig, rng: torch.Generator) -> AnyScene:
    """The scene that a recipe starts from.

    Raises:
        StudioError: a file that it starts from cannot be read.
    """
    match config:
        case GaussiansConfig():
            return initial_gaussians(config, rng)
        case _:
            assert_never(config)


def scene_from_state(state: Mapping[str, Tensor], config: SceneConfig) -> AnyScene:
    """The scene that ``state`` was taken of.

    Raises:
        StudioError: tensors are missing, or of another kind of scene.
    """
    match config:
        case GaussiansConfig():
            return Gaussians.from_state(state, config)
        case _:
            assert_never(config)


def handed_over(scene: AnyScene, config: SceneConfig) -> AnyScene:
    """A stage's finished scene as the one that the next stage begins with."""
    match config:
        case GaussiansConfig():
            successor = Gaussians.from_state(scene.state(), config)
            successor.match_sh_degree()
            return successor
        case _:
            assert_never(config)
