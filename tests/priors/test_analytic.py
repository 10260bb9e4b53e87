from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from studio.errors import StudioError
from studio.interfaces import Prior
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Condition

SHAPE = (3, 2, 2)
SCHEDULES = {
    "vp": NoiseSchedule.scaled_linear(),
    "flow": NoiseSchedule.rectified_flow(),
    "ve": NoiseSchedule("ve", torch.linspace(8.0, -4.0, 1000, dtype=torch.float64)),
}
TIMESTEPS = torch.tensor([30.0, 250.0, 600.5, 900.0])


def random_mixture(seed: int, components: int = 3) -> GaussianMixture:
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(components, *SHAPE, generator=rng, dtype=torch.float64)
    stds, weights = 0.2 + torch.rand(2, components, generator=rng, dtype=torch.float64)
    return GaussianMixture(means, stds, weights)


def noisy_images(seed: int = 0) -> Tensor:
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def score_by_autograd(mixture: GaussianMixture, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
    """The gradient of the log-density of the noised mixture, which torch's own distributions know."""
    spread = (alpha**2 * mixture.stds**2 + sigma**2).sqrt()
    components = Independent(Normal(alpha * mixture.means.flatten(1), spread[:, None]), 1)
    density = MixtureSameFamily(Categorical(mixture.weights), components)
    point = x_t.flatten().clone().requires_grad_()
    (score,) = torch.autograd.grad(density.log_prob(point), point)
    return score.view_as(x_t)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noise_is_minus_sigma_times_the_score(name: str) -> None:
    schedule = SCHEDULES[name]
    mixtures = {"": random_mixture(0), "a": random_mixture(1)}
    prior = AnalyticPrior(mixtures, schedule)
    prompts = ["a", "", "a", ""]
    x_t = noisy_images()
    got = prior.predict_noise(x_t, TIMESTEPS, Condition(prior.encode_prompts(prompts)))
    alpha, sigma = schedule.alpha_sigma(TIMESTEPS, torch.float64)
    for row, prompt in enumerate(prompts):
        score = score_by_autograd(mixtures[prompt], x_t[row], alpha[row].item(), sigma[row].item())
        torch.testing.assert_close(got[row], -sigma[row] * score, atol=1e-10, rtol=1e-10)


def test_one_point_mass_knows_the_very_noise() -> None:
    schedule = SCHEDULES["vp"]
    clean, noise = noisy_images(0), noisy_images(1)
    prior = AnalyticPrior({"": GaussianMixture.particles(clean[:1])}, schedule)
    x_t = schedule.add_noise(clean[:1].expand(4, -1, -1, -1), noise, TIMESTEPS)
    got = prior.predict_noise(x_t, TIMESTEPS, Condition(prior.encode_prompts([""])))
    torch.testing.assert_close(got, noise, atol=1e-9, rtol=0)


def test_particles_far_apart_are_told_apart() -> None:
    """No underflow: thousands of standard deviations from all but one particle."""
    schedule = SCHEDULES["vp"]
    particles = 100.0 * torch.stack([torch.full(SHAPE, float(k)) for k in range(5)])
    prior = AnalyticPrior({"": GaussianMixture.particles(particles)}, schedule)
    timesteps = torch.full((5,), 100.0)
    noise = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t = schedule.add_noise(particles.double(), noise, timesteps)
    got = prior.predict_noise(x_t, timesteps, Condition(prior.encode_prompts([""])))
    torch.testing.assert_close(got, noise, atol=1e-9, rtol=0)


def test_noise_prediction_is_the_best_guess() -> None:
    """E[noise | x_t] leaves a residual that x_t does not explain: their correlation is zero."""
    schedule = SCHEDULES["vp"]
    mixture = random_mixture(3)
    prior = AnalyticPrior({"": mixture}, schedule)
    rng = torch.Generator().manual_seed(0)
    count = 40_000
    component = torch.multinomial(mixture.weights, count, replacement=True, generator=rng)
    spread, noise = torch.randn(2, count, *SHAPE, generator=rng, dtype=torch.float64)
    clean = mixture.means[component] + mixture.stds[component][:, None, None, None] * spread
    timesteps = torch.full((count,), 400.0)
    x_t = schedule.add_noise(clean, noise, timesteps)
    residual = noise - prior.predict_noise(x_t, timesteps, Condition(prior.encode_prompts([""])))
    for feature in (torch.ones_like(x_t), x_t, x_t.tanh(), x_t**2):
        product = (residual * feature).flatten(1).mean(1)
        assert abs(product.mean().item()) < 4 * product.std().item() / count**0.5


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_prediction_type_says_the_same(name: str) -> None:
    x_t = noisy_images()
    predicted = []
    for prediction in Prediction:
        prior = AnalyticPrior({"": random_mixture(0)}, SCHEDULES[name], prediction)
        predicted.append(prior.predict_noise(x_t, TIMESTEPS, Condition(prior.encode_prompts([""]))))
    for other in predicted[1:]:
        torch.testing.assert_close(other, predicted[0], atol=1e-9, rtol=1e-9)


def test_an_x0_network_outputs_the_posterior_mean() -> None:
    """For one Gaussian: the precision-weighted mean of prior and observation."""
    mean, std, schedule = 0.3, 0.5, SCHEDULES["vp"]
    gaussian = GaussianMixture.gaussian(torch.full(SHAPE, mean, dtype=torch.float64), std)
    prior = AnalyticPrior({"": gaussian}, schedule, Prediction.X0)
    x_t = noisy_images()
    output = prior.network_output(x_t, TIMESTEPS, Condition(prior.encode_prompts([""])))
    alpha, sigma = schedule.alpha_sigma(TIMESTEPS, torch.float64)
    expected = (mean / std**2 + alpha * x_t / sigma**2) / (1 / std**2 + alpha**2 / sigma**2)
    torch.testing.assert_close(output, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_network_may_be_less_precise(dtype: torch.dtype) -> None:
    x_t = noisy_images().float()
    exact, coarse = (
        AnalyticPrior({"": random_mixture(0)}, SCHEDULES["vp"], dtype=dtype)
        for dtype in (torch.float64, dtype)
    )
    condition = Condition(exact.encode_prompts([""]))
    assert coarse.network_output(x_t, TIMESTEPS, condition).dtype == dtype
    got = coarse.predict_noise(x_t, TIMESTEPS, condition)
    assert got.dtype == torch.float32
    error = (got - exact.predict_noise(x_t, TIMESTEPS, condition)).abs().max().item()
    assert error < 8 * torch.finfo(dtype).eps


def test_it_is_a_prior_whose_variable_is_the_image() -> None:
    prior = AnalyticPrior({"": random_mixture(0)}, SCHEDULES["vp"])
    assert isinstance(prior, Prior)
    rgb = noisy_images().requires_grad_()
    assert prior.decode_images(prior.encode_images(rgb)) is rgb


def test_an_unknown_prompt_is_named_with_the_nearest_known_one() -> None:
    prior = AnalyticPrior({"": random_mixture(0), "corgi": random_mixture(1)}, SCHEDULES["vp"])
    with pytest.raises(StudioError, match=r"'corgy' names no distribution.*Did you mean 'corgi'\?"):
        prior.encode_prompts(["corgi", "corgy"])
