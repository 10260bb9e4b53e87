"""What a person asks for in a few words becomes the recipe that was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
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
from studio.recipes.guidance import FootageConfig, PixelsConfig
from studio.run.asked import Asked
from studio.run.session import Run
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
