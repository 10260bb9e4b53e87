"""From a stage's finished scene to the one that the next stage begins with, where its kind changes."""

from __future__ import annotations

from typing import Any

import torch

from studio.export.asset import as_mesh
from studio.interfaces import Renderer
from studio.recipes.config import DeformableConfig, SceneConfig, TexturedMeshConfig
from studio.run.views import detached
from studio.scenes import kinds
from studio.scenes.deformation import Deformable
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene, device_of
from studio.scenes.mesh import TexturedMesh


def handed_over(
    scene: AnyScene, renderer: Renderer[Any], config: SceneConfig, rng: torch.Generator
) -> AnyScene:
    """The scene that the next stage begins with.

    What a mesh follows becomes one, as export makes it; what begins to move is at rest as it was.

    Args:
        scene: as the last stage left it.
        renderer: what drew it.
        config: the next stage's.
        rng: draws what a motion begins with; on the CPU.

    Raises:
        StudioError: there is no way from the one kind of scene to the other, or no surface to go on with.
    """
    if isinstance(config, DeformableConfig) and not isinstance(scene, Deformable):
        shape = handed_over(scene, renderer, config.shape, rng)
        assert isinstance(shape, Gaussians | TexturedMesh)
        return Deformable.of(shape, config, rng)
    if not isinstance(config, TexturedMeshConfig) or isinstance(scene, TexturedMesh):
        return kinds.handed_over(scene, config)
    device = device_of(scene)
    with torch.no_grad():
        shown = detached(scene.at(None))
        mesh, _ = as_mesh(shown, renderer, config.faces, config.texture_size, lambda part: None)
    state = TexturedMesh.of(mesh, config).state()
    return TexturedMesh.from_state({name: tensor.to(device) for name, tensor in state.items()}, config)
