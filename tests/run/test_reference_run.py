"""A drawing that follows a video: known motions are found again, through the files that a user has."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from studio.arguments import Animate
from studio.cameras import filmed, front
from studio.errors import StudioError
from studio.export.images import to_pixels
from studio.export.pictures import write_mp4
from studio.priors.nobody import NoPrior
from studio.recipes.config import ClipartConfig, ClipPriorConfig
from studio.recipes.guidance import FootageConfig
from studio.recipes.load import load
from studio.renderers.cutouts import CutoutRenderer
from studio.renderers.instants import render
from studio.run.build import build_stages
from studio.run.build_prior import build_prior
from studio.run.metrics import identity_db
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.run.targets import build_target
from studio.scenes.clipart import Clipart
from tests.conftest import Said

CPU = torch.device("cpu")
TIMES = torch.linspace(0, 1, 6)
FINE = ("stages.0.scene.path='man-dancing'", "stages.0.scene.texture_size=256", "stages.0.scene.edge_px=14.0")
COARSE = ("stages.0.scene.texture_size=64", "stages.0.scene.edge_px=24.0", "stages.0.steps=4")


def dancer() -> Clipart:
    config = load("reference", "a dance", FINE).stages[0].scene
    assert isinstance(config, ClipartConfig)
    return Clipart.initial(config)


def in_motion(still: Clipart, reach_px: float) -> Clipart:
    """Random curves, smoothed along the bones, whose ends are so far from rest on average."""
    curves = torch.randn(still.curves.shape, generator=torch.Generator().manual_seed(0))
    first, second = still.puppet.bones.unbind(1)
    near = torch.eye(len(curves))
    near[first, second] = near[second, first] = 1.0
    for _ in range(8):
        curves = torch.einsum("jk,kcd->jcd", near / near.sum(1, keepdim=True), curves)
    ends = curves[:, 2].norm(dim=-1).mean()
    return Clipart(still.puppet, curves * reach_px / ends, still.config)


def frames_of(scene: Clipart, size: int = 128) -> torch.Tensor:
    with torch.no_grad():
        return render(scene, CutoutRenderer(), filmed(front(size, size), TIMES), torch.ones(6, 3)).rgb


def test_a_known_motion_is_found_in_the_pictures_of_it(tmp_path: Path) -> None:
    still = dancer()
    truth = in_motion(still, reach_px=14.0)
    for index, frame in enumerate(to_pixels(frames_of(truth))):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    film = f"stages.0.guidance.0.method.target.path='{tmp_path}'"
    recipe = load("reference", "a dance", [*FINE, film, "stages.0.steps=100"])
    state = initial_state(recipe, CPU)
    reports = list(optimize(recipe, build_stages(recipe, build_prior(recipe, CPU).prior), state))
    assert all(report.statistics["denoiser_calls"] == 0 for report in reports)
    found = state.particles[0].scene
    assert isinstance(found, Clipart)
    with torch.no_grad():
        before, after = (
            float((scene.keypoints(TIMES) - truth.keypoints(TIMES)).norm(dim=-1).mean())
            for scene in (still, found)
        )
    assert before > 4.5 and after <= 0.2


def test_the_drawing_is_itself_once_its_motion_is_undone() -> None:
    """However it bends; but not with another picture on its sheet."""
    still, renderer = dancer(), CutoutRenderer()
    assert identity_db(still, renderer, TIMES) > 50
    moved = in_motion(still, reach_px=14.0)
    assert identity_db(moved, renderer, TIMES) > 28

    class Faded(CutoutRenderer):
        """A renderer that paints what moves in half its colour."""

        def __call__(self, primitives, cameras, background):  # type: ignore[no-untyped-def]
            shown = super().__call__(primitives, cameras, background)
            moves = not torch.equal(primitives.vertices, still.at(None).vertices)
            return type(shown)(shown.rgb * (0.5 if moves else 1.0), shown.alpha)

    assert identity_db(moved, Faded(), TIMES) < 15


def test_from_a_video_to_a_clip(studio_command: Callable[..., Said], tmp_path: Path) -> None:
    write_mp4(to_pixels(frames_of(dancer(), 48))[:, :, 4:44], tmp_path / "dance.mp4", 6.0)
    sets = [word for line in COARSE for word in ("--set", line)]
    output = ("--output", str(tmp_path / "runs"), "--set", "export.formats=['gif']")
    said = studio_command("animate", "man-dancing", "--reference", tmp_path / "dance.mp4", *output, *sets)
    assert said.code == 0, said.err
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name == "man-dancing-as-in-dance"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["reference_db"] > 15 and metrics["identity_db"] > 28
    refused = studio_command("animate", "man-dancing", "--reference", tmp_path / "gone.mp4", *output)
    assert refused.code == 2 and "There is no video" in refused.err
    refused = studio_command("animate", "man-dancing", *output)
    assert refused.code == 2 and "the prompt is empty" in refused.err


def test_a_wide_video_is_told_of(tmp_path: Path) -> None:
    write_mp4(to_pixels(frames_of(dancer(), 48))[:, 4:44], tmp_path / "dance.mp4", 6.0)
    with pytest.warns(UserWarning, match="has 48x40 pixels: it is taken to stand in the middle of a square"):
        build_target(FootageConfig(path=str(tmp_path / "dance.mp4")), "a dance", NoPrior())


def test_the_preset_alone_wants_a_video() -> None:
    recipe = load("reference", "a dance", [*FINE])
    with pytest.raises(StudioError, match=r"names none.*--reference"):
        build_stages(recipe, build_prior(recipe, CPU).prior)


def test_motion_strength_is_the_priors_reach_or_a_bound() -> None:
    half = Animate(image="crab", prompt="it jumps", motion_strength=0.5)
    recipe = half.asked().recipe()
    assert isinstance(recipe.prior, ClipPriorConfig) and recipe.prior.reach == 0.5
    followed = replace(half, reference=Path("a.mp4")).asked().recipe()
    scene = followed.stages[0].scene
    assert isinstance(scene, ClipartConfig) and scene.reach_px == 16.0
    for wrong, key in ((half, "prior.reach"), (replace(half, reference=Path("a.mp4")), "reach_px")):
        with pytest.raises(StudioError, match=key):
            replace(wrong, motion_strength=0.0).asked().recipe()
