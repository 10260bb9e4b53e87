"""Rasterization by PyTorch3D (Ravi et al. 2020, arXiv:2007.08501), in the terms of
``studio.ops.mesh_raster``."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    from pytorch3d.renderer.mesh import rasterize_meshes
    from pytorch3d.structures import Meshes

    # Its screen has x to the left, and its shorter side runs from -1 to 1.
    w, shorter = positions[..., 3:], min(width, height)
    scale = positions.new_tensor([-width / shorter, height / shorter])
    on_screen = torch.cat([positions[..., :2] / w * scale, w], dim=-1)
    meshes = Meshes(on_screen, faces.expand(len(positions), -1, -1))
    packed, _, barycentric, _ = rasterize_meshes(
        meshes, (height, width), faces_per_pixel=1, perspective_correct=True, z_clip_value=NEAR
    )
    first = torch.arange(len(positions), device=faces.device)[:, None, None] * len(faces)
    seen = packed[..., 0] >= 0
    face = (packed[..., 0] - first).where(seen, -1).int()
    weights = (barycentric[..., 0, :] * seen[..., None]).movedim(-1, 1)
    fragments = Fragments(face, weights, torch.ones_like(weights[:, :1]), None)
    z, w = interpolate(positions[..., 2:], faces, fragments).unbind(1)
    depth = torch.where(seen, z / w.where(seen, 1.0), 1.0)[:, None]
    across = fragments_reference(positions, faces.int(), face, slopes=True)[2] if slopes else None
    return Fragments(face, weights, depth, across)
