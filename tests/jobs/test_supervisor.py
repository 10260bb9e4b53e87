"""Workers are kept at work, and end with the one that keeps them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from studio.jobs.queue import Queue, State
from studio.jobs.supervisor import Device, Supervisor, devices
from studio.run import checkpoint
from tests.run.tiny import tiny_recipe


def test_each_device_is_alone_with_its_worker() -> None:
    assert len(devices()) >= 1
    assert Device("cuda 3", 3).environment()["CUDA_VISIBLE_DEVICES"] == "3"
    assert Device("cpu").environment()["CUDA_VISIBLE_DEVICES"] == ""


def test_a_killed_worker_is_replaced_and_ends_with_its_keeper(models: Path, tmp_path: Path) -> None:
    queue = Queue(tmp_path / "workspace")
    (job,) = queue.submit([tiny_recipe(models, "export.formats=['ply']", "stages.0.steps=50")])
    deadline = time.monotonic() + 300

    def worker() -> int:
        return int(queue.job(1).worker.split()[-1])

    with Supervisor(queue.workspace, (Device("cpu"),)):
        while not checkpoint.checkpoints(job.folder / "state"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first = worker()
        os.kill(first, signal.SIGKILL)
        while queue.job(1).state is not State.FINISHED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = worker()
    assert second != first and queue.job(1).attempts == 2
    try:
        os.kill(second, 0)
    except ProcessLookupError:
        return
    raise AssertionError("the worker outlived its keeper")
