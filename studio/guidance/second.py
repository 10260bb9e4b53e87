"""A second prior, of several views at once: what it makes of the renders that the first one is shown."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from studio.errors import StudioError
from studio.guidance.combine import guided
from studio.guidance.forward import diffused, fresh_noise
from studio.guidance.refusals import limits_of
from studio.guidance.state import MAIN, POSITIVE, State
from studio.guidance.terms import ScoreBank, SecondOpinion
from studio.interfaces import Prior
from studio.recipes.guidance import SecondPriorConfig
from studio.types import Conditioning


class SecondPrior:
    """Denoises sets of views as MVDream does: guided, with the spread pulled towards the unguided image's.

    Its images are handed on in the first prior's variable, resized bilinearly. That is meant for two models
    with one autoencoder, as Stable Diffusion 2.1 and MVDream have, and for two models of pixels.
    """

    def __init__(self, config: SecondPriorConfig, prior: Prior) -> None:
        self._prior = prior
        self._combine = guided(config.cfg_scale)
        self._rescale_std = config.rescale_std
        self._set_size = limits_of(prior).views

    def shown(
        self, rgb: Float[Tensor, "b 3 h w"], conditioning: Conditioning, progress: float, rng: torch.Generator
    ) -> SecondOpinion:
        """Its opinion of a step's renders, formed when it is asked for."""
        return partial(self._denoised, rgb.detach(), conditioning, progress, rng)

    def with_sets(self, state: State, conditioning: Conditioning) -> State:
        """The state, with the renders' coverage and the size of the sets."""
        alpha = conditioning.alpha
        if alpha is not None:
            alpha = resized_like(alpha.detach().to(state.clean), state.clean)
        return replace(state, coverage=alpha, set_size=self._set_size)

    def calls(self, progress: float) -> int:
        """Images sent through its denoiser for each render."""
        return len({*self._combine.terms(progress), POSITIVE})

    def _denoised(
        self,
        rgb: Float[Tensor, "b 3 h w"],
        conditioning: Conditioning,
        progress: float,
        rng: torch.Generator,
        state: State,
    ) -> tuple[Float[Tensor, "b c hx wx"], int]:
        """At the level of the first prior's ``MAIN``, under fresh noise."""
        assert conditioning.second is not None, "a method that asks a second prior is told its branches"
        schedule = self._prior.schedule
        clean = self._prior.encode_images(rgb).to(state.clean.dtype)
        if clean.shape[1] != state.clean.shape[1]:
            raise StudioError(
                f"The views_prior denoises {clean.shape[1]} channels and the prior {state.clean.shape[1]}, "
                "expected two models with one autoencoder; try Stable Diffusion 2.1 beside MVDream."
            )
        timesteps = state.levels[MAIN] * (len(schedule) / len(state.schedule))
        noisy = diffused(clean, fresh_noise(clean, rng), {MAIN: timesteps}, schedule)
        bank = ScoreBank(self._prior, conditioning.second)
        scores = bank.get(tuple(dict.fromkeys((*self._combine.terms(progress), POSITIVE))), noisy)
        x_t = noisy.noisy[MAIN]
        image = schedule.clean_from_noise(x_t, self._combine(scores, noisy, progress), timesteps)
        unguided = schedule.clean_from_noise(x_t, scores[POSITIVE], timesteps)
        tempered = self._rescale_std * self._spread(unguided) / self._spread(image) + 1 - self._rescale_std
        return resized_like(tempered * image, state.clean), bank.denoiser_calls

    def _spread(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
        """Standard deviation over the set that each image is in."""
        spread = x.reshape(-1, self._set_size * x[0].numel()).std(dim=1)
        return spread.repeat_interleave(self._set_size)[:, None, None, None]


def resized_like(x: Float[Tensor, "b c h w"], like: Float[Tensor, "b k hx wx"]) -> Float[Tensor, "b c hx wx"]:
    """Images as large as others, bilinearly."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
