"""Clipart through the loop: from a drawing and a prompt to files that play."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image, ImageSequence

from studio.arguments import Animate
from studio.errors import StudioError
from studio.export.clip import write_clip
from studio.export.shapes import Clip
from studio.recipes.config import ClipartConfig, ExportConfig, LayerConfig, Recipe
from studio.recipes.load import load
from studio.recipes.project import read_project
from studio.renderers.cutouts import CutoutRenderer
from studio.run.build import BuiltStage, build_stages
from studio.run.build_prior import build_prior
from studio.run.checkpoint import save
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.run.views import detached
from studio.scenes.clipart import Clipart
from tests.conftest import Said
from tests.run.tiny import resumed

CPU = torch.device("cpu")
LINES = (
    "stages.0.steps=6",
    "stages.0.resolution=16",
    "stages.0.instants.count=3",
    "stages.0.scene.texture_size=64",
    "stages.0.scene.edge_px=24.0",
    "export.motion_frames=8",
    "export.turntable_size=48",
)
SETS = [word for line in LINES for word in ("--set", line)]
PROJECT_ONLY = ("--set", "export.formats=['clipart.json']", "--set", "stages.0.steps=1")


def clipart_recipe(prompt: str = "the crab is dancing", *overrides: str) -> Recipe:
    return load("aniclipart", prompt, [*LINES, *overrides])


def test_a_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    recipe = clipart_recipe()

    prior = build_prior(recipe, CPU).prior  # which remembers nothing but its own pictures

    def built(recipe: Recipe) -> tuple[BuiltStage, ...]:
        return build_stages(recipe, prior)

    whole = initial_state(recipe, CPU)
    losses = [report.losses for report in optimize(recipe, built(recipe), whole)]
    assert losses[0].keys() == {"sds", "bones", "flips"}
    second = resumed(recipe, built, 3, tmp_path / "half")
    paths = [save(state, tmp_path / name) for state, name in ((whole, "whole"), (second, "resumed"))]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_from_a_drawing_to_files_that_play(studio_command: Callable[..., Said], tmp_path: Path) -> None:
    formats = ("--set", "export.formats=['gif','webp','apng','mp4','svg','json','zip','clipart.json','png']")
    said = studio_command("animate", "crab", "the crab jumps", "--output", str(tmp_path), *SETS, *formats)
    assert said.code == 0, said.err
    assert "the exact motion prior: of its gestures the prompt names jump" in said.out
    (run,) = tmp_path.iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["nearest_motion"] and metrics["travel_px"] > 0
    assets = run / "assets"
    for name in ("clip.gif", "clip.webp", "clip.apng"):
        with Image.open(assets / name) as film:
            durations = []
            for frame in ImageSequence.Iterator(film):
                frame.load()  # a .webp tells how long a frame takes once it is read
                durations.append(frame.info["duration"])
            assert len(durations) == 8 and sum(durations) == 2000
            corner = film.convert("RGBA").getpixel((0, 0))
            assert isinstance(corner, tuple) and (corner[3] == 0) == (name != "clip.gif"), (name, corner)
    with zipfile.ZipFile(assets / "frames.zip") as frames:
        assert len(frames.namelist()) == 8
    svg = ElementTree.fromstring((assets / "animation.svg").read_text())  # noqa: S314  (our own)
    assert any(element.tag.endswith("animate") for element in svg.iter())
    lottie = json.loads((assets / "animation.json").read_text())
    assert lottie["op"] - lottie["ip"] == 8 and (lottie["op"] - lottie["ip"]) / lottie["fr"] == 2.0
    # What was made can be made again from its project: of the same curves, with one step more.
    project = read_project(assets / "clipart.json")
    assert project.motion is not None and project.drawing == "crab" and project.prompt == "the crab jumps"
    again = ("animate", str(assets / "clipart.json"), "the crab jumps", "--output", str(tmp_path / "again"))
    said = studio_command(
        *again, *SETS, "--set", "export.formats=['clipart.json']", "--set", "stages.0.steps=1"
    )
    assert said.code == 0, said.err
    (second,) = (tmp_path / "again").glob("*/assets/clipart.json")
    moved = read_project(second)
    assert (moved.keypoints, moved.bones, moved.mesh) == (project.keypoints, project.bones, project.mesh)
    assert moved.motion is not None and (moved.motion.loop, moved.motion.frames) == ("there_and_back", 8)
    step = torch.tensor(moved.motion.delta) - torch.tensor(project.motion.delta)
    assert 0.1 < float(step.abs().max()) < 1.0
    # Nothing of it is solid.
    refused = studio_command("export", str(run), str(tmp_path / "crab.glb"))
    assert refused.code == 2 and ".glb holds solid shapes and the scene is clipart" in refused.err


MASKED = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 99 99">'
    '<mask id="m"><circle cx="50" cy="50" r="30" fill="#fff"/></mask>'
    '<rect x="9" y="9" width="80" height="80" mask="url(#m)"/>'
    '<rect x="40" y="5" width="9" height="60" fill="red"/><text>words</text></svg>'
)


def test_what_is_drawn_without_something_says_so(tmp_path: Path) -> None:
    """Text nowhere; masks on one sheet, but neither on layers nor in files of curves."""
    (tmp_path / "masked.svg").write_text(MASKED)
    coarse = ClipartConfig(path=str(tmp_path / "masked.svg"), texture_size=64, edge_px=24.0)
    with pytest.warns(UserWarning, match="masked is drawn without its text: export it as PNG") as said:
        scene = Clipart.initial(coarse)
    assert len(said) == 1
    film = detached(scene.animation(2, 1.0))
    clip = Clip(film, scene.puppet, tmp_path / "masked.svg", scene.project("", 0, film))
    export = ExportConfig(turntable_size=32)
    with pytest.warns(UserWarning, match="masked has masks: .svg, .json, .zip are written without; films"):
        write_clip(clip, CutoutRenderer(), [tmp_path / "a.svg"], export, lambda _: None)
    layers = (LayerConfig(name="bar", paths=(1,)),)
    with pytest.warns(UserWarning) as said:
        layered = Clipart.initial(replace(coarse, layers=layers))
    assert "masked has masks, and its layers are drawn without" in str(said[1].message)
    whole, parts = (float(puppet.puppet.layers[0].picture[..., 3].sum()) for puppet in (scene, layered))
    assert parts > 1.2 * whole, "the square is whole"


def test_a_drawn_skeleton_is_taken(tmp_path: Path) -> None:
    """Circles over the emoji, whose page is 32 units wide, and a line between them."""
    marks = '<circle cx="16" cy="18" r="1"/><circle cx="10" cy="18" r="1"/><path d="M16 18H10" stroke="red"/>'
    page = 'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"'
    (tmp_path / "points.svg").write_text(f"<svg {page}>{marks}</svg>")
    words = Animate(image="crab", prompt="it jumps", keypoints=tmp_path / "points.svg")
    scene = words.asked().recipe().stages[0].scene
    assert isinstance(scene, ClipartConfig) and scene.keypoints is not None and scene.bones == ((0, 1),)
    (first, second) = scene.keypoints
    assert first[1] == pytest.approx(second[1]) and 40 < first[0] - second[0] < 60


def test_keypoints_are_the_users(studio_command: Callable[..., Said], tmp_path: Path) -> None:
    sets = [
        word
        for line in (*LINES, "stages.0.steps=1", "export.formats=['clipart.json']")
        for word in ("--set", line)
    ]
    given, edge = [[128.0, 128.0], [100.0, 140.0]], [128.0, 240.0]
    (tmp_path / "points.json").write_text(json.dumps({"keypoints": [*given, edge], "bones": [[0, 1]]}))
    words = (
        "animate",
        "cat",
        "it jumps",
        "--keypoints",
        str(tmp_path / "points.json"),
        "--output",
        str(tmp_path),
    )
    said = studio_command(*words, *sets)
    assert said.code == 0, said.err
    assert "off the drawing, and moved onto it: keypoint 2" in said.err
    project = read_project(tmp_path / "it-jumps" / "assets" / "clipart.json")
    assert [list(point) for point in project.keypoints[:2]] == given and project.bones == ((0, 1),)
    assert 0 < math.dist(project.keypoints[2], edge) < 16


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("stages.0.scene.keypoints=[]",), "no keypoints came, expected 1 to 64"),
        (("stages.0.scene.keypoints=[[128,128],[130,nan]]",), r"keypoints.1.1 is nan; expected a number"),
        (("stages.0.scene.keypoints=[[128,128],[128,128.5]]",), "keypoints 0 and 1 are at the same place"),
        (
            ("stages.0.scene.keypoints=[[128,128],[2,2]]",),
            r"keypoint 1 is at \(2, 2\), .* off the drawing",
        ),
        (
            ("stages.0.scene.keypoints=[[128,128],[100,128]]", "stages.0.scene.bones=[[0,2]]"),
            "bones name keypoint 2, expected 0-1",
        ),
        (("stages.0.scene.bones=[[0,1]]",), "bones came without keypoints"),
        (("stages.0.scene.curves=[[[0,0],[0,0],[0,0]]]",), "1 curves came for .* keypoints"),
        (("export.formats=['glb']",), "hold solid shapes, and the last scene is clipart"),
        (("stages.0.cameras={kind='fixed_set'}",), "expected cameras.kind = 'front' for clipart"),
        (("stages.0.scene.path='crabb'",), "no clipart 'crabb'.*Did you mean 'crab'"),
        (("stages.0.scene.path='crab.tiff'",), "suffix '.tiff', expected one of"),
        (("stages.0.instants={kind='frames',count=3}",), "instants.kind = 'clip'"),
        (("stages.0.steps=6",), "names no motion that is known"),
    ],
)
def test_what_cannot_be_animated_is_refused(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        recipe = clipart_recipe("an emoji of a crab", *lines)
        initial_state(recipe, CPU)
        build_stages(recipe, build_prior(recipe, CPU).prior)
