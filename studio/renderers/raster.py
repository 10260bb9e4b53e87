"""Draws meshes for previews, for the embedded prior's training pictures and for clipart."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studio.ops.rasterize import rasterize
from studio.ops.surfaces import Light, Surface, pack_textures
from studio.types import Cameras, Mesh, RenderOutput


def studio_light() -> Light:
    """Light that keeps colours true and shapes readable.

    White that faces the key light, at the front, above and to the right, shows as 1; its far side as 0.6.
    A weak fill from the left, a little behind, sets the side apart from the back.
    """
    directions = F.normalize(torch.tensor([[0.4, 0.65, 0.65], [-0.9, 0.1, -0.4]]), dim=-1)
    return Light(ambient=0.6, hemisphere=0.14, lights=directions * torch.tensor([[0.34], [0.1]]))


@dataclass(frozen=True)
class MeshRenderer:
    """Draws textured meshes without gradients; see ``studio.ops.rasterize.rasterize`` for what it draws.

    Attributes:
        supersample: samples along each side of a pixel.
        light: ``Light()`` shows plain colours.
    """

    supersample: int = 2
    light: Light = field(default_factory=studio_light)

    def __call__(self, primitives: Mesh, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """Images of the mesh over a background colour for each camera."""
        images = rasterize(
            surface_of(primitives),
            cameras.world_to_camera.to(primitives.vertices),
            cameras.intrinsics.to(primitives.vertices),
            background.to(primitives.vertices),
            cameras.width,
            cameras.height,
            light=self.light,
            supersample=self.supersample,
        )
        return RenderOutput(*images)


def surface_of(mesh: Mesh) -> Surface:
    """The mesh in the rasterizer's terms. To draw a mesh often, keep this and call ``rasterize`` on it."""
    face_materials = mesh.face_materials
    if face_materials is None:
        face_materials = torch.zeros(len(mesh.faces), dtype=torch.int32, device=mesh.faces.device)
    return Surface(
        vertices=mesh.vertices,
        faces=mesh.faces,
        face_materials=face_materials,
        base_colors=torch.tensor([material.base_color for material in mesh.materials]).to(mesh.vertices),
        textures=pack_textures(
            [None if mesh.uvs is None else material.texture for material in mesh.materials]
        ),
        uvs=mesh.uvs,
        vertex_colors=mesh.vertex_colors,
        vertex_normals=mesh.vertex_normals,
    )
