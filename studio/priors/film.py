"""Videos that a prior makes, for pixel guidance to follow where there is none at hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import filmed, frame_times, turntable
from studio.priors.library import LibraryPrior
from studio.priors.sampling import guided_noise
from studio.priors.video import VideoPrior
from studio.types import Condition


def film_of_motion(
    prior: LibraryPrior, prompt: str, frames: int, size: int
) -> Float[Tensor, "{frames} 3 {size} {size}"]:
    """The first model that a prompt names, in the prior's first motion, from the front over white, in 0-1.

    Raises:
        StudioError: the prompt names nothing in the catalogue.
    """
    member = prior.members(prompt)[0]
    cameras = filmed(turntable(1, size, size, elevation_deg=0.0), frame_times(frames))
    return prior.images_of(member, cameras, torch.ones(frames, 3)).clamp(0, 1)


@torch.no_grad()
def film_of_prompt(
    prior: VideoPrior,
    prompts: tuple[str, str],
    steps: int,
    guidance_scale: float,
    rng: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "t 3 h w"]:
    """A clip that a model draws (DDIM, Song et al. 2021, eq. 12; a flow's ODE by Euler), in 0-1.

    Args:
        prompts: what to show, and what not to ("" for nothing).
        steps: evenly spaced, from the noisiest level on ("trailing", Lin et al. 2023, table 2).
        guidance_scale: of classifier-free guidance; 1 asks the first prompt alone.
        progress: told (steps taken, steps in all).
    """
    schedule = prior.schedule
    wanted, unwanted = (Condition(prior.encode_prompts([prompt])) for prompt in prompts)
    shape = prior.encode_images(torch.ones(prior.pictures, 3, 8, 8, device=wanted.prompt.tokens.device))
    x = torch.randn(shape.shape, generator=rng).to(shape)
    stops = [len(schedule) * (1 - step / steps) - 1 for step in range(steps + 1)]
    for taken, (here, there) in enumerate(pairwise(stops), start=1):
        level, after = (torch.full((len(x),), stop, device=x.device) for stop in (here, there))
        noise = guided_noise(prior, x, level, wanted, unwanted, guidance_scale)
        if taken < steps:
            x = schedule.ddim_step(x, noise, level, after)
        else:
            x = schedule.clean_from_noise(x, noise, level)
        if progress is not None:
            progress(taken, steps)
    return prior.decode_images(x)
