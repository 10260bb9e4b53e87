"""How much likelier a noisy image is under the prior than among the renders, as a classifier learns it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from studio.guidance.learner import Learner
from studio.randomness import generator
from studio.recipes.guidance.matching import RatioHeadConfig
from studio.schedule import NoiseSchedule

LIMIT = 10.0
"""Bound on the logarithm."""
_SIDE = 8
_WAVES = 4


class RatioHead:
    """A classifier of noisy images: its logit is log p/q where it has learned to tell the two apart.

    A scene has no real images to show it. Its examples of the prior are the renders as the prior denoises
    them, noised again; so it is a ratio to the prior's opinion of the renders, good for weighing them and not
    for comparing densities. It sees the mean and the spread of the channels, averaged to 8 x 8, and the noise
    level.
    """

    def __init__(self, config: RatioHeadConfig, schedule: NoiseSchedule) -> None:
        self._schedule = schedule
        seen = 2 * _SIDE**2 + 2 * _WAVES
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(config.seed, "ratio weights").initial_seed())
            self._network = nn.Sequential(
                nn.Linear(seen, config.width), nn.SiLU(), nn.Linear(config.width, config.width), nn.SiLU(),
                nn.Linear(config.width, 1),
            )  # fmt: skip
        nn.init.zeros_(self._network[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self._network[-1].bias)  # type: ignore[arg-type]
        self._learner = Learner(dict(self._network.named_parameters()), config.learning_rate)

    def __call__(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"]
    ) -> Float[Tensor, "b 1 1 1"]:
        """Log p/q of each noisy image, within ``LIMIT``; 0 before anything is learned."""
        return self._logits(x_t, timesteps).clamp(-LIMIT, LIMIT)[:, None, None, None].to(x_t.dtype)

    def learn(
        self, renders: Float[Tensor, "b c h w"], denoised: Float[Tensor, "b c h w"], rng: torch.Generator
    ) -> Mapping[str, float]:
        """One step of logistic regression at levels of its own; whoever guesses has a loss of ln 2.

        Args:
            renders: examples of q.
            denoised: examples of p.
            rng: read, never advanced.
        """
        device = renders.device
        draws = generator(rng.initial_seed(), "ratio", self._learner.updates, device)
        levels, batch = len(self._schedule), len(renders)
        timesteps = torch.randint(levels, (batch,), generator=draws, device=device).float()
        noise = torch.randn(renders.shape, generator=draws, device=device, dtype=renders.dtype)
        with torch.enable_grad():
            logits = [
                self._logits(self._schedule.add_noise(images, noise, timesteps), timesteps)
                for images in (denoised, renders)
            ]
            loss = 0.5 * (functional.softplus(-logits[0]).mean() + functional.softplus(logits[1]).mean())
            return {"ratio_loss": self._learner.descend(loss)}

    def state(self) -> Mapping[str, Tensor]:
        """All that was learned."""
        return self._learner.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state; from the empty one, start anew."""
        self._learner.load_state(state)

    def _logits(self, x_t: Tensor, timesteps: Tensor) -> Float[Tensor, "b"]:
        seen = torch.stack([x_t.mean(1), x_t.std(1)], dim=1).float()
        small = functional.interpolate(seen, (_SIDE, _SIDE), mode="area").flatten(1)
        level = self._schedule.log_snr_at(timesteps).float()[:, None]
        waves = level / 4 * 2.0 ** torch.arange(_WAVES, device=x_t.device)
        logits: Tensor = self._network.to(x_t.device)(torch.cat([small, waves.sin(), waves.cos()], dim=1))
        return logits.flatten()
