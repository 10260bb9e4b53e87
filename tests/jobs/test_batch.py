"""A batch deals with every row once, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from studio.errors import StudioError
from studio.jobs.batch import Batch, Ending, Outcome, WorkerDied
from studio.jobs.making import make
from studio.jobs.on_processes import ProcessPerformer
from studio.jobs.supervisor import Device
from studio.jobs.table import Row, read_table
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
