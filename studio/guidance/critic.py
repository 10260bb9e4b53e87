"""Critics: whoever knows the score of what is rendered, as the prior knows the score of images.

A trained critic learns by denoising score matching on the renders of each step,

    min E |predict(alpha x + sigma noise, t, camera) - target|²,   t ~ U{0 ... T - 1}

with noise levels and noise of its own, whatever window the scene is guided in. All that it learns is part of
the run. A fitted critic is the exact score of a distribution fitted to the step's renders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.guidance.denoiser import SmallDenoiser
from studio.guidance.learner import Learner
from studio.guidance.refusals import limits_of
from studio.guidance.terms import told_to_critic
from studio.interfaces import Limits, NoisePredictor, Prior, TrainableNetwork, TunablePrior
from studio.randomness import generator
from studio.recipes.guidance.critics import CriticConfig, FittedCriticConfig, TrainedCriticConfig
from studio.schedule import NoiseSchedule
from studio.types import Cameras, Condition, Conditioning


@runtime_checkable
class Critic(NoisePredictor, Protocol):
    """A noise predictor that follows the renders."""

    def learn(
        self, clean: Float[Tensor, "b c h w"], conditioning: Conditioning, rng: torch.Generator
    ) -> Mapping[str, float]:
        """Take in a step's renders; figures worth logging, by name. ``rng`` is read, never advanced."""

    def training_calls(self, batch: int) -> int:
        """Images that ``learn`` sends through the denoiser."""

    def state(self) -> Mapping[str, Tensor]:
        """All that was learned, by name."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state; from the empty one, start anew."""


class TrainedCritic:
    """A network trained by denoising score matching.

    Args:
        schedule: the prior's.
        limits: the prior's, which the network shares: views of a set learn at one level.
    """

    def __init__(
        self,
        config: TrainedCriticConfig,
        network: TrainableNetwork,
        schedule: NoiseSchedule,
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        self._config = config
        self._limits = limits
        self._network = network
        self._schedule = schedule
        self._learner = Learner(network.parameters(), config.learning_rate)

    def predict_noise(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        """The noise in ``x_t`` if it came from the renders."""
        return self._network.predict_noise(x_t, timesteps, condition)

    def learn(
        self, clean: Float[Tensor, "b c h w"], conditioning: Conditioning, rng: torch.Generator
    ) -> Mapping[str, float]:
        """A few steps of denoising score matching, each with levels, noise and dropped conditions of its own.

        Whether the camera or the prompt is dropped is drawn once for a step's whole batch, as ProlificDreamer
        does.
        """
        losses = [self._update(clean, conditioning, rng) for _ in range(self._config.updates)]
        return {"critic_loss": sum(losses) / len(losses)}

    def training_calls(self, batch: int) -> int:
        """One for each image and update."""
        return batch * self._config.updates

    def state(self) -> Mapping[str, Tensor]:
        """Weights, moments and the count of updates, which names the next draws."""
        return self._learner.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state; from the empty one, with the first weights."""
        self._learner.load_state(state)

    def _update(self, clean: Tensor, conditioning: Conditioning, rng: torch.Generator) -> float:
        config, device = self._config, clean.device
        draws = generator(rng.initial_seed(), "critic", self._learner.updates, device)
        views = self._limits.views
        levels = torch.randint(len(self._schedule), (len(clean) // views,), generator=draws, device=device)
        timesteps = levels.float().repeat_interleave(views)
        noise = torch.randn(clean.shape, generator=draws, device=device, dtype=clean.dtype)
        camera_dropped, prompt_dropped = torch.rand(2, generator=draws, device=device).tolist()
        condition = told_to_critic(conditioning)
        if camera_dropped < config.camera_drop and not self._limits.needs_camera:
            condition = replace(condition, cameras=None)
        if prompt_dropped < config.prompt_drop:
            condition = replace(condition, prompt=conditioning.null.prompt)
        x_t = self._schedule.add_noise(clean, noise, timesteps)
        with torch.enable_grad():
            predicted = self._network.predict_noise(x_t, timesteps, condition).to(clean.dtype)
            error = (predicted - noise) * self._error_scale(timesteps, clean.dtype)
            return self._learner.descend(error.square().mean())

    def _error_scale(self, timesteps: Tensor, dtype: torch.dtype) -> Float[Tensor, "b 1 1 1"]:
        """What turns an error of the noise into one of the target, times the root of the level's weight.

        With x_t given, x0 = (x_t - sigma noise)/alpha and v = alpha noise - sigma x0 are affine in the noise.
        """
        alpha, sigma = self._schedule.alpha_sigma(timesteps, dtype)
        match self._config.target:
            case "epsilon":
                scale = torch.ones_like(alpha)
            case "v":
                scale = alpha + sigma**2 / alpha
            case "x0":
                scale = sigma / alpha
            case _:
                assert_never(self._config.target)
        if self._config.snr_cap is None:
            return scale
        return scale * (alpha / sigma).clamp(max=self._config.snr_cap**0.5)


@dataclass
class FittedCritic:
    """The exact score of a Gaussian, or of point masses, fitted to the last renders it was shown.

    Told a camera, it knows the renders from there: one of each of a run's particles. Told none, all.
    """

    schedule: NoiseSchedule
    shape: str
    renders: Float[Tensor, "n c h w"] | None = None
    cameras: Cameras | None = None

    def predict_noise(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        """``sigma (x_t - alpha mean)/v``, the mean weighted by likelihood where there are several."""
        assert self.renders is not None, "a fitted critic is shown renders before it is asked"
        alpha, sigma = (level.flatten(1) for level in self.schedule.alpha_sigma(timesteps, x_t.dtype))
        points, flat = self.renders.to(x_t).flatten(1), x_t.flatten(1)
        known = self._known(condition.cameras, len(points)).to(x_t.device)
        if self.shape == "gaussian":
            share = (known / known.sum(1, keepdim=True)).to(x_t.dtype)
            mean = share @ points
            variance = torch.einsum("bn,bnd->bd", share, (points - mean[:, None]).square())
            return (sigma * (flat - alpha * mean) / (alpha**2 * variance + sigma**2)).view_as(x_t)
        # |x_t - alpha p|² up to what is the same for all points.
        distances = alpha**2 * points.square().sum(1) - 2 * alpha * flat @ points.T
        likely = (-distances / (2 * sigma**2)).masked_fill(~known, -torch.inf).softmax(dim=1)
        return ((flat - alpha * likely @ points) / sigma).view_as(x_t)

    def learn(
        self, clean: Float[Tensor, "b c h w"], conditioning: Conditioning, rng: torch.Generator
    ) -> Mapping[str, float]:
        """Take all of the step's renders, and none before."""
        self.renders, self.cameras = clean.detach(), told_to_critic(conditioning).cameras
        return {}

    def _known(self, asked: Cameras | None, count: int) -> Bool[Tensor, "b n"]:
        """Which renders are from the camera that is asked about; all, where none is named."""
        if asked is None or self.cameras is None:
            return torch.ones(1, count, dtype=torch.bool)
        differences = asked.world_to_camera[:, None] - self.cameras.world_to_camera
        return (differences == 0).all(dim=(-1, -2))

    def training_calls(self, batch: int) -> int:
        """None."""
        return 0

    def state(self) -> Mapping[str, Tensor]:
        """Nothing: each step starts from its own renders."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to load."""


def build_critic(config: CriticConfig, prior: Prior) -> Critic:
    """The critic that a recipe describes, beside its prior."""
    match config:
        case TrainedCriticConfig():
            network = trainable_network(config, prior)
            return TrainedCritic(config, network, prior.schedule, limits_of(prior))
        case FittedCriticConfig():
            return FittedCritic(prior.schedule, config.shape)
        case _:
            assert_never(config)


def trainable_network(config: TrainedCriticConfig, prior: Prior) -> TrainableNetwork:
    """The prior's own network with a change to be learned, or a small one from nothing where it has none.

    Raises:
        StudioError: only an embedding is to be learned, and the prior has no network to read it.
    """
    rng = generator(config.seed, "critic weights")
    if isinstance(prior, TunablePrior):
        return prior.tunable(config.rank, rng)
    if config.rank == 0:
        raise StudioError(
            "critic.rank is 0, which learns the empty prompt of the prior's network, and this prior has no "
            "network; expected a learned prior, try critic.rank = 4"
        )
    return SmallDenoiser(prior.schedule, rng)
