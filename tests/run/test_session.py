"""The run folder: made whole or not at all, opened again, stopped and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from studio.errors import StudioError
from studio.export import files
from studio.prompts import LONGEST_NAME, slug
from studio.recipes.load import read
from studio.run import checkpoint
from studio.run.events import EventLog
from studio.run.folder import FORMAT
from studio.run.session import Run
from tests.run.tiny import equal, tiny_recipe


def events(run: Run) -> list[dict[str, object]]:
    return EventLog(run.folder / "events.jsonl").read()


def test_a_finished_run_has_everything(models: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(models)
    run = Run.create(recipe, tmp_path / "runs")
    assert run.folder == tmp_path / "runs" / "a-red-cube"
    assert "red.obj" in run.prior_reason
    assert not run.is_finished and run.latest_preview() is None and run.metrics() == {}
    assert [report.step for report in run] == list(range(1, 31))

    assert run.is_finished
    assert read(run.folder / "recipe.toml") == recipe
    assert [path.name for path in checkpoint.checkpoints(run.folder / "state")] == [
        "0000020.safetensors",
        "0000030.safetensors",
    ]
    previews = sorted(path.name for path in (run.folder / "previews").iterdir())
    assert previews == ["0000010.png", "0000020.png", "0000030.png"]
    latest = run.latest_preview()
    assert latest is not None
    with Image.open(latest) as picture:
        assert picture.size == (64, 16)
    logged = events(run)
    assert [event["event"] for event in logged] == ["begin"] + ["step"] * 7 + ["finish"]
    assert [event["step"] for event in logged] == [0, 1, 5, 10, 15, 20, 25, 30, 30]
    assert {"losses", "seconds", "statistics", "warnings", "elapsed_s"} <= logged[3].keys()
    metrics = run.metrics()
    assert metrics["nearest_model"] == "red.obj"
    assert 0 < float(metrics["psnr_db"]) < 60
    assert 0 <= float(metrics["silhouette_iou"]) <= 1
    assert list(run) == []


def test_a_run_of_several_particles_shows_and_exports_each(models: Path, tmp_path: Path) -> None:
    run = Run.create(tiny_recipe(models, "particles=2"), tmp_path)
    list(run)
    latest = run.latest_preview()
    assert latest is not None
    with Image.open(latest) as picture:
        assert picture.size == (64, 32)
    assert run.metrics()["nearest_model"] == "red.obj, red.obj"
    assert isinstance(run.metrics()["psnr_db"], float)
    paths = run.export([tmp_path / "cube.ply", tmp_path / "cube.png"])
    assert [path.name for path in paths] == ["cube.ply", "cube.png", "cube-2.ply", "cube-2.png"]
    assert (tmp_path / "cube.ply").read_bytes() != (tmp_path / "cube-2.ply").read_bytes()
    again = Run.open(run.folder)
    assert torch.equal(again.primitives(1).means, run.primitives(1).means)


def test_stopping_saves_and_opening_goes_on_bit_for_bit(models: Path, tmp_path: Path) -> None:
    whole = Run.create(tiny_recipe(models), tmp_path)
    list(whole)
    run = Run.create(tiny_recipe(models), tmp_path)
    for report in run:
        if report.step == 17:
            break
    del report
    run = Run.open(run.folder)
    assert run.step == 17
    for report in run:
        if report.step == 23:
            break
    assert [report.step for report in Run.open(run.folder)] == list(range(24, 31))
    paths = [Run.open(each.folder).folder / "state/0000030.safetensors" for each in (whole, run)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    steps = [event["step"] for event in events(run) if event["event"] == "step"]
    assert steps == sorted(set(steps))


def test_a_killed_run_goes_on_from_its_last_checkpoint(models: Path, tmp_path: Path) -> None:
    """As SIGKILL leaves it: no checkpoint for the last steps, a torn line in the log, a half-written file."""
    whole = Run.create(tiny_recipe(models), tmp_path)
    list(whole)
    run = Run.create(tiny_recipe(models), tmp_path)
    reports = iter(run)
    for report in reports:
        if report.step == 26:
            break
    killed = run.folder.with_name("killed")
    shutil.copytree(run.folder, killed)  # this process still holds the lock of the other one
    with (killed / "events.jsonl").open("a") as log:
        log.write('{"event": "step", "st')
    (killed / "state" / ".0000030-x.safetensors").write_bytes(b"half")
    run = Run.open(killed)
    assert run.step == 20
    list(run)
    assert equal_files(whole, run)
    steps = [event["step"] for event in events(run) if event["event"] == "step"]
    assert steps == [1, 5, 10, 15, 20, 25, 30]


def equal_files(first: Run, second: Run) -> bool:
    name = "state/0000030.safetensors"
    return (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_iterating_again_goes_on_in_memory(models: Path, tmp_path: Path) -> None:
    run = Run.create(tiny_recipe(models), tmp_path)
    for report in run:
        if report.step == 4:
            break
    assert next(iter(run)).step == 5


def test_previews_on_request(models: Path, tmp_path: Path) -> None:
    run = Run.create(tiny_recipe(models), tmp_path)
    path = run.save_preview()
    assert path == run.latest_preview() == run.folder / "previews" / "0000000.png"
    assert run.render_sides(24).rgb.shape == (4, 3, 24, 24)
    assert not run.primitives().means.requires_grad


def test_earlier_runs_are_never_touched(models: Path, tmp_path: Path) -> None:
    first = Run.create(tiny_recipe(models), tmp_path)
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    names = [Run.create(tiny_recipe(models), tmp_path).folder.name for _ in range(2)]
    assert names == ["a-red-cube-2", "a-red-cube-3"]
    assert {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir() if path != models) == [
        "a-red-cube",
        "a-red-cube-2",
        "a-red-cube-3",
    ]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A teddy bear, 3/4 view!", "a-teddy-bear-3-4-view"),
        ("ein Stühlchen", "ein-stuhlchen"),
        ("../../etc/passwd", "etc-passwd"),
        ("熊", "run"),
        ("x" * 200, "x" * LONGEST_NAME),
        ("word " * 40, ("word-" * 13)[:LONGEST_NAME].strip("-")),
    ],
)
def test_slugs(prompt: str, name: str) -> None:
    assert slug(prompt) == name


def test_a_prompt_that_names_nothing_leaves_no_folder(models: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    output = tmp_path / "runs"
    for prompt, said in {"a zebra": "zebra", "": "empty"}.items():
        with pytest.raises(StudioError, match=said):
            Run.create(replace(tiny_recipe(models), prompt=prompt), output)
    assert not output.exists()


def test_missing_priors_leave_no_folder(models: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    with pytest.raises(StudioError, match="nowhere"):
        Run.create(tiny_recipe(models, f"prior.folder='{tmp_path}/nowhere'"), output)
    with pytest.raises(StudioError, match="Cannot read points"):
        Run.create(
            tiny_recipe(models, "stages.0.scene.initial={ kind = 'point_cloud', path = 'no.ply' }"), output
        )
    assert not output.exists()


def test_an_output_that_is_a_file(models: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StudioError, match=r"Cannot write to .*Try another output folder"):
        Run.create(tiny_recipe(models), blocked)
    assert blocked.read_text() == ""


def test_folders_that_are_not_runs(models: Path, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"is not a run; expected a folder made by 'studio generate'"):
        Run.open(models)
    with pytest.raises(StudioError, match="does not exist"):
        Run.open(tmp_path / "nowhere")


def test_runs_of_a_newer_version(models: Path, tmp_path: Path) -> None:
    run = Run.create(tiny_recipe(models, "stages.0.steps=10"), tmp_path)
    list(run)
    marker = run.folder / "state" / "format.json"
    marker.write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(StudioError, match=r"has format 2 .* newer version. Upgrade"):
        Run.open(run.folder)
    marker.write_text("{")
    with pytest.raises(StudioError, match="damaged"):
        Run.open(run.folder)


def test_damaged_checkpoints_are_named(models: Path, tmp_path: Path) -> None:
    run = Run.create(tiny_recipe(models), tmp_path)
    list(run)
    (run.folder / "state" / "0000030.safetensors").write_bytes(b"nonsense")
    with pytest.raises(StudioError, match=r"0000030.safetensors is damaged .* resume from the one before"):
        _ = Run.open(run.folder).step


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tiny_recipe(models), tmp_path)
    whole = files.write_bytes

    def full(path: Path, data: bytes) -> None:
        if path.name == "0000020.safetensors":
            with files.replacing(path) as temporary:
                temporary.write_bytes(data[:10])
                raise OSError(28, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(checkpoint, "write_bytes", full)
    with pytest.raises(StudioError, match="No space left on device"):
        list(run)
    monkeypatch.undo()
    assert [path.name for path in (run.folder / "state").iterdir() if path.suffix == ".safetensors"] == [
        "0000010.safetensors"
    ]
    assert events(run)[-1]["event"] == "stop"
    again = Run.open(run.folder)
    assert again.step == 10
    list(again)
    assert again.is_finished


def test_a_lost_checkpoint_folder_starts_from_the_beginning(models: Path, tmp_path: Path) -> None:
    """A run killed before its first checkpoint: the start is drawn again, and is the same."""
    first = Run.create(tiny_recipe(models), tmp_path)
    second = Run.open(first.folder)
    assert first.step == second.step == 0
    mine, theirs = first.primitives(), second.primitives()
    assert equal({"means": mine.means, "sh": mine.sh}, {"means": theirs.means, "sh": theirs.sh})


def test_three_lines_in_a_notebook(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import studio

    run = studio.start(
        "a red cube",
        overrides=["stages.0.steps=2", "stages.0.resolution=16", f"prior.folder='{models}'"],
        output=tmp_path / "runs",
    )
    losses = [report.losses for report in run]
    assert len(losses) == 2 and torch.tensor([loss["sds"] for loss in losses]).isfinite().all()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = studio.nothing


@pytest.mark.parametrize(
    "method",
    [
        "{ kind = 'vsd', critic = { kind = 'trained', learning_rate = 1e-3, updates = 2 } }",
        "{ kind = 'f_distill', critic = { kind = 'trained', learning_rate = 1e-3 } }",
    ],
)
def test_what_a_critic_learned_is_resumed_bit_for_bit(method: str, models: Path, tmp_path: Path) -> None:
    """As SIGKILL leaves it: the steps since the last checkpoint are lost, and taken again as they were."""
    overrides = ("stages.0.steps=12", "checkpoint_every=4", f"stages.0.guidance=[{{ method = {method} }}]")
    whole = Run.create(tiny_recipe(models, *overrides), tmp_path)
    list(whole)
    run = Run.create(tiny_recipe(models, *overrides), tmp_path)
    for report in run:
        assert report.statistics[f"{method.split(chr(39))[1]}_critic_loss"] > 0
        if report.step == 6:
            break
    (run.folder / "state/0000006.safetensors").unlink()
    resumed = Run.open(run.folder)
    assert resumed.step == 4
    list(resumed)
    paths = [each.folder / "state/0000012.safetensors" for each in (whole, run)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"learned/" in paths[0].read_bytes()
