"""Room on a disk, looked at before something is written to it."""

from __future__ import annotations

import shutil
from pathlib import Path

GIBIBYTE = 2**30


def shortage(folder: Path, least_free_bytes: int = GIBIBYTE) -> str | None:
    """What to say where a folder's disk is almost full; None where there is room."""
    free = shutil.disk_usage(folder).free
    if free >= least_free_bytes:
        return None
    return (
        f"The disk of {folder} has {free / GIBIBYTE:.1f} GiB left, expected at least "
        f"{least_free_bytes / GIBIBYTE:.1f}."
    )
