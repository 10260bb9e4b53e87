"""Rasterization by PyTorch3D (Ravi et al. 2020, arXiv:2007.08501), in the terms of
``studio.ops.mesh_raster``."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.ops import mesh_raster
from studio.ops.mesh_raster import NEAR, Fragments, interpolate
from studio.ops.mesh_raster.rasterize_reference import fragments_reference


def rasterize(
    positions: Float[Tensor, "b v 4"],
    faces: Int[Tensor, "f 3"],
    width: int,
    height: int,
    *,
    slopes: bool = False,
) -> Fragments:
    """As ``studio.ops.mesh_raster.rasterize``, of positions by ``clip_matrices`` with its own near plane.

    The far plane cuts nothing off, and slopes, which PyTorch3D has none of, are those of our reference.
    """
    if not len(faces):  # which it refuses
        return mesh_raster.rasterize(positions, faces, width, height, slopes=slopes)
    from pytorch3d.renderer.mesh import rasterize_meshes
    from pytorch3d.structures import Meshes

    # Its screen has x to the left, and its shorter side runs from -1 to 1. It takes single precision.
    shorter = min(width, height)
    scale = positions.new_tensor([-width / shorter, height / shorter])
    broken = ~(positions.detach()[..., :2] / positions.detach()[..., 3:]).isfinite().all(-1)  # [b v]
    sound = positions.where(~broken[..., None], 1.0)
    on_screen = torch.cat([sound[..., :2] / sound[..., 3:] * scale, sound[..., 3:]], dim=-1).float()
    corners = faces.long().expand(len(positions), -1, -1)
    undrawn = broken[:, faces.long()].any(-1, keepdim=True)  # made degenerate, which it leaves out
    meshes = Meshes(on_screen, corners.where(~undrawn, corners[..., :1]))
    packed, _, barycentric, _ = rasterize_meshes(
        meshes, (height, width), faces_per_pixel=1, perspective_correct=True, z_clip_value=NEAR
    )
    first = torch.arange(len(positions), device=faces.device)[:, None, None] * len(faces)
    seen = packed[..., 0] >= 0
    face = (packed[..., 0] - first).where(seen, -1).int()
    weights = (barycentric[..., 0, :] * seen[..., None]).movedim(-1, 1).to(positions)
    fragments = Fragments(face, weights, torch.ones_like(weights[:, :1]), None)
    z, w = interpolate(positions[..., 2:], faces, fragments).unbind(1)
    depth = torch.where(seen, z / w.where(seen, 1.0), 1.0)[:, None]
    across = fragments_reference(positions, faces.int(), face, slopes=True)[2] if slopes else None
    return Fragments(face, weights, depth, across)
