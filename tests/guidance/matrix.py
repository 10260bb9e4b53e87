"""Every guidance method on every family of diffusion models: what runs two steps, and what is refused.

Methods are those of the recipes' union, so a new one joins by being in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from studio.cameras import orbit
from studio.errors import StudioError
from studio.guidance.methods import asks_critic, build_guidance, negative_prompts
from studio.priors.latent import LatentPrior, Options, load_latent_prior
from studio.priors.video import VideoOptions, VideoPrior, load_video_prior
from studio.recipes.guidance import GuidanceConfig
from studio.view_prompts import ViewPrompts
from tests.priors.models import FAMILIES
from tests.priors.video_models import VIDEO_FAMILIES

METHODS: Mapping[str, Any] = {kind.kind: kind for kind in get_args(get_args(GuidanceConfig)[0])}
STEPS = 2


@dataclass(frozen=True)
class Outcome:
    """How two steps went.

    Attributes:
        refused: the reason, or None.
        moved: how far the brightest change of the pictures went.
        finite: whether they are numbers.
    """

    refused: str | None
    moved: float = 0.0
    finite: bool = True


def load_family(
    name: str, folder: Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> LatentPrior | VideoPrior:
    """A tiny model of a family; one of clips sees two frames."""
    if name in VIDEO_FAMILIES:
        clips = VideoOptions(pictures=2, dtype=dtype)
        return load_video_prior(VIDEO_FAMILIES[name](folder / "model"), clips, device)
    size = 16 if name == "flux" else None
    pictures = Options(image_size=size, dtype=dtype, cache_folder=folder / "text")
    return load_latent_prior(FAMILIES[name](folder / "model"), device, pictures)


def two_steps(
    config: Any,
    prior: LatentPrior | VideoPrior,
    device: str = "cpu",
    views_prior: LatentPrior | VideoPrior | None = None,
) -> Outcome:
    """Optimise a set of pictures by one method for two steps; ``views_prior`` is for those that ask two."""
    if not hasattr(config, "second"):
        views_prior = None
    together = prior.limits.views * prior.limits.frames
    if together > 1 and hasattr(config.times, "shared"):
        config = replace(config, times=replace(config.times, shared=True))
    prior = replace(prior, differentiable=True)
    rng = torch.Generator(device).manual_seed(0)
    views = max(together, 2 if views_prior is None else views_prior.limits.views)
    rgb = torch.rand(views, 3, 16, 16, generator=rng, device=device).requires_grad_()
    start = rgb.detach().clone()
    optimizer = torch.optim.SGD([rgb], lr=1.0)
    angles = torch.arange(views, device=device) * 90.0
    cameras = orbit(angles, torch.full_like(angles, 15.0), 16, 16)
    image = torch.full((views, 3, 16, 16), 0.7, device=device) if prior.limits.needs_image else None
    try:
        guidance = build_guidance(config, prior, views_prior)
        prompts = ViewPrompts(
            prior, "a red cube", negatives=negative_prompts(config), plain=asks_critic(config)
        )
        seen = None if views_prior is None else ViewPrompts(views_prior, "a red cube")
        for step in range(STEPS):
            conditioning = prompts(cameras)
            positive = replace(conditioning.positive, image=image)
            plain = None if conditioning.plain is None else replace(conditioning.plain, image=image)
            second = None if seen is None else seen(cameras)
            branches = replace(conditioning, positive=positive, plain=plain, second=second)
            optimizer.zero_grad()
            output = guidance(rgb, branches, step / STEPS, rng)
            output.loss.backward()
            assert isinstance(rgb.grad, Tensor)
            rgb.grad /= rgb.grad.abs().max().clamp(min=1e-30) * 10
            optimizer.step()
    except StudioError as error:
        return Outcome(str(error))
    return Outcome(None, float((rgb.detach() - start).abs().max()), bool(rgb.isfinite().all()))


def row(
    name: str, folder: Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> Mapping[str, Outcome]:
    """The outcome of every method on a family."""
    prior = load_family(name, folder / "prior", device, dtype)
    seen = load_family("mvdream", folder / "seen", device, dtype)
    return {kind: two_steps(make(), prior, device, seen) for kind, make in METHODS.items()}
