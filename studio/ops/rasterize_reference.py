"""The mesh rasterizer in plain torch: the oracle of the native kernel, and what runs without it.

A list of all (face, sample) pairs inside the faces' bounding boxes, thinned to those that are covered, then
to the nearest of each sample. Any float type and device.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from studio.ops.surfaces import Light, Surface, Textures

PAIRS_AT_ONCE = 1 << 21


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
            face, sample = _nearest(surface, corners, layer, columns, rows, near_depth, nearness)
            weight = opacity[face][:, None]
            values = _shade(surface, corners[face], face, _rays(sample, columns).to(vertices), light)
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
    edges, inverse_depth, volume = _planes(corners)
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
    lights = (normal @ light.lights.to(normal).T).clamp(min=0).sum(-1)
    shade = light.ambient + light.hemisphere * (1 + normal[:, 1]) / 2 + lights
    depth = 1 / (inverse_depth * ray).sum(-1, keepdim=True)
    return torch.cat([(color * shade[:, None]).clamp(max=1), torch.ones_like(depth), depth, normal], dim=-1)


def _rays(sample: Int64[Tensor, "n"], columns: int) -> Float[Tensor, "n 3"]:
    x, y = sample % columns + 0.5, sample // columns + 0.5
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def _planes(
    corners: Float[Tensor, "n 3 3"],
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Edge planes, positive inside; the plane of 1 / depth; signed volume, negative seen from outside."""
    u0, u1, u2 = corners.unbind(1)
    plane = torch.linalg.cross(u1 - u0, u2 - u0)
    volume = (plane * u0).sum(-1)
    edges = torch.stack([_edge(u1, u2), _edge(u2, u0), _edge(u0, u1)], dim=1)
    return edges * volume.sign()[:, None, None], plane / volume[:, None], volume


def _edge(a: Float[Tensor, "n 3"], b: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """a x b, from the same end for both faces of the edge, so that their values are exact opposites."""
    ahead = torch.where(a[:, 0] != b[:, 0], a[:, 0] > b[:, 0], a[:, 1] > b[:, 1])
    same = (a[:, :2] == b[:, :2]).all(-1)
    swap = torch.where(same, a[:, 2] > b[:, 2], ahead)[:, None]
    first, second = torch.where(swap, b, a), torch.where(swap, a, b)
    product = torch.linalg.cross(first, second - first)
    return torch.where(swap, -product, product)


def _nearest(
    surface: Surface,
    corners: Float[Tensor, "f 3 3"],
    drawn: Bool[Tensor, "f"],
    columns: int,
    rows: int,
    near_depth: float,
    best: Float[Tensor, "_samples"],
) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "n"]]:
    """The nearest face of each sample that has one nearer than ``best``, 1 / depth, which is raised to it.

    Returns face indices and sample indices.
    """
    edges, inverse_depth, volume = _planes(corners)
    valid = drawn & (1 / volume).isfinite() & corners.isfinite().all(-1).all(-1)
    beyond = corners[:, :, 2] > near_depth
    valid &= beyond.any(-1)
    size = torch.tensor([columns, rows], device=corners.device)
    low, high = torch.zeros_like(size).repeat(len(corners), 1), (size - 1).repeat(len(corners), 1)
    whole = valid & beyond.all(-1)  # the others may reach anywhere
    on_screen = corners[whole, :, :2] / corners[whole, :, 2:]
    limit = size.to(corners)
    low[whole] = (on_screen.amin(1) - 0.51).ceil().clamp(min=0).minimum(limit).long()
    high[whole] = (on_screen.amax(1) - 0.49).floor().minimum(limit - 1).clamp(min=-1).long()
    extent = (high - low + 1).clamp(min=0) * valid[:, None]
    count = extent.prod(-1)

    owner = torch.full((rows * columns,), len(corners), dtype=torch.int64, device=corners.device)
    order = torch.nonzero(count).squeeze(-1)
    chunk = torch.div(count[order].cumsum(0), PAIRS_AT_ONCE, rounding_mode="floor")
    for index in range(int(chunk[-1]) + 1 if len(chunk) else 0):
        these = order[chunk == index]
        face = these.repeat_interleave(count[these])
        within = torch.arange(len(face), device=face.device)
        within = within - (count[these].cumsum(0) - count[these]).repeat_interleave(count[these])
        x, y = low[face, 0] + within % extent[face, 0], low[face, 1] + within // extent[face, 0]
        sample = y * columns + x
        ray = _rays(sample, columns).to(corners)
        value = (edges[face] @ ray[:, :, None]).squeeze(-1)
        normal = edges[face]
        owned = (normal[..., 0] > 0) | ((normal[..., 0] == 0) & (normal[..., 1] > 0))
        nearness = (inverse_depth[face] * ray).sum(-1)
        hit = ((value > 0) | ((value == 0) & owned)).all(-1) & (nearness > 0) & (nearness <= 1 / near_depth)
        face, sample, value, nearness = face[hit], sample[hit], value[hit], nearness[hit]
        if surface.uvs is not None:
            kept = _kept_by_alpha(surface, face, value / value.sum(-1, keepdim=True))
            face, sample, nearness = face[kept], sample[kept], nearness[kept]
        before = best.clone()
        best.scatter_reduce_(0, sample, nearness, "amax")
        owner[best > before] = len(corners)
        winning = (nearness == best[sample]) & (best[sample] > before[sample])
        owner.scatter_reduce_(0, sample[winning], face[winning], "amin")
    sample = torch.nonzero(owner < len(corners)).squeeze(-1)
    return owner[sample], sample


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
