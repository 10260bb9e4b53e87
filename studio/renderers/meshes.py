"""Meshes to pictures with gradients: on colours, textures, and by soft outlines on the vertices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.meshes import smooth_normals
from studio.ops.mesh_raster import (
    Fragments,
    antialias,
    clip_matrices,
    interpolate,
    interpolate_slopes,
    level_of,
    rasterize,
    sample,
    texture_levels,
)
from studio.ops.surfaces import Light
from studio.renderers import pytorch3d_backend
from studio.renderers.optional import PYTORCH3D
from studio.types import Cameras, Mesh, RenderOutput

Backend = Literal["auto", "pytorch3d"]


@dataclass(frozen=True)
class RasterRenderer:
    """Draws meshes of one material: implements ``Renderer[Mesh]``.

    For pictures without gradients, of meshes with many materials, cut-out or translucent ones, there is
    ``studio.renderers.raster.MeshRenderer``.

    Attributes:
        supersample: samples along each side of a pixel.
        light: ``Light()`` shows plain colours.
        backend: ``auto`` takes the compiled kernels where they are, else plain torch. ``pytorch3d`` finds the
            face of each pixel by PyTorch3D, where that is installed; what follows is the same.
    """

    supersample: int = 1
    light: Light = field(default_factory=Light)
    backend: Backend = "auto"

    def __call__(self, primitives: Mesh, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """Pictures of the mesh over a background colour for each camera.

        Vertices at one place must be one vertex, or edges between them count as outlines.

        Raises:
            StudioError: the mesh has several materials, or the backend asked for cannot run here.
        """
        if len(primitives.materials) != 1:
            raise StudioError(
                f"The mesh has {len(primitives.materials)} materials and gradients reach meshes of one: "
                "bake them into one texture first."
            )
        mesh = primitives
        fine = cameras.resized(cameras.width * self.supersample, cameras.height * self.supersample)
        view, lens = fine.world_to_camera.to(mesh.vertices), fine.intrinsics.to(mesh.vertices)
        clip = clip_matrices(view, lens, fine.width, fine.height)
        positions = F.pad(mesh.vertices, (0, 1), value=1.0) @ clip.mT
        texture = mesh.materials[0].texture if mesh.uvs is not None else None
        if self.backend == "pytorch3d":
            PYTORCH3D.insist(positions.device)
        find = pytorch3d_backend.rasterize if self.backend == "pytorch3d" else rasterize
        fragments = find(positions, mesh.faces, fine.width, fine.height, slopes=texture is not None)

        normals = smooth_normals(mesh.vertices, mesh.faces)
        places = interpolate(torch.cat([mesh.vertices, normals], dim=1), mesh.faces, fragments)
        point, normal = places[:, :3], F.normalize(places[:, 3:], dim=1)
        towards = fine.positions.to(point)[:, :, None, None] - point
        normal = torch.where((normal * towards).sum(1, keepdim=True) < 0, -normal, normal)
        depth = torch.einsum("bc,bchw->bhw", view[:, 2, :3], point) + view[:, 2, 3, None, None]

        alpha = fragments.alpha
        color = self._shaded(_colors(mesh, texture, fragments), normal)
        behind = background.to(color)[:, :, None, None]
        layers = [color * alpha + behind * (1 - alpha), alpha, depth[:, None] * alpha, normal * alpha]
        soft = antialias(torch.cat(layers, dim=1), positions, mesh.faces, fragments)
        if self.supersample > 1:
            soft = F.avg_pool2d(soft, self.supersample)
        return RenderOutput(soft[:, :3], soft[:, 3:4], soft[:, 4:5], soft[:, 5:])

    def _shaded(
        self, color: Float[Tensor, "b 3 h w"], normal: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b 3 h w"]:
        """The colours in the light, see ``Light``, up to 1."""
        light = self.light
        if light.hemisphere == 0.0 and len(light.lights) == 0:
            return color if light.ambient == 1.0 else (light.ambient * color).clamp(max=1.0)
        return (color * light.strength(normal.movedim(1, -1))[:, None]).clamp(max=1.0)


def _colors(
    mesh: Mesh, texture: Float[Tensor, "rows columns 4"] | None, fragments: Fragments
) -> Float[Tensor, "b 3 h w"]:
    """Base colour times texture times vertex colour at each pixel."""
    base = [mesh.vertices.new_full((1, 1), value) for value in mesh.materials[0].base_color[:3]]
    color = torch.stack(base).expand(len(fragments.face), 3, *fragments.face.shape[1:])
    if mesh.vertex_colors is not None:
        color = color * interpolate(mesh.vertex_colors, mesh.faces, fragments)
    if texture is not None and mesh.uvs is not None:
        corners = torch.arange(3 * len(mesh.uvs), device=mesh.uvs.device).reshape(-1, 3)
        uvs = mesh.uvs.reshape(-1, 2)
        uv = interpolate(uvs, corners, fragments)
        level = level_of(interpolate_slopes(uvs, corners, fragments), *texture.shape[:2])
        color = color * sample(texture_levels(texture[None, ..., :3]), uv, level)
    return color
