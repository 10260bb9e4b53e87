from __future__ import annotations

import numpy as np
import torch
import trimesh

from studio.evaluate.metrics import check_mesh
from studio.export.manifold import forked, manifold
from studio.types import Mesh


def as_mesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long())


def touching(offset: tuple[float, float, float]) -> Mesh:
    """Two unit cubes, the second moved, with their common corners made one."""
    second = trimesh.creation.box()
    second.apply_translation(offset)
    both = trimesh.util.concatenate([trimesh.creation.box(), second])
    both.merge_vertices()
    return as_mesh(both)


def test_a_sound_mesh_stays_as_it_is() -> None:
    ball = as_mesh(trimesh.creation.icosphere(2))
    same = manifold(ball)
    assert len(same.vertices) == len(ball.vertices)
    torch.testing.assert_close(same.vertices[same.faces], ball.vertices[ball.faces])


def test_cubes_that_share_an_edge_come_apart() -> None:
    mesh = touching((1.0, 1.0, 0.0))
    assert len(mesh.vertices) == 14
    before = check_mesh(mesh)
    assert not before.watertight and before.components == 1
    after = manifold(mesh)
    checks = check_mesh(after)
    assert checks.watertight and checks.components == 2
    # Each cube keeps its faces together, and its volume but for the hair.
    parts = trimesh.Trimesh(after.vertices.numpy(), after.faces.numpy(), process=False).split()
    assert len(parts) == 2
    np.testing.assert_allclose([part.volume for part in parts], 1.0, rtol=0.02)


def test_cubes_that_share_a_corner_come_apart() -> None:
    mesh = touching((1.0, 1.0, 1.0))
    assert len(mesh.vertices) == 15
    after = manifold(mesh)
    checks = check_mesh(after)
    assert checks.watertight and checks.components == 2 and len(after.vertices) == 16
    assert (after.vertices[after.faces] - mesh.vertices[mesh.faces]).norm(dim=-1).max() < 0.02


def test_an_edge_that_is_passed_twice_is_taken_apart() -> None:
    """A flap without thickness hangs on a ball: its edge has four faces."""
    ball = as_mesh(trimesh.creation.icosphere(1))
    a, b = ball.faces[0, :2].tolist()
    tip = len(ball.vertices)
    vertices = torch.cat([ball.vertices, 1.5 * ball.vertices[[a, b]].mean(0, keepdim=True)])
    mesh = Mesh(vertices, torch.cat([ball.faces, torch.tensor([[a, b, tip], [b, a, tip]])]))
    assert not check_mesh(mesh).watertight
    apart = forked(mesh)
    assert apart is not None and check_mesh(apart).watertight
    assert forked(apart) is None
    # Whether the flap goes or the ball is cut, the ball stays what it was.
    shape = trimesh.Trimesh(apart.vertices.numpy(), apart.faces.numpy(), process=False)
    truth = trimesh.creation.icosphere(1)
    np.testing.assert_allclose(shape.volume, truth.volume, rtol=1e-2)
