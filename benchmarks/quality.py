"""Judges finished runs against the exact prior's known truth.

* ``targets``  eight objects, each named alone by its prompt: splats and exported mesh against the truth
* ``scenes``   each kind of scene, alone and in stages, on the first of these targets
* ``prompts``  is the nearest catalogue object one that the prompt names? Any prior can be judged by this
* ``janus``    how often a back looks like a front, with and without knowledge of the camera

::

    python benchmarks/quality.py targets
    OMP_NUM_THREADS=1 python benchmarks/quality.py scenes
    python benchmarks/quality.py prompts
    python benchmarks/quality.py prompts --preset small --prompts prompts_small.txt
    python benchmarks/quality.py janus

The runs stay in ``--output``, one folder each.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from typing_extensions import assert_never

from studio.cameras import orbit
from studio.evaluate.metrics import psnr, resembles_front
from studio.meshes import load_mesh
from studio.ops.surfaces import Light
from studio.priors.catalogue import Catalogue
from studio.priors.library import LibraryPrior
from studio.renderers.raster import MeshRenderer
from studio.run.metrics import truth_metrics
from studio.run.session import Run, start
from studio.run.views import drawn, held_out_cameras
from studio.types import Cameras

TESTS = Path(__file__).parents[1] / "tests"
# Objects with a face or another unmistakable front.
TWO_SIDED_PROMPTS = ("a teddy bear", "a snowman", "an armchair", "a toaster", "a grand piano")
VIEWS = 8
SIZE = 128
MESH = (
    "stages.0.scene={ kind = 'mesh', texture_size = 256, vertices_rate = 2e-3 }",
    "stages.0.regularizers.smoothness=0.05",
)
# What each row of the study of scenes runs: a preset and what is set otherwise.
SCENES: dict[str, tuple[str, tuple[str, ...]]] = {
    "gaussians": ("draft", ()),
    "surfels": ("draft", ("stages.0.scene.shape=surfels",)),
    "radiance field": ("nerf", ()),
    "surface, FlexiCubes": ("surface", ()),
    "surface, tetrahedra": ("surface", ("stages.0.scene.extraction=tetrahedra",)),
    "mesh, from a ball": ("surface", MESH),
    "gaussians that bend": ("moving", ()),
    "gaussians, then mesh": ("dreamgaussian", ()),
    "field, surface, mesh": ("magic3d", ()),
    "the same with VSD": ("prolificdreamer", ()),
}


@dataclass(frozen=True)
class Quality:
    """One study of finished runs."""

    study: tyro.conf.Positional[Literal["targets", "scenes", "prompts", "janus"]]
    """What to judge."""
    preset: str = "default"
    """What ``targets`` and ``prompts`` run."""
    kinds: tuple[str, ...] = tuple(SCENES)
    """Rows of ``scenes``."""
    objects: int = 1
    """How many of the targets ``scenes`` are tried on."""
    prompts: str = "prompts_30.txt"
    """The list of prompts, in ``tests/``."""
    seeds: int = 4
    """Runs of each prompt and setting in the Janus study."""
    output: Path = Path("runs/quality")
    """Where the runs are kept."""


def main() -> None:
    """Print the table of the chosen study."""
    args = tyro.cli(Quality, description=__doc__)
    match args.study:
        case "targets":
            targets(args)
        case "scenes":
            scenes(args)
        case "prompts":
            prompts(args)
        case "janus":
            janus(args)
        case _:
            assert_never(args.study)


def targets(args: Quality) -> None:
    """Splats and the exported GLB, read back from its file, against the true renderings."""
    print("| object | seconds | splats dB | splats IoU | mesh dB | mesh to splats dB |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows = []
    for line in lines("known_targets.txt"):
        model, prompt = line.split("\t")
        began = time.perf_counter()
        run = finished(prompt, args.preset, (), args.output)
        paths = run.export()
        seconds = time.perf_counter() - began
        figures = run.metrics()
        glb = next(path for path in paths if path.suffix == ".glb")
        mesh_db = mesh_psnr(glb, prompt, library(run))
        rows.append((seconds, float(figures["psnr_db"]), float(figures["silhouette_iou"]), mesh_db))
        found = "" if figures["nearest_model"] == model else f" (became {figures['nearest_model']})"
        print(
            f"| {model}{found} | {seconds:.0f} | {rows[-1][1]:.1f} | {rows[-1][2]:.3f} | {mesh_db:.1f} "
            f"| {float(figures['mesh_psnr_db']):.1f} |",
            flush=True,
        )
    seconds, splats_db, iou, mesh_db = (sum(column) / len(column) for column in zip(*rows, strict=True))
    print(f"| mean | {seconds:.0f} | {splats_db:.1f} | {iou:.3f} | {mesh_db:.1f} | |")


def scenes(args: Quality) -> None:
    """Each kind of scene against the true renderings; seconds are the processor's, without export."""
    if unknown := [kind for kind in args.kinds if kind not in SCENES]:
        raise SystemExit(f"There are no rows {'; '.join(unknown)}; expected some of: {'; '.join(SCENES)}.")
    print("| scene | preset | object | steps | seconds | dB | IoU |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in args.kinds:
        preset, overrides = SCENES[kind]
        for line in lines("known_targets.txt")[: args.objects]:
            model, prompt = line.split("\t")
            began = time.process_time()
            run = finished(prompt, preset, overrides, args.output)
            seconds = time.process_time() - began
            # All at one size, whatever the last stage's is.
            figures = truth_metrics(run.scene(), run.renderer(), prompt, library(run), SIZE)
            print(
                f"| {kind} | `{preset}` | {model} | {run.recipe.total_steps} | {seconds:.0f} "
                f"| {float(figures['psnr_db']):.1f} | {float(figures['silhouette_iou']):.3f} |",
                flush=True,
            )


def prompts(args: Quality) -> None:
    """Whether the catalogue's nearest object, by vote of eight views, is one that the prompt names."""
    hits = 0
    listed = lines(args.prompts)
    cameras = around(VIEWS)
    judge = LibraryPrior(Catalogue.load(), resolution=SIZE)
    for prompt in listed:
        run = finished(prompt, args.preset, (), args.output)
        views = drawn(run.scene(), run.renderer(), cameras)
        nearest = judge.nearest_entry(views.rgb, cameras, torch.ones(VIEWS, 3)).entry
        hit = nearest in judge.match(prompt).members
        hits += hit
        print(f"{'hit ' if hit else 'MISS'} {prompt}: {judge.catalogue.entries[nearest].id}", flush=True)
    print(f"{hits} of {len(listed)}")


def janus(args: Quality) -> None:
    """How many results show at the back what resembles the nearest model's front more than its back."""
    for camera in ("exact", "none"):
        faces = 0
        count = 0
        for prompt in TWO_SIDED_PROMPTS:
            for seed in range(args.seeds):
                words = str(camera != "none").lower()
                overrides = (f"seed={seed}", f"prior.camera={camera}", f"view_words={words}")
                run = finished(prompt, "draft", overrides, args.output)
                faces += has_second_face(run, prompt)
                count += 1
        print(f"camera {camera}: {faces} of {count} backs resemble a front", flush=True)


def has_second_face(run: Run, prompt: str) -> bool:
    """Whether the result's back is nearer to a true front than to any true back of the prompt's models."""
    front_and_back = around(2)
    back = drawn(run.scene(), run.renderer(), front_and_back[1:]).rgb[0]
    fronts, backs = library(run).true_renderings(prompt, front_and_back, torch.ones(2, 3)).unbind(1)
    return resembles_front(back, fronts, backs)


def mesh_psnr(glb: Path, prompt: str, prior: LibraryPrior) -> float:
    """The exported mesh, unlit, against the model of the prompt that it is most like."""
    cameras = held_out_cameras(SIZE)
    white = torch.ones(len(cameras), 3)
    picture = MeshRenderer(supersample=3, light=Light())(load_mesh(glb), cameras, white).rgb
    return max(float(psnr(picture, truth).mean()) for truth in prior.true_renderings(prompt, cameras, white))


def finished(prompt: str, preset: str, overrides: tuple[str, ...], output: Path) -> Run:
    """A run taken to its last step."""
    run = start(prompt, preset, overrides, output)
    for _ in run:
        pass
    return run


def library(run: Run) -> LibraryPrior:
    """The run's exact prior."""
    if not isinstance(run.prior, LibraryPrior):
        raise SystemExit(f"The truth is known of the exact prior only, and {run.folder} used another.")
    return run.prior


def around(count: int) -> Cameras:
    """Evenly spaced views from a little above; the first from the front."""
    azimuth = torch.arange(count) * (360.0 / count)
    return orbit(azimuth, torch.full_like(azimuth, 15.0), SIZE, SIZE)


def lines(name: str) -> list[str]:
    """The lines of a list in ``tests/`` that are not comments."""
    text = (TESTS / name).read_text(encoding="utf-8").splitlines()
    return [line for line in text if line and not line.startswith("#")]


if __name__ == "__main__":
    main()
