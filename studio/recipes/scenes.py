"""Every kind of scene."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from studio.recipes.clipart import ClipartConfig
from studio.recipes.deformation import DeformableConfig
from studio.recipes.shapes import FieldConfig, GaussiansConfig, SurfaceConfig, TexturedMeshConfig

SceneConfig = Annotated[
    GaussiansConfig | SurfaceConfig | TexturedMeshConfig | FieldConfig | DeformableConfig | ClipartConfig,
    Field(discriminator="kind"),
]


def at_rest(
    scene: SceneConfig,
) -> GaussiansConfig | SurfaceConfig | TexturedMeshConfig | FieldConfig | ClipartConfig:
    """The scene, or the shape of one that moves."""
    return scene.shape if isinstance(scene, DeformableConfig) else scene
