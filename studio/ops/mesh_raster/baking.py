"""Drawing into textures: the atlas as a picture, its gutters and its seams."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from studio.ops.library import Backend
from studio.ops.mesh_raster.antialias import face_neighbours
from studio.ops.mesh_raster.rasterize import Fragments, rasterize
from studio.ops.mesh_raster.texture import sample


def rasterize_uv(
    uvs: Float[Tensor, "f 3 2"], width: int, height: int, *, backend: Backend = "auto"
) -> Fragments:
    """What each texel of a texture shows of the mesh.

    ``interpolate(vertices, faces, rasterize_uv(uvs, ...))`` are the texels' places in the world.

    Faces of fragments are the mesh's. Of overlapping charts the first face is seen.

    Args:
        uvs: texture coordinates of each face's corners, v up, in 0-1.
        width, height: of the texture.
    """
    flat = uvs.reshape(1, -1, 2)
    positions = torch.cat(
        [2 * flat - 1, torch.zeros_like(flat[..., :1]), torch.ones_like(flat[..., :1])], dim=-1
    )
    corners = torch.arange(3 * len(uvs), dtype=torch.int32, device=uvs.device).reshape(-1, 3)
    return rasterize(positions, corners, width, height, backend=backend)


def dilate(
    image: Float[Tensor, "b c h w"], known: Bool[Tensor, "b 1 h w"], pixels: int
) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "b 1 h w"]]:
    """Grows what is known of an image into its surroundings, so that filtering finds no gutters.

    Returns the image, each new pixel the mean of its known neighbours, and what is known now.
    """
    mask = known.to(image)
    image = image.where(known, 0)
    for _ in range(pixels):
        around = F.avg_pool2d(torch.cat([image * mask, mask], dim=1), 3, 1, 1)
        grown = (around[:, -1:] > 0) & (mask == 0)
        image = torch.where(grown, around[:, :-1] / around[:, -1:].clamp(min=1e-6), image)
        mask = torch.where(grown, 1.0, mask)
    return image, mask > 0


def seams(faces: Int[Tensor, "f 3"], uvs: Float[Tensor, "f 3 2"]) -> Float[Tensor, "s 2 2 2"]:
    """Edges that two faces share but not their texture coordinates: [seam, side, end, uv].

    Both sides name the ends in the same order.
    """
    neighbours = face_neighbours(faces).long()
    face, corner = torch.nonzero(neighbours >= 0).unbind(-1)
    other = torch.div(neighbours[face, corner], 2, rounding_mode="floor")
    face, corner, other = face[face < other], corner[face < other], other[face < other]
    ends = torch.stack([(corner + 1) % 3, (corner + 2) % 3], dim=1)
    vertices = faces.long()[face].gather(1, ends)
    there = (faces.long()[other][:, None] == vertices[:, :, None]).long().argmax(-1)
    sides = torch.stack([uvs[face[:, None], ends], uvs[other[:, None], there]], dim=1)
    return sides[(sides[:, 0] != sides[:, 1]).any(-1).any(-1)]


def repair_seams(
    texture: Float[Tensor, "h w c"],
    faces: Int[Tensor, "f 3"],
    uvs: Float[Tensor, "f 3 2"],
    *,
    iterations: int = 20,
    backend: Backend = "auto",
) -> Float[Tensor, "h w c"]:
    """The texture with the colours on both sides of each seam brought together.

    Points along the seams, about a texel apart, pull the texels around them to the mean of both sides:
    relaxed Kaczmarz steps on the bilinear interpolation, so that texels away from seams stay as they are.

    Args:
        texture: row 0 at v = 1; its gutters filled, see ``dilate``.
        faces: of vertices; vertices at one place must be one vertex.
        uvs: texture coordinates of each face's corners.
        iterations: how often to go over all seams.
    """
    edges = seams(faces, uvs)
    height, width = texture.shape[:2]
    size = uvs.new_tensor([width, height])
    lengths = ((edges[:, :, 0] - edges[:, :, 1]) * size).norm(dim=-1).amax(-1)
    counts = lengths.nan_to_num(0.0, 0.0, 0.0).ceil().long() + 1
    seam = torch.arange(len(edges), device=uvs.device).repeat_interleave(counts)
    within = torch.arange(len(seam), device=uvs.device) - (counts.cumsum(0) - counts)[seam]
    share = ((within + 0.5) / counts[seam])[:, None, None].to(uvs)
    uv = edges[seam, :, 0] * (1 - share) + edges[seam, :, 1] * share  # [n 2 2]
    if len(uv) == 0:
        return texture
    place = uv.permute(2, 1, 0)[None]  # [1 2 2 n]

    def pulled(values: Float[Tensor, "1 c 2 n"]) -> Float[Tensor, "h w c"]:
        """The sum over all points of what they put on texels: the transpose of reading."""
        zero = texture.new_zeros(1, height, width, values.shape[1], requires_grad=True)
        with torch.enable_grad():
            read = sample([zero], place, wrap="clamp", backend=backend)
        return torch.autograd.grad(read, zero, values)[0][0]

    share_of_points = pulled(texture.new_ones(1, 1, 2, len(uv))).clamp(min=1e-3)
    for _ in range(iterations):
        read = sample([texture[None].detach()], place, wrap="clamp", backend=backend)
        texture = texture + pulled(read.mean(2, keepdim=True) - read) / share_of_points
    return texture
