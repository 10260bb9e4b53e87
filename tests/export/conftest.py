"""gsply compiles its readers at first use, for half a minute; a few splats are quick in plain Python."""

from __future__ import annotations

import os

import pytest

os.environ["NUMBA_DISABLE_JIT"] = "1"


def export_quickly(patch: pytest.MonkeyPatch, grid_resolution: int, picture_size: int) -> None:
    """Let exports look through smaller pictures at a coarser grid: quicker, as fine as a test has to be."""
    patch.setattr("studio.export.reconstruction._GRID_RESOLUTION", grid_resolution)
    patch.setattr("studio.export.reconstruction._PICTURE_SIZE", picture_size)
