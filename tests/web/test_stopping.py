"""However politely the app is stopped, its worker saves the run at hand before the app is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from studio.jobs.queue import Queue, State
from studio.run import checkpoint
from tests.run.tiny import tiny_recipe


@pytest.mark.parametrize("kind", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.browser)])
def test_a_stopped_app_lets_go_of_its_worker(kind: signal.Signals, models: Path, tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    recipe = tiny_recipe(models, "stages.0.steps=100000", "checkpoint_every=100000", "preview_every=100000")
    (job,) = queue.submit([recipe])
    words = ["-m", "studio.cli", "app", "--port", "0", "--workspace", str(tmp_path)]
    app = subprocess.Popen([sys.executable, *words])
    deadline = time.monotonic() + 120
    while queue.job(job.id).step < 5:
        assert time.monotonic() < deadline and app.poll() is None
        time.sleep(0.05)
    (worker,) = psutil.Process(app.pid).children()
    app.send_signal(kind)
    assert app.wait(60) == 0
    assert not worker.is_running()
    left = queue.job(job.id)
    assert (left.state, left.reason, left.attempts) == (State.QUEUED, "", 1)
    assert left.step >= 5 and len(checkpoint.checkpoints(job.folder / "state")) == 1
