"""The loop's state on disk: one safetensors file a checkpoint, its counters as JSON in the file's header.

A file appears under its name only when it is whole, so whatever a kill leaves behind can be resumed. On a CPU
a resumed run goes on bit for bit.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from studio.errors import StudioError
from studio.export.files import write_bytes
from studio.recipes.config import Recipe, SceneConfig
from studio.run.folder import FORMAT, check_format
from studio.run.state import LoopState, Particle, adam
from studio.run.watchdogs import Alarms
from studio.scenes.kinds import scene_from_state
from studio.scenes.topology import TopologyState

KEPT = 2
"""Checkpoints that stay: the last, and the one before in case the disk fails."""
_HEADER = "studio"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save(state: LoopState, folder: Path) -> Path:
    """Write ``<step>.safetensors`` into ``folder`` and drop all but the last few.

    Raises:
        StudioError: the folder cannot be written to, or the disk is full; earlier checkpoints stay.
    """
    from safetensors.torch import save as to_bytes

    counters = {
        "format": FORMAT,
        "step": state.step,
        "stage": state.stage,
        "alarms": asdict(state.alarms),
        "distances": dict(state.distances),
    }
    path = folder / f"{state.step:07d}.safetensors"
    tensors = {name: tensor.cpu().contiguous() for name, tensor in _tensors(state).items()}
    write_bytes(path, to_bytes(tensors, metadata={_HEADER: json.dumps(counters, sort_keys=True)}))
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the latest last."""
    return sorted(folder.glob("[0-9]*.safetensors"))


def load(path: Path, recipe: Recipe, device: torch.device) -> LoopState:
    """The state that was saved.

    Raises:
        StudioError: the file is damaged, or from a newer version of the studio.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            counters = json.loads(file.metadata()[_HEADER])
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise StudioError(f"{path} is damaged ({error}); delete it to resume from the one before.") from error
    check_format(counters["format"], path)
    alarms, config = counters["alarms"], recipe.stages[counters["stage"]].scene
    return LoopState(
        step=counters["step"],
        stage=counters["stage"],
        particles=tuple(_particle(_own(tensors, index), config) for index in range(recipe.particles)),
        alarms=Alarms(**{**alarms, "raised": tuple(alarms["raised"])}),
        learned=_part(tensors, "learned"),
        distances=counters.get("distances", {}),
    )


def _particle(tensors: dict[str, Tensor], config: SceneConfig) -> Particle:
    scene = scene_from_state(_part(tensors, "scene"), config)
    optimizer = adam(scene)
    for group in optimizer.param_groups:
        moments = _part(tensors, f"adam/{group['name']}")
        if moments:
            optimizer.state[group["params"][0]] = moments
    return Particle(scene, optimizer, TopologyState.from_state(_part(tensors, "topology")))


def _own(tensors: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """A particle's tensors. The first one's names have no number: most runs have no other."""
    return _part(tensors, f"particle {index}") if index else tensors


def _tensors(state: LoopState) -> dict[str, Tensor]:
    named = {f"learned/{name}": tensor for name, tensor in state.learned.items()}
    for index, particle in enumerate(state.particles):
        before = f"particle {index}/" if index else ""
        named |= {f"{before}{name}": tensor for name, tensor in _particle_tensors(particle).items()}
    return named


def _particle_tensors(particle: Particle) -> dict[str, Tensor]:
    named = {f"scene/{name}": tensor for name, tensor in particle.scene.state().items()}
    named |= {f"topology/{name}": tensor for name, tensor in particle.statistics.state().items()}
    for group in particle.optimizer.param_groups:
        moments = particle.optimizer.state.get(group["params"][0], {})
        named |= {f"adam/{group['name']}/{name}": moments[name] for name in _MOMENTS if name in moments}
    return named


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{part}/"): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{part}/")
    }
