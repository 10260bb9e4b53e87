"""Critics whose distribution is given, and one-number images, on which ensembles cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from studio.cameras import orbit
from studio.guidance.critic import Critic
from studio.guidance.forward import diffused
from studio.guidance.method import Method
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.state import MAIN, State, Term
from studio.interfaces import Prior
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.schedule import NoiseSchedule
from studio.types import Condition, Conditioning, GuidanceOutput
from tests.guidance.bench import STABLE_DIFFUSION, GivenNoise, GivenTimes


@dataclass(frozen=True)
class GivenCritic:
    """Answers as it is told to, and learns nothing."""

    answer: Callable[[Tensor, Tensor, Condition], Tensor]

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        return self.answer(x_t, timesteps, condition)

    def learn(self, clean: Tensor, conditioning: Conditioning, rng: torch.Generator) -> Mapping[str, float]:
        return {}

    def training_calls(self, batch: int) -> int:
        return 0

    def state(self) -> Mapping[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        assert not state


def knowing(
    distribution: GaussianMixture,
    without_camera: GaussianMixture | None = None,
    schedule: NoiseSchedule = STABLE_DIFFUSION,
) -> GivenCritic:
    """The exact score of a distribution, or of another one where it is told no camera."""

    def answer(x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        camera_free = without_camera is not None and condition.cameras is None
        known = without_camera if camera_free and without_camera is not None else distribution
        return known.noise(x_t, *schedule.alpha_sigma(timesteps, x_t.dtype))

    return GivenCritic(answer)


def run_beside(
    critic: Critic,
    method: Method,
    prior: Prior,
    conditioning: Conditioning,
    x: Tensor,
    timesteps: Tensor | float,
    noise: Tensor,
) -> GuidanceOutput:
    """One call at given levels, with given noise and a given critic."""
    given = replace(method, times=GivenTimes(torch.as_tensor(timesteps)), noise=GivenNoise(noise))
    return ScoreDistillation(prior, given, critic=critic)(x, conditioning, 0.0, torch.Generator())


def told_cameras(conditioning: Conditioning, batch: int) -> Conditioning:
    """With a plain prompt that knows the views."""
    cameras = orbit(torch.linspace(0, 180, batch), torch.zeros(batch), 4, 4)
    return replace(conditioning, plain=Condition(conditioning.positive.prompt, cameras))


class OneNumber(AnalyticPrior):
    """Images of one number: the first channel of the first pixel."""

    def encode_images(self, rgb: Tensor) -> Tensor:
        return rgb[:, :1, :1, :1]


def mixture(means: Sequence[float], std: float, weights: Sequence[float] | None = None) -> GaussianMixture:
    """Of numbers."""
    centres = torch.tensor(means, dtype=torch.float64)
    shares = torch.ones_like(centres) if weights is None else torch.tensor(weights, dtype=torch.float64)
    return GaussianMixture(centres[:, None, None, None], torch.full_like(centres, std), shares)


def numbers(values: Tensor) -> Tensor:
    """As images of three equal channels."""
    return values.double()[:, None, None, None].expand(-1, 3, 1, 1)


def state_at(clean: Tensor, noise: Tensor, timestep: float) -> State:
    """Images at one level."""
    return diffused(clean, noise, {MAIN: torch.full((len(clean),), timestep)}, STABLE_DIFFUSION)


def score_of(distribution: GaussianMixture, state: State) -> Tensor:
    """The exact noise prediction, differentiable."""
    return distribution.noise(state.noisy[MAIN], *state.alpha_sigma())


def scores_of(state: State, distributions: Mapping[Term, GaussianMixture]) -> dict[Term, Tensor]:
    return {term: score_of(distribution, state) for term, distribution in distributions.items()}
