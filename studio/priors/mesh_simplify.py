"""Fewer triangles for a textured mesh, with its seams, borders and shading kept in place.

Quadric-error decimation (Garland and Heckbert 1997) knows positions only. Here the mesh is cut first wherever
texture or material jumps, and each cut edge gets a *fin*, a triangle that stands on it at a right angle: its
plane enters the quadrics and holds the cut where it is (their section 6). Texture coordinates and normals of
the result are read off the original surface that each of its vertices stands for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from studio.types import Mesh

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_WELD_STEP = 1e-5
_NORMAL_PENALTY = 0.05


def simplify_mesh(mesh: Mesh, face_count: int) -> Mesh:
    """The mesh with about ``face_count`` triangles, or all of them if it has no more than that.

    A mesh of many small closed parts may have no way to get there; it keeps more. Faces without area or drawn
    twice go in any case. The result's vertices are its faces' corners, three a face; vertex colours are
    dropped.
    """
    import fast_simplification

    surface = _Surface(mesh)
    if len(surface.faces) <= face_count:
        return surface.as_mesh()
    fin_tips, fin_faces = _fins(surface.points, surface.faces)
    points = np.concatenate([surface.points, fin_tips])
    faces = np.concatenate([surface.faces, fin_faces])

    target = max(face_count + int(len(fin_faces) * face_count / len(surface.faces)), 8)
    while target < len(faces):
        new_points, new_faces, collapses = fast_simplification.simplify(
            points, faces.astype(np.int32), target_count=target, return_collapses=True
        )
        if len(new_faces) <= target:
            break
        # Out of reach: to get there it collapsed whatever it could at any cost. Stop it well before.
        target = int(1.5 * len(new_faces))
    else:
        return surface.as_mesh()
    *_, origin = fast_simplification.replay_simplification(points, faces.astype(np.int32), collapses)
    stands_for = origin[np.unique(surface.faces)]
    only_fins = np.ones(len(new_points), bool)
    only_fins[stands_for[stands_for >= 0]] = False
    new_faces = new_faces[~only_fins[new_faces].any(1)].astype(np.int64)
    return surface.carried_to(
        new_points.astype(np.float64), new_faces, origin[: len(surface.points)].astype(np.int64)
    )


class _Surface:
    """A mesh cut into charts: points with one material and one texture coordinate each."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        corners = mesh.faces.numpy().astype(np.int64)
        self.materials = np.zeros(len(corners), np.int64)
        if mesh.face_materials is not None:
            self.materials = mesh.face_materials.numpy().astype(np.int64)
        vertices = mesh.vertices.double().numpy()
        rows = [np.rint(vertices[corners] / _WELD_STEP), np.repeat(self.materials, 3).reshape(-1, 3, 1)]
        if mesh.uvs is not None:
            textured = np.array([material.texture is not None for material in mesh.materials])
            uvs = mesh.uvs.double().numpy() * textured[self.materials][:, None, None]
            rows.append(np.rint(uvs / 1e-4))
        table = np.concatenate(rows, 2).astype(np.int64).reshape(len(corners) * 3, -1)
        unique, inverse = np.unique(table, axis=0, return_inverse=True)
        self.points: FloatArray = (unique[:, :3] * _WELD_STEP).astype(np.float64)
        self.point_materials: IntArray = unique[:, 3]
        self.faces: IntArray = inverse.reshape(-1, 3)
        keep = _proper(self.faces)
        self.faces, self.materials, self.corners = self.faces[keep], self.materials[keep], corners[keep]
        self.uvs = None if mesh.uvs is None else mesh.uvs.double().numpy()[keep]
        self.normals = None if mesh.vertex_normals is None else mesh.vertex_normals.double().numpy()

    def as_mesh(self) -> Mesh:
        """The surface itself."""
        corners = torch.from_numpy(self.corners.reshape(-1))
        normals = self.mesh.vertex_normals
        return Mesh(
            vertices=self.mesh.vertices[corners],
            faces=torch.arange(len(corners)).reshape(-1, 3),
            uvs=None if self.uvs is None else torch.from_numpy(self.uvs).float(),
            face_materials=torch.from_numpy(self.materials),
            materials=self.mesh.materials,
            vertex_normals=None if normals is None else normals[corners],
        )

    def carried_to(self, points: FloatArray, faces: IntArray, origin: IntArray) -> Mesh:
        """This surface's attributes on a simplified one.

        Args:
            points, faces: the simplified surface.
            origin: for each of this surface's points the simplified one that stands for it, or -1.
        """
        member = np.empty(len(points), np.int64)
        member[origin[origin >= 0]] = np.flatnonzero(origin >= 0)
        materials = self.point_materials[member[faces[:, 0]]]
        source, weights = self._nearest(points, faces, origin)
        uvs = None if self.uvs is None else _interpolate(self.uvs[source], weights).reshape(-1, 3, 2)
        normals = None
        if self.normals is not None:
            blended = _interpolate(self.normals[self.corners[source]], weights)
            lengths = np.linalg.norm(blended, axis=1, keepdims=True)
            normals = torch.from_numpy(blended / lengths.clip(1e-9)).float()
        return Mesh(
            vertices=torch.from_numpy(points[faces.reshape(-1)]).float(),
            faces=torch.arange(faces.size).reshape(-1, 3),
            uvs=None if uvs is None else torch.from_numpy(uvs).float(),
            face_materials=torch.from_numpy(materials),
            materials=self.mesh.materials,
            vertex_normals=normals,
        )

    def _nearest(self, points: FloatArray, faces: IntArray, origin: IntArray) -> tuple[IntArray, FloatArray]:
        """For each corner of a simplified face, the original face nearest to it and where on that face.

        Only faces around the points that the corner stands for are asked, and one that faces the same way is
        preferred, so corners on a crease keep the shading of their own side.
        """
        new_point = origin[self.faces]
        links = np.stack([new_point.reshape(-1), np.repeat(np.arange(len(self.faces)), 3)], 1)
        links = np.unique(links[links[:, 0] >= 0], axis=0)
        starts = np.searchsorted(links[:, 0], np.arange(len(points) + 1))
        corner_points = faces.reshape(-1)
        counts = starts[corner_points + 1] - starts[corner_points]
        corner = np.repeat(np.arange(len(corner_points)), counts)
        within = np.arange(len(corner)) - np.repeat(np.cumsum(counts) - counts, counts)
        candidate = links[starts[corner_points[corner]] + within, 1]

        triangles = self.points[self.faces[candidate]]
        weights = _closest_on_triangles(points[corner_points[corner]], triangles)
        offset = _interpolate(triangles, weights) - points[corner_points[corner]]
        new_normals, old_normals = _face_normals(points, faces), _face_normals(self.points, self.faces)
        agreement = (new_normals[corner // 3] * old_normals[candidate]).sum(1)
        cost = np.linalg.norm(offset, axis=1) + _NORMAL_PENALTY * (1 - agreement)
        order = np.lexsort((cost, corner))
        best = order[np.searchsorted(corner[order], np.arange(len(corner_points)))]
        return candidate[best], weights[best]


def _proper(faces: IntArray) -> IntArray:
    """The faces with three different points, each once: many models hold every face a second time, reversed,
    which draws no differently and makes every edge join four faces."""
    corners = np.sort(faces, 1)
    whole = np.flatnonzero((corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]))
    _, first = np.unique(corners[whole], axis=0, return_index=True)
    kept: IntArray = np.sort(whole[first])
    return kept


def _fins(points: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    """Triangles on the border edges of a surface: their new points, and their faces over all points."""
    edges = np.stack([faces, np.roll(faces, -1, axis=1)], 2).reshape(-1, 2)
    _, inverse, count = np.unique(np.sort(edges, 1), axis=0, return_inverse=True, return_counts=True)
    border = np.flatnonzero(count[inverse.reshape(-1)] == 1)
    start, end = points[edges[border, 0]], points[edges[border, 1]]
    length = np.linalg.norm(end - start, axis=1, keepdims=True)
    tips = (start + end) / 2 + _face_normals(points, faces)[border // 3] * length
    tip_indices = len(points) + np.arange(len(border))
    return tips, np.concatenate([edges[border, ::-1], tip_indices[:, None]], 1)


def _face_normals(points: FloatArray, faces: IntArray) -> FloatArray:
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    unit: FloatArray = normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-20)
    return unit


def _interpolate(corner_values: FloatArray, weights: FloatArray) -> FloatArray:
    """[n 3 k] values at corners and [n 3] barycentric weights to [n k]."""
    mixed: FloatArray = np.einsum("nck,nc->nk", corner_values, weights)
    return mixed


def _closest_on_triangles(points: FloatArray, triangles: FloatArray) -> FloatArray:
    """Barycentric weights of the point of each triangle nearest to each point.

    The foot of the perpendicular if it falls inside, else the nearest of the three edges' nearest points.
    """
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    area = (d00 * d11 - d01 * d01).clip(1e-30)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = np.stack([1 - v - w, v, w], 1)

    best, best_distance = inside, np.where((inside >= 0).all(1), 0.0, np.inf)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        start, along = triangles[:, first], triangles[:, second] - triangles[:, first]
        share = ((points - start) * along).sum(1) / (along * along).sum(1).clip(1e-30)
        share = share.clip(0, 1)
        distance = np.linalg.norm(start + share[:, None] * along - points, axis=1)
        weights = np.zeros_like(inside)
        weights[:, first], weights[:, second] = 1 - share, share
        nearer = distance < best_distance
        best = np.where(nearer[:, None], weights, best)
        best_distance = np.where(nearer, distance, best_distance)
    return best
