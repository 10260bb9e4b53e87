"""Whatever is wrong is said in one line, with exit code 2, and nothing on the disk has changed."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from studio.priors.training.config import ModelConfig
from studio.priors.training.model import TextToImageModel, save_model
from tests.conftest import CUBE, Said

Command = Callable[..., Said]
Refused = Callable[..., str]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def still_png() -> bytes:
    """A picture, which is no video."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "white").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def refused(studio_command: Command, tmp_path: Path) -> Refused:
    """Runs a command that must be refused, checks the form of the answer, and returns its text."""

    def run(*arguments: str | Path) -> str:
        before = snapshot(tmp_path)
        said = studio_command(*arguments)
        assert said.code == 2, said
        assert said.err.startswith("studio: ")
        assert said.err.count("\n") == 1, said.err
        assert "Traceback" not in said.err
        assert snapshot(tmp_path) == before
        return said.err

    return run


@pytest.fixture
def finished_run(studio_command: Command, quick_recipe: Path, models: Path) -> Path:
    """The folder of a small finished run."""
    said = studio_command("generate", "a red cube", "--preset", quick_recipe, "--prior", models)
    assert said.code == 0, said
    return Path("runs/a-red-cube")


# ------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "No command was given"),
        (["genrate", "a cat"], "Did you mean 'generate'?"),
        (["prior"], "needs one word more: info, vocab"),
        (["prior", "trian"], "Did you mean 'prior train'?"),
        (["generate"], "PROMPT"),
        (["generate", "a cat", "--stpes", "5"], "Did you mean '--steps'?"),
        (["generate", "a cat", "--steps", "many"], "--steps 'many' does not fit; expected INT"),
        (["generate", "a", "cat"], "Unrecognized options: cat"),
        (["render", "x.glb", "--size", "big"], "--size"),
    ],
)
def test_command_line(refused: Refused, arguments: list[str], says: str) -> None:
    assert says in refused(*arguments)


# ------------------------------------------------------------------------------------------------ the recipe


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_empty_prompt(refused: Refused, models: Path, prompt: str) -> None:
    assert "prompt is empty" in refused("generate", prompt, "--prior", models)


def test_over_long_prompt(refused: Refused, models: Path) -> None:
    said = refused("generate", "a red cube " * 200, "--prior", models)
    assert "characters" in said
    assert "at most" in said


def test_prompt_that_names_nothing_known(refused: Refused, models: Path) -> None:
    said = refused("generate", "a zeppelin", "--prior", models)
    assert "zeppelin" in said
    assert "studio prior vocab" in said


@pytest.mark.parametrize(
    ("preset", "choice"),
    [
        ("default", "stages.0.renderer.backend=gsplat"),
        ("nerf", "stages.0.renderer.backend=nerfacc"),
        ("nerf", "stages.0.renderer.network=tinycudann"),
    ],
)
def test_package_that_needs_a_gpu(refused: Refused, models: Path, preset: str, choice: str) -> None:
    option, package = choice.removeprefix("stages.0.").split("=")
    said = refused(
        "generate",
        "a red cube",
        "--prior",
        models,
        "--preset",
        preset,
        "--set",
        "device=cpu",
        "--set",
        choice,
    )
    assert f"{package} backend needs a CUDA device" in said
    assert f"use {option} = 'auto'" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--preset", "defualt"], "Did you mean 'default'?"),
        (["--preset", "nowhere/mine.toml"], "no recipe file nowhere/mine.toml"),
        (["--set", "stages.0.stepz=5"], "Did you mean 'steps'?"),
        (["--set", "sead=5"], "Did you mean 'seed'?"),
        (["--set", "stages.7.steps=5"], "There is no stages.7"),
        (["--set", "seed"], "is not an override"),
        (["--set", "stages.0.guidance.0.method.kind=sdss"], "Did you mean 'sds'?"),
        (["--set", "prior.kind=librari"], "Did you mean 'library'?"),
        (["--set", "stages.0.steps=0"], "from 1 to"),
        (["--steps", "0"], "from 1 to"),
        (["--seed", "-1"], "seed is -1"),
        (["--set", "stages.0.resolution=9"], "16 to 2048"),
        (["--set", "stages.0.steps=lots"], "whole number"),
        (["--set", "device=gpu"], "'cuda'"),
        (["--set", "stages.0.scene.initial.opacity=2"], "stages.0.scene.initial.opacity is 2"),
    ],
)
def test_recipe(refused: Refused, arguments: list[str], says: str) -> None:
    assert says in refused("generate", "a red cube", *arguments)


def test_recipe_that_is_not_toml(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("seed = = 3\n")
    assert "not valid TOML" in refused("generate", "a red cube", "--preset", "broken.toml")


def test_show_and_cite_name_the_nearest_preset(refused: Refused) -> None:
    assert "Did you mean 'default'?" in refused("presets", "show", "defaul")
    assert "Did you mean 'default'?" in refused("cite", "defaul")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.mp4", None, "There is no video"),
        ("broken.mp4", b"not a film", "cannot be read as a video"),
        ("film.txt", b"words", "has the suffix '.txt'"),
        ("still.png", still_png(), "expected at least 2: a still picture does not say how it moves"),
    ],
)
def test_video_of_what_moves(
    refused: Refused, tmp_path: Path, models: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    arguments = ("--preset", "pla4d-draft", "--prior", models, "--video", name)
    assert says in refused("generate", "a red cube", *arguments)


# ------------------------------------------------------------------------------------------------- the prior


def test_unknown_prior(refused: Refused) -> None:
    assert "Did you mean 'library'?" in refused("generate", "a red cube", "--prior", "libary")


def test_folder_that_is_no_prior(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert "is no prior" in refused("generate", "a red cube", "--prior", "nothing")


def test_model_without_caption(refused: Refused, models: Path) -> None:
    (models / "captions.txt").write_text("red.obj: a red cube\n")
    assert "blue.obj has no caption" in refused("generate", "a red cube", "--prior", models)


def test_caption_without_model(refused: Refused, models: Path) -> None:
    with (models / "captions.txt").open("a") as captions:
        captions.write("bleu.obj: a cube\n")
    assert "Did you mean 'blue.obj'?" in refused("generate", "a red cube", "--prior", models)


def test_missing_weights(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "unet" / "config.json").write_text("{}")
    assert "model" in refused("generate", "a red cube", "--prior", "model")


def test_corrupt_weights(refused: Refused, tmp_path: Path) -> None:
    shape = ModelConfig(
        image_size=16, channels=(32, 32), attention=(False, True), text_width=32, text_layers=1
    )
    save_model(TextToImageModel(shape, ["cube"]), shape, tmp_path / "model")
    weights = next((tmp_path / "model" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    said = refused("generate", "a cube", "--prior", "model")
    assert "model/unet" in said
    assert "damaged" in said


# ------------------------------------------------------------------------------------------------ the folders


def test_output_below_a_file(refused: Refused, quick_recipe: Path, models: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    arguments = ["generate", "a red cube", "--preset", quick_recipe, "--prior", models]
    assert "Cannot write to taken" in refused(*arguments, "--output", "taken")
    assert "Cannot write to taken/runs" in refused(*arguments, "--output", "taken/runs")


def test_full_disk(finished_run: Path, quick_recipe: Path, models: Path, tmp_path: Path) -> None:
    """The disk takes the recipe but not a checkpoint: one line, and the earlier run is as it was."""
    before = snapshot(tmp_path / finished_run)

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))

    options = ["--preset", quick_recipe, "--prior", models]
    done = subprocess.run(
        [sys.executable, "-m", "studio.cli", "generate", "a red cube", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        preexec_fn=limit_file_size,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot write" in done.stderr.lower()
    assert snapshot(tmp_path / finished_run) == before
    assert not [path for path in (tmp_path / "runs").rglob(".*")], "nothing half-written is left"


@pytest.mark.parametrize("command", ["resume", "export"])
def test_not_a_run(refused: Refused, tmp_path: Path, command: str) -> None:
    (tmp_path / "photos").mkdir()
    more = ["bear.glb"] if command == "export" else []
    assert "photos is not a run" in refused(command, "photos", *more)
    assert "nowhere does not exist" in refused(command, "nowhere", *more)


def test_run_of_a_newer_version(refused: Refused, finished_run: Path) -> None:
    marker = finished_run / "state" / "format.json"
    marker.write_text(json.dumps({"format": 999, "studio": "9.0"}))
    assert "newer version" in refused("resume", finished_run)


def test_run_with_a_damaged_checkpoint(refused: Refused, finished_run: Path) -> None:
    for checkpoint in (finished_run / "state").glob("*.safetensors"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert "damaged" in refused("resume", finished_run)


def test_unknown_export_suffix(refused: Refused, finished_run: Path) -> None:
    said = refused("export", finished_run, "bear.gbl")
    assert "Did you mean" in said
    assert ".glb" in said


def test_one_wrong_suffix_stops_the_whole_export(refused: Refused, finished_run: Path) -> None:
    refused("export", finished_run, "bear.ply", "bear.docx")


# ------------------------------------------------------------------------------------------------- the meshes


def write_mesh(path: Path, text: str) -> None:
    path.write_text(text.format(name=path.stem))
    path.with_suffix(".mtl").write_text("newmtl paint\nKd 1 1 1\n")


BAD_MESHES = {
    "no faces": ("\n".join(line for line in CUBE.splitlines() if not line.startswith("f")), "no faces"),
    "NaN vertices": (CUBE.replace("v -1 -1 -1", "v nan -1 -1"), "not finite"),
}


@pytest.mark.parametrize("text_and_words", BAD_MESHES.values(), ids=BAD_MESHES)
def test_bad_mesh(refused: Refused, models: Path, tmp_path: Path, text_and_words: tuple[str, str]) -> None:
    text, words = text_and_words
    write_mesh(tmp_path / "bad.obj", text)
    assert words in refused("render", "bad.obj")
    write_mesh(models / "red.obj", text)
    assert words in refused("generate", "a red cube", "--prior", models)


def test_missing_texture(refused: Refused, tmp_path: Path) -> None:
    write_mesh(tmp_path / "bad.obj", CUBE)
    (tmp_path / "bad.mtl").write_text("newmtl paint\nmap_Kd gone.png\n")
    assert "gone.png" in refused("render", "bad.obj")


def test_mesh_that_is_not_there(refused: Refused) -> None:
    assert "gone.glb" in refused("render", "gone.glb")


def test_unknown_mesh_suffix(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "bear.fbx").write_text("")
    assert ".glb" in refused("render", "bear.fbx")


# ------------------------------------------------------------------------------------------------- the rest


def test_training_views_that_are_none(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert "render-data" in refused("prior", "evaluate", "photos")
    assert "render-data" in refused("prior", "train", "--views", "photos", "--folder", "out")
