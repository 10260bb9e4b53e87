"""One step of the loop: the scenes are shown, guided, moved, tended and looked after."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import at_instants
from studio.guidance import hybrid
from studio.interfaces import TendedScene
from studio.randomness import generator
from studio.recipes.config import Recipe
from studio.recipes.ramps import value_at
from studio.renderers.augmentation import augmented, drawn_warp
from studio.renderers.background import background_colors
from studio.renderers.instants import joined, render
from studio.reports import StepReport
from studio.run.build import BuiltStage
from studio.run.state import LoopState, Particle
from studio.run.watchdogs import Observation, examine
from studio.scenes.deformation import Deformable
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene, device_of
from studio.scenes.regularizers import regularization
from studio.scenes.topology import apply
from studio.types import Cameras, GuidanceOutput, RenderOutput

_CLIPPED = 1 / 255
_OPAQUE = 0.9


@dataclass(frozen=True)
class Moment:
    """When a step is taken, which names what is drawn in it.

    Attributes:
        seed: the run's.
        step: steps that are done, over all stages.
        stage_step: steps of the stage that are done.
        progress: of the stage, 0 at its first step and 1 after its last.
    """

    seed: int
    step: int
    stage_step: int
    progress: float

    def draws(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Where the random numbers for one purpose come from."""
        return generator(self.seed, purpose, self.step, device)


def draw_cameras(stage: BuiltStage, now: Moment, device: torch.device, term: int | None = None) -> Cameras:
    """The cameras of a step, at the step's resolution and, where the scene moves, instants.

    Args:
        term: place of a guidance term that has views of its own; None for the stage's.
    """
    views, of_term = stage.views[term], "" if term is None else f" {term}"
    cameras = views.cameras(now.progress, now.draws(f"camera{of_term}"))
    size = stage.config.resolution_at(now.progress)
    if cameras.width != size:
        cameras = cameras.resized(size, size)
    if views.instants is not None:
        cameras = at_instants(cameras, views.instants, now.draws(f"instant{of_term}"))
    return cameras.to(device)


@dataclass(frozen=True)
class Shown:
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
    stage: BuiltStage, scenes: Sequence[AnyScene], cameras: Cameras, now: Moment, rng: torch.Generator
) -> Shown:
    """The scenes from the same cameras, over the same backgrounds."""
    colors = background_colors(stage.config.background, len(cameras), now.progress, rng)
    background = colors.to(cameras.world_to_camera.device)
    renders = tuple(render(scene, stage.renderer, cameras, background) for scene in scenes)
    repeated = list(range(len(cameras))) * len(scenes)
    return Shown(cameras, renders, joined(renders), cameras[repeated], background[repeated])


def take_step(recipe: Recipe, index: int, stage: BuiltStage, stage_step: int, state: LoopState) -> StepReport:
    """Show the scenes, ask guidance, follow the gradient, and say how it went.

    Args:
        index: place of the stage in the recipe.
        stage_step: steps of the stage that are done.
        state: is changed.

    Raises:
        StudioError: a regularizer means nothing to the scene, or a prior cannot be asked.
    """
    now = Moment(recipe.seed, state.step, stage_step, stage_step / stage.config.steps)
    scenes = [particle.scene for particle in state.particles]
    clock = _Stopwatch()

    for scene in scenes:
        if isinstance(scene, Deformable):
            scene.take_turns(stage_step)
    terms = counting(stage, now)
    cameras = {
        seen_by: draw_cameras(stage, now, device_of(scenes[0]), seen_by)
        for seen_by in stage.views
        if seen_by is None or seen_by in terms
    }
    clock.lap("cameras")

    draws = now.draws("background")
    shown = {seen_by: _show(stage, scenes, views, now, draws) for seen_by, views in cameras.items()}
    main = next(iter(shown.values()))  # which regularizers, topology and watchdogs look at
    clock.lap("render")

    outputs = {stage.terms[place].name: guide(stage, place, now, shown) for place in terms}
    losses = {name: weight * output.loss for name, (weight, output) in outputs.items()}
    losses |= _regularizations(stage, scenes, main, now)
    clock.lap("guidance")

    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    clock.lap("backward")

    non_finite = tuple(dict.fromkeys(name for scene in scenes for name in _non_finite(scene)))
    if not non_finite:
        factor = value_at(stage.config.learning_rate, now.progress)
        for particle in state.particles:
            _follow(particle, factor)
    clock.lap("optimizer")

    count_before = sum(map(len, scenes))
    for number, (particle, its_render) in enumerate(zip(state.particles, main.renders, strict=True)):
        if not non_finite:
            _tend(stage, now, number, particle, its_render)
        particle.optimizer.zero_grad(set_to_none=True)
    state.learned = {
        f"{term.name}/{name}": tensor
        for term in stage.terms
        for name, tensor in term.guidance.state().items()
    }
    state.step += 1
    clock.lap("topology")

    guidance = {name: output for name, (_, output) in outputs.items()}
    is_logged = state.step % recipe.log_every == 0 or state.step == recipe.total_steps
    statistics = _statistics(stage, state, main, guidance, is_logged)
    statistics["images"] = float(sum(len(look.cameras) for look in shown.values()))
    seen = Observation(
        stage_step=stage_step + 1,
        non_finite=non_finite,
        guidance_non_finite=any(not bool(output.gradient.isfinite().all()) for output in guidance.values()),
        alpha_mean=statistics["alpha_mean"],
        burnt=statistics.get("burnt"),
        count_before=count_before,
        count_after=sum(map(len, scenes)),
        depth_confidence=stage.depth_confidence,
        acceleration=statistics.get("acceleration"),
    )
    state.alarms, warnings = examine(recipe.watchdogs, index, stage.config, state.alarms, seen)
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


def counting(stage: BuiltStage, now: Moment) -> tuple[int, ...]:
    """The places of the stage's guidance terms that count in this step."""
    shares = [None if term.share is None else value_at(term.share, now.progress) for term in stage.terms]
    return hybrid.drawn(shares, now.draws("expert"))


def guide(
    stage: BuiltStage, place: int, now: Moment, all_shown: Mapping[int | None, Shown]
) -> tuple[float, GuidanceOutput]:
    """Weight and output of one of the stage's guidance terms, which sees its own views or the stage's."""
    term, shown = stage.terms[place], all_shown[place if place in all_shown else None]
    pictures = shown.pictures
    rng = now.draws(f"guidance {place}", pictures.rgb.device)
    told = term.conditioning(shown.cameras, shown.background)
    augmentation = stage.config.guidance[place].augmentation
    if augmentation is not None:
        warp = drawn_warp(augmentation, now.draws(f"augmentation {place}"))
        pictures = augmented(pictures, shown.background, warp)
    output = term.guidance(pictures.rgb, replace(told, alpha=pictures.alpha.detach()), now.progress, rng)
    return value_at(term.weight, now.progress), output


def _regularizations(
    stage: BuiltStage, scenes: Sequence[AnyScene], shown: Shown, now: Moment
) -> dict[str, Float[Tensor, ""]]:
    """What the recipe asks of the scenes beside guidance, each the mean over the scenes."""
    wishes = [
        regularization(stage.config.regularizers, scene, its_render, shown.views, now.progress)
        for scene, its_render in zip(scenes, shown.renders, strict=True)
    ]
    return {name: torch.stack([wish[name] for wish in wishes]).mean() for name in wishes[0]}


def _follow(particle: Particle, factor: float) -> None:
    """Take the optimiser's step, at the scene's own learning rates times a factor."""
    groups = zip(particle.optimizer.param_groups, particle.scene.parameter_groups(), strict=True)
    for group, own in groups:
        group["lr"] = factor * own.learning_rate
    particle.optimizer.step()


def _tend(stage: BuiltStage, now: Moment, number: int, particle: Particle, render: RenderOutput) -> None:
    """What a scene changes of itself after a step: its own upkeep, and the number of its splats."""
    topology, scene, done = stage.topology, particle.scene, now.stage_step + 1

    def draws(purpose: str) -> torch.Generator:
        return now.draws(f"{purpose} {number}" if number else purpose, render.rgb.device)

    if isinstance(scene, TendedScene):
        scene.upkeep(done, draws("upkeep"))
    if not isinstance(scene, Gaussians):
        return
    if topology.watches and render.footprints is not None:
        particle.statistics = particle.statistics.observed(render.footprints, render.rgb.shape[-1])
    rate = value_at(stage.config.learning_rate, now.progress) * scene.config.means_rate
    topology.explore(scene, rate, now.progress, draws("exploration"))
    edit = topology.edit(scene.tensors, particle.statistics, done, now.progress, draws("topology"))
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


def _statistics(
    stage: BuiltStage, state: LoopState, main: Shown, guidance: Mapping[str, GuidanceOutput], is_logged: bool
) -> dict[str, float]:
    """Figures of a step by name; the dearer ones only where it is logged."""
    scenes = [particle.scene for particle in state.particles]
    statistics = {
        "alpha_mean": float(main.pictures.alpha.detach().mean()),
        "primitives": float(sum(map(len, scenes))),
        "denoiser_calls": float(sum(output.denoiser_calls for output in guidance.values())),
    }
    if stage.depth_confidence is not None:
        statistics["depth_confidence"] = stage.depth_confidence
    if is_logged:
        statistics["burnt"] = burnt_share(main.pictures)
        moving = [scene.largest_acceleration() for scene in scenes if isinstance(scene, Deformable)]
        statistics |= {"acceleration": max(moving)} if moving else {}
    statistics |= {f"{name}_distance": distance for name, distance in state.distances.items()}
    for name, output in guidance.items():
        statistics |= {f"{name}_{term}": value for term, value in output.terms.items()}
    return statistics


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
