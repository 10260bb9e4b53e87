"""Finds and loads the native kernels, and says which backend runs and why.

The libraries are looked for in this folder (an installed wheel) and then in the checkout's ``build/*/`` (an
editable install or a development build), where the newest wins. ``STUDIO_KERNELS`` names another folder,
``STUDIO_ISA`` (base, v3 or v4) another instruction set, and ``STUDIO_BACKEND=torch`` turns to the plain-torch
references.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from studio.errors import StudioError

ABI_VERSION = 2
Backend = Literal["auto", "native", "torch"]
DeviceKind = Literal["cpu", "cuda"]

_STEMS: dict[DeviceKind, str] = {"cpu": "studio_kernels", "cuda": "studio_kernels_cuda"}
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


@dataclass(frozen=True)
class Library:
    """A loaded native library. ``isa`` is what its CPU code runs on: base, v3 (AVX2) or v4 (AVX-512)."""

    path: Path
    handle: ctypes.CDLL
    isa: str

    def call(self, entry: str, arguments: ctypes.Structure) -> None:
        """Calls ``int entry(const Arguments*)``, without the interpreter's lock.

        Raises:
            StudioError: the kernel refused; with its reason.
        """
        function = getattr(self.handle, entry, None)
        if function is None:
            raise StudioError(f"{self.path} lacks {entry}; build the kernels anew: make kernels")
        size = ctypes.c_int64(ctypes.sizeof(arguments))
        if function(ctypes.byref(arguments), size):
            raise StudioError(f"{entry}: {self.handle.studio_last_error().decode()}")


@dataclass(frozen=True)
class Missing:
    """Why there is no library to run."""

    reason: str


def select(device: torch.device, dtype: torch.dtype, backend: Backend = "auto") -> Library | None:
    """The library to run an operator on, or None for its plain-torch reference.

    Args:
        device, dtype: of the operator's arguments. Native code computes in float32 alone.
        backend: ``"auto"`` takes native code where it can and obeys ``STUDIO_BACKEND``; ``"native"`` insists.

    Raises:
        StudioError: native code was insisted on and cannot run.
    """
    if backend == "auto":
        backend = _wished_backend()
    if backend == "torch":
        return None
    found = _suitable(device, dtype)
    if isinstance(found, Library):
        return found
    if backend == "native":
        raise StudioError(f"The native kernels cannot run: {found.reason}. Try backend 'auto' or 'torch'.")
    if dtype == torch.float32:
        _warn_once(f"Running on plain torch, which is much slower than the native kernels: {found.reason}.")
    return None


@functools.cache
def find(kind: DeviceKind) -> Library | Missing:
    """The library for one kind of device, loaded once."""
    name = f"lib{_STEMS[kind]}{_SUFFIX}" if sys.platform != "win32" else f"{_STEMS[kind]}{_SUFFIX}"
    if kind == "cuda" and not torch.cuda.is_available():
        return Missing("torch sees no CUDA device")
    paths = [folder / name for folder in _folders() if (folder / name).is_file()]
    if not paths:
        return Missing(f"{name} was not found; install the studio with a C++ compiler at hand to build it")
    try:
        handle = ctypes.CDLL(str(paths[0]))
    except OSError as error:
        return Missing(f"{paths[0]} does not load ({error})")
    if handle.studio_abi_version() != ABI_VERSION:
        return Missing(f"{paths[0]} is of another version of the studio; build it anew")
    handle.studio_last_error.restype = handle.studio_isa.restype = ctypes.c_char_p
    isa = handle.studio_isa().decode()
    if not isa:
        raise StudioError(handle.studio_last_error().decode())
    if kind == "cpu":
        _keep_freed_memory()
    return Library(paths[0], handle, isa)


def report() -> list[str]:
    """One line for each kind of device: what runs there, and why."""
    if _wished_backend() == "torch":
        return ["kernels: plain torch, because STUDIO_BACKEND=torch"]
    lines = []
    kinds: tuple[DeviceKind, ...] = ("cpu", "cuda")
    for kind in kinds:
        match find(kind):
            case Library(path, _, isa):
                what = f"native, instruction set {isa}" if kind == "cpu" else "native"
                lines.append(f"kernels on {kind}: {what}, from {path}")
            case Missing(reason):
                lines.append(f"kernels on {kind}: plain torch, because {reason}")
    return lines


def _suitable(device: torch.device, dtype: torch.dtype) -> Library | Missing:
    if dtype != torch.float32:
        return Missing(f"they compute in float32 and came {dtype}")
    match device.type:
        case "cpu":
            return find("cpu")
        case "cuda":
            return find("cuda")
        case other:
            return Missing(f"there are none for device {other!r}")


def _folders() -> list[Path]:
    """Where libraries may lie, best first."""
    if wished := os.environ.get("STUDIO_KERNELS"):
        path = Path(wished)
        return [path if path.is_dir() else path.parent]
    here = Path(__file__).parent
    builds = sorted((here.parents[1] / "build").glob(f"*/lib{_STEMS['cpu']}{_SUFFIX}"), key=_age)
    return [here, *(library.parent for library in builds)]


def _keep_freed_memory() -> None:
    """Lets glibc keep up to 256 MB of what a step frees for the next one.

    By itself it returns images of some megabytes to the system, which clears them page by page when they are
    wanted again: a tenth of a step's time. Whoever sets glibc's own variables is obeyed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    chosen = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    if mallopt is None or any(variable in os.environ for variable in chosen):
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    mallopt(trim_threshold, 256 << 20)
    mallopt(mmap_threshold, 32 << 20)  # the most that it takes


def _age(path: Path) -> float:
    return -path.stat().st_mtime


def _wished_backend() -> Backend:
    wished = os.environ.get("STUDIO_BACKEND", "auto")
    if wished not in ("auto", "native", "torch"):
        raise StudioError(f"STUDIO_BACKEND={wished} is none of auto, native, torch")
    return wished  # type: ignore[return-value]


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
