"""The short names that ``--prior`` takes, as recipe types."""

from __future__ import annotations

import re
from pathlib import Path

from studio.errors import StudioError, nearest
from studio.priors import weights
from studio.recipes.config import (
    AutoPriorConfig,
    LatentPriorConfig,
    LibraryPriorConfig,
    PriorConfig,
    SmallPriorConfig,
    VideoPriorConfig,
)

_DENOISERS = ("unet", "transformer")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def prior_named(name: str) -> PriorConfig:
    """The prior that a name, a folder or a hub id stands for.

    A folder with captions is a library of models, one with a ``unet`` or a ``transformer`` a diffusion model
    of pictures or of clips.

    Raises:
        StudioError: it is none of these.
    """
    match name:
        case "auto":
            return AutoPriorConfig()
        case "library":
            return LibraryPriorConfig()
        case "small":
            return SmallPriorConfig()
    folder = Path(name)
    if folder.is_dir():
        # What reads a prior's folder loads torch; names are read by commands that need none of it.
        from studio.priors.catalogue import CAPTION_FILES
        from studio.priors.folders import VIDEO_DENOISERS, network_name

        if any((folder / captions).is_file() for captions in CAPTION_FILES):
            return LibraryPriorConfig(folder=name)
        for denoiser in _DENOISERS:
            if (folder / denoiser).is_dir():
                of_clips = network_name(folder / denoiser) in VIDEO_DENOISERS
                return VideoPriorConfig(source=name) if of_clips else LatentPriorConfig(source=name)
        raise StudioError(
            f"{name} is no prior: expected a diffusers model (with unet/ or transformer/) or your own models "
            f"with captions ({', '.join(CAPTION_FILES)})."
        )
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        entry = weights.known(name)
        of_clips = entry is not None and entry.of_clips
        return VideoPriorConfig(source=name) if of_clips else LatentPriorConfig(source=name)
    known = ("auto", "library", "small")
    raise StudioError(
        f"There is no prior {name!r}; expected auto, library, small, an existing folder or a hub id."
        f"{nearest(name, known)}"
    )
