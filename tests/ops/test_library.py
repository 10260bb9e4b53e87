"""The loader says what runs and why, and obeys the environment."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.ops import library
from studio.ops.arguments import Launch
from tests.truth.splatting import random_scene

CPU = torch.device("cpu")


def report(**environment: str) -> subprocess.CompletedProcess[str]:
    program = "from studio.ops import library; print(*library.report(), sep='\\n')"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_native_code_is_found_and_named() -> None:
    found = library.find("cpu")
    assert isinstance(found, library.Library)
    assert found.isa in ("base", "v3", "v4") and found.path.is_file()
    assert library.select(CPU, torch.float32) is found


def test_large_blocks_come_from_memory_that_is_kept() -> None:
    """By glibc's own account, how many bytes it mapped for single blocks does not grow with one more."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("only glibc since 2.33 gives account")
    account = libc.mallinfo2
    account.restype = type("_Account", (ctypes.Structure,), {"_fields_": [("numbers", ctypes.c_size_t * 10)]})
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    library.find("cpu")
    mapped = 4  # hblkhd of struct mallinfo2
    before = account().numbers[mapped]
    block = libc.malloc(20 << 20)
    assert account().numbers[mapped] == before
    libc.free(block)


def test_reference_on_request() -> None:
    assert library.select(CPU, torch.float32, "torch") is None


def test_double_is_not_native() -> None:
    assert library.select(CPU, torch.float64) is None
    with pytest.raises(StudioError, match=r"float32 and came torch\.float64"):
        library.select(CPU, torch.float64, "native")


def test_other_devices_are_not_native() -> None:
    with pytest.raises(StudioError, match="none for device 'meta'"):
        library.select(torch.device("meta"), torch.float32, "native")


def test_report_names_backend_and_reason() -> None:
    assert "kernels on cpu: native, instruction set base" in report(STUDIO_ISA="base").stdout
    assert "because STUDIO_BACKEND=torch" in report(STUDIO_BACKEND="torch").stdout


def test_missing_library_is_a_reason(tmp_path: Path) -> None:
    said = report(STUDIO_KERNELS=str(tmp_path)).stdout
    assert "kernels on cpu: plain torch, because" in said and "was not found" in said


def test_a_file_that_is_no_library_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "libstudio_kernels.so").write_text("not a library")
    assert "does not load" in report(STUDIO_KERNELS=str(tmp_path)).stdout


@pytest.mark.parametrize(
    ("name", "message"), [("STUDIO_ISA", "none of base, v3, v4"), ("STUDIO_BACKEND", "none of auto, native")]
)
def test_misspelt_wishes_are_refused(name: str, message: str) -> None:
    said = report(**{name: "v5"})
    assert said.returncode != 0 and f"{name}=v5 is" in said.stderr and message in said.stderr


def test_refusals_carry_the_kernel_s_reason() -> None:
    with pytest.raises(StudioError, match="studio_splat_project: width and height must be 1 to 65536"):
        replace(random_scene(splats=1), width=1, height=70_000).draw("native")


def test_a_library_without_an_entry_is_to_be_built_anew() -> None:
    found = library.find("cpu")
    assert isinstance(found, library.Library)
    with pytest.raises(StudioError, match="lacks studio_nothing; build the kernels anew"):
        found.call("studio_nothing", Launch())
