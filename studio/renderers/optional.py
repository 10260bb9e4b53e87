"""Packages of others that a recipe may choose where they are installed."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch

from studio.errors import StudioError


@dataclass(frozen=True)
class OptionalPackage:
    """One that takes the place of operators of ours.

    Attributes:
        name: of the package, and the value that chooses it.
        option: of the recipe, that is set to it.
        install: what the user can do to have it.
        needs_cuda: it does not run on a CPU.
    """

    name: str
    option: str
    install: str
    needs_cuda: bool = True

    def insist(self, device: torch.device) -> None:
        """Refuses the package where it cannot run.

        Args:
            device: where the scene lies.

        Raises:
            StudioError: it needs a GPU and the scene is not on one, or it is not installed.
        """
        if self.needs_cuda and device.type != "cuda":
            raise StudioError(
                f"The {self.name} backend needs a CUDA device and the scene is on {device.type}; "
                f"use {self.option} = 'auto', or device = 'cuda' on a machine with an NVIDIA GPU."
            )
        if importlib.util.find_spec(self.name) is None:
            raise StudioError(
                f"The {self.name} backend needs {self.name}; {self.install}, or use {self.option} = 'auto'."
            )


GSPLAT = OptionalPackage("gsplat", "renderer.backend", "pip install 'studio[cuda]'")
NERFACC = OptionalPackage("nerfacc", "renderer.backend", "pip install nerfacc")
PYTORCH3D = OptionalPackage(
    "pytorch3d",
    "renderer.backend",
    "pip install --no-build-isolation git+https://github.com/facebookresearch/pytorch3d",
    needs_cuda=False,
)
TINYCUDANN = OptionalPackage(
    "tinycudann",
    "renderer.network",
    "pip install --no-build-isolation 'git+https://github.com/NVlabs/tiny-cuda-nn#subdirectory=bindings/torch'",
)
PACKAGES = (GSPLAT, NERFACC, PYTORCH3D, TINYCUDANN)
