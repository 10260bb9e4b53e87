"""Moves five models of the catalogue as videos of them say, and asks how well other sides were guessed.

Run with ``python benchmarks/animate4d.py``. Each model stands still, is fitted to known pictures, and is then
moved by the preset ``pla4d-draft`` as 16 frames say, filmed in front of the known motion from a distance that
the run has to find. Beside the video, guidance is the known motion from other sides (``oracle``), what the
exact prior says of them (``prior``) or nothing (``front``). The figures are PSNR over 16 views and instants
that no run saw, and how much higher that is than of the asset at rest. Seconds are the processor's, with one
thread.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from PIL import Image

from studio.cameras import filmed, frame_times, orbit
from studio.evaluate.metrics import psnr
from studio.export.images import to_bytes, to_pixels
from studio.export.pictures import write_contact_sheet
from studio.priors.library import LibraryPrior
from studio.prompts import slug
from studio.recipes.config import FixedSetConfig, FramesConfig, GuidanceTerm, MotionName, Recipe
from studio.recipes.guidance import PixelsConfig, TruthTarget
from studio.recipes.load import load
from studio.run.build import build_stages
from studio.run.build_prior import build_prior
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.run.targets import Known
from studio.run.views import drawn, held_out_cameras

CPU = torch.device("cpu")
FRAMES = 16
FILMED_FROM = 1.7
TRUTH = PixelsConfig(target=TruthTarget())
KNOWN = GuidanceTerm(
    method=TRUTH,
    cameras=FixedSetConfig(count=48, views_per_step=8.0),
    instants=FramesConfig(count=FRAMES, per_step=8),
)
STILL = (
    "stages.0.learning_rate={ kind = 'cosine', start = 3.0, end = 0.1, start_at = 0.4 }",
    "stages.0.scene.opacities_rate=0.1",
    "stages.0.topology.dead_opacity=0.02",
)
"""How pictures without noise are fitted: faster, and faint splats are put where they count."""
Beside = Literal["oracle", "prior", "front"]
MODELS: dict[str, MotionName] = {
    "a teddy bear": "bend",
    "a red fire hydrant": "sway",
    "a toaster": "turn",
    "a snowman": "bend",
    "a chair": "sway",
}
"""Prompts, each of which names a model, and how it moves."""


@dataclass(frozen=True)
class Animate4d:
    """What to move, and what is known beside the video."""

    beside: Annotated[tuple[Beside, ...], tyro.conf.Positional] = ("oracle", "prior", "front")
    size: int = 64
    """Width and height of the pictures in pixels."""
    splats: int = 4000
    """Of each model."""
    steps: tuple[int, int, int] = (1000, 500, 600)
    """At rest, of the motion, and of motion and shape in turn."""
    models: tuple[str, ...] = tuple(MODELS)
    """Prompts, of those that the table has."""
    pictures: Path | None = None
    """Where to put pictures of each result above the truth; left out, nowhere."""


def filmed_in_front(target: Known, size: int, folder: Path) -> Path:
    """The frames of the known motion, transparent around it, as pictures in a folder."""
    zero = torch.zeros(1)
    cameras = filmed(orbit(zero, zero, size, size, FILMED_FROM), frame_times(FRAMES))
    black, white = (target(cameras, torch.full((FRAMES, 3), grey)) for grey in (0.0, 1.0))
    alpha = 1 - (white - black).mean(1, keepdim=True)
    rgba = to_bytes(255 * torch.cat([black / alpha.clamp_min(1e-3), alpha], dim=1).permute(0, 2, 3, 1))
    folder.mkdir(parents=True)
    for number, frame in enumerate(rgba):
        Image.fromarray(frame, "RGBA").save(folder / f"{number:04d}.png")
    return folder


def recipe_for(args: Animate4d, prompt: str, motion: MotionName, video: Path, beside: Beside) -> Recipe:
    """The preset in the asked size, with the guidance that ``beside`` names."""
    lines = [
        f"prior.motions=['{motion}']",
        *STILL,
        f"stages.0.scene.initial.count={args.splats}",
        f"stages.0.topology.max_count={args.splats}",
        *(f"stages.{stage}.steps={steps}" for stage, steps in enumerate(args.steps)),
        *(f"stages.{stage}.guidance.0.method.target.path='{video}'" for stage in (1, 2)),
        *(f"stages.{stage}.resolution={args.size}" for stage in (0, 1, 2)),
        *(f"stages.{stage}.regularizers.rigidity=300.0" for stage in (1, 2)),
        "stages.2.scene.shape_rate=2.0",
        "stages.2.learning_rate={ kind = 'cosine', start = 0.5, end = 0.05 }",
    ]
    recipe = load("pla4d-draft", prompt, lines)
    still, *moving = recipe.stages
    known = replace(still, guidance=(GuidanceTerm(weight=10000.0, method=TRUTH),))
    stages = []
    for stage in moving:
        film, unseen = stage.guidance
        match beside:
            case "oracle":
                assert isinstance(film.method, PixelsConfig)
                seen = replace(TRUTH, blur_px=film.method.blur_px)
                terms = (film, replace(KNOWN, weight=film.weight, method=seen))
            case "prior":
                terms = (film, unseen)
            case "front":
                terms = (film,)
        stages.append(replace(stage, guidance=terms))
    return replace(recipe, stages=(known, *stages))


def main() -> None:
    """Print a line for each run."""
    args = tyro.cli(Animate4d, description=__doc__)
    torch.set_num_threads(1)
    print("| model | motion | beside | dB at rest | moved | gain | distance | depth confidence | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for prompt in args.models:
        for beside in args.beside:
            with tempfile.TemporaryDirectory() as folder:
                run(args, prompt, MODELS[prompt], beside, Path(folder) / "film")


def run(args: Animate4d, prompt: str, motion: MotionName, beside: Beside, video: Path) -> None:
    """Take one run and print its line."""
    recipe = recipe_for(args, prompt, motion, video, beside)
    prior = build_prior(recipe, CPU).prior
    assert isinstance(prior, LibraryPrior)
    target = Known(prior, prompt)
    filmed_in_front(target, args.size, video)
    cameras = held_out_cameras(args.size, moving=True)
    truth = target(cameras, torch.ones(len(cameras), 3))
    stages, state = build_stages(recipe, prior), initial_state(recipe, CPU)
    began, before, warned = time.process_time(), 0.0, False
    for report in optimize(recipe, stages, state):
        if report.step == recipe.stages[0].steps:
            at_rest = drawn(state.particles[0].scene, stages[0].renderer, cameras).rgb
            before = float(psnr(at_rest, truth).mean())
        warned = warned or any("depth" in warning for warning in report.warnings)
    seconds = time.process_time() - began
    shown = drawn(state.particles[0].scene, stages[-1].renderer, cameras).rgb
    after = float(psnr(shown, truth).mean())
    confidence = f"{report.statistics['depth_confidence']:.2f}{', warned' if warned else ''}"
    print(
        f"| {prompt} | {motion} | {beside} | {before:.1f} | {after:.1f} | {after - before:+.1f} "
        f"| {state.distances['video']:.2f} | {confidence} | {seconds:.0f} |",
        flush=True,
    )
    if args.pictures is not None:
        rows = np.concatenate([to_pixels(shown[::3]), to_pixels(truth[::3])])
        labels = [label for label in (beside, "truth") for _ in range(len(rows) // 2)]
        path = args.pictures / f"{slug(prompt)}-{beside}.png"
        write_contact_sheet(rows, labels, len(rows) // 2, path)


if __name__ == "__main__":
    main()
