"""What a batch wastes: its workers' time and processor time beside those of the runs that it makes.

``python benchmarks/batch.py``; with ``--ray`` on a cluster of one node that is begun here. Waste is all that
is no run: starting the command and its workers, handing rows out, and waiting for the last one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro

from studio.jobs.making import DONE

PROMPTS = ("a teddy bear", "a chair", "a mug", "a table", "a lamp", "a book")


@dataclass(frozen=True)
class Measure:
    """How much is made.

    Attributes:
        rows: of the table.
        workers: side by side, each with one thread.
        steps: of every run.
        ray: on a local Ray cluster instead of on processes of the batch's own.
    """

    rows: int = 60
    workers: int = 2
    steps: int = 250
    ray: bool = False


def measure(asked: Measure, folder: Path) -> None:
    """Makes a table, and prints what became of the time."""
    table = folder / "prompts.csv"
    lines = [f"{PROMPTS[row % len(PROMPTS)]},{row},draft,{asked.steps}" for row in range(asked.rows)]
    table.write_text("\n".join(["prompt,seed,preset,steps", *lines]) + "\n")
    where = ["--ray", "local"] if asked.ray else ["--workers", str(asked.workers)]
    command = ["batch", str(table), "--out", str(folder / "out"), "--formats", "ply", *where]
    # A row has one thread, whoever makes it.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.time()
    batch = subprocess.Popen([sys.executable, "-m", "studio.cli", *command], env=environment)
    processor_seconds, wall = _watched(psutil.Process(batch.pid)), time.time() - began
    assert batch.wait() == 0, "the batch failed"
    done = sorted((folder / "out" / "runs").glob(f"*/{DONE}"), key=lambda path: path.stat().st_mtime)
    rows = [json.loads(path.read_text()) for path in done]
    assert len(rows) == asked.rows
    ends = [path.stat().st_mtime for path in done[-asked.workers :]]
    first = min(path.stat().st_mtime for path in (folder / "out" / "runs").glob("*/recipe.toml"))
    runs, processor_runs = (sum(row[key] for row in rows) for key in ("seconds", "processor_seconds"))
    print(f"{asked.rows} runs of {runs / asked.rows:.1f} s on {asked.workers} workers in {wall:.1f} s")
    print(f"{1 - runs / (asked.workers * wall):.1%} of the workers' time is no run's")
    print(f"{first - began:.1f} s until the first run has begun")
    print(f"{sum(ends[-1] - end for end in ends):.1f} s of workers that wait for the last run")
    share = 1 - processor_runs / processor_seconds
    print(f"{share:.1%} of {processor_seconds:.0f} s of processor time is no run's")
    print(f"The load of the machine is {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _watched(root: psutil.Process) -> float:
    """The processor time that a process and all below it have taken by the time it ends."""
    taken: dict[psutil.Process, float] = {}
    while root.status() != psutil.STATUS_ZOMBIE:
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            taken[process] = times.user + times.system
        time.sleep(0.1)
    return sum(taken.values())


def main() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as name:
        measure(tyro.cli(Measure), Path(name))


if __name__ == "__main__":
    main()
