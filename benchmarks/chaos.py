"""Kills servers, workers and drivers with SIGKILL, and counts what was lost or done twice.

::

    python benchmarks/chaos.py queue --jobs 200
    python benchmarks/chaos.py batch                 # 40 rows, three of them bad; killed twice
    python benchmarks/chaos.py batch --ray           # the same on a cluster of two nodes, begun here

Runs have the same final state, bit for bit, whether they were killed or not; that is what is compared.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from clusters import ray_cluster
from kill_and_resume import final_state, go_on, small_recipe, write_models

from studio.errors import StudioError
from studio.jobs.queue import Job, Queue, State
from studio.recipes.config import Recipe
from studio.recipes.load import to_toml
from studio.run.session import Run

SEEDS = 8
"""So many different runs there are; the jobs repeat them."""
SERVER = """
import signal, sys
from pathlib import Path
from studio.jobs.supervisor import Device, Supervisor

with Supervisor(Path(sys.argv[1]), (Device("cpu"),) * int(sys.argv[2])):
    signal.pause()
"""


@dataclass(frozen=True)
class KillQueue:
    """Short jobs on a queue, while the server and its workers are killed and jobs paused and cancelled."""

    jobs: int = 200
    workers: int = 2
    seconds_between_kills: float = 8.0
    """On average."""
    seed: int = 0

    def run(self, folder: Path) -> bool:
        """Whether everything ended as it should."""
        moments = random.Random(self.seed)  # noqa: S311
        recipes, truths = runs_that_nothing_disturbs(folder)
        queue = Queue(folder / "workspace")
        queue.submit([recipes[number % SEEDS] for number in range(self.jobs)])
        numbers = list(range(1, self.jobs + 1))
        moments.shuffle(numbers)
        to_cancel, to_pause = set(numbers[: self.jobs // 20]), set(numbers[self.jobs // 20 : self.jobs // 10])
        pauses, cancelled = len(to_pause), set[int]()
        kills, servers = Counter[str](), [self.server(queue)]
        try:
            next_kill = time.monotonic() + moments.expovariate(1 / self.seconds_between_kills)
            while waiting := queue.jobs([State.QUEUED, State.RUNNING, State.PAUSED]):
                time.sleep(0.2)
                running = [job for job in waiting if job.state is State.RUNNING]
                for job in running:
                    cancelled |= wishes(queue, job, to_cancel, to_pause)
                for job in queue.jobs([State.PAUSED]):
                    queue.resume(job.id)
                if time.monotonic() < next_kill:
                    continue
                next_kill = time.monotonic() + moments.expovariate(1 / self.seconds_between_kills)
                if moments.random() < 0.25 or not running:
                    kills["server"] += 1
                    servers[-1].kill()
                    servers[-1].wait()
                    servers.append(self.server(queue))
                else:
                    victim = int(moments.choice(running).worker.split()[-1])
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        kills["worker"] += 1
        finally:
            servers[-1].terminate()
            servers[-1].wait()
            for server in servers:  # Workers that had not yet seen that theirs was gone.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)
        jobs = queue.jobs()
        states = Counter(job.state.value for job in jobs)
        wrong = [job.id for job in jobs if (job.state is State.CANCELLED) != (job.id in cancelled)]
        finished = [job for job in jobs if job.state is State.FINISHED]
        differ = [job.id for job in finished if final_state(job.folder) != truths[(job.id - 1) % SEEDS]]
        begun_again = sum(job.attempts - 1 for job in jobs)
        print(f"{kills['worker']} workers and {kills['server']} servers killed; jobs: {dict(states)}")
        print(f"{self.jobs - len(jobs)} lost, {len(wrong)} in a wrong state {wrong}")
        print(f"{len(finished) - len(differ)} of {len(finished)} finished ones as if undisturbed {differ}")
        at_most = kills["worker"] + self.workers * kills["server"] + pauses - len(to_pause)
        print(f"gone on with {begun_again} times; kills and pauses explain up to {at_most}")
        return len(jobs) == self.jobs and not wrong and not differ and begun_again <= at_most

    def server(self, queue: Queue) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SERVER, str(queue.workspace), str(self.workers)]
        return subprocess.Popen(command, start_new_session=True)


def wishes(queue: Queue, job: Job, to_cancel: set[int], to_pause: set[int]) -> set[int]:
    """Cancels or pauses a job if that is its fate; returns those that were cancelled in time."""
    try:
        if job.id in to_cancel:
            to_cancel.discard(job.id)
            queue.cancel(job.id)
            return {job.id}
        if job.id in to_pause and job.step:
            to_pause.discard(job.id)
            queue.pause(job.id)
    except StudioError:
        pass  # It was over before it heard.
    return set()


def runs_that_nothing_disturbs(folder: Path) -> tuple[list[Recipe], list[str]]:
    """Recipes that differ in their seed, and digests of their final states."""
    write_models(folder / "models")
    recipe = small_recipe(folder / "models")
    stage = replace(recipe.stages[0], steps=40)
    export = replace(recipe.export, formats=("ply",))
    recipe = replace(recipe, stages=(stage,), export=export)
    recipes = [replace(recipe, seed=seed) for seed in range(SEEDS)]
    truths = []
    for each in recipes:
        run = Run.create(each, folder / "undisturbed").folder
        go_on(run)
        truths.append(final_state(run))
    return recipes, truths


@dataclass(frozen=True)
class KillBatch:
    """A table of 40 rows, three of them bad; its driver is killed after some rows, then all its processes."""

    ray: bool = False
    """On a cluster of two nodes of one core each, of which one is killed as well."""

    def run(self, folder: Path) -> bool:
        """Whether everything ended as it should."""
        recipes, truths = runs_that_nothing_disturbs(folder)
        (folder / "row.toml").write_text(to_toml(recipes[0]))
        rows = [("a red ball", str(seed), "") for seed in range(37)]
        bad = [("", "1", ""), ("a red ball", "first", ""), ("a red ball", "1", "no such preset")]
        rows[5:5], rows[20:20], rows[39:39] = bad[:1], bad[1:2], bad[2:]
        with (folder / "prompts.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("prompt", "seed", "preset"), *rows])
        out = folder / "out"
        with (
            ray_cluster(nodes=2, cores=1) if self.ray else contextlib.nullcontext(("--workers", "2")) as where
        ):
            command = [sys.executable, "-m", "studio.cli", "batch", str(folder / "prompts.csv"), *where]
            command += ["--out", str(out), "--preset", str(folder / "row.toml")]
            done: dict[Path, int] = {}
            for enough in (10, 25):
                driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
                while len(ready(out)) < enough and driver.poll() is None:
                    time.sleep(0.05)
                if enough == 10:
                    driver.kill()
                else:
                    os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()
                said = f"killed with {len(ready(out))} rows done"
                changed = touched(done, out)
                print(f"{said}; {len(changed)} of the {len(done)} done before were touched", flush=True)
                if changed:
                    return False
                done = ready(out)
            code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        manifest = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
        endings = Counter(line["ending"] for line in manifest)
        errors = [line["reason"] for line in manifest if line["ending"] == "failed"]
        changed = touched(done, out)
        assets = [out / line["folder"] / file for line in manifest for file in line["files"]]
        folders = {
            int(line["folder"] and Run.open(out / line["folder"]).recipe.seed): out / line["folder"]
            for line in manifest
            if line["files"]
        }
        same = sum(final_state(folders[seed]) == truths[seed] for seed in range(SEEDS))
        print(f"exit code {code}; {dict(endings)}; {sum(path.is_file() for path in assets)} assets")
        print(*(f"  row error: {reason}" for reason in errors), sep="\n")
        print(f"{len(changed)} of {len(done)} done before were touched; {same} of {SEEDS} as if undisturbed")
        return (
            (code, endings["failed"], len(folders), len(changed), same) == (2, 3, 37, 0, SEEDS)
            and len(list((out / "runs").iterdir())) == 37
            and endings["found done"] == len(done)
        )


def touched(done: dict[Path, int], out: Path) -> list[Path]:
    """Those of the rows that were done whose marks are not what they were."""
    now = ready(out)
    return [path for path, when in done.items() if now.get(path) != when]


def ready(out: Path) -> dict[Path, int]:
    """The rows that are done, and when they were."""
    return {path: path.stat().st_mtime_ns for path in out.glob("runs/*/done.json")}


def main(config: KillQueue | KillBatch) -> int:
    """Prints what happened; returns 0 if nothing was lost and nothing done twice."""
    folder = Path(tempfile.mkdtemp())
    right = config.run(folder)
    if right:
        shutil.rmtree(folder)
    print("nothing lost, nothing twice" if right else f"WRONG; what is left is in {folder}")
    return 0 if right else 1


if __name__ == "__main__":
    Chosen = (
        Annotated[KillQueue, tyro.conf.subcommand("queue")]
        | Annotated[KillBatch, tyro.conf.subcommand("batch")]
    )
    sys.exit(main(tyro.cli(Chosen)))  # type: ignore[arg-type]
