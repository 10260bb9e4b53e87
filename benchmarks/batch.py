"""What a batch wastes: its workers' time and processor time beside those of the runs that it makes.

``python benchmarks/batch.py``; with ``--ray`` on a cluster of one node, which is there before the command is
given. Waste is all that is no run: starting the command and its workers, handing rows out, what Ray does
beside them, and waiting for the last one.
"""

from __future__ import annotations

import contextlib
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
from clusters import ray_cluster

from studio.jobs.making import DONE

PROMPTS = ("a teddy bear", "a chair", "a mug", "a table", "a lamp", "a book")


@dataclass(frozen=True)
class Measure:
    """How much is made.

    Attributes:
        rows: of the table.
        workers: side by side, each with one thread.
        steps: of every run.
        ray: on a Ray cluster of this machine instead of on processes of the batch's own.
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
    command = [sys.executable, "-m", "studio.cli", "batch", str(table), "--out", str(folder / "out")]
    # A row has one thread, whoever makes it.
    os.environ["OMP_NUM_THREADS"] = "1"
    local = contextlib.nullcontext(("--workers", str(asked.workers)))
    taken: dict[psutil.Process, float] = {}
    with ray_cluster(nodes=1, cores=asked.workers) if asked.ray else local as where:
        look(taken)
        began, before = time.time(), sum(taken.values())
        batch = subprocess.Popen([*command, "--formats", "ply", *where])
        while batch.poll() is None:
            look(taken)
            time.sleep(0.3)
        wall, processor_seconds = time.time() - began, sum(taken.values()) - before
    assert batch.returncode == 0, "the batch failed"
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


def look(taken: dict[psutil.Process, float]) -> None:
    """Writes down the processor time of every process below this one; of those that are gone, it stays."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            taken[process] = times.user + times.system


def main() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as name:
        measure(tyro.cli(Measure), Path(name))


if __name__ == "__main__":
    main()
