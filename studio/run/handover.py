"""From a stage's finished scene to the one that the next stage begins with, where its kind changes."""

from __future__ import annotations

from typing import Any

import torch

from studio.export.reconstruction import textured_mesh, textured_surface
from studio.interfaces import Renderer
from studio.recipes.config import SceneConfig, TexturedMeshConfig
from studio.run.views import detached
from studio.scenes import kinds
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene
from studio.scenes.mesh import TexturedMesh
from studio.scenes.surface import Surface
from studio.types import Mesh


def handed_over(scene: AnyScene, renderer: Renderer[Any], config: SceneConfig) -> AnyScene:
    """The scene that the next stage begins with.

    Args:
        scene: as the last stage left it.
        renderer: what drew it.
        config: the next stage's.

    Raises:
        StudioError: there is no way from the one kind of scene to the other, or no surface to go on with.
    """
    match config, scene:
        case TexturedMeshConfig(), Gaussians() | Surface():
            mesh = _textured(scene, renderer, config)
            device = next(iter(scene.parameter_groups())).parameter.device
            state = {
                name: tensor.to(device) for name, tensor in TexturedMesh.of(mesh, config).state().items()
            }
            return TexturedMesh.from_state(state, config)
        case _:
            return kinds.handed_over(scene, config)


def _textured(scene: Gaussians | Surface, renderer: Renderer[Any], config: TexturedMeshConfig) -> Mesh:
    """The scene as export makes it: a mesh whose texture shows what the scene shows."""
    sizes = config.faces, config.texture_size
    with torch.no_grad():
        if isinstance(scene, Gaussians):
            return textured_mesh(detached(scene.at(None)), renderer, *sizes, _quiet)[0]
        shown = detached(scene.at(None))
        surface = Mesh(shown.vertices.cpu(), shown.faces.cpu())
        return textured_surface(surface, shown, renderer, shown.vertices.device, *sizes, _quiet)[0]


def _quiet(part: str) -> None:
    """Nobody waits to be told."""
