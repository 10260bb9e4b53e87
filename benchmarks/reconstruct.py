"""Fits a scene to 24 pictures of each of three models of the catalogue, and says how well it shows others.

Run with ``python benchmarks/reconstruct.py field``, ``gaussians`` or ``surface``. No prior takes part: each
step compares one picture over a random colour with the truth. The held-out views and their PSNR are those of
a run's own metrics. Seconds are the processor's, of the steps alone, with one thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.cameras import fibonacci_sphere
from studio.evaluate.metrics import psnr
from studio.interfaces import TendedScene
from studio.priors.catalogue import Catalogue
from studio.priors.library import LibraryPrior
from studio.randomness import generator
from studio.recipes.config import (
    BallConfig,
    FieldConfig,
    GaussiansConfig,
    RasterConfig,
    RendererConfig,
    SceneConfig,
    SplattingConfig,
    SurfaceConfig,
    VolumeConfig,
)
from studio.renderers.instants import render
from studio.run.build import build_renderer
from studio.run.optimize import adam
from studio.run.views import drawn, held_out_cameras
from studio.scenes.kinds import AnyScene, initial_scene
from studio.types import Cameras

PROMPTS = ("a teddy bear", "a red fire hydrant", "a toaster")
VIEWS = 24
ELEVATIONS_DEG = (-20.0, 60.0)

SceneKind = Literal["field", "gaussians", "surface"]


@dataclass(frozen=True)
class Reconstruct:
    """What to fit, and for how long."""

    scene: Annotated[SceneKind, tyro.conf.Positional] = "field"
    """Kind of scene."""
    steps: int = 300
    """Pictures that are compared with the truth, one a step."""
    size: int = 128
    """Width and height of the pictures in pixels."""
    prompts: tuple[str, ...] = PROMPTS
    """Each names a model of the catalogue."""


@dataclass(frozen=True)
class Pictures:
    """Views of a model, over black."""

    cameras: Cameras
    rgb: Float[Tensor, "b 3 h w"]
    alpha: Float[Tensor, "b 1 h w"]


def parts(kind: SceneKind) -> tuple[SceneConfig, RendererConfig]:
    """The scene and what draws it. Other kinds join here."""
    match kind:
        case "field":
            return FieldConfig(), VolumeConfig()
        case "gaussians":
            return GaussiansConfig(initial=BallConfig(count=6000)), SplattingConfig()
        case "surface":
            return SurfaceConfig(), RasterConfig()
        case _:
            assert_never(kind)


def pictures_of(prior: LibraryPrior, prompt: str, cameras: Cameras) -> Pictures:
    """The first model that the prompt names."""
    black, white = (
        prior.true_renderings(prompt, cameras, torch.full((len(cameras), 3), grey))[0] for grey in (0.0, 1.0)
    )
    return Pictures(cameras, black, 1 - (white - black).mean(1, keepdim=True))


def fitted(args: Reconstruct, truth: Pictures) -> AnyScene:
    """The scene after the last step; learning rates fall to a tenth over the second half."""
    scene_config, renderer_config = parts(args.scene)
    scene, renderer = initial_scene(scene_config, generator(0, "initialise")), build_renderer(renderer_config)
    optimizer = adam(scene)
    for step in range(args.steps):
        rng = generator(0, "view", step)
        view = torch.randperm(VIEWS, generator=rng)[:1]
        background = torch.rand(1, 3, generator=rng)
        target = truth.rgb[view] + (1 - truth.alpha[view]) * background[:, :, None, None]
        factor = 0.1 ** max(0.0, 2 * step / args.steps - 1)
        for group, own in zip(optimizer.param_groups, scene.parameter_groups(), strict=True):
            group["lr"] = factor * own.learning_rate
        shown = render(scene, renderer, truth.cameras[view], background)
        (shown.rgb - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if isinstance(scene, TendedScene):
            scene.upkeep(step + 1, generator(0, "upkeep", step))
    return scene


def main() -> None:
    """Print a line for each model."""
    args = tyro.cli(Reconstruct, description=__doc__)
    torch.set_num_threads(1)
    prior = LibraryPrior(Catalogue.load(), resolution=args.size)
    renderer = build_renderer(parts(args.scene)[1])
    cameras = held_out_cameras(args.size)
    print(f"| model | {args.scene}: dB | worst view dB | seconds | steps |\n| --- | --- | --- | --- | --- |")
    for prompt in args.prompts:
        seen = fibonacci_sphere(VIEWS, args.size, args.size, ELEVATIONS_DEG, offset=0.5)
        truth = pictures_of(prior, prompt, seen)
        began = time.process_time()
        scene = fitted(args, truth)
        seconds = time.process_time() - began
        held_out = prior.true_renderings(prompt, cameras, torch.ones(len(cameras), 3))[0]
        scores = psnr(drawn(scene, renderer, cameras).rgb, held_out)
        print(
            f"| {prompt} | {float(scores.mean()):.1f} | {float(scores.min()):.1f} | {seconds:.0f} "
            f"| {args.steps} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
