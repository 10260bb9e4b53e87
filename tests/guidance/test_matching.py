"""Distribution matching and the losses through both networks against pencil and paper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.guidance.critic import FittedCritic
from studio.guidance.dmd2 import DistributionMatching, mean_distance
from studio.guidance.f_distill import importance
from studio.guidance.methods import descends_through_prior, method_of, negative_prompts
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.sim import distance_slope
from studio.guidance.state import CRITIC, LOG_RATIO, MAIN, NULL, POSITIVE
from studio.guidance.tdm import huber_slope
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.recipes.guidance import (
    Divergence,
    Dmd2Config,
    FDistillConfig,
    SfdConfig,
    SidConfig,
    SimConfig,
    TdmConfig,
    VsdConfig,
)
from studio.types import Condition, Conditioning, NegativePrompt
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    by_name,
    conditioning_of,
    gaussian,
    images,
    mixtures,
    random_mixture,
    two_gaussians,
)
from tests.guidance.critics import GivenCritic, knowing, mixture, run_beside, score_of, scores_of, state_at
from tests.truth.gaussian import stable_diffusion_level, variance

TIME = 600.0


def direction(config: Dmd2Config | TdmConfig | VsdConfig | SidConfig | SimConfig | SfdConfig) -> Tensor:
    """Of three images, beside a critic that knows a mixture of its own."""
    prior = mixtures()
    conditioning = conditioning_of(prior, negatives=["neg"])
    critic = knowing(random_mixture(3))
    return run_beside(critic, method_of(config), prior, conditioning, images(3), TIME, images(3, 1)).gradient


def clean_by_hand(prompt_scale: float) -> tuple[Tensor, Tensor]:
    """x0 of the guided prior and of the critic, for the images of ``direction``."""
    state = state_at(images(3), images(3, 1), TIME)
    alpha, sigma = stable_diffusion_level(int(TIME))
    positive, null, critic = (score_of(random_mixture(seed), state) for seed in (1, 0, 3))
    guided = null + prompt_scale * (positive - null)
    x_t = state.noisy[MAIN]
    return (x_t - sigma * guided) / alpha, (x_t - sigma * critic) / alpha


# DMD2


def test_dmd_is_the_difference_of_clean_images_over_the_distance() -> None:
    guided, critic = clean_by_hand(1.75)
    distance = (images(3) - guided).abs().mean(dim=(1, 2, 3), keepdim=True)
    expected = (critic - guided) / (distance + 1e-6)
    torch.testing.assert_close(direction(Dmd2Config()), expected)


def test_dmd_is_vsd_over_the_distance() -> None:
    alpha, sigma = stable_diffusion_level(int(TIME))
    guided, _ = clean_by_hand(7.5)
    distance = (images(3) - guided).abs().mean(dim=(1, 2, 3), keepdim=True) + 1e-6
    vsd = direction(VsdConfig(cfg_scale=7.5, weight="uniform"))
    torch.testing.assert_close(direction(Dmd2Config(cfg_scale=7.5)), sigma / alpha / distance * vsd)


def test_dmd_does_not_care_for_the_unit_of_its_images() -> None:
    """Everything a hundred times larger, the guided and the critic's clean images too: the same direction."""
    guided, critic = images(3, 1), images(3, 2)
    combine = DistributionMatching(1.0)

    def at(unit: float) -> Tensor:
        state = state_at(unit * images(3), images(3, 3), TIME)
        alpha, sigma = state.alpha_sigma()
        scores = {
            term: (state.noisy[MAIN] - alpha * unit * clean) / sigma
            for term, clean in ((POSITIVE, guided), (CRITIC, critic))
        }
        return combine(scores, state, 0.0)

    torch.testing.assert_close(at(100.0), at(1.0), atol=1e-5, rtol=1e-5)


def test_dmd_rests_where_the_critic_is_the_prior_and_divides_by_nothing() -> None:
    prior = mixtures()
    method = method_of(Dmd2Config(cfg_scale=1.0))
    arguments = (method, prior, conditioning_of(prior), images(3), TIME, images(3, 1))
    assert run_beside(GivenCritic(prior.predict_noise), *arguments).gradient.abs().max() < 1e-9
    x = images(1)
    known = by_name({"": gaussian(0.0, 1.0), "c": GaussianMixture.particles(x)})
    got = run_beside(
        knowing(gaussian(0.5, 0.5)), method, known, conditioning_of(known), x, TIME, images(1, 1)
    )
    assert bool(got.gradient.isfinite().all())


def test_matching_keeps_the_spread_of_a_gaussian() -> None:
    """Stochastic, with the exact critic of each step: the fixed distribution is VSD's."""
    config = Dmd2Config(cfg_scale=1.0)
    prior, rng = two_gaussians(), torch.Generator().manual_seed(0)
    critic = FittedCritic(STABLE_DIFFUSION, "gaussian")
    guidance = ScoreDistillation(prior, method_of(config), critic=critic)
    particles = -1.0 + 1.2 * torch.randn(100, 3, 4, 4, generator=rng, dtype=torch.float64)
    for rate in torch.linspace(0.2, 0.01, 150).tolist():
        particles = particles - rate * guidance(particles, conditioning_of(prior), 0.0, rng).gradient
    assert particles.mean().item() == pytest.approx(1.0, abs=0.03)
    assert particles.std(0).mean().item() == pytest.approx(0.5, abs=0.03)


# f-distill

GENERATORS: dict[Divergence, tuple[Callable[[np.ndarray], np.ndarray], float, float]] = {
    "reverse_kl": (lambda r: -np.log(r), 1.0, -0.5),
    "forward_kl": (lambda r: r * np.log(r), 1.0, -0.5),
    "jensen_shannon": (lambda r: r * np.log(r) - (1 + r) * np.log((1 + r) / 2), 1.0, -0.23526),
    "softened_reverse_kl": (lambda r: (1 + r) * np.log((1 + r) / (2 * r)), 1.0, -0.26474),
    "hellinger": (lambda r: (1 - np.sqrt(r)) ** 2, 0.5, -0.24231),
    "jeffreys": (lambda r: (r - 1) * np.log(r), 1.0, -1.0),
    "neyman": (lambda r: (1 - r) ** 2 / r, 2.0, -1.28403),
}
"""f of E_q f(p/q), what ``importance`` leaves out, and d/dm for p = N(0.5, 1), q = N(m, 1) at m = 0."""


def density(x: np.ndarray, mean: float) -> np.ndarray:
    density: np.ndarray = np.exp(-0.5 * (x - mean) ** 2) / np.sqrt(2 * np.pi)
    return density


@pytest.mark.parametrize("divergence", GENERATORS)
def test_importance_is_the_slope_of_its_divergence(divergence: Divergence) -> None:
    generator, factor, published = GENERATORS[divergence]
    x = np.linspace(-12, 13, 200_001)
    step = x[1] - x[0]

    def divergence_of(mean: float) -> float:
        q = density(x, mean)
        return float((q * generator(density(x, 0.5) / q)).sum() * step)

    finite_difference = (divergence_of(1e-4) - divergence_of(-1e-4)) / 2e-4
    q = density(x, 0.0)
    weights = importance(divergence, torch.from_numpy(density(x, 0.5) / q)).numpy()
    score_difference = -x + (x - 0.5)  # s_q - s_p
    got = factor * float((q * weights * score_difference).sum() * step)
    assert got == pytest.approx(finite_difference, abs=1e-6)
    assert got == pytest.approx(published, abs=1e-5)


def weighed(divergence: Divergence, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """f-distill's direction, and DMD's, for given log-ratios of the images."""
    state = state_at(images(4), images(4, 1), TIME)
    known = {POSITIVE: random_mixture(1), NULL: random_mixture(0), CRITIC: random_mixture(3)}
    scores = scores_of(state, known)
    scores[LOG_RATIO] = log_ratio.double()[:, None, None, None].expand(-1, 3, 4, 4)
    method = method_of(FDistillConfig(divergence=divergence))
    return method.combine(scores, state, 0.0), DistributionMatching(1.75)(scores, state, 0.0)


@pytest.mark.parametrize("divergence", GENERATORS)
def test_a_constant_ratio_makes_every_divergence_dmd(divergence: Divergence) -> None:
    got, dmd = weighed(divergence, torch.full((4,), 0.7))
    torch.testing.assert_close(got, dmd)


@pytest.mark.parametrize("divergence", GENERATORS)
def test_the_weights_have_mean_one(divergence: Divergence) -> None:
    log_ratio = torch.tensor([-1.0, 0.0, 0.5, 30.0])
    got, dmd = weighed(divergence, log_ratio)
    weights = (got / dmd).mean(dim=(1, 2, 3))
    assert weights.mean().item() == pytest.approx(1.0)
    ratio = log_ratio.double().exp().clamp(0.1, 20.0)
    expected = importance(divergence, ratio)
    torch.testing.assert_close(weights / weights[1], expected / expected[1])
    assert (divergence == "reverse_kl") == torch.allclose(got, dmd)


# TDM


def test_one_step_of_tdm_without_its_huber_loss_is_dmd() -> None:
    dmd, squared = direction(Dmd2Config(cfg_scale=2.0)), direction(TdmConfig(huber=None))
    torch.testing.assert_close(squared, dmd)
    wide, narrow = direction(TdmConfig(huber=1e4)), direction(TdmConfig(huber=1e-3))
    torch.testing.assert_close(wide, dmd, atol=1e-6, rtol=1e-6)
    guided, critic = clean_by_hand(2.0)
    distance = (images(3) - guided).abs().mean(dim=(1, 2, 3), keepdim=True)
    sign = 1e-3 * (critic - guided).sign() / distance
    far = (critic - guided).abs() > 0.1
    torch.testing.assert_close(narrow[far], sign[far], atol=0, rtol=1e-3)


def test_guided_difference_of_tdm_is_dmds() -> None:
    """The paper writes x0_critic - x0_c - (w - 1)(x0_c - x0_null), which is x0_critic - x0_w."""
    with_guidance, critic = clean_by_hand(2.0)
    positive, null = clean_by_hand(1.0)[0], clean_by_hand(0.0)[0]
    torch.testing.assert_close(critic - positive - (positive - null), critic - with_guidance)


def test_the_huber_slope_is_that_of_its_loss() -> None:
    x = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    loss = 0.3 * (x**2 + 0.3**2).sqrt().sum()
    (slope,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(huber_slope(x.detach(), 0.3), slope)


# SiD, SIM, SFD

PRIOR, MEAN = (0.5, 0.5), -0.3
"""(mean, std) of the prior's Gaussian; mean of the renders'."""


def quadrature(mean: float, std: float) -> tuple[Tensor, Tensor, Tensor]:
    """Images x ~ N(mean, std²) of one number, noise ~ N(0, 1), and weights: exact for low polynomials."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights = weights / weights.sum()
    first, second = np.meshgrid(nodes, nodes, indexing="ij")
    return (
        torch.from_numpy(mean + std * first.ravel())[:, None, None, None],
        torch.from_numpy(second.ravel())[:, None, None, None],
        torch.from_numpy(np.outer(weights, weights).ravel()),
    )


def through(
    config: SidConfig | SimConfig, std: float, timestep: float = 300.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses, their gradient on the images, distances to the prior's x0, and the quadrature's weights."""
    x, noise, weights = quadrature(MEAN, std)
    x.requires_grad_()
    state = state_at(x, noise, timestep)
    scores = scores_of(state, {POSITIVE: mixture([PRIOR[0]], PRIOR[1]), CRITIC: mixture([MEAN], std)})
    combine = method_of(config).combine
    losses = combine.objective(scores, state, 0.0)  # type: ignore[union-attr]
    distance = mean_distance(state, state.schedule.clean_from_noise(
        state.noisy[MAIN], scores[POSITIVE], state.levels[MAIN]
    ))  # fmt: skip
    gradient = combine(scores, state, 0.0)
    return losses.detach(), gradient.flatten(), distance.flatten(), weights


@pytest.mark.parametrize(("a", "value"), [(0.5, 0.203694), (1.0, 0.0), (1.2, -0.081478)])
def test_sids_mean_loss_with_an_exact_critic(a: float, value: float) -> None:
    """(1 - a) E|f - g|²: zero at a = 1, negative beyond."""
    alpha, sigma = stable_diffusion_level(300)
    (mean, std), spread = PRIOR, variance(0.8, alpha, sigma)
    gain, own_gain = alpha * std**2 / variance(std, alpha, sigma), alpha * 0.8**2 / spread
    offset = (1 - alpha * gain) * (mean - MEAN)
    expected = (1 - a) * (offset**2 + (gain - own_gain) ** 2 * spread)
    assert expected == pytest.approx(value, abs=5e-7)
    losses, _, distance, weights = through(SidConfig(a=a), std=0.8)
    assert (weights * losses * distance).sum().item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("a", [0.0, 0.5, 1.0, 1.2])
def test_sids_mean_gradient_pulls_the_renders_to_the_prior(a: float) -> None:
    """For equal spreads -(1 - alpha A)² (mean - MEAN), whatever a; A is the gain of the prior's x0."""
    _, gradient, distance, weights = through(SidConfig(a=a), std=PRIOR[1])
    alpha, sigma = stable_diffusion_level(300)
    gain = alpha * PRIOR[1] ** 2 / variance(PRIOR[1], alpha, sigma)
    expected = -((1 - alpha * gain) ** 2) * (PRIOR[0] - MEAN)
    assert expected == pytest.approx(-0.432207, abs=5e-7)
    assert (weights * gradient * distance).sum().item() == pytest.approx(expected, abs=1e-9)


def test_sid_at_one_is_sim_with_the_squared_distance() -> None:
    alpha, sigma = stable_diffusion_level(300)
    sid, sid_gradient, distance, _ = through(SidConfig(a=1.0), std=0.8)
    sim, sim_gradient, _, _ = through(SimConfig(huber=None), std=0.8)
    factor = sigma**4 / (2 * alpha**2)
    torch.testing.assert_close(sid * distance, factor * sim, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(sid_gradient * distance, factor * sim_gradient, atol=1e-9, rtol=1e-9)


def test_sims_mean_loss_with_an_exact_critic_is_zero() -> None:
    losses, _, _, weights = through(SimConfig(huber=None), std=0.8)
    assert losses.abs().max() > 0.1
    assert (weights * losses).sum().item() == pytest.approx(0.0, abs=1e-9)


def test_the_huber_distance_bounds_the_pull() -> None:
    large = 1e4 * images(3)
    assert distance_slope(large, 1.0).flatten(1).norm(dim=1).max().item() <= 1.0
    small = 1e-4 * images(3)
    torch.testing.assert_close(distance_slope(small, 1.0), small / 48**0.5, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(distance_slope(small, None), 2 * small)


def test_the_losses_take_the_gradient_through_both_networks() -> None:
    """Finite differences of the loss, critic and prior and normaliser held as SiD says."""
    prior, x, noise = mixtures(), images(1), images(1, 1)
    critic = knowing(random_mixture(3))
    method = method_of(SidConfig(a=1.2))
    got = run_beside(critic, method, prior, conditioning_of(prior), x, TIME, noise).gradient

    def loss(at: Tensor) -> float:
        state = state_at(at, noise, TIME)
        scores = scores_of(state, {POSITIVE: random_mixture(1), CRITIC: random_mixture(3)})
        f, g = (
            state.schedule.clean_from_noise(state.noisy[MAIN], scores[term], state.levels[MAIN])
            for term in (POSITIVE, CRITIC)
        )
        return float(((f - g) * ((f - at) - 1.2 * (f - g))).sum())

    state = state_at(x, noise, TIME)
    f = state.schedule.clean_from_noise(
        state.noisy[MAIN], score_of(random_mixture(1), state), state.levels[MAIN]
    )
    for place in ((0, 0, 0, 0), (0, 1, 2, 3), (0, 2, 3, 1)):
        nudge = torch.zeros_like(x)
        nudge[place] = 1e-5
        expected = (loss(x + nudge) - loss(x - nudge)) / 2e-5 / float(mean_distance(state, f))
        assert got[place].item() == pytest.approx(expected, rel=1e-5)


def test_a_prior_without_a_way_back_is_refused() -> None:
    class Frozen(AnalyticPrior):
        def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
            return super().predict_noise(x_t, timesteps, condition).detach()

    prior = Frozen({"": random_mixture(0), "c": random_mixture(1)}, STABLE_DIFFUSION)
    arguments = (prior, conditioning_of(prior), images(2), TIME, images(2, 1))
    with pytest.raises(StudioError, match="positive score lets no gradient through"):
        run_beside(knowing(random_mixture(3)), method_of(SidConfig()), *arguments)


def test_which_methods_go_through_the_prior() -> None:
    through_prior = [SidConfig(), SimConfig(), SfdConfig()]
    assert all(descends_through_prior(config) for config in through_prior)
    assert not any(descends_through_prior(config) for config in (VsdConfig(), Dmd2Config(), TdmConfig()))


def test_forgetting_with_the_prompt_as_its_safe_prompt_is_sid() -> None:
    prior = mixtures()
    critic = knowing(random_mixture(3))
    same = conditioning_of(prior, negatives=["c"])
    sid = run_beside(critic, method_of(SidConfig()), prior, same, images(2), TIME, images(2, 1)).gradient
    for forget, remain in ((1.0, 0.0), (0.01, 1.0)):
        config = SfdConfig(forget_weight=forget, remain_weight=remain)
        got = run_beside(critic, method_of(config), prior, same, images(2), TIME, images(2, 1)).gradient
        torch.testing.assert_close(got, (forget + remain) * sid)
    assert negative_prompts(SfdConfig(safe_prompt="a cat")) == (NegativePrompt("a cat"),)


@pytest.mark.parametrize(("forget", "remain", "rest"), [(1.0, 0.0, -0.5), (0.0, 1.0, 1.0)])
def test_renders_move_to_the_safe_prompt(forget: float, remain: float, rest: float) -> None:
    """Gaussians of one spread at 1 (the prompt) and -0.5 (the safe one), and an ensemble that starts at 0."""
    prior = by_name({"": gaussian(0.0, 0.5), "c": gaussian(1.0, 0.5), "safe": gaussian(-0.5, 0.5)})
    conditioning: Conditioning = conditioning_of(prior, negatives=["safe"])
    config = SfdConfig(forget_weight=forget, remain_weight=remain, a=1.0)
    critic = FittedCritic(STABLE_DIFFUSION, "gaussian")
    guidance = ScoreDistillation(prior, method_of(config), critic=critic)
    rng = torch.Generator().manual_seed(0)
    particles = 0.5 * torch.randn(50, 3, 4, 4, generator=rng, dtype=torch.float64)
    for rate in torch.linspace(0.6, 0.02, 100).tolist():
        particles = particles - rate * guidance(particles, conditioning, 0.0, rng).gradient
    assert particles.mean().item() == pytest.approx(rest, abs=0.03)
