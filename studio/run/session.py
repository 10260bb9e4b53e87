"""A run: made once, its steps taken, watched and saved in its folder, opened again at any time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio.errors import StudioError
from studio.export.asset import export_files
from studio.export.files import replacing, write_bytes
from studio.export.formats import asset_paths, numbered
from studio.export.images import to_pixels
from studio.export.shapes import Asset, Clip, Moving
from studio.interfaces import Prior, Renderer
from studio.locks import locked
from studio.prompts import clean_prompt
from studio.recipes.config import ClipartConfig, Recipe
from studio.recipes.load import load
from studio.reports import Figure, StepReport
from studio.run import checkpoint
from studio.run.build import BuiltStage, build_device, build_renderer, build_stages
from studio.run.build_prior import ChosenPrior, build_prior
from studio.run.events import EventLog
from studio.run.folder import EVENTS, METRICS, latest_preview, new_folder, recipe_in
from studio.run.metrics import combined, final_metrics
from studio.run.optimize import optimize
from studio.run.state import LoopState, initial_state
from studio.run.views import clip_cameras, detached, drawn, side_cameras
from studio.scenes.clipart import Clipart, drawing_file
from studio.scenes.deformation import Deformable
from studio.scenes.kinds import AnyScene, scene_from_state
from studio.types import RenderOutput

_PREVIEW_TIMES = (0.0, 0.25, 0.5, 0.75)
_CLIP_TIMES = (0.0, 1 / 3, 2 / 3, 1.0)


class RunIsBusy(StudioError):
    """Two processes may not take the steps of one run."""


class Run:
    """One run and its folder. Iterating it takes the steps that are left::

        run = Run.create(load("default", "a teddy bear"))
        for report in run:
            print(report.step, report.losses)

    Stopping the iteration saves the state; iterating again, or ``Run.open``, goes on from there.

    Attributes:
        folder: where everything is.
        recipe: what was asked for.
    """

    def __init__(self, folder: Path, recipe: Recipe, chosen: ChosenPrior | None = None) -> None:
        self.folder = folder
        self.recipe = recipe
        self.device = build_device(recipe)
        self._chosen = chosen
        self._stages: tuple[BuiltStage, ...] | None = None
        self._state: LoopState | None = None
        self._events = EventLog(folder / EVENTS)

    @staticmethod
    def create(
        recipe: Recipe,
        output: Path = Path("runs"),
        chosen: ChosenPrior | None = None,
        name: str | None = None,
    ) -> Run:
        """Make a new folder in ``output``. Earlier runs are never touched.

        Args:
            chosen: the recipe's prior where it is built already, as several runs may share one.
            name: of the folder; by default the prompt's words, and a number where those are taken.

        Raises:
            StudioError: the prompt is empty or the prior knows nothing of it; the prior cannot be had;
                ``output`` cannot be written to. No folder is left behind.
        """
        recipe = replace(recipe, prompt=clean_prompt(recipe.prompt))
        chosen = build_prior(recipe, build_device(recipe)) if chosen is None else chosen
        build_stages(recipe, chosen.prior, chosen.beside)
        initial_state(recipe, build_device(recipe))
        return Run(new_folder(recipe, output, name), recipe, chosen)

    @staticmethod
    def open(folder: Path) -> Run:
        """The run in an existing folder.

        Raises:
            StudioError: the folder is not a run's, or is from a newer version of the studio.
        """
        return Run(folder, recipe_in(folder))

    @staticmethod
    def at(folder: Path, recipe: Recipe) -> Run:
        """The run in a folder, which is made if it is not there yet.

        Raises:
            StudioError: as ``create`` and ``open``.
        """
        return Run.open(folder) if folder.is_dir() else Run.create(recipe, folder.parent, name=folder.name)

    # ------------------------------------------------------------------------------------------ the scene

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self._loaded().step

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.recipe.total_steps

    @property
    def prior(self) -> Prior:
        """The prior, built at first use."""
        return self._choice().prior

    @property
    def prior_reason(self) -> str:
        """Which prior the run uses, and why."""
        return self._choice().reason

    def scene(self, particle: int = 0) -> AnyScene:
        """A copy of the scene as it is now; where there are several, of one of them."""
        state = self._loaded()
        own = state.particles[particle].scene.state()
        config = self.recipe.stages[state.stage].scene
        return scene_from_state({name: tensor.detach().clone() for name, tensor in own.items()}, config)

    def primitives(self, particle: int = 0) -> Asset:
        """What the renderer draws of the scene at rest, without gradients."""
        with torch.no_grad():
            found: Asset = detached(self.scene(particle).at(None))
        return found

    def asset(self, particle: int = 0) -> Asset | Moving | Clip:
        """What export writes: the scene as it is drawn or, where it moves, all of its motion."""
        scene, export = self.scene(particle), self.recipe.export
        if isinstance(scene, Clipart):
            with torch.no_grad():
                film = detached(scene.animation(export.motion_frames, export.motion_seconds))
            project = scene.project(self.recipe.prompt, self.recipe.seed, film)
            return Clip(film, scene.puppet, drawing_file(scene.config.path), project)
        if not isinstance(scene, Deformable):
            return self.primitives(particle)
        with torch.no_grad():
            motion = scene.animation(export.motion_frames, export.motion_seconds, export.motion_loops)
        found: Moving = detached(motion)
        return found

    def renderer(self) -> Renderer[Any]:
        """What draws the scene as it is now."""
        return build_renderer(self.recipe.stages[self._loaded().stage].renderer)

    def render_sides(self, size: int = 256, particle: int = 0, time: float | None = None) -> RenderOutput:
        """A scene from the front, the right, the back and the left, over white; at rest, or at a time."""
        cameras = side_cameras(size)
        if time is not None:
            cameras = replace(cameras, time=torch.full((len(cameras),), time))
        return drawn(self.scene(particle), self.renderer(), cameras)

    def latest_preview(self) -> Path | None:
        """The newest preview picture, if there is one yet."""
        return latest_preview(self.folder)

    def save_preview(self) -> Path:
        """Draw the scene from four sides into ``previews/``.

        Of several scenes each has a row of its own; of one that moves, each of four instants has. Clipart is
        drawn from the front at four instants.

        Raises:
            StudioError: the folder cannot be written to.
        """
        from PIL import Image

        stage = self.recipe.stages[self._loaded().stage]
        size = stage.resolution_at(1.0)
        times = (None,) if stage.instants is None else _PREVIEW_TIMES
        if isinstance(stage.scene, ClipartConfig):
            clip = clip_cameras(size, _CLIP_TIMES)
            shown = [drawn(self.scene(index), self.renderer(), clip) for index in self._particles]
        else:
            shown = [self.render_sides(size, index, time) for index in self._particles for time in times]
        rows = [np.concatenate(to_pixels(images.rgb), axis=1) for images in shown]
        path = self.folder / "previews" / f"{self.step:07d}.png"
        with replacing(path) as temporary:
            Image.fromarray(np.concatenate(rows)).save(temporary)
        return path

    # ------------------------------------------------------------------------------------------- the loop

    def __iter__(self) -> Generator[StepReport, None, None]:
        """Take the steps that are left; checkpoints, previews, events and metrics are written on the way.

        Raises:
            RunIsBusy: another process takes the run's steps.
            StudioError: the folder cannot be written to, or the watchdogs see no hope.
        """
        busy = RunIsBusy(f"Another process is at work on {self.folder}; wait for it, or stop it.")
        with locked(self.folder / "state" / "lock", busy):
            yield from self._steps()

    def _steps(self) -> Generator[StepReport, None, None]:
        recipe, state = self.recipe, self._loaded()
        stages = self._built()
        elapsed = max((event.get("elapsed_s", 0.0) for event in self._events.cut(state.step)), default=0.0)
        if not self.is_finished:
            self._events.append("begin", state.step, {"prior": self.prior_reason, "device": str(self.device)})
        saved_step, started = state.step, time.perf_counter()
        try:
            for report in optimize(recipe, stages, state):
                now = elapsed + time.perf_counter() - started
                is_last = report.step == recipe.total_steps
                if report.step % recipe.log_every == 0 or report.step == 1 or is_last or report.warnings:
                    self._events.append_report(report, now)
                if report.step % recipe.preview_every == 0 or is_last:
                    self.save_preview()
                if report.step % recipe.checkpoint_every == 0 or is_last:
                    checkpoint.save(state, self.folder / "state")
                    saved_step = report.step
                yield report
        except GeneratorExit:
            # The caller stops between two steps, where the state is whole.
            if state.step > saved_step:
                checkpoint.save(state, self.folder / "state")
            raise
        except StudioError as error:
            self._events.append("stop", state.step, {"reason": str(error)})
            raise
        if not (self.folder / METRICS).is_file():
            seconds = elapsed + time.perf_counter() - started
            self._finish(seconds)

    def _finish(self, seconds: float) -> None:
        metrics = combined(
            [
                final_metrics(self.scene(index), self.renderer(), self.recipe, self.prior)
                for index in self._particles
            ]
        )
        metrics |= {
            "seconds": round(seconds, 2),
            "steps_per_second": round(self.step / max(seconds, 1e-9), 2),
        }
        self._write_metrics(metrics)
        self._events.append("finish", self.step, {"elapsed_s": round(seconds, 3), "metrics": metrics})

    def export(
        self, paths: Sequence[Path] | None = None, progress: Callable[[str], None] | None = None
    ) -> tuple[Path, ...]:
        """Write the scene as it is now; the figures of its mesh join the finished run's metrics.

        Args:
            paths: where to, the suffix says what; by default the recipe's formats in ``assets/``. Of several
                scenes, the second's files get ``-2`` after their names, and so on.
            progress: is told what begins.

        Raises:
            StudioError: unknown suffix, unwritable folder, or a scene with nothing to write.
        """
        paths = asset_paths(self.folder / "assets", self.recipe.export.formats) if paths is None else paths
        reports = [
            export_files(
                self.asset(index), self.renderer(), _numbered(paths, index), self.recipe.export, progress
            )
            for index in self._particles
        ]
        likenesses: list[dict[str, Figure]] = [
            {f"mesh_{name}": value for name, value in asdict(report.likeness).items()}
            for report in reports
            if report.likeness is not None
        ]
        if likenesses and self.is_finished:
            self._write_metrics(self.metrics() | combined(likenesses))
        return tuple(path for report in reports for path in report.paths)

    def metrics(self) -> dict[str, Figure]:
        """The figures of the finished scene; empty before that. Of several scenes, their means."""
        path = self.folder / METRICS
        if not path.is_file():
            return {}
        found: dict[str, Figure] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _write_metrics(self, metrics: Mapping[str, Figure]) -> None:
        write_bytes(self.folder / METRICS, json.dumps(metrics, indent=2).encode())

    @property
    def _particles(self) -> range:
        return range(self.recipe.particles)

    def _choice(self) -> ChosenPrior:
        if self._chosen is None:
            self._chosen = build_prior(self.recipe, self.device)
        return self._chosen

    def _built(self) -> tuple[BuiltStage, ...]:
        if self._stages is None:
            self._stages = build_stages(self.recipe, self.prior, self._choice().beside)
        return self._stages

    def _loaded(self) -> LoopState:
        """The state in memory; at first the last checkpoint's, or the start."""
        if self._state is None:
            saved = checkpoint.checkpoints(self.folder / "state")
            self._state = (
                checkpoint.load(saved[-1], self.recipe, self.device)
                if saved
                else initial_state(self.recipe, self.device)
            )
        return self._state


def start(
    prompt: str, preset: str = "default", overrides: Sequence[str] = (), output: Path = Path("runs")
) -> Run:
    """A new run of a preset, to be iterated.

    Args:
        prompt: what to make.
        preset: the name of a preset, or the path of a recipe.
        overrides: lines such as ``"stages.0.steps=400"``.
        output: where the run's own folder is made.

    Raises:
        StudioError: see ``studio.recipes.load.load`` and ``Run.create``.
    """
    return Run.create(load(preset, prompt, overrides), output)


def generate(
    prompt: str, preset: str = "default", overrides: Sequence[str] = (), output: Path = Path("runs")
) -> Run:
    """A new run of a preset, taken to its end and exported into its ``assets/``.

    Args, Raises: as ``start``; and the watchdogs may see no hope in the run.
    """
    run = start(prompt, preset, overrides, output)
    for _ in run:
        pass
    run.export()
    return run


def _numbered(paths: Sequence[Path], particle: int) -> list[Path]:
    return [numbered(path, particle + 1) if particle else path for path in paths]
