"""Every command does its work and says where the result is."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plyfile import PlyData

from studio import console
from studio.recipes import load
from studio.reports import StepReport
from studio.run.session import Run
from tests.conftest import Said

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Command = Callable[..., Said]


@pytest.fixture
def generated(studio_command: Command, quick_recipe: Path, models: Path) -> Said:
    """What ``generate`` says of a small run, which is in ``runs/a-red-cube``."""
    return studio_command("generate", "a red cube", "--preset", quick_recipe, "--prior", models)


def test_generate_prints_the_prior_the_progress_the_assets_and_the_figures(generated: Said) -> None:
    assert generated.code == 0, generated
    assert generated.err == ""
    assert "prior: the exact prior" in generated.out
    assert "step 4/4" in generated.out
    assert "images/s" in generated.out
    for asset in ("runs/a-red-cube/assets/asset.ply", "runs/a-red-cube/assets/contact_sheet.png"):
        assert asset in generated.out.splitlines()
        assert Path(asset).is_file()
    assert len(PlyData.read("runs/a-red-cube/assets/asset.ply")["vertex"]) == 200
    assert "psnr_db" in generated.out


def test_generate_again_makes_a_second_folder(generated: Said, studio_command: Command) -> None:
    recipe, models = Path("quick.toml"), Path("models")
    said = studio_command("generate", "a red cube", "--preset", "./quick.toml", "--prior", models)
    assert recipe.is_file()
    assert "run: runs/a-red-cube-2" in said.out


def test_options_reach_the_recipe(studio_command: Command, quick_recipe: Path, models: Path) -> None:
    said = studio_command(
        "generate", "a blue cube", "--preset", quick_recipe, "--prior", models,
        "--steps", "2", "--seed", "7", "--set", "stages.0.background.kind=fixed", "--output", "elsewhere",
    )  # fmt: skip
    assert said.code == 0, said
    recipe = load.read(Path("elsewhere/a-blue-cube/recipe.toml"))
    assert (recipe.prompt, recipe.seed, recipe.total_steps) == ("a blue cube", 7, 2)
    assert recipe.stages[0].background.kind == "fixed"
    assert recipe.prior.kind == "library"


def test_steps_are_shared_out_among_stages(studio_command: Command, quick_recipe: Path, models: Path) -> None:
    with quick_recipe.open("a") as file:
        file.write('\n[[stages]]\nsteps = 12\nguidance = [{ method = { kind = "sds" } }]\n')
    said = studio_command(
        "generate", "a cube", "--preset", quick_recipe, "--prior", models, "--steps", "8", "--dry-run",
        "--set", "stages.1.resolution=32", "--set", "stages.1.cameras.count=4",
        "--set", "stages.1.scene.initial.count=50",
    )  # fmt: skip
    assert said.code == 0, said
    assert [stage["steps"] for stage in tomllib.loads(said.out)["stages"]] == [2, 6]


def test_dry_run_prints_a_recipe_and_a_forecast_and_writes_nothing(
    studio_command: Command, quick_recipe: Path, models: Path
) -> None:
    before = sorted(Path().rglob("*"))
    said = studio_command("generate", "a red cube", "--preset", quick_recipe, "--prior", models, "--dry-run")
    assert said.code == 0, said
    assert sorted(Path().rglob("*")) == before
    assert tomllib.loads(said.out)["stages"][0]["steps"] == 4  # the forecast stands in comments
    assert "# time: about 0:0" in said.out
    assert "GiB" in said.out


def test_ctrl_c_saves_and_resume_goes_on(
    studio_command: Command, quick_recipe: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after step 3 and resumed, the run ends bit for bit where an uninterrupted one does."""
    arguments = ("generate", "a red cube", "--preset", quick_recipe, "--prior", models, "--set", "device=cpu")
    whole = studio_command(*arguments, "--output", "whole")
    assert whole.code == 0, whole
    show = console.RunProgress.show

    def press_ctrl_c(self: console.RunProgress, report: StepReport, preview: Path | None) -> None:
        show(self, report, preview)
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(console.RunProgress, "show", press_ctrl_c)
        stopped = studio_command(*arguments, "--output", "stopped")
    assert stopped.code == 130
    assert "stopped at step 3; resume with: studio resume stopped/a-red-cube" in stopped.err

    resumed = studio_command("resume", "stopped/a-red-cube")
    assert resumed.code == 0, resumed
    assert "3 of 4 steps done" in resumed.out
    ends = [Run.open(Path(folder) / "a-red-cube").primitives() for folder in ("whole", "stopped")]
    assert torch.equal(ends[0].means, ends[1].means)
    assert torch.equal(ends[0].sh, ends[1].sh)


def test_export_by_suffix(generated: Said, studio_command: Command) -> None:
    said = studio_command("export", "runs/a-red-cube", "out/cube.splat", "out/cube.gif")
    assert said.code == 0, said
    assert said.out.split() == ["out/cube.splat", "out/cube.gif"]
    assert Path("out/cube.splat").stat().st_size == 32 * 200
    assert Path("out/cube.gif").read_bytes()[:4] == b"GIF8"


def test_render_a_run_and_a_mesh(generated: Said, studio_command: Command) -> None:
    from PIL import Image

    for source, output in (("runs/a-red-cube", "run.png"), ("models/red.obj", "mesh.png")):
        said = studio_command("render", source, "--output", output, "--size", "48", "--azimuth", "-30")
        assert said.code == 0, said
        assert Image.open(output).size == (48, 48)
    red, green, _ = Image.open("mesh.png").convert("RGB").getpixel((24, 24))  # type: ignore[misc]
    assert red > 3 * green, "the cube is red"


def test_presets(studio_command: Command) -> None:
    listed = studio_command("presets", "list")
    assert listed.code == 0
    names = [line.split()[0] for line in listed.out.splitlines()]
    assert names == load.preset_names()
    for name in names:
        assert tomllib.loads(studio_command("presets", "show", name).out)["stages"]


def test_cite(studio_command: Command) -> None:
    said = studio_command("cite", "default")
    assert said.code == 0
    assert "DreamFusion" in said.out
    assert said.out.startswith("@article{poole2022")
    assert said.out.count("{") == said.out.count("}")


def test_cite_names_what_lets_experts_take_turns(studio_command: Command) -> None:
    cited = studio_command("cite", "4d-fy").out
    for arxiv in ("2308.16512", "2305.16213", "2311.17984"):
        assert arxiv in cited
    assert "2311.17984" not in studio_command("cite", "mvdream").out


def test_doctor(studio_command: Command) -> None:
    said = studio_command("doctor", "--offline", "--output", "runs")
    assert said.code == 0
    for word in ("torch", "kernels on cpu", "cuda", "prior library", "prior auto", "memory", "output folder"):
        assert word in said.out
    assert not Path("runs").exists()


def test_vocabulary(studio_command: Command, models: Path) -> None:
    said = studio_command("prior", "vocab", "--models", models)
    assert said.code == 0
    assert "2  cube" in said.out
    said = studio_command("prior", "vocab", "--models", models, "--prompt", "a red cube with wings")
    assert said.out == "1.00  a red cube\n"
    assert "'wings'" in said.err


def test_prior_info(studio_command: Command, models: Path) -> None:
    said = studio_command("prior", "info", models)
    assert said.code == 0
    assert "2 captioned models" in said.out


def test_a_prior_is_rendered_trained_evaluated_and_used(
    studio_command: Command, models: Path, quick_recipe: Path
) -> None:
    said = studio_command(
        "prior", "render-data", "views", "--models", models,
        "--views", "8", "--held-out-views", "4", "--image-size", "16",
    )  # fmt: skip
    assert said.code == 0, said
    said = studio_command(
        "prior", "train", "--views", "views", "--folder", "training", "--total-images", "8", "--batch", "4",
        "--sheet-every", "0", "--image-size", "16", "--channels", "32", "32", "--attention", "False", "True",
        "--text-width", "32", "--text-layers", "1",
    )  # fmt: skip
    assert said.code == 0, said
    assert "step 2/2" in said.out
    assert "--prior training/model" in said.out
    said = studio_command(
        "prior",
        "evaluate",
        "views",
        "--prior",
        "training/model",
        "--pairs",
        "2",
        "--steps",
        "2",
        "--batch",
        "2",
    )
    assert said.code == 0, said
    assert "top-1" in said.out
    assert Path("evaluation/samples.png").is_file()
    said = studio_command("prior", "info", "training/model")
    assert "is told the camera: yes" in said.out
    said = studio_command("generate", "a cube", "--preset", quick_recipe, "--prior", "training/model")
    assert said.code == 0, said
    assert "the diffusion model training/model" in said.out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    from studio.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for command in ("generate", "resume", "export", "render", "presets", "prior", "doctor", "cite"):
        assert command in said


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "studio.cli", "prior", "vocab"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as studio:
        assert studio.stdout is not None and studio.stderr is not None
        studio.stdout.close()
        complaints = studio.stderr.read()
    assert (studio.returncode, complaints) == (0, "")
