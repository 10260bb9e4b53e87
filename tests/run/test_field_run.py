"""Runs of radiance fields: resumed bit for bit, refused where parts do not fit, written to files."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.run.checkpoint import save
from studio.run.optimize import optimize
from studio.run.session import Run
from studio.run.state import initial_state
from studio.scenes.field import RadianceField
from tests.run.test_optimize import built
from tests.run.tiny import resumed, tiny_recipe

CPU = torch.device("cpu")
FIELD = (
    "stages.0.topology={ kind = 'none' }",
    "stages.0.regularizers={ orientation = 0.01, sparsity = 0.01 }",
    "stages.0.scene={ kind = 'field', levels = 3, log2_table_size = 8, width = 8, occupancy_every = 3 }",
    "stages.0.scene.base_resolution=4",
    "stages.0.scene.finest_resolution=16",
    "stages.0.scene.occupancy_resolution=16",
    "stages.0.renderer={ kind = 'volume', step = 0.05, normals = true }",
    "stages.0.steps=12",
    "export.formats=['png']",
)


def test_n_steps_then_m_equal_all_at_once(models: Path, tmp_path: Path) -> None:
    """Bit for bit: parameters, moments and occupancy; also over the border between two stages."""
    recipe = tiny_recipe(models, *FIELD, "particles=2", "stages.0.steps=6")
    recipe = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[0], steps=3)))
    whole = initial_state(recipe, CPU)
    reports = list(optimize(recipe, built(recipe), whole))
    assert set(reports[0].losses) == {"sds", "orientation", "sparsity"}

    expected = save(whole, tmp_path / "whole").read_bytes()
    for stop_at in (2, 7):
        second = resumed(recipe, built, stop_at, tmp_path / f"half {stop_at}")
        assert save(second, tmp_path / f"resumed {stop_at}").read_bytes() == expected


def test_the_occupancy_is_looked_at_again(models: Path) -> None:
    recipe = tiny_recipe(models, *FIELD)
    state = initial_state(recipe, CPU)
    seen = []
    for _ in optimize(recipe, built(recipe), state):
        (particle,) = state.particles
        assert isinstance(particle.scene, RadianceField)
        seen.append(particle.scene.occupancy.densities.clone())
    changed = [not torch.equal(one, other) for one, other in itertools.pairwise(seen)]
    assert changed == [step % 3 == 2 for step in range(1, 12)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "stages.0.renderer={ kind = 'splatting' }",
            "cannot draw .*'field'; expected renderer.kind = 'volume'",
        ),
        ("stages.0.topology={ kind = 'relocate' }", "edits Gaussians.*expected topology.kind = 'none'"),
        ("stages.0.renderer.normals=false", "orientation looks at the normals.*renderer.normals = true"),
        ("stages.0.renderer.network='tinycudann'", "gradients of gradients.*expected normals = false"),
        ("stages.0.scene.finest_resolution=2", r"finest_resolution \(2\) must not be less"),
        ("export.formats=['ply']", "ply, which hold splats.*expected formats among glb"),
    ],
)
def test_parts_that_do_not_fit_are_refused(models: Path, line: str, said: str) -> None:
    with pytest.raises(StudioError, match=said):
        tiny_recipe(models, *FIELD, line)


def test_fields_that_follow_one_another_must_be_alike(models: Path) -> None:
    (stage,) = tiny_recipe(models, *FIELD).stages
    faster = replace(stage, scene=replace(stage.scene, table_rate=0.5))
    assert len(replace(tiny_recipe(models, *FIELD), stages=(stage, faster)).stages) == 2
    for change in ({"levels": 2}, {"blob_density": 5.0}):
        other = replace(stage, scene=replace(stage.scene, **change))
        with pytest.raises(ValueError, match="fields of stages that follow one another must be alike"):
            replace(tiny_recipe(models, *FIELD), stages=(stage, other))


def test_terms_for_splats_are_refused(models: Path) -> None:
    recipe = tiny_recipe(models, *FIELD, "stages.0.regularizers.opacity=0.1")
    with pytest.raises(StudioError, match="opacity means nothing to a scene of kind 'field'"):
        next(iter(optimize(recipe, built(recipe), initial_state(recipe, CPU))))


def test_a_run_from_start_to_files(models: Path, tmp_path: Path) -> None:
    plain = ("stages.0.regularizers.orientation=0.0", "stages.0.renderer.normals=false", "stages.0.steps=3")
    run = Run.create(tiny_recipe(models, *FIELD, *plain), tmp_path)
    list(run)
    assert run.metrics()["nearest_model"] in ("red.obj", "blue.obj")
    assert not run.primitives().table.requires_grad
    (path,) = run.export([tmp_path / "cube.png"])
    assert path.is_file()
    with pytest.raises(StudioError, match=r"\.splat holds splats and the scene has none"):
        run.export([tmp_path / "cube.splat"])
