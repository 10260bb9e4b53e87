"""A mesh as graphics hardware wants it: one index for position, normal, texture coordinate and colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

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
        corners: of the mesh that was split, which each vertex comes from: 3 f + k is corner k of face f.
        vertices: of the mesh that was split, at which each vertex stands.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    uvs: NDArray[np.float32] | None
    colors: NDArray[np.float32] | None
    faces: NDArray[np.int64]
    face_materials: NDArray[np.int64]
    corners: NDArray[np.int64]
    vertices: NDArray[np.int64]


def split_corners(mesh: Mesh, frames: Sequence[Mesh] = ()) -> CornerMesh:
    """The mesh with one index a corner. Flat meshes get their faces' normals.

    Args:
        mesh: to be split.
        frames: the same mesh at other instants, whose normals are to fit the split as well.
    """
    corner_vertices = mesh.faces.flatten()
    normals = _corner_normals(mesh).double()
    columns = [corner_vertices[:, None].to(torch.float64), normals]
    columns += [_corner_normals(frame).double() for frame in frames if frame.vertex_normals is None]
    if mesh.uvs is not None:
        columns.append(mesh.uvs.reshape(-1, 2).double())
    keys = torch.cat([column.detach().cpu() for column in columns], dim=1).numpy()

    # Equal rows as equal byte strings: np.unique over a void view is many times faster than over axis 0.
    rows = np.ascontiguousarray(keys + 0.0).view(f"V{keys.shape[1] * 8}")[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    vertex = corner_vertices.cpu().numpy()[first]
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors.detach().cpu().float().numpy()[vertex]
    face_count = len(mesh.faces)
    materials = (
        torch.zeros(face_count, dtype=torch.long) if mesh.face_materials is None else mesh.face_materials
    )
    return CornerMesh(
        positions=mesh.vertices.detach().cpu().float().numpy()[vertex],
        normals=keys[first, 1:4].astype(np.float32),
        uvs=None if mesh.uvs is None else keys[first, -2:].astype(np.float32),
        colors=colors,
        faces=inverse.reshape(face_count, 3).astype(np.int64),
        face_materials=materials.cpu().numpy().astype(np.int64),
        corners=first.astype(np.int64),
        vertices=vertex,
    )


def posed(corners: CornerMesh, frame: Mesh) -> CornerMesh:
    """The split mesh at another instant: ``frame`` is the mesh that was split, moved."""
    positions = frame.vertices.detach().cpu().float().numpy()[corners.vertices]
    normals = _corner_normals(frame).detach().cpu().float().numpy()[corners.corners]
    return replace(corners, positions=positions, normals=normals)


def _corner_normals(mesh: Mesh) -> Float[Tensor, "c 3"]:
    """The unit normal at each corner 3 f + k."""
    if mesh.vertex_normals is None:
        return unit(face_normals(mesh.vertices, mesh.faces)).repeat_interleave(3, dim=0)
    return unit(mesh.vertex_normals)[mesh.faces].reshape(-1, 3)


def tangents(corners: CornerMesh) -> NDArray[np.float32]:
    """The direction of growing u at each vertex, and the sign that tells growing v, as glTF has them.

    Row (x, y, z, w) is a unit vector at right angles to the normal, and growing v is
    ``w (normal x tangent)``. Each face counts by its area. Where texture coordinates span no area any
    direction along the surface will do.

    Args:
        corners: with texture coordinates.
    """
    assert corners.uvs is not None
    faces, normals = corners.faces, corners.normals.astype(np.float64)
    edges = corners.positions[faces[:, 1:]].astype(np.float64) - corners.positions[faces[:, :1]]
    slopes = corners.uvs[faces[:, 1:]].astype(np.float64) - corners.uvs[faces[:, :1]]
    (du1, dv1), (du2, dv2) = slopes[:, 0].T, slopes[:, 1].T
    along = edges[:, 0] * dv2[:, None] - edges[:, 1] * dv1[:, None]
    side = np.sign(du1 * dv2 - du2 * dv1)
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    along *= (side * area / np.maximum(np.linalg.norm(along, axis=1), 1e-300))[:, None]

    total, turn = np.zeros((len(normals), 3)), np.zeros(len(normals))
    for corner in range(3):
        np.add.at(total, faces[:, corner], along)
        np.add.at(turn, faces[:, corner], side * area)
    total -= normals * (normals * total).sum(axis=1, keepdims=True)
    lost = np.linalg.norm(total, axis=1) < 1e-12
    total[lost] = np.cross(normals[lost], np.eye(3)[np.abs(normals[lost]).argmin(axis=1)])
    total /= np.linalg.norm(total, axis=1, keepdims=True)
    return np.concatenate([total, np.where(turn < 0, -1.0, 1.0)[:, None]], axis=1).astype(np.float32)
