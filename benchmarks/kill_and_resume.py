"""Kills runs with SIGKILL at random moments, resumes them, and compares: the final states must be the same.

Each run is a process of its own. It is killed up to three times, at moments drawn evenly over the time that
the uninterrupted loop took, writing of checkpoints included; then it is resumed to its end. ::

    python benchmarks/kill_and_resume.py --runs 20
"""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
import tyro

from studio.recipes.config import Recipe
from studio.recipes.load import load
from studio.run.session import Run

PROMPT = "a red ball"
LINES = (
    "device=cpu",
    "stages.0.steps=100",
    "stages.0.resolution=32",
    "stages.0.scene.initial={ kind = 'ball', count = 300 }",
    "stages.0.cameras={ kind = 'fixed_set', count = 8, views_per_step = 2 }",
    "stages.0.topology={ kind = 'relocate', every = 10, growth = 0.1, noise = 100.0 }",
    "checkpoint_every=7",
    "preview_every=11",
)
MOST_KILLS = 3
GO_ON = """
import sys
from pathlib import Path
from studio.run.session import Run

run = Run.open(Path(sys.argv[1]))
run.prior
print("begin", flush=True)
for _ in run:
    pass
"""


@dataclass(frozen=True)
class KillAndResume:
    """Counts the runs whose final state survives being killed."""

    runs: int = 20
    """How many runs are killed."""
    seed: int = 0
    """Of the moments."""


def main(config: KillAndResume) -> int:
    """Prints a line a run and the count; returns 0 if all are identical."""
    moments = random.Random(config.seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder / "models")
        recipe = small_recipe(folder / "models")
        whole = Run.create(recipe, folder / "runs").folder
        duration = go_on(whole)
        truth = final_state(whole)
        print(f"uninterrupted: {duration:.1f} s, state {truth[:16]}", flush=True)
        done = same = 0
        while done < config.runs:
            run = Run.create(recipe, folder / "runs").folder
            saved: list[int] = []
            for _ in range(moments.randint(1, MOST_KILLS)):
                if not kill(run, moments.uniform(0, duration)):
                    break
                saved.append(saved_steps(run))
            if saved:
                go_on(run)
                done += 1
                same += final_state(run) == truth
                steps = ", ".join(map(str, saved))
                print(
                    f"{done:3d}: killed with {steps} steps saved; state {final_state(run)[:16]}", flush=True
                )
            else:  # It was over before its moment came.
                duration *= 0.9
            shutil.rmtree(run)
    print(f"{same} of {config.runs} identical")
    return 0 if same == config.runs else 1


def write_models(folder: Path) -> None:
    """A library of two models, so that nothing has to be downloaded or installed."""
    folder.mkdir()
    for name, mesh, color in (
        ("ball", trimesh.creation.icosphere(subdivisions=2), [200, 40, 40, 255]),
        ("box", trimesh.creation.box((1.0, 0.7, 0.5)), [40, 80, 200, 255]),
    ):
        mesh.visual.vertex_colors = np.array(color, dtype=np.uint8)
        mesh.export(folder / f"{name}.ply")
    (folder / "captions.txt").write_text("ball.ply: a red ball\nbox.ply: a blue box\n")


def small_recipe(models: Path) -> Recipe:
    """A run of some seconds with everything that has a state: topology, noise, moments."""
    return load("default", PROMPT, [*LINES, f"prior={{ kind = 'library', folder = '{models}' }}"])


def process(run: Path) -> subprocess.Popen[bytes]:
    """A process that goes on with a run."""
    command = [sys.executable, "-c", GO_ON, str(run)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()  # The loop begins.
    return running


def go_on(run: Path) -> float:
    """Takes the steps that are left; returns the seconds that they took."""
    running = process(run)
    began = time.perf_counter()
    if running.wait() != 0:
        raise SystemExit(f"{run} could not be resumed")
    return time.perf_counter() - began


def kill(run: Path, after_s: float) -> bool:
    """Goes on with a run and kills it; returns whether it was still at it."""
    running = process(run)
    try:
        running.wait(after_s)
    except subprocess.TimeoutExpired:
        running.kill()
        return running.wait() != 0
    return False


def saved_steps(run: Path) -> int:
    """How many steps the last checkpoint holds."""
    return max((int(path.stem) for path in (run / "state").glob("[0-9]*.safetensors")), default=0)


def final_state(run: Path) -> str:
    """A digest of the last checkpoint, byte for byte."""
    return hashlib.sha256(max((run / "state").glob("[0-9]*.safetensors")).read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(KillAndResume)))
