"""Runs of what moves: begun by an earlier stage, stopped and resumed, drawn at instants, refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from studio.errors import StudioError
from studio.recipes.config import HexPlaneConfig, Recipe, RegularizersConfig
from studio.recipes.load import read, to_toml
from studio.run.build import BuiltTerm
from studio.run.checkpoint import save
from studio.run.handover import handed_over
from studio.run.optimize import optimize
from studio.run.session import Run
from studio.run.state import initial_state
from studio.run.step import Moment, draw_cameras
from studio.scenes.deformation import Deformable
from studio.scenes.gaussians import Gaussians
from studio.splats import read_ply
from studio.types import Cameras, Conditioning, Mesh, Splats
from tests.conftest import Said
from tests.run.test_optimize import built
from tests.run.tiny import equal, resumed, tiny_recipe

CPU = torch.device("cpu")
SPLATS = (
    "stages.0.scene={ kind = 'deformable' }",
    "stages.0.scene.shape={ kind = 'gaussians', initial = { kind = 'ball', count = 60 } }",
    "stages.0.scene.shape_rate=0.5",
    "stages.0.regularizers={ rigidity = 10.0, acceleration = 10.0, rest = 1.0, opacity = 0.01 }",
)
MESH = (
    "stages.0.scene={ kind = 'deformable', motion = { kind = 'perceptron', width = 8, layers = 1 } }",
    "stages.0.scene.shape={ kind = 'mesh', texture_size = 16 }",
    "stages.0.renderer={ kind = 'raster' }",
    "stages.0.regularizers={ rigidity = 10.0, smoothness = 0.1 }",
    "export.formats=['png']",
)
COMMON = (
    "stages.0.topology={ kind = 'none' }",
    "stages.0.instants={ kind = 'frames', count = 5 }",
    "stages.0.steps=6",
    "prior.motions=['bend', 'turn']",
)


def moving_recipe(models: Path, *overrides: str, scene: tuple[str, ...] = SPLATS) -> Recipe:
    return tiny_recipe(models, *scene, *COMMON, *overrides)


def after_rest(models: Path, *overrides: str) -> Recipe:
    """A stage of still splats, and then what moves them."""
    moving = moving_recipe(models, *overrides)
    still = tiny_recipe(models, "stages.0.steps=3").stages[0]
    return replace(moving, stages=(still, *moving.stages))


@pytest.mark.parametrize(("stop_at", "hexplane"), [(2, False), (5, True)])
def test_n_steps_then_m_equal_all_at_once(models: Path, tmp_path: Path, stop_at: int, hexplane: bool) -> None:
    """Bit for bit, over the border between rest and motion and within it."""
    recipe = after_rest(models, "particles=2")
    if hexplane:
        motion = HexPlaneConfig(resolution=4, instants=4, channels=4, width=8)
        scene = replace(recipe.stages[1].scene, motion=motion)
        recipe = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[1], scene=scene)))
    whole = initial_state(recipe, CPU)
    reports = list(optimize(recipe, built(recipe), whole))
    assert [report.stage for report in reports] == [0] * 3 + [1] * 6
    assert set(reports[-1].losses) == {"sds", "rigidity", "acceleration", "rest", "opacity"}

    second = resumed(recipe, built, stop_at, tmp_path / "half")
    paths = [save(state, tmp_path / name) for state, name in ((whole, "whole"), (second, "resumed"))]
    assert paths[0].read_bytes() == paths[1].read_bytes()


ELSEWHERE = (
    "stages.0.guidance=[{ method = { kind = 'sds' } }, { weight = 0.5, method = { kind = 'sds' }, "
    "cameras = { kind = 'orbit', views_per_step = 3 }, instants = { kind = 'random', per_step = 3 } }]"
)


def test_a_term_sees_views_and_instants_of_its_own(models: Path) -> None:
    recipe = moving_recipe(models, ELSEWHERE)
    (stage,) = stages = built(recipe)
    shown: dict[str, list[Cameras]] = {}

    def listening(term: BuiltTerm) -> BuiltTerm:
        def conditioning(cameras: Cameras, background: torch.Tensor) -> Conditioning:
            shown.setdefault(term.name, []).append(cameras)
            return term.conditioning(cameras, background)

        return replace(term, conditioning=conditioning)

    heard = replace(stage, terms=tuple(map(listening, stage.terms)))
    reports = list(optimize(recipe, (heard,), initial_state(recipe, CPU)))
    assert {report.statistics["images"] for report in reports} == {5.0}
    for step, (first, second) in enumerate(zip(shown["sds"], shown["sds_1"], strict=True)):
        expected = draw_cameras(stages[0], Moment(recipe.seed, step, step, 0.0), CPU, 1)
        assert first.time is not None and second.time is not None and expected.time is not None
        assert set(first.time.tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
        assert torch.equal(second.world_to_camera, expected.world_to_camera)
        assert torch.equal((3 * second.time).floor(), torch.arange(3.0))  # one in each third of the time


def test_stopping_between_terms_that_look_elsewhere_changes_nothing(models: Path, tmp_path: Path) -> None:
    recipe = moving_recipe(models, ELSEWHERE, "stages.0.scene.alternate_every=2", "particles=2")
    whole = initial_state(recipe, CPU)
    for _ in optimize(recipe, built(recipe), whole):
        pass
    second = resumed(recipe, built, 3, tmp_path / "half")
    paths = [save(state, tmp_path / name) for state, name in ((whole, "whole"), (second, "resumed"))]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_motion_and_shape_take_turns(models: Path) -> None:
    """The side that waits is the same, bit for bit, for as long as it waits; its moments too."""
    recipe = moving_recipe(models, "stages.0.scene.alternate_every=2")
    state = initial_state(recipe, CPU)
    (particle,) = state.particles

    def sides() -> dict[str, list[torch.Tensor]]:
        found: dict[str, list[torch.Tensor]] = {"shape": [], "motion": []}
        for group in particle.optimizer.param_groups:
            (parameter,) = group["params"]
            moments = particle.optimizer.state.get(parameter, {}).values()
            if parameter.numel():
                found[group["name"].split("/")[0]] += [x.detach().clone() for x in (parameter, *moments)]
        return found

    before = sides()
    for report in optimize(recipe, built(recipe), state):
        after = sides()
        trained, waits = ("motion", "shape") if (report.step - 1) // 2 % 2 == 0 else ("shape", "motion")
        assert all(map(torch.equal, before[waits], after[waits]))
        assert len(before[waits]) == len(after[waits])
        assert not any(map(torch.equal, before[trained], after[trained]))
        before = after


def test_what_begins_to_move_is_what_was_there(models: Path) -> None:
    recipe = after_rest(models)
    state = initial_state(recipe, CPU)
    rest = None
    for report in optimize(recipe, built(recipe), state):
        if report.step == 3:
            rest = {name: tensor.clone() for name, tensor in state.particles[0].scene.state().items()}
        if report.step == 4:
            break
    scene = state.particles[0].scene
    assert rest is not None and isinstance(scene, Deformable)
    assert len(scene.nodes) == len(rest["means"]) // 8
    kept = scene.shape.state()
    for name in ("means", "quats_wxyz"):
        assert (kept[name] - rest[name]).abs().max() <= 0.5 * 1.01 * 5e-3  # one step of Adam at half the rate


def test_a_run_from_start_to_files(models: Path, tmp_path: Path) -> None:
    run = Run.create(moving_recipe(models, "stages.0.instants.per_step=2"), tmp_path)
    assert "the prompt names red.obj, which bend or turn" in run.prior_reason
    list(run)
    metrics = Run.open(run.folder).metrics()
    assert 0 < metrics["acceleration"] < run.recipe.watchdogs.max_acceleration
    assert metrics["nearest_model"] in ("red.obj", "blue.obj") and metrics["nearest_motion"] in (
        "bend",
        "turn",
    )
    latest = run.latest_preview()
    assert latest is not None
    with Image.open(latest) as picture:
        assert picture.size == (4 * 16, 4 * 16)
    early, late = (run.render_sides(24, time=time).rgb for time in (0.25, 0.75))
    assert early.shape == (4, 3, 24, 24) and not torch.equal(early, late)
    (path,) = run.export([tmp_path / "cube.ply"])
    assert path == tmp_path / "cube_ply"


def test_a_mesh_moves_after_its_texture(models: Path, tmp_path: Path) -> None:
    moving = moving_recipe(models, "stages.0.steps=3", scene=MESH)
    (stage,) = moving.stages
    still = replace(stage, scene=stage.scene.shape, instants=None, regularizers=RegularizersConfig())
    run = Run.create(replace(moving, stages=(still, stage)), tmp_path)
    list(run)
    scene = run.scene()
    assert isinstance(scene, Deformable) and isinstance(scene.at(torch.tensor(0.5)), Mesh)
    assert 0 < float(run.metrics()["silhouette_iou"]) <= 1
    assert equal(Run.open(run.folder).scene().state(), scene.state())


def test_motion_goes_on_in_a_later_stage(models: Path) -> None:
    recipe = moving_recipe(models)
    scene = replace(recipe.stages[0].scene, shape=replace(recipe.stages[0].scene.shape, sh_degree=1))
    recipe = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[0], scene=scene, steps=1)))
    state = initial_state(recipe, CPU)
    moved = {}
    for report in optimize(recipe, built(recipe), state):
        if report.step == 6:
            moved = {name: tensor.clone() for name, tensor in state.particles[0].scene.state().items()}
    after = state.particles[0].scene
    assert isinstance(after, Deformable) and isinstance(after.shape, Gaussians)
    assert after.shape.tensors.sh_rest.shape[1] == 3
    assert torch.equal(after.nodes, moved["nodes"])
    rate = recipe.stages[0].scene.motion.track.translations_rate
    change = (after.state()["motion/translations"] - moved["motion/translations"]).abs().max()
    assert 0 < change <= 1.01 * rate


def test_cameras_of_a_step_have_the_recipes_instants(models: Path) -> None:
    recipe = moving_recipe(models)
    (stage,) = built(recipe)
    for step in range(5):
        cameras = draw_cameras(stage, Moment(recipe.seed, step, step, 0.0), CPU)
        assert cameras.time is not None and set(cameras.time.tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
        again = draw_cameras(stage, Moment(recipe.seed, step, step, 0.0), CPU)
        assert torch.equal(again.time, cameras.time)
    still = tiny_recipe(models)
    assert draw_cameras(built(still)[0], Moment(still.seed, 0, 0, 0.0), CPU).time is None


def test_recipes_of_what_moves_come_back_from_their_file(models: Path, tmp_path: Path) -> None:
    recipe = after_rest(models)
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe))
    assert read(path) == recipe


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("stages.0.renderer={ kind = 'volume' }", "expected renderer.kind = 'splatting'"),
        ("stages.0.topology={ kind = 'relocate' }", "edits Gaussians, not a scene of kind 'deformable'"),
        ("stages.0.scene.motion={ kind = 'nodez' }", "Did you mean 'nodes'"),
        (
            "stages.0.scene.motion={ kind = 'nodes', track = { kind = 'keyframe' } }",
            "Did you mean 'keyframes'",
        ),
        ("stages.0.instants={ kind = 'frames', count = 3, per_step = 4 }", r"per_step \(4\) must not exceed"),
        ("stages.0.scene={ kind = 'gaussians' }", "kind 'gaussians' came with instants; expected"),
        ("stages.0.guidance.0.cameras={ kind = 'front' }", "cameras.kind = 'front' for clipart"),
        ("stages.0.scene={ kind = 'deformable', alternate_every = 5 }", "expected shape_rate above 0"),
        ("prior.motions=['bent']", "bend"),
    ],
)
def test_parts_that_do_not_fit_are_refused(models: Path, line: str, said: str) -> None:
    with pytest.raises(StudioError, match=said):
        moving_recipe(models, line)


def test_what_moves_needs_instants(models: Path) -> None:
    with pytest.raises(StudioError, match="kind 'deformable' came without instants; expected"):
        tiny_recipe(models, *SPLATS, COMMON[0])


def test_stages_that_cannot_follow_are_refused(models: Path) -> None:
    (moving,) = moving_recipe(models).stages
    (still,) = tiny_recipe(models).stages
    other = replace(moving, scene=replace(moving.scene, motion=HexPlaneConfig()))
    (raster,) = moving_recipe(models, scene=MESH).stages
    mesh = replace(raster, scene=raster.scene.shape, instants=None)
    for stages, said in (
        ((moving, still), "kind 'deformable' cannot go on as one of kind 'gaussians'"),
        ((moving, other), "shapes of one kind and equal motion"),
        (
            (mesh, moving),
            "kind 'mesh' cannot go on as one of kind 'deformable' with a shape of kind 'gaussians'",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            replace(moving_recipe(models), stages=stages)


def test_terms_of_what_moves_are_refused_for_others(models: Path) -> None:
    recipe = tiny_recipe(models, "stages.0.regularizers={ rigidity = 1.0 }")
    with pytest.raises(StudioError, match="rigidity means nothing to a scene of kind 'gaussians'"):
        next(iter(optimize(recipe, built(recipe), initial_state(recipe, CPU))))
    recipe = moving_recipe(models, "stages.0.regularizers={ smoothness = 1.0 }")
    with pytest.raises(StudioError, match="smoothness means nothing to a scene of kind 'gaussians'"):
        next(iter(optimize(recipe, built(recipe), initial_state(recipe, CPU))))


def test_an_empty_shape_cannot_begin_to_move(models: Path) -> None:
    (stage,) = moving_recipe(models).stages
    state = initial_state(tiny_recipe(models), CPU)
    scene = state.particles[0].scene
    assert isinstance(scene, Gaussians)
    scene.set_tensors(scene.tensors.rows(torch.zeros(0, dtype=torch.long)))
    with pytest.raises(StudioError, match="no splats or vertices to move"):
        handed_over(scene, built(tiny_recipe(models))[0].renderer, stage.scene, torch.Generator())


def test_motion_is_exported_by_a_run_and_by_the_command(
    models: Path, tmp_path: Path, studio_command: Callable[..., Said]
) -> None:
    """A numbered sequence and a video as long as the recipe says; `studio export` writes the same again."""
    sizes = ("export.turntable_size=32", "export.turntable_frames=24")
    motion = ("export.motion_frames=3", "export.motion_seconds=0.5", "export.motion_loops=true")
    run = Run.create(moving_recipe(models, *sizes, *motion, "export.formats=['ply', 'gif']"), tmp_path)
    list(run)
    sequence, video = run.export()
    assert [file.name for file in sorted(sequence.iterdir())] == [f"asset_000{n}.ply" for n in (1, 2, 3)]
    scene = run.scene()
    assert isinstance(scene, Deformable)
    for index, file in enumerate(sorted(sequence.iterdir())):
        instant = scene.at(torch.tensor(index / 3))
        assert isinstance(instant, Splats)
        torch.testing.assert_close(read_ply(file).means, instant.means.detach())
    with Image.open(video) as pictures:
        assert pictures.n_frames == 24
    said = studio_command("export", run.folder, "again.ply")
    assert said.code == 0 and "again_ply" in said.out
    for ours, again in zip(sorted(sequence.iterdir()), sorted(Path("again_ply").iterdir()), strict=True):
        assert ours.read_bytes() == again.read_bytes()
    assert studio_command("export", run.folder, "one.spz").code == 2


def test_formats_of_one_instant_are_refused_before_the_run(models: Path) -> None:
    with pytest.raises(
        StudioError, match=r"has spz, which hold one instant.*among glb, usdz, ply, skinned.zip, 4dgs"
    ):
        moving_recipe(models, "export.formats=['glb', 'spz']")
