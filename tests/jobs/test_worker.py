"""A worker takes real runs to their ends, and lets go of them as it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.jobs import disk
from studio.jobs.queue import Queue, State, Wish
from studio.jobs.worker import Worker
from studio.run import checkpoint
from studio.run.events import EventLog
from studio.run.session import Run
from tests.run.tiny import equal, tiny_recipe


def never() -> bool:
    return False


def after(count: int) -> Callable[[], bool]:
    """A wish that comes when it has been asked for so often."""
    asked = iter(range(count))
    return lambda: next(asked, None) is None


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "workspace")


@pytest.fixture
def hand(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker that looks for wishes at every step."""
    monkeypatch.setattr("studio.jobs.queue.REPORT_EVERY_S", 0.0)
    return Worker(queue, "test", least_free_bytes=0)


def small(models: Path, *overrides: str) -> list[str]:
    return ["export.formats=['ply']", *overrides]


def test_jobs_become_finished_runs(queue: Queue, hand: Worker, models: Path) -> None:
    recipe = tiny_recipe(models, *small(models))
    queue.submit([recipe, recipe])
    assert hand.work(never, until_empty=True) == 2
    for job in queue.jobs():
        assert (job.reason, job.state, job.step, job.attempts) == ("", State.FINISHED, 30, 1)
        assert (job.folder / "assets" / "asset.ply").is_file()
        assert Run.open(job.folder).metrics()["nearest_model"] == "red.obj"
        assert len(checkpoint.checkpoints(job.folder / "state")) == 1


def test_stopping_pausing_and_cancelling_wait_for_the_step(
    queue: Queue, hand: Worker, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(models, *small(models))
    whole = Run.create(recipe, queue.workspace / "whole")
    list(whole)
    queue.submit([recipe])
    assert hand.work(after(6)) == 0
    job = queue.job(1)
    assert job.state is State.QUEUED and 0 < job.step < 30

    heard = Queue.heard

    def paused_at_12(self: Queue, number: int, step: int) -> Wish:
        if step == 12:
            self.pause(number)
        return heard(self, number, step)

    monkeypatch.setattr(Queue, "heard", paused_at_12)
    assert hand.work(never, until_empty=True) == 0
    assert (queue.job(1).state, queue.job(1).step) == (State.PAUSED, 12)
    monkeypatch.setattr(Queue, "heard", heard)
    queue.resume(1)
    assert hand.work(never, until_empty=True) == 1
    assert equal(Run.open(job.folder).scene().state(), whole.scene().state())

    def cancelled_at_3(self: Queue, number: int, step: int) -> Wish:
        if step == 3:
            self.cancel(number)
        return heard(self, number, step)

    queue.submit([recipe])
    monkeypatch.setattr(Queue, "heard", cancelled_at_3)
    assert hand.work(never, until_empty=True) == 1
    assert (queue.job(2).state, queue.job(2).step) == (State.CANCELLED, 3)
    assert not list((queue.job(2).folder / "assets").iterdir())


def test_what_fails_says_why_and_stops_no_other(
    queue: Queue, hand: Worker, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tiny_recipe(models, *small(models))
    unknown = tiny_recipe(models, *small(models), "prompt=a zeppelin", "prior.folder='nowhere'")
    queue.submit([unknown, good])
    assert hand.work(never, until_empty=True) == 2
    failed = queue.job(1)
    assert failed.state is State.FAILED and "nowhere" in failed.reason and not failed.folder.exists()
    assert queue.job(2).state is State.FINISHED

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    queue.submit([good])
    monkeypatch.setattr(Run, "export", broken)
    hand.work(never, until_empty=True)
    job = queue.job(3)
    assert job.state is State.FAILED and job.reason == "A bug in the studio: ZeroDivisionError: oops"
    assert "in broken" in (job.folder / "error.txt").read_text()
    monkeypatch.undo()
    queue.retry(3)
    hand.work(never, until_empty=True)
    assert queue.job(3).state is State.FINISHED


def test_an_export_is_left_between_its_parts(
    queue: Queue, hand: Worker, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.submit([tiny_recipe(models, "export.formats=['ply','png']")])
    heard, calls = Queue.heard, []

    def cancelled_while_exporting(self: Queue, number: int, step: int) -> Wish:
        if step == 30:
            calls.append(step)
            if len(calls) == 2:
                self.cancel(number)
        return heard(self, number, step)

    monkeypatch.setattr(Queue, "heard", cancelled_while_exporting)
    hand.work(never, until_empty=True)
    job = queue.job(1)
    assert job.state is State.CANCELLED
    assert [path.name for path in (job.folder / "assets").iterdir()] == ["asset.ply"]


def test_a_full_disk_pauses_and_says_so(queue: Queue, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.submit([tiny_recipe(models, *small(models))])
    usage = namedtuple("usage", "total used free")
    frees = iter([2**31] * 8)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage(2**32, 0, next(frees, 2**20)))
    hand = Worker(queue, "test", least_free_bytes=2**30)
    hand.work(never, until_empty=True)
    job = queue.job(1)
    assert job.state is State.PAUSED and 0 < job.step < 30
    assert "has 0.0 GiB left, expected at least 1.0. Make room, then resume." in job.reason
    monkeypatch.undo()
    queue.resume(1)
    Worker(queue, "test", least_free_bytes=0).work(never, until_empty=True)
    assert queue.job(1).state is State.FINISHED


def test_a_damaged_run_is_an_error_of_its_job(queue: Queue, hand: Worker, models: Path) -> None:
    (job,) = queue.submit([tiny_recipe(models, *small(models))])
    job.folder.mkdir(parents=True)
    with pytest.raises(StudioError):
        Run.open(job.folder)
    hand.work(never, until_empty=True)
    assert queue.job(1).state is State.FAILED and "is not a run" in queue.job(1).reason


_PROGRAM = """
import sys
from pathlib import Path
from studio.jobs.queue import Queue
from studio.jobs.worker import Worker
Worker(Queue(Path(sys.argv[1])), "killed", least_free_bytes=0).work(lambda: False)
"""


def test_after_a_kill_the_next_worker_goes_on_bit_for_bit(queue: Queue, hand: Worker, models: Path) -> None:
    recipe = tiny_recipe(models, *small(models), "stages.0.steps=120")
    whole = Run.create(recipe, queue.workspace / "whole")
    list(whole)
    (job,) = queue.submit([recipe])
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM, str(queue.workspace)])
    deadline = time.monotonic() + 300
    while not checkpoint.checkpoints(job.folder / "state"):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    assert queue.claim("other") is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert queue.job(1).state is State.RUNNING
    hand.work(never, until_empty=True)
    assert (queue.job(1).state, queue.job(1).attempts) == (State.FINISHED, 2)
    assert equal(Run.open(job.folder).scene().state(), whole.scene().state())


_KILLED = """
import os, signal, sys
from pathlib import Path
from studio.jobs import queue
from studio.jobs.worker import Worker

queue.REPORT_EVERY_S = 0.0
replace, heard = Path.replace, queue.Queue.heard

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def in_the_start():
    # The run's folder is whole, and has not taken its place.
    Path.rename = die

def in_a_file(ending):
    Path.replace = lambda self, target: die() if target.name.endswith(ending) else replace(self, target)

def at_a_step(step):
    queue.Queue.heard = lambda self, number, now: die() if now == step else heard(self, number, now)

def work():
    Worker(queue.Queue(Path(sys.argv[1])), "killed", least_free_bytes=0).work(lambda: False, until_empty=True)

for phase, words in (
    (in_the_start, ()), (in_a_file, (".safetensors",)), (at_a_step, (17,)), (in_a_file, (".ply",))
):
    if os.fork() == 0:
        phase(*words)
        work()
        os._exit(0)
    assert os.wait()[1] == signal.SIGKILL
"""


def test_a_kill_in_any_phase_loses_nothing(queue: Queue, hand: Worker, models: Path) -> None:
    """At the start, in the first checkpoint, at a step and in an export: one job, killed four times."""
    recipe = tiny_recipe(models, *small(models))
    whole = Run.create(recipe, queue.workspace / "whole")
    list(whole)
    (job,) = queue.submit([recipe])
    subprocess.run([sys.executable, "-c", _KILLED, str(queue.workspace)], check=True)
    assert (queue.job(1).state, queue.job(1).attempts) == (State.RUNNING, 4)
    assert hand.work(never, until_empty=True) == 1
    done = queue.job(1)
    assert (done.state, done.reason, done.attempts) == (State.FINISHED, "", 5)
    assert [path.name for path in (job.folder / "assets").glob("asset*")] == ["asset.ply"]
    steps = [
        event["step"] for event in EventLog(job.folder / "events.jsonl").read() if event["event"] == "step"
    ]
    assert steps == [1, 5, 10, 15, 20, 25, 30]
    assert equal(Run.open(job.folder).scene().state(), whole.scene().state())
