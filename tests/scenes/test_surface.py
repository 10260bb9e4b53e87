"""Scenes of surfaces and textured meshes: how they begin, what they refuse, their losses in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import trimesh

from studio.cameras import orbit
from studio.errors import StudioError
from studio.meshes import mesh_statistics
from studio.recipes.config import RegularizersConfig, SurfaceConfig, TexturedMeshConfig
from studio.scenes.grid import inside_closed
from studio.scenes.mesh import TexturedMesh, initial_textured_mesh
from studio.scenes.regularizers import regularization, roughness
from studio.scenes.surface import Surface
from studio.types import Mesh, RenderOutput

GRID = SurfaceConfig(resolution=12)
EXTRACTIONS = pytest.mark.parametrize("extraction", ["tetrahedra", "flexicubes"])


@EXTRACTIONS
def test_a_surface_begins_as_a_grey_closed_ball(extraction: Literal["tetrahedra", "flexicubes"]) -> None:
    with torch.no_grad():
        mesh = Surface.ball(replace(GRID, extraction=extraction)).at(None)
    assert torch.allclose(mesh.vertices.norm(dim=1), torch.tensor(GRID.radius), atol=0.02)
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


def test_what_reaches_the_border_stays_closed() -> None:
    for extraction in ("tetrahedra", "flexicubes"):
        scene = Surface.ball(replace(GRID, extraction=extraction))
        with torch.no_grad():
            scene.tensors.distances.sub_(1.0)
            mesh = scene.at(None)
        assert mesh_statistics(mesh).is_watertight
        assert float(mesh.vertices.abs().max()) <= GRID.side / 2


@EXTRACTIONS
def test_a_mesh_becomes_a_surface_of_its_shape_and_colours(
    extraction: Literal["tetrahedra", "flexicubes"],
) -> None:
    """A torus, red where x is above 0 and blue elsewhere: its points lie at the tube's radius."""
    torus = trimesh.creation.torus(0.3, 0.12, major_sections=48, minor_sections=24)
    vertices = torch.tensor(torus.vertices).float()
    colors = torch.where(vertices[:, :1] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))
    mesh = Mesh(vertices, torch.tensor(torus.faces), vertex_colors=colors)
    scene = Surface.of_mesh(mesh, SurfaceConfig(resolution=28, extraction=extraction), torch.Generator())
    with torch.no_grad():
        found = scene.at(None)
    assert mesh_statistics(found).is_watertight
    assert len(found.vertices) - len(found.faces) // 2 == 0  # Euler: one hole
    x, y, z = found.vertices.unbind(1)
    tube = (((x.square() + y.square()).sqrt() - 0.3).square() + z.square()).sqrt()
    assert torch.allclose(tube, torch.tensor(0.12), atol=0.01)
    assert found.vertex_colors is not None
    clear = x.abs() > 0.1
    expected = torch.where(x[:, None] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))
    assert torch.allclose(found.vertex_colors[clear], expected[clear], atol=0.02)


def test_points_inside_a_closed_mesh() -> None:
    """A cube with faces on the columns' planes, a hollow ball in it, and another ball across it."""
    cube, hollow, other = (
        trimesh.creation.box((1, 1, 1)),
        trimesh.creation.icosphere(3, 0.3),
        trimesh.creation.icosphere(3, 0.4),
    )
    hollow.invert()
    other.apply_translation((0.5, 0.5, 0.5))
    whole = trimesh.util.concatenate([cube, hollow, other])
    mesh = Mesh(torch.tensor(whole.vertices).float(), torch.tensor(whole.faces))
    line = torch.linspace(-1, 1, 17)
    x, y, z = torch.meshgrid(line, line, line, indexing="ij")
    to_box = torch.stack([x, y, z]).abs().amax(0) - 0.5
    to_hollow = torch.stack([x, y, z]).norm(dim=0) - 0.3
    to_other = torch.stack([x - 0.5, y - 0.5, z - 0.5]).norm(dim=0) - 0.4
    expected = ((to_box < 0) & (to_hollow > 0)) | (to_other < 0)
    sure = torch.stack([to_box, to_hollow, to_other]).abs().amin(0) > 0.01
    assert torch.equal(inside_closed(mesh, line)[sure], expected[sure])


def test_only_flexicubes_have_vertices_that_deviate() -> None:
    scene, config = Surface.ball(GRID), RegularizersConfig(deviation=2.0)
    render = RenderOutput(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))
    camera = orbit(torch.zeros(1), torch.zeros(1), 8, 8)
    found = regularization(config, scene, render, camera, 0.0)
    assert found["deviation"].item() == pytest.approx(2 * scene.deviation().item())
    with pytest.raises(StudioError, match="deviation means nothing to a scene of kind 'surface'"):
        regularization(config, Surface.ball(replace(GRID, extraction="tetrahedra")), render, camera, 0.0)


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
    with pytest.raises(StudioError, match="lacks offsets, cube_weights"):
        Surface.from_state({"distances": torch.zeros(3), "color_logits": torch.zeros(3, 3)}, GRID)
    with pytest.raises(StudioError, match="lacks faces, uvs"):
        TexturedMesh.from_state(
            {"vertices": torch.zeros(3, 3), "texture_logits": torch.zeros(4, 4, 3)}, TexturedMeshConfig()
        )
    with pytest.raises(StudioError, match="no texture coordinates"):
        TexturedMesh.of(Mesh(torch.zeros(3, 3), torch.zeros(1, 3, dtype=torch.long)), TexturedMeshConfig())
