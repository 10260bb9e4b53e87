"""Drawing textured meshes in plain torch: the oracle of the native kernel, and what runs without it.

Any float type and device.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from studio.ops.nearest_faces import nearest_faces, planes, rays
from studio.ops.surfaces import Light, Surface, Textures


def rasterize_reference(
    surface: Surface,
    world_to_camera: Float[Tensor, "b 4 4"],
    intrinsics: Float[Tensor, "b 3 3"],
    background: Float[Tensor, "b 3"],
    width: int,
    height: int,
    light: Light,
    supersample: int,
    near_depth: float,
) -> tuple[
    Float[Tensor, "b 3 h w"], Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"], Float[Tensor, "b 3 h w"]
]:
    """See ``studio.ops.rasterize.rasterize``."""
    columns, rows = width * supersample, height * supersample
    vertices, faces, materials = surface.vertices, surface.faces.long(), surface.face_materials.long()
    opacity = surface.base_colors[materials, 3]
    images = []
    for view, lens in zip(world_to_camera, intrinsics, strict=True):
        to_samples = lens * torch.tensor([[supersample], [supersample], [1.0]]).to(lens)
        corners = ((vertices @ view[:3, :3].T + view[:3, 3]) @ to_samples.T)[faces]
        canvas = vertices.new_zeros(rows * columns, 8)
        nearness = vertices.new_zeros(rows * columns)
        for layer in (opacity >= 1, (opacity > 0) & (opacity < 1)):
            face, sample = nearest_faces(
                corners,
                torch.ones_like(corners[:, :, 0]),
                layer,
                columns,
                rows,
                1 / near_depth,
                nearness,
                None if surface.uvs is None else partial(_kept_by_alpha, surface),
            )
            weight = opacity[face][:, None]
            values = _shade(surface, corners[face], face, rays(sample, columns).to(vertices), light)
            canvas[sample] = weight * values + (1 - weight) * canvas[sample]
        canvas = canvas.reshape(height, supersample, width, supersample, 8).mean(dim=(1, 3))
        images.append(canvas.permute(2, 0, 1))
    rgb, alpha, depth, normal = (torch.stack(images)[:, part] for part in (slice(3), [3], [4], slice(5, 8)))
    return rgb + (1 - alpha) * background[:, :, None, None], alpha, depth, normal


def _shade(
    surface: Surface,
    corners: Float[Tensor, "n 3 3"],
    face: Int64[Tensor, "n"],
    ray: Float[Tensor, "n 3"],
    light: Light,
) -> Float[Tensor, "n 8"]:
    """rgb, 1, depth and normal of each sample."""
    material, corner = surface.face_materials.long()[face], surface.faces.long()[face]
    edges, inverse_depth, volume = planes(corners, torch.ones_like(corners[:, :, 0]))
    weights = (edges @ ray[:, :, None]).squeeze(-1)
    total = weights.sum(-1, keepdim=True)
    weights = weights / total

    color = surface.base_colors[material, :3]
    if surface.uvs is not None:
        uv = (weights[:, :, None] * surface.uvs[face]).sum(1)
        # The quotient rule on uv = Σ e uv_i / Σ e, for x and y at once.
        spread = edges[:, :, :2, None] * (surface.uvs[face] - uv[:, None])[:, :, None]
        color = color * _trilinear(surface.textures, material, uv, spread.sum(1) / total[:, :, None])
    if surface.vertex_colors is not None:
        color = color * (weights[:, :, None] * surface.vertex_colors[corner]).sum(1)
    normal = _normals(surface, corner, volume < 0, weights)
    depth = 1 / (inverse_depth * ray).sum(-1, keepdim=True)
    return torch.cat(
        [(color * light.strength(normal)[:, None]).clamp(max=1), torch.ones_like(depth), depth, normal],
        dim=-1,
    )


def _kept_by_alpha(
    surface: Surface, face: Int64[Tensor, "n"], weights: Float[Tensor, "n 3"]
) -> Bool[Tensor, "n"]:
    textures, material = surface.textures, surface.face_materials.long()[face]
    assert surface.uvs is not None
    kept = torch.ones_like(face, dtype=torch.bool)
    tested = textures.cut_out.to(face.device)[material] != 0
    uv = (weights[tested][:, :, None] * surface.uvs[face[tested]]).sum(1)
    level = textures.first_level.to(face.device)[material[tested]].long()
    kept[tested] = _bilinear(textures, level, uv)[:, 3] >= 0.5
    return kept


def _normals(
    surface: Surface,
    corners: Int64[Tensor, "n 3"],
    faces_camera: Bool[Tensor, "n"],
    weights: Float[Tensor, "n 3"],
) -> Float[Tensor, "n 3"]:
    p0, p1, p2 = surface.vertices[corners].unbind(1)
    flat = torch.nn.functional.normalize(torch.linalg.cross(p1 - p0, p2 - p0), dim=-1, eps=0.0)
    flat = torch.where(faces_camera[:, None], flat, -flat)
    if surface.vertex_normals is None:
        return flat
    smooth = (weights[:, :, None] * surface.vertex_normals[corners]).sum(1)
    length = smooth.norm(dim=-1, keepdim=True)
    smooth = torch.where((smooth * flat).sum(-1, keepdim=True) < 0, -smooth, smooth) / length.clamp(min=1e-12)
    return torch.where(length > 1e-12, smooth, flat)


def _trilinear(
    textures: Textures,
    material: Int64[Tensor, "n"],
    uv: Float[Tensor, "n 2"],
    change: Float[Tensor, "n 2 2"],
) -> Float[Tensor, "n 3"]:
    """rgb at the level where one sample spans about one texel; white for materials without texture."""
    first, end = (textures.first_level.to(uv.device)[material + i].long() for i in (0, 1))
    color = torch.ones_like(uv[:, :1]).repeat(1, 3)
    textured = first < end
    first, end, uv, change = first[textured], end[textured], uv[textured], change[textured]
    size_uv = textures.levels.to(uv.device)[first][:, [2, 1]].to(uv)
    squared = (change * size_uv[:, None]).square().sum(-1).amax(-1)
    level = torch.where(squared > 1, 0.5 * squared.clamp(min=1).log2(), 0.0).minimum((end - first - 1).to(uv))
    below = level.floor().long()
    above = (below + 1).minimum(end - first - 1)
    t = (level - below)[:, None]
    fine, coarse = _bilinear(textures, first + below, uv), _bilinear(textures, first + above, uv)
    color[textured] = (fine + t * (coarse - fine))[:, :3]
    return color


def _bilinear(
    textures: Textures, level: Int64[Tensor, "n"], uv: Float[Tensor, "n 2"]
) -> Float[Tensor, "n 4"]:
    """rgba with repeat; colours weigh by alpha, so that what is cut out leaves no fringe."""
    offset, height, width = textures.levels.to(uv.device)[level].unbind(-1)
    size = torch.stack([width, height], dim=-1)
    position = torch.stack([uv[:, 0], -uv[:, 1]], dim=-1)
    position = torch.where(position.isfinite(), position - position.floor(), 0.0) * size - 0.5
    corner = position.floor()
    fraction = position - corner
    color, alpha, total = uv.new_zeros(len(uv), 3), uv.new_zeros(len(uv), 1), uv.new_zeros(len(uv), 1)
    for right in (0, 1):
        for lower in (0, 1):
            step = torch.tensor([right, lower], device=uv.device)
            x, y = ((corner.long() + step) % size).unbind(-1)
            weight = torch.where(step == 1, fraction, 1 - fraction).prod(-1, keepdim=True)
            texel = textures.texels.to(uv.device)[offset + y * width + x].to(uv)
            weighted = weight * (texel[:, 3:] + 1e-2)
            color, alpha = color + weighted * texel[:, :3], alpha + weight * texel[:, 3:]
            total = total + weighted
    return torch.cat([color / total, alpha], dim=-1) / 255
