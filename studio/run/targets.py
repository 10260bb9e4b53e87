"""From a recipe to the pictures that pixel guidance compares with."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.guidance.pixels import Filmed, Target
from studio.interfaces import Prior
from studio.priors.library import LibraryPrior
from studio.prompts import clean_prompt
from studio.recipes.guidance import FootageConfig, TargetConfig, TruthTarget
from studio.types import Cameras
from studio.video import cut_out, read_footage


def build_target(config: TargetConfig, prompt: str, prior: Prior) -> Target:
    """The pictures that a recipe names.

    Args:
        prompt: the recipe's.
        prior: the one of the term.

    Raises:
        StudioError: the video cannot be read; the truth is asked of a prior that does not know it.
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
