"""From a stage's finished scene to the one that the next stage begins with, where its kind changes."""

from __future__ import annotations

from typing import Any

import torch

from studio.export.asset import as_mesh
from studio.export.reconstruction import MeshBudget
from studio.interfaces import Renderer
from studio.recipes.config import DeformableConfig, SceneConfig, SurfaceConfig, TexturedMeshConfig
from studio.run.views import detached
from studio.scenes import kinds
from studio.scenes.deformation import Deformable
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene, device_of
from studio.scenes.mesh import TexturedMesh
from studio.scenes.surface import Surface, grid_of
from studio.types import Mesh

_SURFACE_BUDGET = MeshBudget(faces=12_000, texture_size=512)
"""Of the mesh between a scene and the surface that takes its shape and colours."""


def handed_over(
    scene: AnyScene, renderer: Renderer[Any], config: SceneConfig, rng: torch.Generator
) -> AnyScene:
    """The scene that the next stage begins with.

    What a surface or mesh follows becomes a mesh, as export makes it; what begins to move does so from rest.

    Args:
        scene: as the last stage left it.
        renderer: what drew it.
        config: the next stage's.
        rng: draws what motions and surfaces begin with; on the CPU.

    Raises:
        StudioError: there is no way from the one kind of scene to the other, or no surface to go on with.
    """
    if isinstance(config, DeformableConfig) and not isinstance(scene, Deformable):
        shape = handed_over(scene, renderer, config.shape, rng)
        assert isinstance(shape, Gaussians | TexturedMesh)
        return Deformable.of(shape, config, rng)
    match config, scene:
        case TexturedMeshConfig(), TexturedMesh():
            return kinds.handed_over(scene, config)
        case SurfaceConfig(), Surface() if scene.grid == grid_of(config):
            return kinds.handed_over(scene, config)
        case TexturedMeshConfig(), _:
            mesh = _as_mesh(scene, renderer, MeshBudget(config.faces, config.texture_size))
            successor: AnyScene = TexturedMesh.of(mesh, config)
        case SurfaceConfig(), _:
            mesh = _as_mesh(scene, renderer, _SURFACE_BUDGET)
            successor = Surface.of_mesh(mesh, config, rng)
        case _:
            return kinds.handed_over(scene, config)
    device = device_of(scene)
    state = {name: tensor.to(device) for name, tensor in successor.state().items()}
    return kinds.scene_from_state(state, config)


def _as_mesh(scene: AnyScene, renderer: Renderer[Any], budget: MeshBudget) -> Mesh:
    with torch.no_grad():
        mesh, _ = as_mesh(detached(scene.at(None)), renderer, budget, lambda part: None)
    return mesh
