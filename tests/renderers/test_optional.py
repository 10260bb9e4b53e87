"""What a user is told who chooses a renderer that is not here."""

from __future__ import annotations

import pytest
import torch

from studio.errors import StudioError
from studio.renderers.optional import insist_on


def test_needs_a_gpu() -> None:
    with pytest.raises(StudioError, match=r"pip backend needs a CUDA device and the scene is on cpu; use"):
        insist_on("pip", "pip install pip", torch.device("cpu"))


def test_needs_the_package() -> None:
    with pytest.raises(
        StudioError, match=r"absent_one backend needs absent_one; pip install it, or use backend"
    ):
        insist_on("absent_one", "pip install it", torch.device("cuda"))


def test_accepts_what_is_there() -> None:
    insist_on("pytest", "", torch.device("cuda"))
