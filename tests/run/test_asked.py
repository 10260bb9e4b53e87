"""What a person asks for in a few words becomes the recipe that was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from studio.errors import StudioError
from studio.export.ply import write_ply
from studio.recipes.config import (
    BallConfig,
    DeformableConfig,
    GaussiansConfig,
    LatentPriorConfig,
    LibraryPriorConfig,
    MeshConfig,
    SplatFileConfig,
)
from studio.recipes.guidance import FootageConfig, MeshContrastConfig, MeshesTarget, PixelsConfig
from studio.run.asked import Asked
from studio.run.build import build_stages
from studio.run.build_prior import build_prior
from studio.run.optimize import optimize
from studio.run.session import Run
from studio.run.state import initial_state
from studio.scenes.deformation import Deformable
from studio.scenes.initialise import initial_gaussians
from tests.conftest import Said

PRESETS = ("pla4d-draft", "dreamgaussian4d-draft")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_video_stands_wherever_the_preset_compares_with_one(preset: str) -> None:
    recipe = Asked("a teddy bear", preset, video=Path("its film.mp4")).recipe()
    terms = [term for stage in recipe.stages for term in stage.guidance]
    paths = [term.method.target.path for term in terms if isinstance(term.method, PixelsConfig)]
    assert paths == ["its film.mp4"] * 2


@pytest.mark.parametrize("preset", ["pla4d", "dreamgaussian4d"])
def test_a_prior_that_is_told_a_picture_is_told_the_video(preset: str) -> None:
    prior = Asked("a teddy bear", preset, video=Path("film.mp4")).recipe().prior
    assert isinstance(prior, LatentPriorConfig) and isinstance(prior.image, FootageConfig)
    assert prior.image.path == "film.mp4"
    one = Asked("a bear", preset, video=Path("film.mp4"), overrides=("prior.image=bear.png",)).recipe()
    assert isinstance(one.prior, LatentPriorConfig) and one.prior.image == "bear.png"
    exact = Asked("a teddy bear", preset, prior="library", video=Path("film.mp4")).recipe()
    assert exact.prior == LibraryPriorConfig()


def test_a_picture_is_told_to_a_prior_that_sees_one() -> None:
    prior = Asked("a teddy bear", "zero123", image=Path("bear.png")).recipe().prior
    assert isinstance(prior, LatentPriorConfig) and prior.image == "bear.png"


@pytest.mark.parametrize(("name", "kind"), [("a.ply", SplatFileConfig), ("a.GLB", MeshConfig)])
def test_an_asset_begins_to_move_instead_of_the_still_stages(name: str, kind: type) -> None:
    whole = Asked("a teddy bear", "pla4d-draft").recipe()
    recipe = Asked("a teddy bear", "pla4d-draft", asset=Path(name)).recipe()
    assert len(whole.stages) == 3 and recipe.stages[1:] == whole.stages[2:]
    scene = recipe.stages[0].scene
    assert isinstance(scene, DeformableConfig) and isinstance(scene.shape.initial, kind)
    assert scene.shape.initial.path == name


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked("a teddy bear", "moving", video=Path("a.mp4")), "moving compares with no video; try"),
        (Asked("a bear", "draft", image=Path("a.png")), "the prior of draft is told no picture"),
        (Asked("a bear", "draft", meshes=Path("a")), "in draft nothing moves"),
        (Asked("a bear", "pla4d-draft", refine=0), "--refine is 0"),
        (Asked("a bear", "sdi", refine=9), "last stage asks a prior by sds"),
        (Asked("a teddy bear", "default", asset=Path("a.ply")), "in default nothing moves"),
        (
            Asked("a teddy bear", "pla4d-draft", asset=Path("a.fbx")),
            "a.fbx; expected a .glb, .obj or .stl, or a",
        ),
    ],
)
def test_what_a_preset_has_no_use_for_is_refused(asked: Asked, said: str) -> None:
    with pytest.raises(StudioError, match=said):
        asked.recipe()


def test_meshes_and_refinement_are_added_to_what_moves() -> None:
    plain = Asked("a teddy bear", "pla4d-draft").recipe()
    recipe = Asked("a teddy bear", "pla4d-draft", meshes=Path("frames"), refine=7).recipe()
    still, *moving, last = recipe.stages
    assert still == plain.stages[0] and last.steps == 7
    for before, stage in zip(plain.stages[1:], moving, strict=True):
        assert stage.guidance[:2] == before.guidance
        for term in stage.guidance[2:]:
            assert isinstance(term.method, MeshContrastConfig)
            assert isinstance(term.method.target, MeshesTarget) and term.method.target.path == "frames"
        assert [term.looks_elsewhere for term in stage.guidance[2:]] == [False, True]
    kinds = [term.method.kind for term in last.guidance]
    assert kinds == ["pixels", "refine", "mesh_contrast", "mesh_contrast"]


def test_a_run_is_drawn_to_meshes_and_refined(models: Path, tmp_path: Path) -> None:
    """A ball that a folder of meshes shifts to the right, and no video: it follows."""
    frames, cpu = tmp_path / "frames", torch.device("cpu")
    frames.mkdir()
    for number in range(3):
        ball = trimesh.creation.icosphere(subdivisions=2, radius=0.3)
        ball.apply_translation((0.1 * number, 0, 0))
        ball.export(frames / f"{number}.stl")
    silent = "{ weight = 0.0, method = { kind = 'sds' } }"
    lines = (
        f"prior={{ kind = 'library', folder = '{models}', motions = ['sway'] }}",
        *("stages.0.steps=1", "stages.1.steps=15", "stages.1.learning_rate=8.0", "stages.2.steps=1"),
        *(f"stages.{stage}.resolution=16" for stage in range(3)),
        *(f"stages.{stage}.scene.motion.track={{ kind = 'keyframes' }}" for stage in (1, 2)),
        *(f"stages.{stage}.regularizers={{}}" for stage in (1, 2)),
        "stages.0.scene.initial={ kind = 'ball', count = 200, radius = 0.5, opacity = 0.9 }",
        "stages.0.topology.kind=none",
        *(f"stages.{stage}.cameras={{ kind = 'fixed_set', count = 8 }}" for stage in (1, 2)),
        *(f"stages.{stage}.instants={{ kind = 'frames', count = 3, per_step = 2 }}" for stage in (1, 2)),
        *(f"stages.{stage}.guidance.{term}={silent}" for stage in (1, 2) for term in (0, 1)),
    )
    recipe = Asked("a red cube", "pla4d-draft", meshes=frames, refine=2, overrides=lines).recipe()
    stages, state = build_stages(recipe, build_prior(recipe, cpu).prior), initial_state(recipe, cpu)
    reports = list(optimize(recipe, stages, state))
    assert {"refine", "refine_1", "mesh_contrast_2"} <= set(reports[-1].losses) and len(reports) == 19
    scene = state.particles[0].scene
    assert isinstance(scene, Deformable)
    with torch.no_grad():
        start, end = (scene.at(torch.tensor(time)).means.mean(0) for time in (0.0, 1.0))
    # The first ball fills the radius 0.5: 0.2 beside its radius of 0.3 is 0.33.
    assert float((end - start)[0]) == pytest.approx(0.33, abs=0.12)
    assert float((end - start)[1:].abs().max()) < 0.1


def test_the_command_moves_a_file_as_a_video_says(
    models: Path, tmp_path: Path, studio_command: Callable[..., Said]
) -> None:
    """A square before a plain background, a pixel to the left and to the right; and a ball of splats."""
    ball = initial_gaussians(GaussiansConfig(initial=BallConfig(count=60, opacity=0.5)), torch.Generator())
    write_ply(ball.at(), tmp_path / "ball.ply")
    film = tmp_path / "film"
    film.mkdir()
    for number, left in enumerate((3, 2, 4)):
        pixels = np.full((16, 16, 3), 255, np.uint8)
        pixels[3:13, left : left + 10] = 128
        Image.fromarray(pixels).save(film / f"{number}.png")
    sizes = [
        argument
        for line in (
            *("resolution=16", "steps=2", "guidance.1.cameras.count=4"),
            "cameras.distance=[1.6, 3.6]",
            "cameras.step=0.2",
        )
        for stage in (1, 2)
        for argument in ("--set", f"stages.{stage}.{line}")
    ]
    said = studio_command(
        *("generate", "a red cube", "--preset", "pla4d-draft", "--prior", models, "--video", film),
        *("--asset", tmp_path / "ball.ply", *sizes),
        *("--set", "export.formats=['png']", "--set", "prior.motions=['sway']"),
    )
    assert said.code == 0, said
    run = Run.open(Path("runs/a-red-cube"))
    assert len(run.recipe.stages) == 2 and run.is_finished
    assert run.metrics()["depth_confidence"] > 0.25
