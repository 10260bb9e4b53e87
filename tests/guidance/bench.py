"""The bench on which methods are measured: small images, known distributions, noise and levels by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from studio.guidance.forward import NoisePolicy, Rounds, diffused
from studio.guidance.inversion import Denoised, Descended, Inverted, Ode, Refined
from studio.guidance.method import Method
from studio.guidance.noise import Switched
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.state import MAIN, Levels, State, Term
from studio.guidance.terms import ScoreBank
from studio.guidance.times import Ahead, Anchored, Between, Raised, TimeSampler
from studio.interfaces import Prior
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Condition, Conditioning, GuidanceOutput, PromptEmbedding, Repulsion

SHAPE = (3, 4, 4)
STABLE_DIFFUSION = NoiseSchedule.scaled_linear()
PROMPT, NULL_A, NULL_B = (1.0, 0.5), (0.2, 0.5), (0.2, 1.0)
"""(mean, std) of the prompt's Gaussian, and of unconditional ones of equal and of unequal spread."""


def gaussian(mean: float, std: float) -> GaussianMixture:
    return GaussianMixture.gaussian(torch.full(SHAPE, mean, dtype=torch.float64), std)


def random_mixture(seed: int) -> GaussianMixture:
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(4, *SHAPE, generator=rng, dtype=torch.float64)
    stds, weights = 0.3 + torch.rand(2, 4, generator=rng, dtype=torch.float64)
    return GaussianMixture(means, stds, weights)


def two_gaussians(null: tuple[float, float] = NULL_A) -> AnalyticPrior:
    return AnalyticPrior({"": gaussian(*null), "c": gaussian(*PROMPT)}, STABLE_DIFFUSION)


def mixtures(
    schedule: NoiseSchedule = STABLE_DIFFUSION,
    prediction: Prediction = Prediction.EPSILON,
    dtype: torch.dtype = torch.float64,
) -> AnalyticPrior:
    """A prior with nothing simple about it: five prompts, each a mixture of its own."""
    names = ["", "c", "neg", "wrong1", "wrong2"]
    return AnalyticPrior(
        {name: random_mixture(seed) for seed, name in enumerate(names)}, schedule, prediction, dtype
    )


def branch(prior: Prior, *prompts: str) -> Condition:
    return Condition(prior.encode_prompts(prompts))


def conditioning_of(prior: Prior, positive: str = "c", negatives: Sequence[str] = ()) -> Conditioning:
    return Conditioning(
        branch(prior, positive), branch(prior, ""), tuple(branch(prior, negative) for negative in negatives)
    )


def with_wrong_views(conditioning: Conditioning, prior: Prior, weights: Tensor) -> Conditioning:
    return replace(
        conditioning, repulsion=Repulsion((branch(prior, "wrong1"), branch(prior, "wrong2")), weights)
    )


@dataclass(frozen=True)
class GivenTimes:
    """Levels by hand."""

    timesteps: Tensor

    def __call__(self, schedule: NoiseSchedule, progress: float, batch: int, rng: torch.Generator) -> Levels:
        return {MAIN: self.timesteps.float().expand(batch)}

    def extremes(self, schedule: NoiseSchedule, progress: float) -> tuple[Levels, Levels]:
        timesteps = self.timesteps.float().reshape(-1)
        return {MAIN: timesteps.min()[None]}, {MAIN: timesteps.max()[None]}


@dataclass(frozen=True)
class GivenNoise:
    """Noise by hand."""

    noise: Tensor

    def __call__(
        self,
        clean: Tensor,
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        return diffused(clean, self.noise.to(clean), levels, schedule)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        return ()

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        return ()


def at(times: TimeSampler, timesteps: Tensor) -> TimeSampler:
    """The sampler, with the level that it draws given; what it adds to it stays."""
    match times:
        case Anchored() | Between() | Ahead() | Raised():
            return replace(times, inner=at(times.inner, timesteps))
        case _:
            return GivenTimes(timesteps)


def under(policy: NoisePolicy, noise: Tensor) -> NoisePolicy:
    """The policy, with the noise that it draws given; what the prior finds by itself stays."""
    match policy:
        case Refined() | Descended() | Denoised():
            return replace(policy, inner=under(policy.inner, noise))
        case Switched():
            return replace(policy, before=under(policy.before, noise), after=under(policy.after, noise))
        case Inverted() | Ode():
            return policy
        case _:
            return GivenNoise(noise)


def run(
    method: Method,
    prior: Prior,
    conditioning: Conditioning,
    x: Tensor,
    timesteps: Tensor | float,
    noise: Tensor,
    progress: float = 0.0,
) -> GuidanceOutput:
    """One call at given levels, with given noise."""
    given = replace(
        method, times=at(method.times, torch.as_tensor(timesteps)), noise=under(method.noise, noise)
    )
    return ScoreDistillation(prior, given)(x, conditioning, progress, torch.Generator())


def expected_gradient(
    method: Method,
    prior: Prior,
    conditioning: Conditioning,
    x: Tensor,
    timestep: float,
    progress: float = 0.0,
) -> Tensor:
    """The gradient averaged over the noise: exact for Gaussians, where it is affine in the noise."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    both = run(method, prior, conditioning, torch.cat([x, x]), timestep, torch.cat([noise, -noise]), progress)
    return both.gradient.view(2, *x.shape).mean(0)


def images(batch: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *SHAPE, generator=rng, dtype=torch.float64)


def constant(value: float, batch: int = 1) -> Tensor:
    return torch.full((batch, *SHAPE), value, dtype=torch.float64)


class CountingPrior:
    """A prior that remembers how it was asked."""

    def __init__(self, inner: AnalyticPrior) -> None:
        self.inner = inner
        self.forward_sizes: list[int] = []

    @property
    def schedule(self) -> NoiseSchedule:
        return self.inner.schedule

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        return self.inner.encode_prompts(prompts)

    def encode_images(self, rgb: Tensor) -> Tensor:
        return self.inner.encode_images(rgb)

    def decode_images(self, x: Tensor) -> Tensor:
        return self.inner.decode_images(x)

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        self.forward_sizes.append(len(x_t))
        return self.inner.predict_noise(x_t, timesteps, condition)


def by_name(distributions: Mapping[str, GaussianMixture]) -> AnalyticPrior:
    return AnalyticPrior(distributions, STABLE_DIFFUSION)
