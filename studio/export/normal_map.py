"""What a simplified surface has lost, kept as a picture of normals."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studio.export.corners import split_corners, tangents
from studio.meshes import GUTTER_PX, smooth_normals
from studio.ops.mesh_raster import dilate, interpolate, rasterize_uv
from studio.ops.neighbours import nearest
from studio.types import Mesh

_NEIGHBOURS = 4


def with_normal_map(mesh: Mesh, dense: Mesh, size: int) -> Mesh:
    """The mesh with a normal map that tells how the surface ran that it stands for.

    At each texel the map's normal, in the frame of tangent, bitangent and normal that a renderer interpolates
    there, is the dense surface's nearest one. Glancing normals keep to the outside.

    Args:
        mesh: of one material, with texture coordinates and smooth vertex normals.
        dense: the surface in full detail.
        size: texels along each side.
    """
    assert mesh.uvs is not None
    corners = split_corners(mesh)
    with_sign = torch.from_numpy(tangents(corners))
    normals = torch.from_numpy(corners.normals)
    # The bitangent as viewers form it, at the vertices.
    bitangents = torch.linalg.cross(normals, with_sign[:, :3]) * with_sign[:, 3:]
    places = torch.from_numpy(corners.positions)
    columns = torch.cat([with_sign[:, :3], bitangents, normals, places], dim=1)

    fragments = rasterize_uv(mesh.uvs, size, size)
    known = (fragments.face >= 0)[:, None]
    drawn = interpolate(columns, torch.from_numpy(corners.faces), fragments)[0][:, known[0, 0]].T
    frame = F.normalize(drawn[:, :9].reshape(-1, 3, 3), dim=-1)
    true = _normals_near(drawn[:, 9:], frame[:, 2], dense)
    told = torch.linalg.solve(frame.mT, true[..., None])[..., 0]
    told = F.normalize(torch.cat([told[:, :2], told[:, 2:].clamp_min(0.05)], dim=1), dim=1)

    image = torch.zeros(1, 3, size, size)
    image[:, :, known[0, 0]] = told.T
    image, known = dilate(image, known, GUTTER_PX)
    image = torch.where(known, F.normalize(image, dim=1), image.new_tensor([0.0, 0.0, 1.0])[:, None, None])
    material = replace(mesh.materials[0], normal_map=image[0].permute(1, 2, 0).contiguous())
    return replace(mesh, materials=(material,))


def _normals_near(
    places: Float[Tensor, "t 3"], facing: Float[Tensor, "t 3"], dense: Mesh
) -> Float[Tensor, "t 3"]:
    """The dense surface's normals, a mean of the nearest vertices that face the same side."""
    normals = smooth_normals(dense.vertices, dense.faces)
    vertices, distances = nearest(places, dense.vertices, _NEIGHBOURS)
    found = normals[vertices]
    same_side = (found @ facing[..., None])[..., 0] > 0
    weights = same_side / distances.square().clamp_min(1e-12)
    mean = (weights[..., None] * found).sum(1)
    return F.normalize(torch.where(same_side.any(1, keepdim=True), mean, facing), dim=1)
