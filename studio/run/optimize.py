"""The loop: a generator of step reports. Whoever iterates it decides what is kept; closing it stops it.

Nothing here is drawn from a global source of randomness: each draw is named by (seed, purpose, step), so the
loop goes on from a saved ``LoopState`` exactly as if it had never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import at_instants
from studio.errors import StudioError
from studio.guidance import hybrid
from studio.interfaces import Renderer, TendedScene
from studio.randomness import generator
from studio.recipes.config import Recipe
from studio.recipes.ramps import value_at
from studio.renderers.augmentation import augmented, drawn_warp
from studio.renderers.background import background_colors
from studio.renderers.instants import joined, render
from studio.reports import StepReport
from studio.run.align import at_distances, found_distances
from studio.run.build import BuiltStage
from studio.run.handover import handed_over
from studio.run.watchdogs import Alarms, Observation, examine
from studio.scenes.deformation import Deformable
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene, device_of, initial_scene, scene_from_state
from studio.scenes.regularizers import regularization
from studio.scenes.topology import TopologyState, apply
from studio.types import Cameras, GuidanceOutput, RenderOutput

ADAM_BETAS = (0.9, 0.99)
ADAM_EPSILON = 1e-15  # Gradients of single splats are tiny; the usual 1e-8 would hold them back.
_CLIPPED = 1 / 255
_OPAQUE = 0.9


@dataclass
class Particle:
    """One of the scenes that a run optimises side by side, and what is its alone.

    Attributes:
        scene: what is optimised.
        optimizer: Adam, one group for each of the scene's tensors.
        statistics: what topology has seen.
    """

    scene: AnyScene
    optimizer: torch.optim.Adam
    statistics: TopologyState

    @staticmethod
    def beginning(scene: AnyScene) -> Particle:
        """A scene with fresh moments and statistics."""
        watched = len(scene) if isinstance(scene, Gaussians) else 0
        return Particle(scene, adam(scene), TopologyState.empty(watched, device_of(scene)))


@dataclass
class LoopState:
    """All that changes while the loop runs: with the recipe, enough to go on.

    Attributes:
        step: steps done, over all stages.
        stage: index of the stage that the optimisers belong to.
        particles: as many scenes as the recipe asks for.
        alarms: what the watchdogs remember.
        learned: what the stage's guidance has learned: the guidance's own tensors, as they are now.
        distances: of the stage's aligned cameras, by name; found when it begins.
    """

    step: int
    stage: int
    particles: tuple[Particle, ...]
    alarms: Alarms
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)


def initial_state(recipe: Recipe, device: torch.device) -> LoopState:
    """The state before the first step.

    Raises:
        StudioError: the file that the scene starts from cannot be read.
    """
    config = recipe.stages[0].scene

    def begin(index: int) -> Particle:
        scene = initial_scene(config, generator(recipe.seed, "initialise", index))
        on_device = {name: tensor.to(device) for name, tensor in scene.state().items()}
        return Particle.beginning(scene_from_state(on_device, config))

    return LoopState(0, 0, tuple(begin(index) for index in range(recipe.particles)), Alarms())


def adam(scene: AnyScene) -> torch.optim.Adam:
    """A fresh optimiser for a scene's tensors."""
    groups = [
        {"name": group.name, "params": [group.parameter], "lr": group.learning_rate}
        for group in scene.parameter_groups()
    ]
    return torch.optim.Adam(groups, betas=ADAM_BETAS, eps=ADAM_EPSILON, fused=True)


def optimize(recipe: Recipe, stages: Sequence[BuiltStage], state: LoopState) -> Iterator[StepReport]:
    """Take the steps that are left, one a report. ``state`` is up to date whenever a report is out.

    Raises:
        StudioError: the watchdogs see no hope; the message names the key to change.
    """
    if state.step < recipe.total_steps:
        load_learned(stages[state.stage], state)
    while state.step < recipe.total_steps:
        index, stage_step = locate(recipe, state.step)
        if index != state.stage:
            _begin_stage(recipe, index, stages[state.stage].renderer, state)
            load_learned(stages[index], state)
        if stage_step == 0:
            scene = state.particles[0].scene
            state.distances = found_distances(stages[index], scene, generator(recipe.seed, "align", index))
        stage = at_distances(stages[index], state.distances)
        yield _step(recipe, index, stage, stage_step, state)
        if state.alarms.hopeless:
            raise StudioError(state.alarms.hopeless)


def locate(recipe: Recipe, step: int) -> tuple[int, int]:
    """The stage that comes after ``step`` steps, and how many of its steps are done."""
    for index, stage in enumerate(recipe.stages):
        if step < stage.steps:
            return index, step
        step -= stage.steps
    return len(recipe.stages) - 1, recipe.stages[-1].steps


def draw_cameras(
    recipe: Recipe,
    stage: BuiltStage,
    step: int,
    progress: float,
    device: torch.device,
    term: int | None = None,
) -> Cameras:
    """The cameras of a step, at the step's resolution and, where the scene moves, instants.

    Args:
        term: place of a guidance term that has views of its own; None for the stage's.
    """
    views, of_term = stage.views[term], "" if term is None else f" {term}"
    cameras = views.cameras(progress, generator(recipe.seed, f"camera{of_term}", step))
    size = stage.config.resolution_at(progress)
    if cameras.width != size:
        cameras = cameras.resized(size, size)
    if views.instants is not None:
        cameras = at_instants(cameras, views.instants, generator(recipe.seed, f"instant{of_term}", step))
    return cameras.to(device)


def _begin_stage(recipe: Recipe, index: int, renderer: Renderer[Any], state: LoopState) -> None:
    """Hand the scenes over to the next stage: new learning rates, fresh moments and statistics."""
    config = recipe.stages[index].scene
    scenes = [
        handed_over(particle.scene, renderer, config, generator(recipe.seed, f"motion {number}", index))
        for number, particle in enumerate(state.particles)
    ]
    state.stage, state.particles = index, tuple(Particle.beginning(scene) for scene in scenes)
    state.learned = {}


def load_learned(stage: BuiltStage, state: LoopState) -> None:
    """Let a stage's guidance go on from what the state says that it has learned."""
    for term in stage.terms:
        prefix = f"{term.name}/"
        own = {name: tensor for name, tensor in state.learned.items() if name.startswith(prefix)}
        term.guidance.load_state({name.removeprefix(prefix): tensor for name, tensor in own.items()})


def _learned(stage: BuiltStage) -> dict[str, Tensor]:
    return {
        f"{term.name}/{name}": tensor
        for term in stage.terms
        for name, tensor in term.guidance.state().items()
    }


@dataclass(frozen=True)
class _Shown:
    """What some cameras see of all scenes.

    Attributes:
        views: the cameras.
        renders: what they see, one a scene.
        pictures: the renders one after the other.
        cameras, background: of each of the pictures.
    """

    views: Cameras
    renders: tuple[RenderOutput, ...]
    pictures: RenderOutput
    cameras: Cameras
    background: Float[Tensor, "b 3"]


def _show(
    stage: BuiltStage, scenes: Sequence[AnyScene], cameras: Cameras, progress: float, rng: torch.Generator
) -> _Shown:
    """The scenes from the same cameras, over the same backgrounds."""
    colors = background_colors(stage.config.background, len(cameras), progress, rng)
    background = colors.to(cameras.world_to_camera.device)
    renders = tuple(render(scene, stage.renderer, cameras, background) for scene in scenes)
    repeated = list(range(len(cameras))) * len(scenes)
    return _Shown(cameras, renders, joined(renders), cameras[repeated], background[repeated])


def _step(recipe: Recipe, index: int, stage: BuiltStage, stage_step: int, state: LoopState) -> StepReport:
    config, step = stage.config, state.step
    scenes = [particle.scene for particle in state.particles]
    device = device_of(scenes[0])
    progress = stage_step / config.steps
    clock = _Stopwatch()

    for scene in scenes:
        if isinstance(scene, Deformable):
            scene.take_turns(stage_step)
    terms = _counting(recipe, stage, step, progress)
    cameras = {
        seen_by: draw_cameras(recipe, stage, step, progress, device, seen_by)
        for seen_by in stage.views
        if seen_by is None or seen_by in terms
    }
    clock.lap("cameras")

    draws = generator(recipe.seed, "background", step)
    shown = {seen_by: _show(stage, scenes, views, progress, draws) for seen_by, views in cameras.items()}
    main = next(iter(shown.values()))  # which regularizers, topology and watchdogs look at
    clock.lap("render")

    outputs = {stage.terms[term].name: _guide(recipe, stage, term, step, progress, shown) for term in terms}
    losses = {name: weight * output.loss for name, (weight, output) in outputs.items()}
    wishes = [
        regularization(config.regularizers, scene, its_render, main.views, progress)
        for scene, its_render in zip(scenes, main.renders, strict=True)
    ]
    losses |= {name: torch.stack([wish[name] for wish in wishes]).mean() for name in wishes[0]}
    clock.lap("guidance")

    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    clock.lap("backward")

    non_finite = tuple(dict.fromkeys(name for scene in scenes for name in _non_finite(scene)))
    if not non_finite:
        factor = value_at(config.learning_rate, progress)
        for particle in state.particles:
            groups = zip(particle.optimizer.param_groups, particle.scene.parameter_groups(), strict=True)
            for group, own in groups:
                group["lr"] = factor * own.learning_rate
            particle.optimizer.step()
    clock.lap("optimizer")

    count = sum(map(len, scenes))
    for number, (particle, its_render) in enumerate(zip(state.particles, main.renders, strict=True)):
        if not non_finite:
            _tend(recipe, stage, stage_step + 1, progress, step, number, particle, its_render)
        particle.optimizer.zero_grad(set_to_none=True)
    state.learned = _learned(stage)
    state.step += 1
    clock.lap("topology")

    is_logged = state.step % recipe.log_every == 0 or state.step == recipe.total_steps
    statistics = {
        "alpha_mean": float(main.pictures.alpha.detach().mean()),
        "primitives": float(sum(map(len, scenes))),
        "images": float(sum(len(look.cameras) for look in shown.values())),
        "denoiser_calls": float(sum(output.denoiser_calls for _, output in outputs.values())),
    }
    if stage.depth_confidence is not None:
        statistics["depth_confidence"] = stage.depth_confidence
    if is_logged:
        statistics["burnt"] = burnt_share(main.pictures)
        moving = [scene.largest_acceleration() for scene in scenes if isinstance(scene, Deformable)]
        statistics |= {"acceleration": max(moving)} if moving else {}
    statistics |= {f"{name}_distance": distance for name, distance in state.distances.items()}
    for name, (_, output) in outputs.items():
        statistics |= {f"{name}_{term}": value for term, value in output.terms.items()}
    state.alarms, warnings = examine(
        recipe.watchdogs,
        index,
        config,
        state.alarms,
        Observation(
            stage_step=stage_step + 1,
            non_finite=non_finite,
            guidance_non_finite=any(not _is_finite(output) for _, output in outputs.values()),
            alpha_mean=statistics["alpha_mean"],
            burnt=statistics.get("burnt"),
            count_before=count,
            count_after=sum(map(len, scenes)),
            depth_confidence=stage.depth_confidence,
            acceleration=statistics.get("acceleration"),
        ),
    )
    clock.lap("statistics")
    return StepReport(
        step=state.step,
        total_steps=recipe.total_steps,
        stage=index,
        losses={name: float(loss.detach()) for name, loss in losses.items()},
        seconds=clock.seconds,
        statistics=statistics,
        warnings=warnings,
    )


def _counting(recipe: Recipe, stage: BuiltStage, step: int, progress: float) -> tuple[int, ...]:
    """The places of the stage's guidance terms that count in this step."""
    shares = [None if term.share is None else value_at(term.share, progress) for term in stage.terms]
    return hybrid.drawn(shares, generator(recipe.seed, "expert", step))


def _guide(
    recipe: Recipe,
    stage: BuiltStage,
    place: int,
    step: int,
    progress: float,
    all_shown: Mapping[int | None, _Shown],
) -> tuple[float, GuidanceOutput]:
    """Weight and output of one of the stage's guidance terms, which sees its own views or the stage's."""
    term, shown = stage.terms[place], all_shown[place if place in all_shown else None]
    pictures = shown.pictures
    rng = generator(recipe.seed, f"guidance {place}", step, device=pictures.rgb.device)
    told = term.conditioning(shown.cameras, shown.background)
    augmentation = stage.config.guidance[place].augmentation
    if augmentation is not None:
        warp = drawn_warp(augmentation, generator(recipe.seed, f"augmentation {place}", step))
        pictures = augmented(pictures, shown.background, warp)
    output = term.guidance(pictures.rgb, replace(told, alpha=pictures.alpha.detach()), progress, rng)
    return value_at(term.weight, progress), output


def _tend(
    recipe: Recipe,
    stage: BuiltStage,
    stage_step: int,
    progress: float,
    step: int,
    number: int,
    particle: Particle,
    render: RenderOutput,
) -> None:
    """What a scene changes of itself after a step: its own upkeep, and the number of its splats."""
    topology, scene, device = stage.topology, particle.scene, render.rgb.device

    def draws(purpose: str) -> torch.Generator:
        return generator(recipe.seed, f"{purpose} {number}" if number else purpose, step, device)

    if isinstance(scene, TendedScene):
        scene.upkeep(stage_step, draws("upkeep"))
    if not isinstance(scene, Gaussians):
        return
    if topology.watches and render.footprints is not None:
        particle.statistics = particle.statistics.observed(render.footprints, render.rgb.shape[-1])
    rate = value_at(stage.config.learning_rate, progress) * scene.config.means_rate
    topology.explore(scene, rate, progress, draws("exploration"))
    edit = topology.edit(scene.tensors, particle.statistics, stage_step, progress, draws("topology"))
    if edit is not None:
        particle.statistics = apply(edit, scene, particle.optimizer)


def _non_finite(scene: AnyScene) -> tuple[str, ...]:
    """Names of the tensors whose gradient holds a value that is not finite."""
    gradients = {
        group.name: group.parameter.grad
        for group in scene.parameter_groups()
        if group.parameter.grad is not None and group.parameter.numel()
    }
    # One number a tensor: a sum is not finite if any of its terms is not.
    sums = torch.stack([gradient.sum() for gradient in gradients.values()])
    if bool(sums.isfinite().all()):
        return ()
    return tuple(name for name, gradient in gradients.items() if not bool(gradient.isfinite().all()))


def _is_finite(output: GuidanceOutput) -> bool:
    return bool(output.gradient.isfinite().all())


def burnt_share(render: RenderOutput) -> float:
    """Share of the asset's pixels with one channel at 0 and another at 1, as too much guidance makes them."""
    rgb, alpha = render.rgb.detach(), render.alpha.detach()[:, 0]
    burnt = (rgb.amin(1) <= _CLIPPED) & (rgb.amax(1) >= 1 - _CLIPPED)
    opaque = alpha > _OPAQUE
    return float((burnt & opaque).sum() / opaque.sum().clamp_min(1))


class _Stopwatch:
    """Seconds by part. On CUDA these are the times to launch the work; the step's sum is right on average."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = now - self._last
        self._last = now
