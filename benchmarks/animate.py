"""Animated clipart where the truth is known: whether a prompt's gesture comes out, and what deforming costs.

::

    python benchmarks/animate.py gestures    # eight drawings, two prompts each
    python benchmarks/animate.py arap        # prefactored deformation beside one that solves in every step
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from contest import least

from studio.clipart.drawing import read_drawing
from studio.clipart.sheet import sheet_of
from studio.ops.arap import arap
from studio.recipes.load import load
from studio.resources import clipart
from studio.run.session import Run

ASKED = {
    "crab": ("dance", "wave"),
    "octopus": ("swim", "jump"),
    "man-dancing": ("dance", "bow"),
    "dolphin": ("swim", "jump"),
    "cat": ("nod", "stretch"),
    "bat": ("flap", "float"),
    "penguin": ("walk", "shake"),
    "t-rex": ("sway", "squash"),
}
FRAMES = 6


@dataclass(frozen=True)
class Animate:
    """Measures the animation of drawings."""

    study: tyro.conf.Positional[Literal["gestures", "arap"]]
    """Which study."""
    output: Path | None = None
    """Where runs are kept; by default they are not."""


def main() -> None:
    """Prints the study's table."""
    args = tyro.cli(Animate, description=__doc__)
    if args.study == "arap":
        deformation()
    elif args.output is not None:
        gestures(args.output)
    else:
        with tempfile.TemporaryDirectory() as name:
            gestures(Path(name))


def gestures(folder: Path) -> None:
    """The gesture that each clip has become, and how like it the clip is."""
    right = 0
    for name, asked in ASKED.items():
        for gesture in asked:
            prompt = f"the {name.replace('-', ' ')} does a {gesture}"
            run = Run.create(load("aniclipart", prompt, [f"stages.0.scene.path='{name}'"]), folder)
            for _ in run:
                pass
            run.export()
            found = run.metrics()
            right += found["nearest_motion"] == gesture
            print(
                f"{name:12} {gesture:8} became {found['nearest_motion']:8} {found['psnr_db']:5.1f} dB, "
                f"keypoints go {found['travel_px']:4.1f} px, {found['flipped']:.1%} of the triangles "
                f"flipped, {found['seconds']:.0f} s",
                flush=True,
            )
    print(f"{right} of {sum(map(len, ASKED.values()))} became what was asked for")


def deformation() -> None:
    """Six frames of one drawing, forward and backward in single precision with one thread."""
    torch.set_num_threads(1)
    sheet = sheet_of(read_drawing(clipart("cat"), 512))
    deform = arap(sheet.vertices, sheet.faces, sheet.keypoints).to(torch.zeros(1))
    places = sheet.vertices[sheet.keypoints]
    rng = torch.Generator().manual_seed(0)
    handles = (places + 8 * torch.randn(FRAMES, *places.shape, generator=rng)).requires_grad_()

    def ours() -> None:
        deform(handles).square().sum().backward()  # type: ignore[no-untyped-call]

    # What prefactoring saves: in each frame two least-squares systems of these sizes, as AniClipart solves.
    edges, vertices = len(deform.edges), len(deform.by_handles)
    noise = np.random.default_rng(0)
    systems = [
        noise.standard_normal((rows + 2 * len(places), unknowns))
        for unknowns, rows in ((2 * vertices, 2 * edges), (vertices, edges))
    ]

    def solving() -> None:
        for _ in range(FRAMES):
            for system in systems:
                np.linalg.lstsq(system, np.ones(len(system)), rcond=None)

    mine, theirs = least(ours, 1.0), least(solving, 1.0)
    print(
        f"{vertices} vertices, {len(places)} handles, {FRAMES} frames: {1000 * mine.cpu:.1f} ms prefactored, "
        f"{1000 * theirs.cpu:.0f} ms solving, {theirs.cpu / mine.cpu:.0f} times as long"
    )


if __name__ == "__main__":
    main()
