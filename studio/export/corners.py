"""A mesh as graphics hardware wants it: one index for position, normal, texture coordinate and colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from studio.meshes import face_normals, unit
from studio.types import Mesh


@dataclass(frozen=True)
class CornerMesh:
    """A mesh whose vertices are split wherever a corner's normal or texture coordinate differs.

    Attributes:
        positions, normals: per vertex; normals are unit.
        uvs: per vertex, v up, or None.
        colors: rgb per vertex in 0-1, sRGB, or None.
        faces: vertex indices, counter-clockwise seen from outside.
        face_materials: index of each face's material.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    uvs: NDArray[np.float32] | None
    colors: NDArray[np.float32] | None
    faces: NDArray[np.int64]
    face_materials: NDArray[np.int64]


def split_corners(mesh: Mesh) -> CornerMesh:
    """The mesh with one index a corner. Flat meshes get their faces' normals."""
    if mesh.vertex_normals is None:
        normals = unit(face_normals(mesh.vertices, mesh.faces)).repeat_interleave(3, dim=0)
    else:
        normals = unit(mesh.vertex_normals)[mesh.faces].reshape(-1, 3)
    corner_vertices = mesh.faces.flatten()
    columns = [corner_vertices[:, None].to(torch.float64), normals.double()]
    if mesh.uvs is not None:
        columns.append(mesh.uvs.reshape(-1, 2).double())
    corners = torch.cat([column.detach().cpu() for column in columns], dim=1).numpy().astype("<f8")

    # Equal rows as equal byte strings: np.unique over a void view is many times faster than over axis 0.
    keys = np.ascontiguousarray(corners + 0.0).view(f"V{corners.shape[1] * 8}")[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    vertex = corner_vertices.cpu().numpy()[first]
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors.detach().cpu().float().numpy()[vertex]
    face_count = len(mesh.faces)
    materials = (
        torch.zeros(face_count, dtype=torch.long) if mesh.face_materials is None else mesh.face_materials
    )
    return CornerMesh(
        positions=mesh.vertices.detach().cpu().float().numpy()[vertex],
        normals=corners[first, 1:4].astype(np.float32),
        uvs=None if mesh.uvs is None else corners[first, 4:6].astype(np.float32),
        colors=colors,
        faces=inverse.reshape(face_count, 3).astype(np.int64),
        face_materials=materials.cpu().numpy().astype(np.int64),
    )
