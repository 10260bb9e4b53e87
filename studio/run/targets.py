"""From a recipe to the pictures that pixel guidance compares with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.guidance.pixels import Filmed, Target
from studio.interfaces import Prior
from studio.meshes import SUFFIXES, load_mesh, normalised_as
from studio.ops.surfaces import Light
from studio.priors.library import LibraryPrior
from studio.prompts import clean_prompt
from studio.recipes.guidance import FootageConfig, MeshesTarget, TargetConfig, TruthTarget
from studio.renderers.raster import MeshRenderer, studio_light
from studio.types import Cameras, Mesh
from studio.video import cut_out, read_footage


def build_target(config: TargetConfig, prompt: str, prior: Prior) -> Target:
    """The pictures that a recipe names.

    Args:
        prompt: the recipe's.
        prior: the one of the term.

    Raises:
        StudioError: the video or a mesh cannot be read; the truth is asked of a prior that does not know it.
    """
    match config:
        case FootageConfig():
            return build_film(config, "method.target")
        case TruthTarget():
            if not isinstance(prior, LibraryPrior):
                raise StudioError(
                    "method.target.kind = 'truth' asks the exact prior what a model looks like, and the "
                    "term's prior is another; expected prior.kind = 'library', or a target of kind 'video'."
                )
            return Known(prior, clean_prompt(prompt))
        case MeshesTarget():
            return _meshes(config)
        case _:
            assert_never(config)


def build_film(config: FootageConfig, key: str) -> Filmed:
    """The frames that a recipe names.

    Args:
        key: of the recipe, for messages.

    Raises:
        StudioError: the video is missing or cannot be read.
    """
    if not config.path:
        raise StudioError(
            f"The recipe follows a video and names none; expected {key}.path = 'VIDEO.mp4', "
            "studio generate PROMPT --preset pla4d-draft --video VIDEO.mp4, or of clipart: studio "
            "animate IMAGE --reference VIDEO.mp4."
        )
    footage = read_footage(Path(config.path))
    height, width = footage.rgb.shape[2:]
    if height != width:
        warnings.warn(
            f"{config.path} has {width}x{height} pixels: it is taken to stand in the middle of a "
            "square, with the background above and below it or beside it.",
            stacklevel=2,
        )
    footage = cut_out(footage) if config.cut_out else footage
    return Filmed(footage, nearest=config.between == "nearest")


def _meshes(config: MeshesTarget) -> Target:
    folder = Path(config.path)
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise StudioError(
            f"{folder} holds {len(files)} meshes, expected a folder with one a frame, at least 2, among "
            f"{', '.join(SUFFIXES)}."
        )
    frames = [load_mesh(file) for file in files]
    if config.fit:
        frames = [normalised_as(frame, frames[0]) for frame in frames]
    return Meshes(frames, MeshRenderer(light=studio_light() if config.light == "studio" else Light()))


class Meshes:
    """A mesh of each of some instants, evenly spaced from time 0 to time 1. A ``Target``."""

    def __init__(self, frames: Sequence[Mesh], renderer: MeshRenderer) -> None:
        self._frames = tuple(frames)
        self._renderer = renderer

    def knows(self, cameras: Cameras) -> Bool[Tensor, "b"]:
        """Every view."""
        return torch.ones(len(cameras), dtype=torch.bool)

    def __call__(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 h w"]:
        """The mesh that is nearest in time to each camera; without times, the first."""
        cameras, background = cameras.to("cpu"), background.cpu()
        time = torch.zeros(len(cameras)) if cameras.time is None else cameras.time
        nearest = (time.clamp(0, 1) * (len(self._frames) - 1)).round().long()
        pictures = torch.empty(len(cameras), 3, cameras.height, cameras.width)
        for frame in set(nearest.tolist()):
            rows = (nearest == frame).nonzero().squeeze(1)
            pictures[rows] = self._renderer(self._frames[frame], cameras[rows], background[rows]).rgb
        return pictures


class Known:
    """The first model that a prompt names, in its first motion, as the exact prior draws it. A ``Target``."""

    def __init__(self, prior: LibraryPrior, prompt: str) -> None:
        self._prior = prior
        self._moving, self._at_rest = (prior.members(prompt, at_rest)[0] for at_rest in (False, True))

    def knows(self, cameras: Cameras) -> Bool[Tensor, "b"]:
        """Every view."""
        return torch.ones(len(cameras), dtype=torch.bool)

    def __call__(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 h w"]:
        """The model at the cameras' times; without any, at rest."""
        member = self._at_rest if cameras.time is None else self._moving
        return self._prior.images_of(member, cameras.to("cpu"), background)
