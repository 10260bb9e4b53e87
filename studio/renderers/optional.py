"""Renderers of others that a recipe may choose where they are installed."""

from __future__ import annotations

import importlib.util

import torch

from studio.errors import StudioError


def insist_on(package: str, install: str, device: torch.device) -> None:
    """Refuses a CUDA package as backend where it cannot run.

    Args:
        package: its name, which is the backend's too.
        install: what the user can do to have it.
        device: where the scene lies.

    Raises:
        StudioError: the scene is not on a GPU, or the package is not installed.
    """
    if device.type != "cuda":
        raise StudioError(
            f"The {package} backend needs a CUDA device and the scene is on {device.type}; "
            "use renderer.backend = 'auto', or device = 'cuda' on a machine with an NVIDIA GPU."
        )
    if importlib.util.find_spec(package) is None:
        raise StudioError(f"The {package} backend needs {package}; {install}, or use backend 'auto'.")
