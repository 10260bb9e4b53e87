"""What a run will cost, told by taking a few of its steps and throwing them away."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from dataclasses import dataclass, replace

import torch

from studio.recipes.config import (
    CamerasConfig,
    DensifyConfig,
    ExportConfig,
    FixedSetConfig,
    GaussiansConfig,
    NoTopologyConfig,
    Recipe,
    RelocateConfig,
    SplatFileConfig,
    Stage,
)
from studio.recipes.ramps import count_at
from studio.run.build import build_device, build_stages
from studio.run.build_prior import ChosenPrior
from studio.run.optimize import optimize
from studio.run.state import initial_state

TRIAL_STEPS = 3


@dataclass(frozen=True)
class Forecast:
    """A prediction.

    Attributes:
        seconds: of all steps, without the export.
        memory_bytes: at the peak: of the GPU's memory on CUDA, else of the machine's.
    """

    seconds: float
    memory_bytes: int


def forecast(recipe: Recipe, chosen: ChosenPrior) -> Forecast:
    """Predict from trial steps of each stage with as many splats as it may grow to.

    The steps are taken twice: a prior that caches what it knows of a camera is slower the first time. Cameras
    of a fixed set are new only until each has been used.
    """
    device = build_device(recipe)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = 0.0
    for stage in recipe.stages:
        trial = replace(recipe, stages=(_full_grown(stage),), export=ExportConfig(formats=()))
        first, again = (_seconds_a_step(trial, chosen, device) for _ in range(2))
        fresh = _steps_with_new_cameras(stage)
        seconds += fresh * max(first, again) + (stage.steps - fresh) * again
    return Forecast(seconds, _peak_memory(device))


def _full_grown(stage: Stage) -> Stage:
    """The stage's first steps as they are late in the run: with all splats that it may have."""
    scene = stage.scene
    match scene, stage.topology:
        case GaussiansConfig(initial=initial), DensifyConfig(max_count=most) | RelocateConfig(max_count=most):
            if not isinstance(initial, SplatFileConfig):
                scene = replace(scene, initial=replace(initial, count=max(initial.count, most)))
    return replace(stage, steps=TRIAL_STEPS, scene=scene, topology=NoTopologyConfig())


def _seconds_a_step(trial: Recipe, chosen: ChosenPrior, device: torch.device) -> float:
    state = initial_state(trial, device)
    moments = [time.perf_counter()]
    for _ in optimize(trial, build_stages(trial, chosen.prior, chosen.beside), state):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        moments.append(time.perf_counter())
    return statistics.median(after - before for before, after in itertools.pairwise(moments))


def _steps_with_new_cameras(stage: Stage) -> int:
    def steps(cameras: CamerasConfig) -> int:
        match cameras:
            case FixedSetConfig(count=count, views_per_step=views):
                return min(stage.steps, -(-count // count_at(views, 0.0)))
            case _:
                return stage.steps

    return max(steps(stage.looks(term)[0]) for term in stage.guidance)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
