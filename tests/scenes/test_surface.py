"""Scenes of surfaces and textured meshes: how they begin, what they refuse, their losses in closed form."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.meshes import mesh_statistics
from studio.recipes.config import SurfaceConfig, TexturedMeshConfig
from studio.scenes.mesh import TexturedMesh, initial_textured_mesh
from studio.scenes.regularizers import roughness
from studio.scenes.surface import Surface
from studio.types import Mesh

GRID = SurfaceConfig(resolution=12)


def test_a_surface_begins_as_a_grey_closed_ball() -> None:
    with torch.no_grad():
        mesh = Surface.ball(GRID).at(None)
    assert torch.allclose(mesh.vertices.norm(dim=1), torch.tensor(GRID.radius), atol=0.04)
    assert mesh_statistics(mesh).is_watertight
    assert mesh.vertex_colors is not None and bool((mesh.vertex_colors == 0.5).all())


def test_a_pull_at_the_surface_moves_the_points_ahead_of_it_too() -> None:
    scene = Surface.ball(GRID)
    scene.at(None).vertices.norm(dim=1).sum().backward()  # type: ignore[no-untyped-call]
    pulled = scene.tensors.distances.grad
    assert pulled is not None
    cut = torch.zeros(scene.grid.count, dtype=torch.bool)
    cut[scene.crossings().edges] = True
    assert int((pulled != 0).sum()) > 1.5 * int(cut.sum())
    assert float(pulled.sum()) < 0  # lower distances make the ball larger


def test_the_surface_is_cut_anew_when_signs_change() -> None:
    scene = Surface.ball(SurfaceConfig(resolution=32))
    before = len(scene)
    with torch.no_grad():
        scene.tensors.distances.sub_(0.05)
    assert len(scene) > before
    radius = scene.at(None).vertices.detach().norm(dim=1).mean()
    assert float(radius) == pytest.approx(0.35 + 0.05, abs=0.01)


def test_entropy_of_signs() -> None:
    """Munkberg et al. 2022, eq. 2, by torch's own cross entropy."""
    scene = Surface.ball(GRID)
    ends = scene.distances()[scene.crossings().edges] / scene.grid.spacing
    others = (ends.flip(1) >= 0).to(ends)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(ends, others, reduction="none")
    assert torch.allclose(scene.sign_entropy(), expected.sum(1).mean())


def test_roughness_is_one_minus_the_cosine_between_faces() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -math.cos(1.0), math.sin(1.0)]])
    folded = Mesh(vertices, torch.tensor([[0, 1, 2], [1, 0, 3]]))
    assert float(roughness(folded)) == pytest.approx(1 - math.cos(1.0), abs=1e-6)
    turned = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 1, 3]]))
    assert float(roughness(turned)) == pytest.approx(1 - math.cos(1.0), abs=1e-6)


def test_a_textured_mesh_begins_as_a_grey_ball_or_as_a_files_shape(models: Path) -> None:
    ball = initial_textured_mesh(TexturedMeshConfig(texture_size=32))
    assert mesh_statistics(ball.at(None)).is_watertight
    cube = initial_textured_mesh(TexturedMeshConfig(texture_size=32, path=str(models / "red.obj"))).at(None)
    assert (len(cube.vertices), len(cube.faces)) == (8, 12)
    assert torch.allclose(cube.vertices.norm(dim=1), torch.tensor(0.5))
    texture = cube.materials[0].texture
    assert texture is not None and torch.allclose(texture[..., :3], torch.tensor(0.5))


def test_only_what_has_a_rate_is_optimised() -> None:
    still = initial_textured_mesh(TexturedMeshConfig(texture_size=16))
    assert [group.name for group in still.parameter_groups()] == ["texture_logits"]
    moving = TexturedMesh.from_state(still.state(), TexturedMeshConfig(texture_size=16, vertices_rate=1e-3))
    assert [group.name for group in moving.parameter_groups()] == ["texture_logits", "vertices"]


def test_a_texture_takes_the_next_stages_size_and_keeps_its_colours() -> None:
    scene = initial_textured_mesh(TexturedMeshConfig(texture_size=16))
    with torch.no_grad():
        scene.tensors.texture_logits[:, 8:] = 2.0
    larger = TexturedMesh.from_state(scene.state(), TexturedMeshConfig(texture_size=64))
    larger.match_texture_size()
    assert larger.tensors.texture_logits.shape == (64, 64, 3)
    assert torch.allclose(larger.tensors.texture_logits[:, 48:], torch.tensor(2.0))


def test_damaged_states_are_refused() -> None:
    with pytest.raises(StudioError, match="lacks offsets"):
        Surface.from_state({"distances": torch.zeros(3), "color_logits": torch.zeros(3, 3)}, GRID)
    with pytest.raises(StudioError, match="lacks faces, uvs"):
        TexturedMesh.from_state(
            {"vertices": torch.zeros(3, 3), "texture_logits": torch.zeros(4, 4, 3)}, TexturedMeshConfig()
        )
    with pytest.raises(StudioError, match="no texture coordinates"):
        TexturedMesh.of(Mesh(torch.zeros(3, 3), torch.zeros(1, 3, dtype=torch.long)), TexturedMeshConfig())
