"""Runs of surfaces and textured meshes: taken whole, stopped and resumed, handed over, exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh

from studio.errors import StudioError
from studio.evaluate.metrics import silhouette_iou
from studio.export.reconstruction import MeshBudget
from studio.recipes.config import Recipe
from studio.recipes.load import load
from studio.renderers.meshes import RasterRenderer
from studio.run.build import build_renderer
from studio.run.handover import handed_over
from studio.run.session import Run
from studio.run.views import drawn, held_out_cameras
from studio.scenes.kinds import initial_scene
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


FIELD = (
    "stages.0.topology={ kind = 'none' }",
    "stages.0.regularizers={}",
    "stages.0.scene={ kind = 'field', levels = 3, log2_table_size = 10, blob_density = 40.0 }",
    "stages.0.renderer={ kind = 'volume', step = 0.04 }",
)
SPLATS = (
    "stages.0.topology={ kind = 'none' }",
    "stages.0.scene.initial={ kind = 'ball', count = 400, radius = 0.3, opacity = 0.9 }",
)


@pytest.fixture(autouse=True)
def _coarse_meshes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and smaller pictures wherever a mesh is made of a scene."""
    for name, value in {
        "PICTURE_SIZE": 64,
        "GRID_RESOLUTION": 32,
        "FUSED_VIEWS": 16,
        "BAKED_VIEWS": 8,
    }.items():
        monkeypatch.setattr(f"studio.export.reconstruction._{name}", value)
    monkeypatch.setattr("studio.run.handover._SURFACE_BUDGET", MeshBudget(1000, 512))
    monkeypatch.setattr("studio.scenes.surface._SAMPLES", 20_000)


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
    recipe = quick(models, *MESH)
    run = Run.create(replace(recipe, export=replace(recipe.export, mesh_faces=10_000)), tmp_path)
    mesh, (path,) = run.primitives(), run.export([tmp_path / "a.glb"])
    written = trimesh.load(path, force="mesh")
    assert isinstance(mesh, Mesh) and len(written.faces) == len(mesh.faces)
    assert written.visual.material.baseColorTexture.size == (32, 32)
    corners = torch.tensor(written.triangles).float()
    assert torch.allclose(corners.sort(1).values, mesh.vertices[mesh.faces].sort(1).values, atol=1e-6)


def staged(models: Path, *stages: tuple[str, ...]) -> Recipe:
    """A recipe of several stages, each of eight steps."""
    recipes = [quick(models, *stage) for stage in stages]
    return replace(recipes[0], stages=tuple(recipe.stages[0] for recipe in recipes))


TEXTURED = (*MESH, "stages.0.scene={ kind = 'mesh', texture_size = 64, faces = 300, vertices_rate = 1e-3 }")
FIRST = {
    "field": FIELD,
    "gaussians": SPLATS,
    "tetrahedra": (*SURFACE, "stages.0.scene.extraction=tetrahedra"),
}


@pytest.mark.parametrize("first", ["gaussians", "tetrahedra"])  # A field begins the preset below.
def test_stages_go_from_any_scene_to_a_surface_to_a_mesh_bit_for_bit(
    first: str, models: Path, tmp_path: Path
) -> None:
    """Stopped in each stage and at the border of two, at 3, 8, 13 and 20 of 24 steps."""
    recipe = staged(models, FIRST[first], SURFACE, TEXTURED)
    scene = whole_and_stopped(recipe, (3, 8, 13, 20), tmp_path).scene()
    assert isinstance(scene, TexturedMesh) and 100 < len(scene) <= 310


def whole_and_stopped(recipe: Recipe, stops: Sequence[int], folder: Path) -> Run:
    """The run, taken at once, after one that was stopped and opened again has ended in the same state."""
    whole, stopped = Run.create(recipe, folder / "whole"), Run.create(recipe, folder / "stopped")
    stages = [index for index, stage in enumerate(recipe.stages) for _ in range(stage.steps)]
    assert [report.stage for report in whole] == stages
    for stop_at in (*stops, recipe.total_steps):
        for report in Run.open(stopped.folder):
            if report.step == stop_at:
                break
    last = f"state/{recipe.total_steps:07}.safetensors"
    assert (whole.folder / last).read_bytes() == (stopped.folder / last).read_bytes()
    return whole


def test_a_preset_of_three_stages_goes_on_bit_for_bit(models: Path, tmp_path: Path) -> None:
    """In small; stopped in each stage, with ramps on their way and critics half taught."""
    lines = [f"prior={{ kind = 'library', folder = '{models}' }}", "checkpoint_every=100"]
    for stage in range(3):
        lines += [
            f"stages.{stage}.steps=3",
            f"stages.{stage}.resolution={{ kind = 'linear', start = 16, end = 32 }}",
        ]
    lines += ["stages.0.scene.levels=3", "stages.0.scene.blob_density=40.0", "stages.0.renderer.step=0.04"]
    lines += ["stages.1.scene.resolution=10", "stages.2.scene.faces=300", "stages.2.scene.texture_size=64"]
    whole_and_stopped(load("prolificdreamer", "a red cube", lines), (2, 5, 8), tmp_path)


@pytest.mark.parametrize("first", FIRST)
def test_a_surface_takes_the_shape_and_colours_of_what_it_follows(first: str, models: Path) -> None:
    """A ball of each kind, grey to begin with."""
    recipe = quick(models, *FIRST[first])
    renderer = build_renderer(recipe.stages[0].renderer)
    scene = initial_scene(recipe.stages[0].scene, torch.Generator().manual_seed(0))
    config = quick(models, *SURFACE, "stages.0.scene.resolution=20").stages[0].scene
    successor = handed_over(scene, renderer, config, torch.Generator())
    assert isinstance(successor, Surface)
    cameras = held_out_cameras(48)
    before, after = drawn(scene, renderer, cameras), drawn(successor, RasterRenderer(), cameras)
    assert float(silhouette_iou(after.alpha, before.alpha).mean()) > 0.85
    colors = successor.at(None).vertex_colors
    assert colors is not None and torch.allclose(colors, torch.tensor(0.5), atol=0.05)


def test_what_cannot_follow_is_refused(models: Path, tmp_path: Path) -> None:
    run = Run.create(quick(models, *MESH), tmp_path)
    splats = quick(models, *SPLATS).stages[0].scene
    with pytest.raises(StudioError, match="kind 'mesh' cannot go on as one of kind 'gaussians'"):
        handed_over(run.scene(), run.renderer(), splats, torch.Generator())
    surface = Surface.ball(quick(models, *SURFACE).stages[0].scene)
    with pytest.raises(StudioError, match="keep scene"):
        Surface.from_state(surface.state(), replace(surface.config, resolution=12))


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
