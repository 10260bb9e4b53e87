"""Every kind of scene: how it begins, how it is read from a checkpoint, how a stage hands it to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.interfaces import Scene
from studio.recipes.config import (
    ClipartConfig,
    DeformableConfig,
    FieldConfig,
    GaussiansConfig,
    SceneConfig,
    SurfaceConfig,
    TexturedMeshConfig,
)
from studio.scenes.clipart import Clipart
from studio.scenes.deformation import Deformable, shape_state
from studio.scenes.field import RadianceField
from studio.scenes.gaussians import Gaussians
from studio.scenes.initialise import initial_gaussians
from studio.scenes.mesh import TexturedMesh, initial_textured_mesh
from studio.scenes.surface import Surface

AnyScene = Gaussians | RadianceField | Surface | TexturedMesh | Deformable | Clipart


def device_of(scene: Scene[Any]) -> torch.device:
    """Where a scene's tensors are."""
    return scene.parameter_groups()[0].parameter.device


def initial_scene(config: SceneConfig, rng: torch.Generator) -> AnyScene:
    """The scene that a recipe starts from.

    Raises:
        StudioError: a file that it starts from cannot be read.
    """
    match config:
        case GaussiansConfig():
            return initial_gaussians(config, rng)
        case FieldConfig():
            return RadianceField.initial(config, rng)
        case SurfaceConfig():
            return Surface.ball(config)
        case TexturedMeshConfig():
            return initial_textured_mesh(config)
        case DeformableConfig():
            shape = initial_scene(config.shape, rng)
            assert isinstance(shape, Gaussians | TexturedMesh)
            return Deformable.of(shape, config, rng)
        case ClipartConfig():
            return Clipart.initial(config)
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
        case FieldConfig():
            return RadianceField.from_state(state, config)
        case SurfaceConfig():
            return Surface.from_state(state, config)
        case TexturedMeshConfig():
            return TexturedMesh.from_state(state, config)
        case DeformableConfig():
            return Deformable.from_state(state, config)
        case ClipartConfig():
            return Clipart.from_state(state, config)
        case _:
            assert_never(config)


def handed_over(scene: AnyScene, config: SceneConfig) -> AnyScene:
    """A stage's finished scene as the one that the next stage begins with.

    Raises:
        StudioError: there is no way from the one kind of scene to the other.
    """
    match config, scene:
        case GaussiansConfig(), Gaussians():
            successor = Gaussians.from_state(scene.state(), config)
            successor.match_shape()
            successor.match_sh_degree()
            return successor
        case FieldConfig(), RadianceField():
            return RadianceField.from_state(scene.state(), config)
        case SurfaceConfig(), Surface():
            return Surface.from_state(scene.state(), config)
        case TexturedMeshConfig(), TexturedMesh():
            mesh = TexturedMesh.from_state(scene.state(), config)
            mesh.match_texture_size()
            return mesh
        case ClipartConfig(), Clipart():
            return Clipart.from_state(scene.state(), config)
        case DeformableConfig(), Deformable():
            shape = handed_over(scene.shape, config.shape)
            assert isinstance(shape, Gaussians | TexturedMesh)
            return Deformable.from_state(scene.state() | shape_state(shape), config)
        case _:
            raise StudioError(
                f"A scene of kind '{scene.config.kind}' cannot go on as one of kind '{config.kind}'; "
                "expected stages of one kind, or begin the later one in a run of its own."
            )
