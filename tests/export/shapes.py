"""Splats and meshes that the export tests write."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import trimesh

from studio.meshes import smooth_normals, with_uvs
from studio.types import Animation, Material, Mesh, Rig, Splats

SH_DEGREE_0 = 0.28209479177387814


def random_splats(count: int, coefficients: int = 1, seed: int = 0) -> Splats:
    """Splats whose every value differs from every other."""
    rng = torch.Generator().manual_seed(seed)
    return Splats(
        means=torch.rand(count, 3, generator=rng) - 0.5,
        quats_wxyz=torch.randn(count, 4, generator=rng),
        scales=torch.exp(torch.randn(count, 3, generator=rng) - 4),
        opacities=0.02 + 0.96 * torch.rand(count, generator=rng),
        sh=0.5 * torch.randn(count, coefficients, 3, generator=rng),
    )


def splats_on(shape: trimesh.Trimesh, colors: np.ndarray, count: int) -> Splats:
    """Small opaque discs all over a surface; ``colors`` holds rgb in 0-1 of each face."""
    points, faces = trimesh.sample.sample_surface(shape, count, seed=0)
    normals = torch.tensor(shape.face_normals[faces]).float()
    spacing = (shape.area / count) ** 0.5
    # The rotation that turns z into the normal: half way between them, as a quaternion.
    quats = torch.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], 0 * normals[:, 0]], dim=-1)
    quats[quats.norm(dim=-1) < 1e-3] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    return Splats(
        means=torch.tensor(points).float(),
        quats_wxyz=quats,
        scales=torch.tensor([0.8, 0.8, 0.1]).repeat(count, 1) * spacing,
        opacities=torch.full((count,), 0.95),
        sh=(torch.tensor(colors[faces]).float()[:, None] - 0.5) / SH_DEGREE_0,
    )


def stool() -> tuple[trimesh.Trimesh, np.ndarray]:
    """A chequered seat on four thin legs, and the rgb of each face."""
    seat = trimesh.creation.box((0.6, 0.1, 0.6)).subdivide().subdivide()
    seat.apply_translation((0, 0.2, 0))
    parts, colors = [seat], []
    chequers = np.sin(12 * seat.triangles_center[:, 0]) * np.sin(12 * seat.triangles_center[:, 2]) > 0
    colors.append(np.where(chequers[:, None], (0.9, 0.2, 0.1), (0.1, 0.3, 0.8)))
    for x in (-0.25, 0.25):
        for z in (-0.25, 0.25):
            leg = trimesh.creation.cylinder(radius=0.02, height=0.5, sections=12)
            leg.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
            leg.apply_translation((x, -0.1, z))
            parts.append(leg)
            colors.append(np.tile((0.2, 0.6, 0.2), (len(leg.faces), 1)))
    return trimesh.util.concatenate(parts), np.concatenate(colors)


def textured_quads() -> Mesh:
    """Two squares with a seam of texture between them: one textured, one plain and half transparent."""
    texture = torch.rand(8, 16, 4, generator=torch.Generator().manual_seed(1))
    texture[..., 3] = 1.0
    vertices = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0.5], [2, 1, 0.5]]).float()
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [1, 4, 5], [1, 5, 2]])
    square = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    return Mesh(
        vertices=vertices,
        faces=faces,
        uvs=torch.cat([square, 0.5 * square]),
        face_materials=torch.tensor([0, 0, 1, 1]),
        materials=(Material(texture=texture), Material(base_color=(0.5, 0.25, 1.0, 0.5))),
    )


def bending_bar(frames: int = 5, carriers: int = 3, loops: bool = False) -> Animation[Mesh]:
    """A textured bar that four nodes bend and carry away; its frames by the rig's formula, point by point."""
    shape = trimesh.creation.box((0.8, 0.15, 0.15)).subdivide().subdivide()
    bar = with_uvs(Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long()), 64)
    texture = torch.rand(64, 64, 4, generator=torch.Generator().manual_seed(1))
    texture[..., 3] = 1.0
    normals = smooth_normals(bar.vertices, bar.faces)
    rest = Mesh(bar.vertices, bar.faces, bar.uvs, None, (Material(texture=texture),), vertex_normals=normals)

    nodes = np.array([[-0.4, 0.0, 0.0], [-0.1, 0.0, 0.0], [0.1, 0.0, 0.0], [0.4, 0.0, 0.0]])
    points = rest.vertices.double().numpy()
    distances = np.linalg.norm(points[:, None] - nodes, axis=-1)
    chosen = np.argsort(distances, axis=1)[:, :carriers]
    weights = np.exp(-np.take_along_axis(distances, chosen, axis=1) / 0.1)
    weights /= weights.sum(axis=1, keepdims=True)
    phase = np.arange(frames) / (frames if loops else max(frames - 1, 1))
    turns = np.sin(2 * np.pi * phase)[:, None] * np.array([-1.2, -0.3, 0.3, 1.2])
    quats = np.stack(
        [np.cos(turns / 2), 0 * turns, 0.6 * np.sin(turns / 2), 0.8 * np.sin(turns / 2)], axis=-1
    )
    shifts = np.stack([0 * turns, 0.1 * turns**2, 0.05 * turns], axis=-1)
    moved = np.zeros((frames, *points.shape))
    for frame in range(frames):
        for point in range(len(points)):
            for weight, k in zip(weights[point], chosen[point], strict=True):
                w, x, y, z = quats[frame, k]
                axis, arm = np.array([x, y, z]), points[point] - nodes[k]
                turned = arm + 2 * w * np.cross(axis, arm) + 2 * np.cross(axis, np.cross(axis, arm))
                moved[frame, point] += weight * (turned + nodes[k] + shifts[frame, k])
    vertices = torch.tensor(moved).float()
    return Animation(
        rest=rest,
        frames=tuple(
            replace(rest, vertices=places, vertex_normals=smooth_normals(places, rest.faces))
            for places in vertices
        ),
        times=torch.tensor(phase).float(),
        seconds=2.0,
        loops=loops,
        rig=Rig(
            nodes=torch.tensor(nodes).float(),
            carriers=torch.tensor(chosen),
            weights=torch.tensor(weights).float(),
            quats_wxyz=torch.tensor(quats).float(),
            translations=torch.tensor(shifts).float(),
        ),
    )
