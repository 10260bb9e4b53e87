"""A texture fitted to pictures: unwrap a mesh, then find the colours that show what the scene shows.

Each texel gets the colour with the least squared error over the views that see it, which is their weighted
mean; views that face the surface squarely, away from outlines, weigh most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from studio.errors import StudioError
from studio.export.views import project
from studio.interfaces import Renderer
from studio.meshes import GUTTER_PX, smooth_normals, with_uvs
from studio.ops.mesh_raster import dilate, rasterize_uv
from studio.ops.neighbours import nearest
from studio.types import Cameras, Material, Mesh, RenderOutput

_LEAST_FACING = 0.1


def unwrapped(mesh: Mesh, texture_size: int) -> Mesh:
    """The mesh with texture coordinates and smooth vertex normals; charts lie a gutter apart."""
    mesh = with_uvs(mesh, texture_size)
    return replace(mesh, vertex_normals=smooth_normals(mesh.vertices, mesh.faces))


@dataclass(frozen=True)
class Texels:
    """The texels that a mesh uses, as points of its surface."""

    rows: Int[Tensor, "t"]
    columns: Int[Tensor, "t"]
    positions: Float[Tensor, "t 3"]
    normals: Float[Tensor, "t 3"]


def texels_of(mesh: Mesh, renderer: Renderer[Mesh], size: int) -> Texels:
    """Every texel of a ``size`` squared texture whose centre lies in a face.

    The atlas itself is drawn as a flat mesh, its corners painted with where they belong.

    Args:
        mesh: unwrapped, with vertex normals.
        renderer: draws plain colours, one sample a pixel.
        size: texels along each side.
    """
    assert mesh.uvs is not None and mesh.vertex_normals is not None
    positions, normals = (
        mesh.vertices[mesh.faces].reshape(-1, 3),
        mesh.vertex_normals[mesh.faces].reshape(-1, 3),
    )
    lowest = positions.amin(0)
    extent = (positions.amax(0) - lowest).clamp_min(1e-6)
    u, v = mesh.uvs.reshape(-1, 2).unbind(-1)
    flat = torch.stack([u * size, (1 - v) * size, torch.ones_like(u)], dim=-1)
    faces = torch.arange(len(flat)).reshape(-1, 3)
    # A camera at the origin that maps (x, y, 1) to pixel (x, y).
    camera = Cameras(torch.eye(4)[None], torch.eye(3)[None], size, size, torch.zeros(1), torch.zeros(1))
    painted = [
        renderer(Mesh(flat, faces, vertex_colors=paint), camera, torch.zeros(1, 3))
        for paint in ((positions - lowest) / extent, (normals + 1) / 2)
    ]
    rows, columns = torch.nonzero(painted[0].alpha[0, 0] > 0.5).unbind(-1)
    unit_positions, half_normals = (drawn.rgb[0, :, rows, columns].T for drawn in painted)
    return Texels(
        rows,
        columns,
        lowest + extent * unit_positions,
        torch.nn.functional.normalize(2 * half_normals - 1, dim=-1),
    )


@dataclass(frozen=True)
class Sightings:
    """The texels that one view sees.

    Attributes:
        texel: which.
        grid: where in the picture, for grid_sample.
        weight: how well.
    """

    texel: Int[Tensor, "s"]
    grid: Float[Tensor, "1 1 s 2"]
    weight: Float[Tensor, "s"]

    def sample(self, image: Float[Tensor, "c h w"]) -> Float[Tensor, "c s"]:
        """The picture where the texels show in it."""
        return torch.nn.functional.grid_sample(image[None], self.grid, align_corners=False)[0, :, 0]


def sightings(
    texels: Texels, camera: Cameras, coverage: Float[Tensor, "1 h w"], drawn: RenderOutput, tolerance: float
) -> Sightings:
    """What a camera sees of the texels: those that face it, at the drawn mesh's depth and off its outlines.

    Args:
        texels: points of the mesh.
        camera: one camera.
        coverage: alpha of the scene's picture.
        drawn: the mesh from that camera, with depth.
        tolerance: how far from the drawn depth a texel may lie, in world units.
    """
    if drawn.depth is None:
        raise ValueError("baking needs a renderer that returns depth")
    towards = torch.nn.functional.normalize(camera.positions - texels.positions, dim=-1)
    facing = (towards * texels.normals).sum(-1)
    texel = torch.nonzero(facing > _LEAST_FACING)[:, 0]
    grid, depth_of_texel = project(texels.positions[texel], camera)
    candidates = Sightings(texel, grid, facing[texel] ** 2)

    alpha, depth, covered = candidates.sample(torch.cat([drawn.alpha[0], drawn.depth[0], coverage]))
    on_surface = (depth / alpha.clamp_min(1e-6) - depth_of_texel).abs() < tolerance
    seen = (alpha > 0.99) & (covered > 0.5) & on_surface
    return Sightings(texel[seen], grid[:, :, seen], (candidates.weight * covered**4)[seen])


def baked(
    mesh: Mesh,
    pictures: RenderOutput,
    cameras: Cameras,
    renderer: Renderer[Mesh],
    texture_size: int,
    tolerance: float,
) -> Mesh:
    """The mesh with a texture that shows what the pictures show.

    Places that no view sees take the colour of the nearest place that one does.

    Args:
        mesh: unwrapped, with vertex normals.
        pictures: the scene over black.
        cameras: where the pictures were taken from.
        renderer: draws plain colours, one sample a pixel.
        texture_size: texels along each side.
        tolerance: how far from the drawn depth a texel may lie and still count as seen, in world units.

    Raises:
        StudioError: no view sees any of the mesh.
    """
    texels = texels_of(mesh, renderer, texture_size)
    colors = pictures.rgb / pictures.alpha.clamp_min(1e-3)
    total, weight = torch.zeros(len(texels.rows), 3), torch.zeros(len(texels.rows))
    for index in range(len(cameras)):
        drawn = renderer(mesh, cameras[[index]], torch.zeros(1, 3))
        seen = sightings(texels, cameras[[index]], pictures.alpha[index], drawn, tolerance)
        total.index_add_(0, seen.texel, (seen.weight * seen.sample(colors[index])).T)
        weight.index_add_(0, seen.texel, seen.weight)
    mean = (total / weight.clamp_min(1e-6)[:, None]).clamp(0, 1)
    if not (weight > 0).any():
        raise StudioError(
            "found no colours for the mesh: no view sees its surface where the scene is opaque. "
            "Try more steps, or export the splats themselves as .ply."
        )
    return _painted(mesh, texels, _from_nearest(texels.positions, mean, weight > 0), texture_size)


def _from_nearest(
    positions: Float[Tensor, "t 3"], colors: Float[Tensor, "t 3"], known: Bool[Tensor, "t"]
) -> Float[Tensor, "t 3"]:
    """The colours, with unknown ones taken from the nearest known point of the surface."""
    # A few thousand points say enough about places that no view sees.
    sources = torch.nonzero(known)[:, 0]
    sources = sources[:: max(1, len(sources) // 50_000)]
    places, _ = nearest(positions[~known], positions[sources], 1)
    filled = colors.clone()
    filled[~known] = colors[sources[places[:, 0]]]
    return filled


def _painted(mesh: Mesh, texels: Texels, colors: Float[Tensor, "t 3"], size: int) -> Mesh:
    """The mesh with these colours as its texture."""
    image, known = torch.zeros(1, 3, size, size), torch.zeros(1, 1, size, size, dtype=torch.bool)
    image[0, :, texels.rows, texels.columns] = colors.T
    known[0, 0, texels.rows, texels.columns] = True
    return replace(mesh, materials=(Material(texture=_grown(image, known)),))


def with_gutters(mesh: Mesh) -> Mesh:
    """A textured mesh as files hold it: on the CPU, smoothly shaded, its colours grown into the gutters.

    Args:
        mesh: of one material, with texture coordinates.
    """
    assert mesh.uvs is not None
    vertices, faces, uvs = mesh.vertices.cpu(), mesh.faces.cpu(), mesh.uvs.cpu()
    texture = mesh.materials[0].texture
    if texture is not None:
        height, width = texture.shape[:2]
        known = (rasterize_uv(uvs, width, height).face >= 0)[:, None]
        texture = _grown(texture[None, ..., :3].permute(0, 3, 1, 2).cpu(), known)
    material = replace(mesh.materials[0], texture=texture)
    return Mesh(vertices, faces, uvs, materials=(material,), vertex_normals=smooth_normals(vertices, faces))


def _grown(image: Float[Tensor, "1 3 h w"], known: Bool[Tensor, "1 1 h w"]) -> Float[Tensor, "h w 4"]:
    """The colours of charts grown into the gutters, so that filtering finds no seams."""
    pixels = image.permute(0, 2, 3, 1)
    mean = (pixels[known[:, 0]] if known.any() else pixels.flatten(0, 2)).mean(0)
    image, known = dilate(image, known, GUTTER_PX)
    # What no face uses gets the mean colour: small mipmaps blend it in.
    image = torch.where(known, image, mean[:, None, None])
    return torch.nn.functional.pad(image[0].permute(1, 2, 0), (0, 1), value=1.0).contiguous()
