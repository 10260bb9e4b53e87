"""A texture fitted to pictures: unwrap a mesh, then find the colours that show the same as the scene from everywhere.

The start is the pictures' mean at each texel, over the views that see it, those that face it most. What that
leaves blurred is put right by a few rounds of simultaneous iterative reconstruction (Gilbert, 1972): draw the mesh,
hand the difference back to the texels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from studio.export.corners import smooth_normals
from studio.interfaces import Renderer
from studio.types import Cameras, Material, Mesh, RenderOutput

_GUTTER_PX = 4
_LEAST_FACING = 0.1


def unwrapped(mesh: Mesh, texture_size: int) -> Mesh:
    """The mesh with texture coordinates (xatlas) and smooth vertex normals; charts lie a gutter apart."""
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.numpy(), mesh.faces.numpy().astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = texture_size, _GUTTER_PX, True
    atlas.generate(pack_options=packing)
    original, indices, uvs = atlas[0]
    # Corners keep their vertex, so seams stay closed and smoothly shaded.
    faces = torch.from_numpy(original[indices].astype(np.int64))
    return Mesh(
        vertices=mesh.vertices,
        faces=faces,
        uvs=torch.from_numpy(np.ascontiguousarray(uvs[indices])).float(),
        vertex_normals=smooth_normals(mesh.vertices, faces),
    )


@dataclass(frozen=True)
class Texels:
    """The texels that a mesh uses, as points of its surface."""

    rows: Int[Tensor, "t"]
    columns: Int[Tensor, "t"]
    positions: Float[Tensor, "t 3"]
    normals: Float[Tensor, "t 3"]


def texels_of(mesh: Mesh, size: int) -> Texels:
    """Every texel of a ``size`` squared texture whose centre lies in a face, half a texel beyond its edges included."""
    assert mesh.uvs is not None and mesh.vertex_normals is not None
    corners = torch.stack([mesh.uvs[..., 0] * size, (1 - mesh.uvs[..., 1]) * size], dim=-1).double()
    first = (corners.amin(dim=1) - 1).floor().clamp(0, size - 1).long()
    last = (corners.amax(dim=1) + 1).ceil().clamp(0, size - 1).long()
    widths, heights = (last - first + 1).unbind(-1)

    # One candidate for each texel of each face's bounding box.
    counts = widths * heights
    face = torch.repeat_interleave(torch.arange(len(counts)), counts)
    local = torch.arange(len(face)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    column = first[face, 0] + local % widths[face]
    row = first[face, 1] + local // widths[face]
    weights = _barycentric(torch.stack([column, row], dim=-1) + 0.5, corners[face])
    # Barycentric weights fall by 1 over a height of the triangle: one texel beyond an edge in these terms.
    edge_length = (corners.roll(-1, 1) - corners.roll(1, 1)).norm(dim=-1)
    double_area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).abs()
    texel = edge_length / double_area.clamp_min(1e-9)[:, None]
    outside = (-weights / texel[face]).amax(dim=-1)
    inside = outside < 0.75
    face, row, column, weights, outside = (x[inside] for x in (face, row, column, weights, outside))

    # Where faces compete for a texel the one that it lies deepest in wins.
    order = torch.argsort(outside, descending=True, stable=True)
    owner = torch.full((size * size,), -1).index_put_(((row * size + column)[order],), order)
    chosen = owner[owner >= 0]
    weights = weights[chosen].clamp_min(0).float()
    weights = (weights / weights.sum(-1, keepdim=True))[..., None]
    triangles = mesh.faces[face[chosen]]
    normals = (weights * mesh.vertex_normals[triangles]).sum(1)
    return Texels(
        rows=row[chosen],
        columns=column[chosen],
        positions=(weights * mesh.vertices[triangles]).sum(1),
        normals=torch.nn.functional.normalize(normals, dim=-1),
    )


def _cross(a: Float[Tensor, "*n 2"], b: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _barycentric(points: Float[Tensor, "p 2"], triangles: Float[Tensor, "p 3 2"]) -> Float[Tensor, "p 3"]:
    a, b, c = triangles.unbind(1)
    area = _cross(b - a, c - a)
    area = torch.where(area.abs() < 1e-9, 1e-9, area)
    weight_b, weight_c = _cross(points - a, c - a) / area, _cross(b - a, points - a) / area
    return torch.stack([1 - weight_b - weight_c, weight_b, weight_c], dim=-1)


@dataclass(frozen=True)
class _Sightings:
    """The texels that one view sees: which, where in the picture (for grid_sample), and how well."""

    texel: Int[Tensor, "s"]
    grid: Float[Tensor, "1 1 s 2"]
    weight: Float[Tensor, "s"]

    def sample(self, image: Float[Tensor, "c h w"]) -> Float[Tensor, "s c"]:
        sampled = torch.nn.functional.grid_sample(image[None], self.grid, align_corners=False)
        return sampled[0, :, 0].T


def _sightings(
    texels: Texels, camera: Cameras, coverage: Float[Tensor, "1 h w"], drawn: RenderOutput, tolerance: float
) -> _Sightings:
    """What a camera sees of the texels: those that face it, lie on the drawn mesh's depth and off its outline."""
    assert drawn.depth is not None
    towards = camera.positions - texels.positions
    facing = (torch.nn.functional.normalize(towards, dim=-1) * texels.normals).sum(-1)
    texel = torch.nonzero(facing > _LEAST_FACING)[:, 0]
    rotation, translation = camera.world_to_camera[0, :3, :3], camera.world_to_camera[0, :3, 3]
    x, y, z = (texels.positions[texel] @ rotation.T + translation).unbind(-1)
    matrix = camera.intrinsics[0]
    column = (matrix[0, 0] * x / z + matrix[0, 2]) * (2 / camera.width) - 1
    row = (matrix[1, 1] * y / z + matrix[1, 2]) * (2 / camera.height) - 1
    everything = _Sightings(texel, torch.stack([column, row], dim=-1)[None, None], facing[texel] ** 2)

    alpha, depth, covered = everything.sample(torch.cat([drawn.alpha[0], drawn.depth[0], coverage])).unbind(-1)
    on_surface = (depth / alpha.clamp_min(1e-6) - z).abs() < tolerance
    seen: Bool[Tensor, "s"] = (alpha > 0.99) & (covered > 0.5) & on_surface
    return _Sightings(texel[seen], everything.grid[:, :, seen], (everything.weight * covered**4)[seen])


def baked(
    mesh: Mesh,
    pictures: RenderOutput,
    cameras: Cameras,
    renderer: Renderer[Mesh],
    texture_size: int,
    rounds: int,
    tolerance: float,
) -> Mesh:
    """The mesh with a texture that shows what the pictures show.

    Args:
        mesh: unwrapped, with vertex normals.
        pictures: the scene over black.
        cameras: where the pictures were taken from.
        renderer: draws meshes without light.
        texture_size: texels along each side.
        rounds: how often the difference is handed back.
        tolerance: how far behind the drawn depth a texel may lie and still count as seen, in world units.
    """
    texels = texels_of(mesh, texture_size)
    black = torch.zeros(1, 3)
    views = [
        _sightings(texels, cameras[[i]], pictures.alpha[i], renderer(mesh, cameras[[i]], black), tolerance)
        for i in range(len(cameras))
    ]
    colors = pictures.rgb / pictures.alpha.clamp_min(1e-3)
    mean, weight = _gathered(views, colors, len(texels.rows))
    seen = weight > 0
    albedo = _from_nearest(texels.positions, mean, seen) if seen.any() else mean
    for _ in range(rounds):
        drawn = _painted(mesh, texels, albedo, texture_size)
        images = torch.cat([renderer(drawn, cameras[[i]], black).rgb for i in range(len(cameras))])
        correction, _ = _gathered(views, colors - images, len(texels.rows))
        albedo = (albedo + correction).clamp(0, 1)
    return _painted(mesh, texels, albedo, texture_size)


def _gathered(
    views: Sequence[_Sightings], images: Float[Tensor, "b 3 h w"], texels: int
) -> tuple[Float[Tensor, "t 3"], Float[Tensor, "t"]]:
    """Weighted mean at each texel of what the views show there, and the sum of the weights."""
    total, weight = torch.zeros(texels, 3), torch.zeros(texels)
    for view, image in zip(views, images, strict=True):
        total.index_add_(0, view.texel, view.weight[:, None] * view.sample(image))
        weight.index_add_(0, view.texel, view.weight)
    return total / weight.clamp_min(1e-6)[:, None], weight


def _from_nearest(
    positions: Float[Tensor, "t 3"], colors: Float[Tensor, "t 3"], known: Bool[Tensor, "t"]
) -> Float[Tensor, "t 3"]:
    """The colours, with unknown ones taken from the nearest known point of the surface."""
    from scipy.spatial import cKDTree

    # A few thousand points say enough about places that no view sees.
    sources = torch.nonzero(known)[:, 0]
    sources = sources[:: max(1, len(sources) // 50_000)]
    _, nearest = cKDTree(positions[sources].numpy()).query(positions[~known].numpy())
    filled = colors.clone()
    filled[~known] = colors[sources[torch.from_numpy(np.asarray(nearest, dtype=np.int64))]]
    return filled


def _painted(mesh: Mesh, texels: Texels, colors: Float[Tensor, "t 3"], size: int) -> Mesh:
    """The mesh with these colours as its texture, grown into the gutters so that filtering finds no seams."""
    image, known = torch.zeros(1, 3, size, size), torch.zeros(1, 1, size, size)
    image[0, :, texels.rows, texels.columns] = colors.T
    known[0, 0, texels.rows, texels.columns] = 1.0
    for _ in range(_GUTTER_PX):
        around = torch.nn.functional.avg_pool2d(torch.cat([image * known, known], dim=1), 3, 1, 1)
        grown = (around[:, 3:] > 0) & (known == 0)
        image = torch.where(grown, around[:, :3] / around[:, 3:].clamp_min(1e-6), image)
        known = torch.where(grown, 1.0, known)
    # What no face uses gets the mean colour: small mipmaps blend it in.
    image = torch.where(known > 0, image, colors.mean(0)[None, :, None, None])
    texture = torch.cat([image[0], torch.ones(1, size, size)]).permute(1, 2, 0).contiguous()
    return replace(mesh, materials=(Material(texture=texture),))
