"""The queue: who may do what to a job, whose turn it is, and that no job is lost or in two hands."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.jobs.queue import MOST_FRUITLESS_ATTEMPTS, Job, Lease, Queue, State, Wish
from studio.recipes.config import Recipe
from studio.recipes.load import load

RECIPE = load("draft", "a red cube")


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "workspace")


def submitted(queue: Queue, count: int = 1, client: str = "") -> list[Job]:
    return queue.submit([RECIPE] * count, client)


def claimed(queue: Queue, worker: str = "w") -> Lease:
    lease = queue.claim(worker)
    assert lease is not None
    return lease


def waiting(queue: Queue) -> list[int]:
    return [job.id for job in queue.jobs([State.QUEUED])]


def test_a_job_is_what_was_submitted(queue: Queue) -> None:
    recipe = replace(RECIPE, seed=7, prompt="a  red\tcube <b>é</b>")
    (job,) = queue.submit([recipe], "ada")
    assert (job.id, job.client, job.prompt, job.preset) == (1, "ada", "a red cube <b>é</b>", "draft")
    assert (job.state, job.wish, job.step) == (State.QUEUED, Wish.NONE, 0)
    assert job.total_steps == RECIPE.total_steps
    assert job.folder == queue.runs / "000001-a-red-cube-b-e-b"
    assert queue.recipe(1) == recipe
    assert queue.job(1) == job


@pytest.mark.parametrize("prompt", ["../../etc/passwd", "a/b\\c", "..", "CON", "x" * 900])
def test_a_prompt_never_leads_out_of_the_workspace(queue: Queue, prompt: str) -> None:
    (job,) = queue.submit([replace(RECIPE, prompt=prompt)])
    assert job.folder.parent == queue.runs
    assert job.folder.resolve().parent == queue.runs.resolve()


def test_many_are_submitted_all_or_none(queue: Queue) -> None:
    with pytest.raises(StudioError, match="prompt is empty"):
        queue.submit([RECIPE, replace(RECIPE, prompt="  ")])
    assert queue.jobs() == []


def test_a_client_may_have_so_many_waiting(tmp_path: Path) -> None:
    queue = Queue(tmp_path, most_waiting=2)
    submitted(queue, 2, "ada")
    with pytest.raises(StudioError, match="2 of your jobs are waiting and 1 more came; expected at most 2"):
        submitted(queue, 1, "ada")
    submitted(queue, 1, "bob")


def test_turns_follow_submission_and_moves(queue: Queue) -> None:
    submitted(queue, 4)
    queue.move(4, before=1)
    queue.move(2)
    assert waiting(queue) == [4, 1, 3, 2]
    queue.move(3, before=3)
    assert sorted(waiting(queue)) == [1, 2, 3, 4]
    assert queue.ahead_of(4) == 0
    assert claimed(queue).job.id == 4
    with pytest.raises(StudioError, match="Job 4 is running; expected one that waits"):
        queue.move(4)


def test_every_transition_is_right_or_refused(queue: Queue) -> None:
    """Against a table written by hand: what each call does to a job in each state."""

    def job_in(state: State) -> tuple[int, Lease | None]:
        (job,) = submitted(queue)
        if state is State.QUEUED:
            return job.id, None
        if state is State.PAUSED:
            queue.pause(job.id)
            return job.id, None
        for other in waiting(queue):
            if other != job.id:
                queue.cancel(other)
        lease = claimed(queue)
        assert lease.job.id == job.id
        if state is not State.RUNNING:
            with lease:
                lease.end(state)
        return job.id, lease

    queued, running, paused = State.QUEUED, State.RUNNING, State.PAUSED
    cancelled, failed, finished = State.CANCELLED, State.FAILED, State.FINISHED
    table = {
        "cancel": {queued: cancelled, paused: cancelled, running: running, cancelled: cancelled},
        "pause": {queued: paused, paused: paused, running: running},
        "resume": {queued: queued, paused: queued, running: running},
        "retry": {failed: queued, cancelled: queued},
    }
    for call, state in itertools.product(table, State):
        number, lease = job_in(state)
        expected = table[call].get(state)
        if expected is None:
            with pytest.raises(StudioError, match=f"Job {number} is {state.value}"):
                getattr(queue, call)(number)
            assert queue.job(number).state is state
        else:
            assert getattr(queue, call)(number).state is expected, (call, state)
        if state is running and lease is not None:
            wish = {"cancel": Wish.CANCEL, "pause": Wish.PAUSE}.get(call, Wish.NONE)
            with lease:
                assert lease.report(1) is wish
                lease.end(finished)
    with pytest.raises(StudioError, match=r"There is no job 999 in .*studio jobs list"):
        queue.cancel(999)


def test_of_two_wishes_the_firmer_counts(queue: Queue) -> None:
    submitted(queue)
    with claimed(queue) as lease:
        queue.cancel(1)
        queue.cancel(1)
        queue.pause(1)
        assert lease.report(3) is Wish.CANCEL
        lease.end(State.CANCELLED)
    assert queue.job(1).state is State.CANCELLED


def test_a_job_is_in_one_hand_and_goes_on_from_a_dropped_one(queue: Queue) -> None:
    submitted(queue)
    lease = claimed(queue, "first")
    assert queue.claim("second") is None
    with lease:
        lease.report(5)
    again = claimed(queue, "second")
    assert (again.job.step, again.job.attempts, again.job.worker) == (5, 2, "second")


def test_a_wish_outlives_the_worker_that_did_not_hear_it(queue: Queue) -> None:
    submitted(queue, 2)
    first, second = claimed(queue), claimed(queue)
    queue.cancel(1)
    queue.pause(2)
    with first, second:
        pass
    assert queue.claim("next") is None
    assert [queue.job(number).state for number in (1, 2)] == [State.CANCELLED, State.PAUSED]


def test_a_job_that_kills_its_workers_fails_in_the_end(queue: Queue) -> None:
    submitted(queue)
    for _ in range(MOST_FRUITLESS_ATTEMPTS):
        with claimed(queue):
            pass
    assert queue.claim("w") is None
    job = queue.job(1)
    assert job.state is State.FAILED and "without a step of progress" in job.reason
    queue.retry(1)
    for step in range(1, 6):
        with claimed(queue) as lease:
            lease.report(step)
    assert queue.job(1).state is State.RUNNING


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path: Path) -> None:
    moments = iter(range(10**9, 0, -(10**6)))
    queue = Queue(tmp_path, clock=lambda: float(next(moments)))
    submitted(queue, 3)
    with claimed(queue) as lease:
        assert queue.claim("other") is not None
        lease.report(1)
        lease.end(State.FINISHED)
    assert [job.id for job in queue.jobs()] == [2, 3, 1]


def test_lists_are_filtered_and_paged(queue: Queue) -> None:
    queue.submit([replace(RECIPE, prompt=f"a {color} cube") for color in ("red", "blue", "RED%")], "ada")
    submitted(queue, 1, "bob")
    assert [job.id for job in queue.jobs(client="ada", words="Red")] == [1, 3]
    assert [job.id for job in queue.jobs(words="%")] == [3]
    assert [job.id for job in queue.jobs(most=2, skip=1)] == [2, 3]
    with claimed(queue) as lease:
        lease.end(State.FINISHED)
    assert [job.id for job in queue.jobs()] == [2, 3, 4, 1]
    queue.delete(1)
    assert [job.id for job in queue.jobs()] == [2, 3, 4]
    with pytest.raises(StudioError, match="Job 2 is queued; expected one that is over"):
        queue.delete(2)


def test_a_workspace_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StudioError, match="Cannot write to"):
        Queue(file)
    (tmp_path / "queue.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(StudioError, match=r"queue\.sqlite refuses: file is not a database"):
        Queue(tmp_path)


# Many processes.

_WORKER = """
import os, sys, time
from pathlib import Path
from studio.jobs.queue import Queue, State
folder, name = Path(sys.argv[1]), sys.argv[2]
queue = Queue(folder)
log = (folder / f"log-{name}").open("a", buffering=1)

def alive(pid):
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):  # dead, or killed before it had written its number
        return False
    return True

while True:
    lease = queue.claim(name)
    if lease is None:
        time.sleep(0.005)
        continue
    with lease:
        holder = folder / f"held-{lease.job.id}"
        deadline = time.monotonic() + 2  # by then a killed holder is gone
        while holder.exists() and alive(holder.read_text()):
            assert time.monotonic() < deadline, "two workers hold one job"
        holder.write_text(str(os.getpid()))
        for step in range(lease.job.step + 1, 4):
            time.sleep(0.002)
            queue.heard(lease.job.id, step)
            log.write(f"{lease.job.id} {step}\\n")
        holder.unlink()
        lease.end(State.FINISHED)
"""


def test_killed_workers_lose_nothing_and_share_nothing(tmp_path: Path) -> None:
    """Workers are killed at random moments; each job ends once, and is never in two hands."""
    queue = Queue(tmp_path)
    submitted(queue, 40)
    numbers = itertools.count()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path), str(next(numbers))], stderr=subprocess.PIPE
        )

    workers = [start() for _ in range(3)]
    try:
        deadline = time.monotonic() + 300
        kills = 0
        while len(queue.jobs([State.FINISHED])) < 40:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            if kills < 6 and queue.jobs([State.RUNNING]):
                victim = workers.pop(kills % len(workers))
                assert victim.poll() is None, victim.stderr and victim.stderr.read()
                os.kill(victim.pid, signal.SIGKILL)
                victim.wait()
                kills += 1
                workers.append(start())
        assert all(worker.poll() is None for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    lines = [line for log in tmp_path.glob("log-*") for line in log.read_text().splitlines()]
    taken = Counter(lines)
    # A kill may fall between a step and its line, or between the line and the end; never more than once each.
    assert all(job.step == 3 for job in queue.jobs())
    assert len(taken) >= 3 * 40 - kills
    assert sum(taken.values()) <= 3 * 40


def _submit(arguments: tuple[str, Recipe]) -> None:
    folder, recipe = arguments
    queue = Queue(Path(folder))
    for _ in range(25):
        queue.submit([recipe])


def test_submissions_from_many_processes_are_all_kept(tmp_path: Path) -> None:
    Queue(tmp_path)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_submit, [(str(tmp_path), RECIPE)] * 2)
    jobs = Queue(tmp_path).jobs()
    assert [job.id for job in jobs] == list(range(1, 51))
    with sqlite3.connect(tmp_path / "queue.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
