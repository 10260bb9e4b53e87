"""Animated clipart where the truth is known: whether a prompt's gesture comes out, and what deforming costs.

::

    python benchmarks/animate.py gestures    # eight drawings, two prompts each
    python benchmarks/animate.py recovery    # five drawings that follow a video of a known motion
    python benchmarks/animate.py arap        # prefactored deformation beside one that solves in every step
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from contest import least
from PIL import Image

from studio.arguments import Animate
from studio.cameras import frame_times
from studio.clipart.drawing import read_drawing
from studio.clipart.sheet import sheet_of
from studio.export.images import to_pixels
from studio.export.pictures import write_mp4
from studio.ops.arap import arap
from studio.recipes.config import ClipartConfig
from studio.recipes.load import load
from studio.renderers.cutouts import CutoutRenderer
from studio.resources import clipart
from studio.run.session import Run
from studio.run.views import clip_cameras, drawn
from studio.scenes.clipart import Clipart

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
RECOVERED = ("man-dancing", "crab", "dolphin", "octopus", "cat")
REACH_PX = 14.0
"""How far keypoints go in what is to be recovered, on average."""
FRAMES = 6


@dataclass(frozen=True)
class Study:
    """Measures the animation of drawings."""

    study: tyro.conf.Positional[Literal["gestures", "recovery", "arap"]]
    """Which study."""
    output: Path | None = None
    """Where runs are kept; by default they are not."""


def main() -> None:
    """Prints the study's table."""
    args = tyro.cli(Study, description=__doc__)
    if args.study == "arap":
        deformation()
        return
    study = gestures if args.study == "gestures" else recovery
    if args.output is not None:
        study(args.output)
    else:
        with tempfile.TemporaryDirectory() as name:
            study(Path(name))


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
                f"flipped, identity {found['identity_db']:.1f} dB, {found['seconds']:.0f} s",
                flush=True,
            )
    print(f"{right} of {sum(map(len, ASKED.values()))} became what was asked for")


def recovery(folder: Path) -> None:
    """How far keypoints are from where they were, in pixels of 256, before and after following six frames.

    The frames are 128² pictures of the drawing in a random motion that is smooth along its bones, as a folder
    of PNG files and as an MP4 file.
    """
    torch.set_num_threads(1)
    print("| drawing | before | from PNG | at worst | from MP4 | at worst | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    times = frame_times(FRAMES)
    for name in RECOVERED:
        scene = load("reference", "a motion", [f"stages.0.scene.path='{name}'"]).stages[0].scene
        assert isinstance(scene, ClipartConfig)
        truth = in_motion(Clipart.initial(scene))
        with torch.no_grad():
            wanted = truth.keypoints(times)
            frames = to_pixels(drawn(truth, CutoutRenderer(), clip_cameras(128, times.tolist())).rgb)
        pictures, film = folder / name, folder / f"{name}.mp4"
        pictures.mkdir(parents=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(pictures / f"{index}.png")
        write_mp4(frames, film, 8.0)
        cells, seconds = [], []
        for path in (pictures, film):
            begun = time.process_time()
            recipe = Animate(image=name, reference=path).asked().recipe()
            run = Run.create(recipe, folder / "runs")
            for _ in run:
                pass
            seconds.append(time.process_time() - begun)
            found = run.scene()
            assert isinstance(found, Clipart)
            with torch.no_grad():
                off = (found.keypoints(times) - wanted).norm(dim=-1)
            cells += [f"{float(off.mean()):.3f}", f"{float(off.max()):.2f}"]
        before = float((wanted - truth.puppet.keypoints).norm(dim=-1).mean())
        print(f"| {name} | {before:.2f} | {' | '.join(cells)} | {min(seconds):.0f} |", flush=True)


def in_motion(still: Clipart) -> Clipart:
    """The drawing on random curves, smoothed along its bones."""
    curves = torch.randn(still.curves.shape, generator=torch.Generator().manual_seed(0))
    first, second = still.puppet.bones.unbind(1)
    near = torch.eye(len(curves))
    near[first, second] = near[second, first] = 1.0
    for _ in range(8):
        curves = torch.einsum("jk,kcd->jcd", near / near.sum(1, keepdim=True), curves)
    return Clipart(still.puppet, curves * REACH_PX / curves[:, 2].norm(dim=-1).mean(), still.config)


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
