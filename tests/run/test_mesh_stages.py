"""Runs of surfaces and textured meshes: taken whole, stopped and resumed, handed over, exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trimesh

from studio.errors import StudioError
from studio.recipes.config import Recipe
from studio.recipes.load import load
from studio.run.handover import handed_over
from studio.run.session import Run
from studio.scenes.mesh import TexturedMesh
from studio.scenes.surface import Surface
from studio.types import Mesh

SURFACE = (
    "stages.0.topology={ kind = 'none' }",
    "stages.0.regularizers={ smoothness = 0.1, sdf = 0.1 }",
    "stages.0.scene={ kind = 'surface', resolution = 10 }",
    "stages.0.renderer={ kind = 'raster' }",
)
MESH = (
    "stages.0.topology={ kind = 'none' }",
    "stages.0.regularizers={ smoothness = 0.1 }",
    "stages.0.scene={ kind = 'mesh', texture_size = 32, vertices_rate = 1e-3 }",
    "stages.0.renderer={ kind = 'raster', light = 'studio', supersample = 2 }",
)
QUICK = (
    "stages.0.steps=8",
    "stages.0.resolution=24",
    "stages.0.cameras={ kind = 'fixed_set', count = 4, views_per_step = 2 }",
    "checkpoint_every=3",
    "preview_every=100",
    "export={ formats = ['glb', 'obj', 'stl', 'png'], mesh_faces = 400, texture_size = 64 }",
)


def quick(models: Path, *overrides: str) -> Recipe:
    prior = f"prior={{ kind = 'library', folder = '{models}' }}"
    return load("default", "a red cube", [prior, *overrides, *QUICK])


@pytest.mark.parametrize("scene", [SURFACE, MESH], ids=["surface", "mesh"])
def test_a_stopped_run_goes_on_bit_for_bit(scene: tuple[str, ...], models: Path, tmp_path: Path) -> None:
    recipe = quick(models, *scene)
    whole, stopped = Run.create(recipe, tmp_path / "whole"), Run.create(recipe, tmp_path / "stopped")
    before = whole.scene().state()
    list(whole)
    for report in stopped:
        if report.step == 5:
            break
    list(Run.open(stopped.folder))
    last = "state/0000008.safetensors"
    assert (whole.folder / last).read_bytes() == (stopped.folder / last).read_bytes()
    moved = {name for name, value in whole.scene().state().items() if not torch.equal(value, before[name])}
    assert moved == {group.name for group in whole.scene().parameter_groups()}
    assert 0 < float(whole.metrics()["silhouette_iou"]) <= 1
    assert whole.metrics()["primitives"] == len(whole.scene())

    for path in whole.export():
        assert path.is_file()
    written = trimesh.load(whole.folder / "assets" / "asset.glb", force="mesh")
    assert written.visual.uv is not None and written.visual.material.baseColorTexture is not None
    with pytest.raises(StudioError, match=r"\.ply holds splats and the scene has none"):
        whole.export([tmp_path / "asset.ply"])


def test_a_textured_mesh_is_written_as_it_is(models: Path, tmp_path: Path) -> None:
    run = Run.create(quick(models, *MESH), tmp_path)
    mesh, (path,) = run.primitives(), run.export([tmp_path / "a.glb"])
    written = trimesh.load(path, force="mesh")
    assert isinstance(mesh, Mesh) and len(written.faces) == len(mesh.faces)
    assert written.visual.material.baseColorTexture.size == (32, 32)
    corners = torch.tensor(written.triangles).float()
    assert torch.allclose(corners.sort(1).values, mesh.vertices[mesh.faces].sort(1).values, atol=1e-6)


def two_stages(first: tuple[str, ...], models: Path, scene: str) -> Recipe:
    recipe = quick(models, *first)
    stage = load("default", None, [*MESH, *QUICK, f"stages.0.scene={scene}"]).stages[0]
    return Recipe(**{**vars(recipe), "stages": (*recipe.stages, stage)})


TEXTURED = "{ kind = 'mesh', texture_size = 64, faces = 300 }"


def test_a_surface_goes_on_as_a_textured_mesh(models: Path, tmp_path: Path) -> None:
    run = Run.create(two_stages(SURFACE, models, TEXTURED), tmp_path)
    reports = [report.stage for report in run]
    assert reports == [0] * 8 + [1] * 8
    scene = run.scene()
    assert isinstance(scene, TexturedMesh) and 200 < len(scene) <= 310
    again = Run.open(run.folder).scene()
    assert all(torch.equal(again.state()[name], value) for name, value in scene.state().items())


def test_gaussians_go_on_as_a_textured_mesh_in_their_colours(models: Path, tmp_path: Path) -> None:
    ball = "stages.0.scene.initial={ kind = 'ball', count = 400, radius = 0.3, opacity = 0.9 }"
    run = Run.create(two_stages((ball, "stages.0.topology={ kind = 'none' }"), models, TEXTURED), tmp_path)
    list(run)
    mesh = run.primitives()
    assert isinstance(mesh, Mesh) and mesh.materials[0].texture is not None
    radius = mesh.vertices.norm(dim=1)
    assert 0.2 < float(radius.mean()) < 0.4


def test_what_cannot_follow_is_refused(models: Path, tmp_path: Path) -> None:
    run = Run.create(quick(models, *MESH), tmp_path)
    surface = Surface.ball(quick(models, *SURFACE).stages[0].scene)
    with pytest.raises(StudioError, match="kind 'mesh' cannot go on as one of kind 'surface'"):
        handed_over(run.scene(), run.renderer(), surface.config, torch.Generator())
    other = load("default", None, [*SURFACE, *QUICK, "stages.0.scene.resolution=12"]).stages[0].scene
    with pytest.raises(StudioError, match="keep scene"):
        handed_over(surface, run.renderer(), other, torch.Generator())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*SURFACE[:3], QUICK[-1]), "renderer of kind 'splatting' cannot draw a scene of kind 'surface'"),
        ((*SURFACE[1:], QUICK[-1]), "topology of kind 'relocate' edits Gaussians"),
        (SURFACE, "export.formats has ply, which hold splats"),
        ((*SURFACE, QUICK[-1], "stages.0.scene={ kind = 'surface', colour = 1 }"), "no key"),
    ],
)
def test_recipes_whose_parts_do_not_fit_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        load("default", None, list(overrides))


def test_stages_that_cannot_follow_are_refused() -> None:
    last = ("stages.1.scene.kind=gaussians", "stages.1.renderer.kind=splatting")
    with pytest.raises(StudioError, match="kind 'mesh' cannot go on as one of kind 'gaussians'"):
        load("dreamgaussian", None, [*MESH, *last])


def test_terms_of_other_scenes_are_refused(models: Path, tmp_path: Path) -> None:
    run = Run.create(quick(models, *SURFACE, "stages.0.regularizers={ opacity = 1.0 }"), tmp_path)
    with pytest.raises(StudioError, match="opacity means nothing to a scene of kind 'surface'"):
        list(run)
