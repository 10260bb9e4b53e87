"""Fits a scene to 24 pictures of each of three models of the catalogue, and says how well it shows others.

Run with ``python benchmarks/reconstruct.py gaussians``, or another kind. No prior takes part: each step
compares a few pictures over random colours with the truth. The held-out views and their PSNR are those of a
run's own metrics. Seconds are the processor's, of steps and hand-overs, with one thread. The last column is
the mean angle between the normals that a scene draws, if it does, and the model's.

For ``nodes``, ``hexplane`` and ``perceptron`` the models bend and turn: what was fitted at rest is moved to
fit 16 frames from each view, and the held-out views are at times of their own.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.cameras import fibonacci_sphere, filmed, frame_times
from studio.evaluate.metrics import psnr
from studio.export.images import to_pixels
from studio.export.pictures import write_contact_sheet
from studio.interfaces import Renderer, TendedScene
from studio.priors.catalogue import Catalogue
from studio.priors.library import LibraryPrior
from studio.priors.motions import KnownMotion, bend, turn
from studio.prompts import slug
from studio.randomness import generator
from studio.recipes.config import (
    BallConfig,
    DeformableConfig,
    FieldConfig,
    GaussiansConfig,
    HexPlaneConfig,
    NodesConfig,
    NoTopologyConfig,
    PerceptronConfig,
    RasterConfig,
    RegularizersConfig,
    RelocateConfig,
    RendererConfig,
    SceneConfig,
    SplattingConfig,
    SurfaceConfig,
    TexturedMeshConfig,
    TopologyConfig,
    VolumeConfig,
)
from studio.recipes.ramps import Linear
from studio.renderers.instants import render
from studio.renderers.raster import MeshRenderer
from studio.run.build import build_renderer
from studio.run.handover import handed_over
from studio.run.state import Particle
from studio.run.views import drawn, held_out_cameras
from studio.scenes.deformation import Deformable
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene, initial_scene
from studio.scenes.regularizers import regularization
from studio.scenes.topology import apply, build_topology
from studio.types import Cameras, Mesh

PROMPTS = ("a teddy bear", "a red fire hydrant", "a toaster")
VIEWS = 24
ELEVATIONS_DEG = (-20.0, 60.0)

FRAMES = 16
MOTIONS = {"nodes": NodesConfig(), "hexplane": HexPlaneConfig(), "perceptron": PerceptronConfig()}

Kind = Literal[
    "field", "gaussians", "surfels", "tetrahedra", "flexicubes", "mesh", "nodes", "hexplane", "perceptron"
]
Shape = Literal["gaussians", "mesh"]


@dataclass(frozen=True)
class Reconstruct:
    """What to fit, and for how long."""

    scene: Annotated[Kind, tyro.conf.Positional] = "field"
    """Kind of scene, or of what moves one; ``mesh`` is a surface first, then its texture."""
    shape: Shape = "gaussians"
    """What is moved."""
    budget: float = 1.0
    """Factor of the steps that are taken."""
    size: int = 128
    """Width and height of the pictures in pixels."""
    prompts: tuple[str, ...] = PROMPTS
    """Each names a model of the catalogue."""
    consistency: float = 0.0
    """Weight of ``regularizers.normal_consistency`` at the end; it grows from 0."""
    pictures: Path | None = None
    """Where to put a picture of each fit above the truth; left out, nowhere."""


_NONE = NoTopologyConfig()


@dataclass(frozen=True)
class Fit:
    """One stretch of fitting.

    Attributes:
        views: pictures a step.
        rigidity: weight of ``regularizers.rigidity`` of what moves.
    """

    scene: SceneConfig
    renderer: RendererConfig
    steps: int
    views: int
    topology: TopologyConfig = _NONE
    rigidity: float = 0.0


@dataclass(frozen=True)
class Pictures:
    """Views of a model, over black."""

    cameras: Cameras
    rgb: Float[Tensor, "b 3 h w"]
    alpha: Float[Tensor, "b 1 h w"]


def fits(kind: Kind, shape: Shape = "gaussians") -> tuple[Fit, ...]:
    """How each kind is fitted, one fit going on with what the one before left. Other kinds join here."""
    match kind:
        case "field":
            return (Fit(FieldConfig(), VolumeConfig(), steps=300, views=1),)
        case "gaussians" | "surfels":
            form: Literal["ellipsoids", "surfels"] = "surfels" if kind == "surfels" else "ellipsoids"
            splats = GaussiansConfig(shape=form, initial=BallConfig(count=6000))
            return (Fit(splats, SplattingConfig(), steps=600, views=4, topology=RelocateConfig()),)
        case "tetrahedra" | "flexicubes":
            return (Fit(SurfaceConfig(extraction=kind), RasterConfig(), steps=500, views=4),)
        case "mesh":
            return (*fits("flexicubes"), Fit(TexturedMeshConfig(), RasterConfig(), steps=200, views=4))
        case "nodes" | "hexplane" | "perceptron":
            motion = MOTIONS[kind]
            if shape == "gaussians":
                scene = DeformableConfig(motion=motion, shape_rate=1.0)
                return (*fits("gaussians"), Fit(scene, SplattingConfig(), 1500, views=4, rigidity=0.05))
            # Lit, as the light stays where it is while the shape turns in it.
            lit = RasterConfig(light="studio")
            mesh = TexturedMeshConfig(faces=8000, texture_size=256, vertices_rate=1e-4)
            scene = DeformableConfig(shape=mesh, motion=motion, shape_rate=1.0)
            at_rest = (replace(fit, renderer=lit) for fit in fits("flexicubes"))
            return (*at_rest, Fit(scene, lit, 1500, views=4, rigidity=0.5))
        case _:
            assert_never(kind)


def pictures_of(prior: LibraryPrior, prompt: str, cameras: Cameras) -> Pictures:
    """The first model that the prompt names."""
    black, white = (
        prior.true_renderings(prompt, cameras, torch.full((len(cameras), 3), grey))[0] for grey in (0.0, 1.0)
    )
    return Pictures(cameras, black, 1 - (white - black).mean(1, keepdim=True))


def fitted(scene: AnyScene, fit: Fit, truth: Pictures, consistency: float) -> AnyScene:
    """The scene after the last step; learning rates fall to a tenth over the second half.

    What moves is held to be as rigid as the pictures let it.
    """
    wished = RegularizersConfig(
        rigidity=fit.rigidity,
        normal_consistency=Linear(start=0.0, end=consistency),
    )
    renderer, topology = build_renderer(fit.renderer), build_topology(fit.topology)
    particle = Particle.beginning(scene)
    for step in range(fit.steps):
        rng = generator(0, "view", step)
        view = torch.randperm(len(truth.cameras), generator=rng)[: fit.views]
        background = torch.rand(len(view), 3, generator=rng)
        target = truth.rgb[view] + (1 - truth.alpha[view]) * background[:, :, None, None]
        progress = step / fit.steps
        factor = 0.1 ** max(0.0, 2 * progress - 1)
        for group, own in zip(particle.optimizer.param_groups, scene.parameter_groups(), strict=True):
            group["lr"] = factor * own.learning_rate
        cameras = truth.cameras[view]
        shown = render(scene, renderer, cameras, background)
        loss = (shown.rgb - target).square().mean()
        wishes = regularization(wished, scene, shown, cameras, progress)
        torch.stack([loss, *wishes.values()]).sum().backward()
        particle.optimizer.step()
        particle.optimizer.zero_grad()
        if isinstance(scene, TendedScene):
            scene.upkeep(step + 1, generator(0, "upkeep", step))
        if isinstance(scene, Gaussians):
            draws = generator(0, "topology", step)
            edit = topology.edit(scene.tensors, particle.statistics, step + 1, progress, draws)
            if edit is not None:
                particle.statistics = apply(edit, scene, particle.optimizer)
    return scene


def normals_error_deg(scene: AnyScene, renderer: Renderer[Any], model: Mesh, cameras: Cameras) -> float:
    """Mean angle between the normals that a scene draws and the model's, in pixels that both cover."""
    black = torch.zeros(len(cameras), 3)
    with torch.no_grad():
        shown, truth = render(scene, renderer, cameras, black), MeshRenderer()(model, cameras, black)
    if shown.normal is None or truth.normal is None:
        return math.nan
    cosine = torch.nn.functional.cosine_similarity(shown.normal, truth.normal, dim=1)
    both = (shown.alpha[:, 0] > 0.5) & (truth.alpha[:, 0] > 0.5)
    return float(torch.rad2deg(cosine[both].clamp(-1, 1).acos()).mean())


def main() -> None:
    """Print a line for each model."""
    args = tyro.cli(Reconstruct, description=__doc__)
    torch.set_num_threads(1)
    moves = args.scene in MOTIONS
    motion = KnownMotion("bend and turn", lambda points, time: turn(bend(points, time), time))
    catalogue = Catalogue.load()
    prior = LibraryPrior(catalogue, resolution=args.size, motions=[motion])
    cameras = held_out_cameras(args.size, moving=moves)
    name = f"{args.scene} move {args.shape}" if moves else args.scene
    print(f"| model | {name}: dB | worst view dB | seconds | steps | normals off by |")
    print("| --- | --- | --- | --- | --- | --- |")
    for prompt in args.prompts:
        seen = fibonacci_sphere(VIEWS, args.size, args.size, ELEVATIONS_DEG, offset=0.5)
        still = pictures_of(prior, prompt, seen)
        moving = pictures_of(prior, prompt, filmed(seen, frame_times(FRAMES))) if moves else still
        began = time.process_time()
        stages = [
            replace(fit, steps=max(1, round(args.budget * fit.steps))) for fit in fits(args.scene, args.shape)
        ]
        scene = initial_scene(stages[0].scene, generator(0, "initialise"))
        for number, fit in enumerate(stages):
            if number > 0:
                before = build_renderer(stages[number - 1].renderer)
                scene = handed_over(scene, before, fit.scene, generator(0, "hand over"))
            truth = moving if isinstance(scene, Deformable) else still
            scene = fitted(scene, fit, truth, args.consistency)
        seconds = time.process_time() - began
        held_out = prior.true_renderings(prompt, cameras, torch.ones(len(cameras), 3))[0]
        renderer = build_renderer(stages[-1].renderer)
        shown = drawn(scene, renderer, cameras).rgb
        scores = psnr(shown, held_out)
        model = catalogue.entries[prior.match(prompt).members[0]].mesh()
        off = math.nan if moves else normals_error_deg(scene, renderer, model, cameras)
        print(
            f"| {prompt} | {float(scores.mean()):.1f} | {float(scores.min()):.1f} | {seconds:.0f} "
            f"| {sum(fit.steps for fit in stages)} | {'–' if math.isnan(off) else f'{off:.1f}°'} |",
            flush=True,
        )
        if args.pictures is not None:
            rows = np.concatenate([to_pixels(shown[::3]), to_pixels(held_out[::3])])
            labels = [label for label in ("fit", "truth") for _ in range(len(rows) // 2)]
            path = args.pictures / f"{slug(name)}-{slug(prompt)}.png"
            write_contact_sheet(rows, labels, len(rows) // 2, path)


if __name__ == "__main__":
    main()
