"""A batch deals with every row once, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import submitit

from studio.errors import StudioError
from studio.jobs.batch import Batch, Ending, Outcome, WorkerDied
from studio.jobs.making import make
from studio.jobs.on_processes import ProcessPerformer
from studio.jobs.on_slurm import SlurmPerformer, slurm_performers
from studio.jobs.supervisor import Device
from studio.jobs.table import Row, read_table
from studio.recipes.config import LibraryPriorConfig
from studio.recipes.load import to_toml
from tests.conftest import Said


class Here:
    """Makes rows in this process; the first so many times it dies instead."""

    def __init__(self, deaths: int = 0) -> None:
        self.deaths = deaths
        self.closed = False

    def __call__(self, recipe: str, folder: Path) -> None:
        if self.deaths:
            self.deaths -= 1
            raise WorkerDied("gone")
        make(recipe, folder)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def rows(tmp_path: Path, models: Path, quick_recipe: Path) -> list[Row]:
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,seed\na red cube,1\na blue cube,2\na red cube,3\n")
    lines = f"prior = {{ kind = 'library', folder = '{models}' }}\n"
    quick_recipe.write_text(lines + quick_recipe.read_text())
    return [row for row in read_table(path, str(quick_recipe)) if isinstance(row, Row)]


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.jobs.batch._LONGEST_PAUSE_S", 0.01)


def taken(batch: Batch) -> list[Outcome]:
    with closing(batch.outcomes()) as outcomes:
        return sorted(outcomes, key=lambda outcome: outcome.row)


def test_rows_are_made_once_and_found_afterwards(rows: list[Row], tmp_path: Path) -> None:
    here, out = Here(), tmp_path / "out"
    made = taken(Batch(rows, out, [here]))
    assert here.closed
    assert [outcome.ending for outcome in made] == [Ending.DONE] * 3
    assert made[0].files == ("assets/asset.ply", "assets/contact_sheet.png")
    assert all((out / made[0].folder / file).is_file() for file in made[0].files)
    assert made[1].metrics["nearest_model"] == "blue.obj"
    manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["row"] for line in manifest] == [1, 2, 3]
    assert manifest[1]["metrics"]["psnr_db"] > 0
    assert (out / "errors.jsonl").read_text() == ""

    never = Here(deaths=99)
    again = taken(Batch(rows, out, [never]))
    assert [outcome.ending for outcome in again] == [Ending.FOUND] * 3
    assert again[1].metrics == made[1].metrics


def test_a_row_is_tried_again_so_often(rows: list[Row], tmp_path: Path, no_pauses: None) -> None:
    made = taken(Batch(rows[:1], tmp_path / "a", [Here(deaths=2)], retries=2))
    assert made[0].ending is Ending.DONE and made[0].attempts == 3
    failed = taken(Batch(rows[:1], tmp_path / "b", [Here(deaths=9)], retries=1))
    assert failed[0].ending is Ending.FAILED
    assert failed[0].reason == "gone, at each of 2 attempts. Try a smaller resolution."
    assert json.loads((tmp_path / "b" / "errors.jsonl").read_text())["row"] == 1


def test_two_batches_do_not_share_a_folder(rows: list[Row], tmp_path: Path) -> None:
    with closing(Batch(rows, tmp_path / "out", [Here()]).outcomes()) as first:
        next(first)
        with pytest.raises(StudioError, match="Another batch is at work on"):
            next(Batch(rows, tmp_path / "out", [Here()]).outcomes())


def test_a_killed_process_is_replaced(rows: list[Row], tmp_path: Path, no_pauses: None) -> None:
    performer = ProcessPerformer(Device("cpu"), threads=1)
    killed = []

    class Killing:
        """Kills the first process as soon as it is at work."""

        def __call__(self, recipe: str, folder: Path) -> None:
            if not killed:
                real = performer._pool_ready().submit(os.getpid).result()
                killed.append(real)
                os.kill(real, signal.SIGKILL)
            performer(recipe, folder)

        def close(self) -> None:
            performer.close()

    (made,) = taken(Batch(rows[:1], tmp_path / "out", [Killing()], retries=3))
    assert made.ending is Ending.DONE and made.attempts == 2
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)


def test_a_killed_driver_leaves_what_the_next_goes_on_with(
    rows: list[Row], tmp_path: Path, models: Path, quick_recipe: Path, studio_command: Callable[..., Said]
) -> None:
    table, out = tmp_path / "prompts.csv", tmp_path / "out"
    table.write_text(table.read_text() + ",4\n")
    command = ["batch", str(table), "--preset", str(quick_recipe), "--out", str(out), "--workers", "1"]
    driver = subprocess.Popen([sys.executable, "-m", "studio.cli", *command], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(out.glob("runs/*/done.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    assert workers and not psutil.wait_procs(workers, timeout=60)[1]
    said = studio_command(*command)
    assert said.code == 2
    assert "row 4, no prompt: the prompt is empty" in said.out
    assert "1 failed" in said.out and "what is wrong with the 1" in said.err
    manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["ending"] == "failed" for line in manifest] == [False, False, False, True]
    assert "found done" in {line["ending"] for line in manifest}


class MortalJobs(submitit.LocalExecutor):
    """Jobs as Slurm would be given them, in processes of this machine; the first dies at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.jobs: list[submitit.Job[object]] = []

    def submit(self, *call: Any, **named: Any) -> submitit.Job[Any]:
        job = super().submit(*call, **named)
        if not self.jobs:
            os.kill(int(job.job_id), signal.SIGKILL)
        self.jobs.append(job)
        return job


def test_jobs_of_slurm(rows: list[Row], tmp_path: Path, no_pauses: None) -> None:
    """A job that dies is asked for again; what is wrong with a row comes back from its job."""
    nothing_there = replace(rows[1].recipe, prior=LibraryPriorConfig(folder=str(tmp_path / "none")))
    wrong = replace(rows[1], recipe=nothing_there, folder="wrong")
    executor = MortalJobs(tmp_path / "jobs")
    made, failed = taken(Batch([rows[0], wrong], tmp_path / "out", [SlurmPerformer(executor)]))
    assert (made.ending, made.attempts) == (Ending.DONE, 2)
    assert (tmp_path / "out" / made.folder / made.files[0]).is_file()
    assert failed.ending is Ending.FAILED and str(tmp_path / "none") in failed.reason
    assert "Traceback" not in failed.reason and failed.attempts == 1
    assert len(executor.jobs) == 3


def test_jobs_of_slurm_end_with_the_batch(rows: list[Row], tmp_path: Path) -> None:
    executor = submitit.LocalExecutor(tmp_path / "jobs")
    performer = SlurmPerformer(executor)
    threading.Timer(0.5, performer.close).start()
    with pytest.raises(WorkerDied, match="it was stopped"):
        performer(to_toml(rows[0].recipe), tmp_path / "run")
    (log,) = (tmp_path / "jobs").glob("*_submitted.pkl")
    process = psutil.Process(int(log.name.split("_")[0]))
    assert not psutil.wait_procs([process], timeout=60)[1]


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudioError, match='--slurm: Could not detect "srun"'):
        slurm_performers(2, tmp_path / "jobs")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(StudioError, match="--slurm needs submitit, which is not installed; try: pip install"):
        slurm_performers(2, tmp_path / "jobs")


def test_one_place_at_a_time(studio_command: Callable[..., Said]) -> None:
    said = studio_command("batch", "prompts.csv", "--ray", "auto", "--slurm", "2")
    assert said.code == 2 and "--workers, --ray and --slurm were given together" in said.err
    said = studio_command("batch", "prompts.csv", "--slurm", "0")
    assert said.code == 2 and "--slurm is 0; expected at least 1." in said.err
