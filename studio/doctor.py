"""What this machine has and what the studio makes of it: versions, kernels, devices, priors, room."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from studio.errors import StudioError
from studio.ops import library
from studio.priors import weights
from studio.priors.catalogue import Catalogue
from studio.recipes import load
from studio.renderers import optional
from studio.resources import presets_folder
from studio.run.build import build_device
from studio.run.build_prior import build_prior, small_prior_folder

_LIBRARIES = (
    "numpy", "pydantic", "diffusers", "transformers", "safetensors", "trimesh", "xatlas", "scikit-image",
    "imageio-ffmpeg",
)  # fmt: skip
EXAMPLE_PROMPT = "a teddy bear"
_GIB = 2**30
_MEMORY_WANTED_GIB = 2.0
_DISK_WANTED_GIB = 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``trouble`` marks what keeps the main job from running well."""

    what: str
    says: str
    trouble: bool = False


def examine(output: Path) -> Iterator[Finding]:
    """Everything worth knowing before a run that will write to ``output``."""
    yield Finding("studio", f"{_version('studio') or 'not installed'} in {Path(__file__).parent}")
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    yield from _torch()
    yield from _kernels()
    yield from _libraries()
    yield from _priors()
    yield from _weights()
    yield from _room(output)


def automatic_prior() -> str:
    """What the prior ``auto`` would be on this machine, and why.

    Raises:
        StudioError: there is none to run.
    """
    recipe = load.load("default", EXAMPLE_PROMPT, ["prior.kind=auto"])
    return build_prior(recipe, build_device(recipe)).reason


def _torch() -> Iterator[Finding]:
    yield Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            yield Finding(f"cuda:{index}", f"{device.name}, {device.total_memory / _GIB:.0f} GiB")
    elif torch.version.cuda is None:
        yield Finding("cuda", "no: this torch is built for CPUs only")
    else:
        yield Finding("cuda", f"no: torch is built for CUDA {torch.version.cuda} but sees no device")


def _kernels() -> Iterator[Finding]:
    for line in library.report():
        what, _, says = line.partition(": ")
        yield Finding(what, says, trouble=what == "kernels on cpu" and says.startswith("plain torch"))
    for package in optional.PACKAGES:
        where = "on CUDA only" if package.needs_cuda else "for meshes"
        yield Finding(package.name, _version(package.name) or f"not installed; it is a choice {where}")


def _libraries() -> Iterator[Finding]:
    found = {name: _version(name) for name in _LIBRARIES}
    yield Finding("libraries", ", ".join(f"{name} {version}" for name, version in found.items() if version))
    missing = [name for name, version in found.items() if version is None]
    if missing:
        yield Finding("libraries", f"missing: {', '.join(missing)}; install the studio again", trouble=True)


def _priors() -> Iterator[Finding]:
    try:
        catalogue = Catalogue.load()
        yield Finding("prior library", f"{len(catalogue)} captioned models that ship with the studio")
    except StudioError as error:
        yield Finding("prior library", str(error), trouble=True)
    folder = small_prior_folder()
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    yield Finding("prior small", f"{weights / 1e6:.0f} MB of weights in {folder}" if weights else "not here")
    try:
        yield Finding("prior auto", f"{automatic_prior()}, for the prompt {EXAMPLE_PROMPT!r}")
    except StudioError as error:
        yield Finding("prior auto", str(error), trouble=True)
    yield Finding("presets", f"{len(list(presets_folder().glob('*.toml')))} in {presets_folder()}")


def _weights() -> Iterator[Finding]:
    """The published models: what is here, gone, gated, and what this machine can run."""
    hub = weights.hub_cache()
    models = sorted(path.name[len("models--") :].replace("--", "/") for path in hub.glob("models--*"))
    yield Finding("downloaded models", ", ".join(models) or f"none in {hub}")
    asks_hub = not weights.is_offline()
    for model in weights.REGISTRY:
        folder = weights.cached(model.id, model.revision)
        missing = None if folder is None else weights.missing_file(folder)
        if folder is None:
            parts = [f"not here, about {model.download_gib:g} GiB to download"]
        elif missing is None:
            parts = ["here, whole"]
        else:
            parts = [f"half a download: {missing} is missing, use it once with the network on"]
        state = weights.hub_state(model.id) if asks_hub else "unreachable"
        if asks_hub and state == "unreachable":
            asks_hub = False
            yield Finding("hub", "not reached: what follows is what the registry knows")
        if state == "gone":
            parts.append(f"gone from the hub; mirrors: {', '.join(model.mirrors) or 'none known'}")
        elif state == "gated" or model.gated:
            parts.append("gated: accept its licence on the hub and log in")
        parts += [_fits(model.memory_gib), model.licence]
        gone = state == "gone" and folder is None
        yield Finding("weights", f"{model.id}: {'; '.join(parts)}", trouble=missing is not None or gone)
    for removed, live in weights.REMOVED.items():
        yield Finding("removed weights", f"{removed}: gone from the hub, now {live}")


def _fits(memory_gib: float) -> str:
    wants = f"wants about {memory_gib:g} GiB of GPU memory"
    if not torch.cuda.is_available():
        return f"{wants}, there is no GPU"
    there = max(
        torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())
    )
    return "runs here" if there / _GIB > memory_gib else f"{wants}, there are {there / _GIB:.0f}"


def _room(output: Path) -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    yield Finding(
        "memory",
        f"{memory.available / _GIB:.1f} GiB free of {memory.total / _GIB:.1f}",
        trouble=memory.available < _MEMORY_WANTED_GIB * _GIB,
    )
    existing = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free / _GIB
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    yield Finding(
        "output folder",
        f"{output}: {free:.1f} GiB free" if writable else f"{output}: {existing} cannot be written to",
        trouble=not writable or free < _DISK_WANTED_GIB,
    )
    yield Finding("processors", f"{os.cpu_count()} cores, interpreter {sys.executable}")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
