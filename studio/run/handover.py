"""From a stage's finished scene to the one that the next stage begins with, where its kind changes."""

from __future__ import annotations

from typing import Any

import torch

from studio.export.asset import as_mesh
from studio.interfaces import Renderer
from studio.recipes.config import SceneConfig, TexturedMeshConfig
from studio.run.views import detached
from studio.scenes import kinds
from studio.scenes.kinds import AnyScene, device_of
from studio.scenes.mesh import TexturedMesh


def handed_over(scene: AnyScene, renderer: Renderer[Any], config: SceneConfig) -> AnyScene:
    """The scene that the next stage begins with: what a mesh follows becomes one, as export makes it.

    Args:
        scene: as the last stage left it.
        renderer: what drew it.
        config: the next stage's.

    Raises:
        StudioError: there is no way from the one kind of scene to the other, or no surface to go on with.
    """
    if not isinstance(config, TexturedMeshConfig) or isinstance(scene, TexturedMesh):
        return kinds.handed_over(scene, config)
    device = device_of(scene)
    with torch.no_grad():
        shown = detached(scene.at(None))
        mesh, _ = as_mesh(shown, renderer, config.faces, config.texture_size, lambda part: None)
    state = TexturedMesh.of(mesh, config).state()
    return TexturedMesh.from_state({name: tensor.to(device) for name, tensor in state.items()}, config)
