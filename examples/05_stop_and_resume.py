"""A run stopped in the middle and opened again ends with the same splats, bit for bit on a CPU."""

from __future__ import annotations

from pathlib import Path

import torch
import tyro

import studio


def main(steps: int = 60, resolution: int = 64, output: Path = Path("runs")) -> bool:
    """Take a run at one go and another in two, and compare."""
    overrides = ["device=cpu", f"stages.0.steps={steps}", f"stages.0.resolution={resolution}"]

    whole = studio.start("a teddy bear", overrides=overrides, output=output)
    for _ in whole:
        pass

    stopped = studio.start("a teddy bear", overrides=overrides, output=output)
    for report in stopped:
        if report.step == steps // 2:
            break
    resumed = studio.Run.open(stopped.folder)
    for _ in resumed:
        pass

    is_same = torch.equal(whole.primitives().means, resumed.primitives().means)
    print(f"{whole.folder} and {resumed.folder} are {'the same' if is_same else 'different'}")
    return is_same


if __name__ == "__main__":
    tyro.cli(main)
