"""A run in three lines: start it, iterate it, read what each step says. Leaving the loop stops the run."""

from __future__ import annotations

from pathlib import Path

import tyro

import studio


def main(steps: int = 100, resolution: int = 64, output: Path = Path("runs")) -> Path:
    """Take a few steps towards a teddy bear, and return the run's folder."""
    overrides = [f"stages.0.steps={steps}", f"stages.0.resolution={resolution}"]

    run = studio.start("a teddy bear", overrides=overrides, output=output)
    for report in run:
        print(f"step {report.step:4d}  coverage {report.statistics['alpha_mean']:.3f}")

    print(f"{run.folder}: {run.metrics()}")
    return run.folder


if __name__ == "__main__":
    tyro.cli(main)
