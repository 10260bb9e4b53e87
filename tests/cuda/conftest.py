"""Where the CUDA kernels run: on a GPU, and as C++ on the CPU, where one thread does the work of all."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from studio.ops import library

CHECKOUT = Path(__file__).parents[2]


@functools.cache
def emulation() -> library.Library:
    """The CUDA sources as C++, see kernels/include/studio/cuda.cuh; built where they changed."""
    build, target = CHECKOUT / "build" / "emulated", "studio_kernels_emulated"
    own_tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": own_tools, "CMAKE_GENERATOR": "Ninja"}
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the suite's other workers want it too
        for arguments in (
            ("-S", CHECKOUT, "-B", build, "-DSTUDIO_TESTS=ON", "-DSTUDIO_CUDA=OFF"),
            ("--build", build, "--target", target, "--parallel", "2"),
        ):
            command = ["/usr/bin/env", "cmake", *arguments]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stdout + run.stderr
    path = build / f"lib{target}.so"
    handle = ctypes.CDLL(str(path))
    handle.studio_last_error.restype = ctypes.c_char_p
    return library.Library(path, handle, "emulated")


@pytest.fixture(params=["emulated", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device of tensors that the CUDA kernels take."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        return "cuda"
    found = emulation()
    monkeypatch.setattr(library, "find", lambda kind: found)
    return "cpu"
