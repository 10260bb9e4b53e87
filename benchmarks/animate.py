"""Animated clipart where the truth is known: whether a prompt's gesture comes out, and what it all costs.

::

    python benchmarks/animate.py gestures    # eight drawings, two prompts each
    python benchmarks/animate.py recovery    # five drawings that follow a video of a known motion
    python benchmarks/animate.py arap        # prefactored deformation beside one that solves in every step
    python benchmarks/animate.py files       # 24 frames in every format
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from contest import least
from numpy.typing import NDArray
from PIL import Image

from studio.arguments import Animate
from studio.cameras import frame_times
from studio.clipart.drawing import read_drawing
from studio.clipart.sheet import sheet_of
from studio.export.clip import write_clip
from studio.export.formats import FORMATS, asset_paths
from studio.export.images import to_pixels
from studio.export.pictures import write_mp4
from studio.export.shapes import Clip
from studio.ops.arap import Arap, arap
from studio.recipes.config import CLIP, ClipartConfig
from studio.recipes.load import load
from studio.renderers.cutouts import CutoutRenderer
from studio.resources import clipart
from studio.run.session import Run
from studio.run.views import clip_cameras, detached, drawn
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

    study: tyro.conf.Positional[Literal["gestures", "recovery", "arap", "files"]]
    """Which study."""
    output: Path | None = None
    """Where runs are kept; by default they are not."""


def main() -> None:
    """Prints the study's table."""
    args = tyro.cli(Study, description=__doc__)
    if args.study == "arap":
        deformation()
        return
    study = {"gestures": gestures, "recovery": recovery, "files": files}[args.study]
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
            begun = time.process_time()
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
                f"flipped, identity {found['identity_db']:.1f} dB, {time.process_time() - begun:.0f} s",
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
    drawing = read_drawing(clipart("cat"), 512)
    for edge_px in (ClipartConfig(path="cat").edge_px, 13.0):
        sheet = sheet_of(drawing, edge_px=edge_px)
        deform = arap(sheet.vertices, sheet.faces, sheet.keypoints).to(torch.zeros(1))
        places = sheet.vertices[sheet.keypoints]
        rng = torch.Generator().manual_seed(0)
        handles = (places + 8 * torch.randn(FRAMES, *places.shape, generator=rng)).requires_grad_()

        def ours(deform: Arap = deform, handles: torch.Tensor = handles) -> None:
            deform(handles).square().sum().backward()  # type: ignore[no-untyped-call]

        # What prefactoring saves: in each frame two least-squares systems of these sizes, as AniClipart has.
        edges, vertices = len(deform.edges), len(deform.by_handles)
        noise = np.random.default_rng(0)
        systems = [
            noise.standard_normal((rows + 2 * len(places), unknowns))
            for unknowns, rows in ((2 * vertices, 2 * edges), (vertices, edges))
        ]

        def solving(systems: list[NDArray[np.float64]] = systems) -> None:
            for _ in range(FRAMES):
                for system in systems:
                    np.linalg.lstsq(system, np.ones(len(system)), rcond=None)

        mine, theirs = least(ours, 1.0), least(solving, 1.0)
        print(
            f"{vertices} vertices, {len(places)} handles, {FRAMES} frames: {1000 * mine.cpu:.1f} ms "
            f"prefactored, {1000 * theirs.cpu:.0f} ms solving, {theirs.cpu / mine.cpu:.0f} times as long",
            flush=True,
        )


def files(folder: Path) -> None:
    """Processor seconds of 24 frames in each format that holds a clip, the encoders' among them."""
    torch.set_num_threads(1)
    formats = [name for name in FORMATS if name in CLIP]
    print(f"| drawing | frames, curves | {' | '.join(formats)} | all |")
    print("| --- " * (3 + len(formats)) + "|")
    for name in RECOVERED:
        recipe = load("aniclipart", "a dance", [f"stages.0.scene.path='{name}'"])
        config = recipe.stages[0].scene
        assert isinstance(config, ClipartConfig)
        scene = in_motion(Clipart.initial(config))
        with torch.no_grad():
            film = detached(scene.animation(24, 2.0))
        clip = Clip(film, scene.puppet, clipart(name), scene.project(recipe.prompt, recipe.seed, film))
        begun: list[float] = []
        paths = asset_paths(folder / name, formats)
        write_clip(clip, CutoutRenderer(), paths, recipe.export, lambda _: begun.append(_spent()))  # noqa: B023
        ends = np.array([*begun, _spent()])
        print(
            f"| {name} | {' | '.join(f'{s:.2f}' for s in [*np.diff(ends), ends[-1] - ends[0]])} |", flush=True
        )


def _spent() -> float:
    """Processor seconds of this process and of those that it has started and that are over."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
