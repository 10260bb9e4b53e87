"""A bumpy ball of few faces with a normal map, against the normals that its formula has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import trimesh

from studio.export.corners import CornerMesh, split_corners, tangents
from studio.export.normal_map import with_normal_map
from studio.export.surface import simplified
from studio.export.texture import unwrapped
from studio.ops.mesh_raster import interpolate, rasterize_uv
from studio.types import Mesh

SIZE = 256


def radius(directions: torch.Tensor) -> torch.Tensor:
    return 0.4 + 0.008 * torch.sin(14 * directions).prod(-1)


def true_normals(directions: torch.Tensor) -> torch.Tensor:
    """Along the gradient of |x| - radius(x / |x|)."""
    points = (radius(directions)[:, None] * directions).double().requires_grad_()
    level = points.norm(dim=-1) - radius(F.normalize(points, dim=-1))
    (gradient,) = torch.autograd.grad(level.sum(), points)
    return F.normalize(gradient, dim=-1).float()


def bumpy_ball(subdivisions: int) -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions)
    directions = torch.tensor(ball.vertices).float()
    return Mesh(radius(directions)[:, None] * directions, torch.tensor(ball.faces).long())


def shaded(mesh: Mesh) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Places, plain normals and mapped normals of all texels, as the glTF specification shades them."""
    assert mesh.uvs is not None and mesh.materials[0].normal_map is not None
    corners = split_corners(mesh)
    fragments = rasterize_uv(mesh.uvs, SIZE, SIZE)
    inside = fragments.face[0] >= 0

    def drawn(rows: np.ndarray) -> torch.Tensor:
        picture = interpolate(torch.from_numpy(rows), torch.from_numpy(corners.faces), fragments)[0]
        return picture[:, inside].T

    along = tangents(corners)
    normal, tangent = (F.normalize(drawn(rows), dim=1) for rows in (corners.normals, along[:, :3].copy()))
    across = np.cross(corners.normals, along[:, :3]) * along[:, 3:]
    bitangent = F.normalize(drawn(across), dim=1)
    # As a viewer gets it: eight bits a channel.
    x, y, z = ((mesh.materials[0].normal_map[inside] + 1) * 127.5).round().div(127.5).sub(1).unbind(-1)
    mapped = x[:, None] * tangent + y[:, None] * bitangent + z[:, None] * normal
    return drawn(corners.positions), normal, F.normalize(mapped, dim=1)


def mean_degrees(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.rad2deg((a * b).sum(1).clamp(-1, 1).acos()).mean())


def test_the_map_brings_the_bumps_back() -> None:
    dense = bumpy_ball(5)
    mesh = with_normal_map(unwrapped(simplified(dense, 600), SIZE), dense, SIZE)
    places, plain, mapped = shaded(mesh)
    truth = true_normals(F.normalize(places, dim=1))
    assert mean_degrees(plain, truth) > 5
    assert mean_degrees(mapped, truth) < 1.2


def test_a_surface_that_lost_nothing_has_a_flat_map() -> None:
    dense = bumpy_ball(3)
    mesh = with_normal_map(unwrapped(dense, SIZE), dense, SIZE)
    flat = torch.tensor([0.0, 0.0, 1.0])
    normal_map = mesh.materials[0].normal_map
    assert normal_map is not None
    torch.testing.assert_close(normal_map.norm(dim=-1), torch.ones(SIZE, SIZE))
    assert mean_degrees(normal_map.reshape(-1, 3), flat.expand(SIZE * SIZE, 3)) < 1


@pytest.mark.parametrize("mirrored", [False, True])
def test_tangents_follow_u_and_tell_the_side_of_v(mirrored: bool) -> None:
    """On a tilted plane with u = a . x and v = b . x the directions of growing u and v are known."""
    plane = torch.tensor([[0.0, 0, 0], [2, 0, 0], [2, 1, 1], [0, 1, 1]])
    uvs = torch.stack([plane[:, 0] / 2, plane[:, 1]], dim=-1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    u, v = torch.tensor([1.0, 0, 0]), F.normalize(torch.tensor([0.0, 1, 1]), dim=0)
    if mirrored:
        uvs, u = uvs * torch.tensor([-1.0, 1.0]), -u
    corners = split_corners(Mesh(plane, faces, uvs[faces]))
    along = torch.from_numpy(tangents(corners))
    across = torch.linalg.cross(torch.from_numpy(corners.normals), along[:, :3]) * along[:, 3:]
    torch.testing.assert_close(along[:, :3], u.expand(len(along), 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(across, v.expand(len(along), 3), atol=1e-6, rtol=0)


def test_tangents_of_texture_coordinates_without_area_are_sound() -> None:
    ball = bumpy_ball(2)
    corners = split_corners(Mesh(ball.vertices, ball.faces[:50], torch.zeros(50, 3, 2)))
    check_sound(corners)
    broken = replace(corners, positions=np.zeros_like(corners.positions))
    check_sound(broken)


def check_sound(corners: CornerMesh) -> None:
    along = tangents(corners)
    np.testing.assert_allclose(np.linalg.norm(along[:, :3], axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose((along[:, :3] * corners.normals).sum(axis=1), 0.0, atol=1e-6)
    assert set(along[:, 3]) <= {-1.0, 1.0}
