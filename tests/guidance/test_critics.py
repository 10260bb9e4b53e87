"""VSD, ESD, LODS and PG-SB against pencil and paper, with exact critics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from studio.guidance.critic import FittedCritic
from studio.guidance.methods import method_of
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.state import CRITIC, CRITIC_NULL, POSITIVE
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.recipes.guidance import EsdConfig, LodsConfig, PgSbConfig, SdsConfig, UniformTimes, VsdConfig
from studio.types import Condition
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    conditioning_of,
    constant,
    images,
    mixtures,
    random_mixture,
    run,
    two_gaussians,
)
from tests.guidance.critics import (
    GivenCritic,
    OneNumber,
    knowing,
    mixture,
    numbers,
    run_beside,
    state_at,
    told_cameras,
)
from tests.truth.gaussian import stable_diffusion_level

ANY_TIME = UniformTimes(t_min=0.02, t_max=0.98)


def normal_quantiles(count: int, mean: float, std: float) -> Tensor:
    """Numbers whose mean and (population) standard deviation are exactly these."""
    points = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(count).double() + 0.5) / count)
    return mean + std * points / points.std(unbiased=False)


def ensemble(count: int, mean: float, std: float) -> Tensor:
    """Images whose every element takes each of ``normal_quantiles`` once, in an order of its own."""
    rng = torch.Generator().manual_seed(5)
    order = torch.stack([torch.randperm(count, generator=rng) for _ in range(48)], dim=1)
    return normal_quantiles(count, mean, std)[order].view(count, 3, 4, 4)


# VSD


@pytest.mark.parametrize("timestep", [20.0, 400.0, 980.0])
def test_vsd_of_one_scene_is_sds(timestep: float) -> None:
    """A critic that knows the one render predicts the noise itself."""
    prior, x, noise = mixtures(), images(1), images(1, 1)
    conditioning = conditioning_of(prior)
    critic = knowing(GaussianMixture.particles(x))
    vsd, sds = method_of(VsdConfig()), method_of(SdsConfig(cfg_scale=7.5))
    got = run_beside(critic, vsd, prior, conditioning, x, timestep, noise).gradient
    torch.testing.assert_close(got, run(sds, prior, conditioning, x, timestep, noise).gradient)
    fitted = FittedCritic(STABLE_DIFFUSION, "particles")
    refit = run_beside(fitted, vsd, prior, conditioning, x, timestep, noise).gradient
    torch.testing.assert_close(refit, got)


def test_vsd_rests_where_critic_and_prior_agree() -> None:
    prior = mixtures()
    method = method_of(VsdConfig(cfg_scale=1.0))
    arguments = (method, prior, conditioning_of(prior), images(3), 600.0, images(3, 1))
    assert run_beside(knowing(random_mixture(1)), *arguments).gradient.abs().max() < 1e-12
    assert run_beside(knowing(random_mixture(2)), *arguments).gradient.norm() > 1


@pytest.mark.parametrize(("cfg_scale", "mean"), [(1.0, 1.0), (7.5, 6.2)])
def test_vsd_keeps_the_spread_of_a_gaussian(cfg_scale: float, mean: float) -> None:
    """In expectation, which for Gaussians is the direction without noise. SDS would end on one point."""
    prior = two_gaussians()
    conditioning, method = conditioning_of(prior), method_of(VsdConfig(cfg_scale=cfg_scale, weight="uniform"))
    particles = ensemble(32, -1.0, 1.2)
    critic = FittedCritic(STABLE_DIFFUSION, "gaussian")
    silence = torch.zeros_like(particles)
    for _ in range(150):
        step = run_beside(critic, method, prior, conditioning, particles, 400.0, silence).gradient
        particles = particles - step
    torch.testing.assert_close(particles.mean(0), constant(mean)[0], atol=5e-3, rtol=0)
    torch.testing.assert_close(particles.std(0, unbiased=False), constant(0.5)[0], atol=5e-3, rtol=0)


def test_vsd_keeps_the_spread_of_a_gaussian_with_all_its_noise() -> None:
    prior = two_gaussians()
    method = method_of(VsdConfig(cfg_scale=1.0, weight="uniform", times=ANY_TIME))
    guidance = ScoreDistillation(prior, method, critic=FittedCritic(STABLE_DIFFUSION, "gaussian"))
    particles, rng = ensemble(300, -1.0, 1.2), torch.Generator().manual_seed(0)
    for _ in range(250):
        particles = particles - 0.08 * guidance(particles, conditioning_of(prior), 0.0, rng).gradient
    assert particles.mean().item() == pytest.approx(1.0, abs=0.03)
    assert particles.std(0).mean().item() == pytest.approx(0.5, abs=0.03)


def test_vsd_keeps_the_spread_of_each_mode() -> None:
    """Modes at -2 and 2 of width 0.2: SDS leaves 0.02. All particles are the critic, never a part of them."""
    prior = OneNumber({"": mixture([0.0], 1.0), "c": mixture([-2.0, 2.0], 0.2)}, STABLE_DIFFUSION)
    method = method_of(VsdConfig(cfg_scale=1.0, weight="uniform", times=ANY_TIME))
    guidance = ScoreDistillation(prior, method, critic=FittedCritic(STABLE_DIFFUSION, "particles"))
    rng = torch.Generator().manual_seed(1)
    x = torch.cat([normal_quantiles(200, mode, 0.6) for mode in (-2.0, 2.0)])
    for _ in range(250):
        x = x - 0.2 * guidance(numbers(x), conditioning_of(prior), 0.0, rng).gradient.flatten()
    assert x.abs().max() < 4  # A critic that forgets some particles repels them without bound.
    for mode in (-2.0, 2.0):
        near = x[(x - mode).abs() < 1]
        assert len(near) == 200
        assert near.std().item() == pytest.approx(0.2, abs=0.02)
        assert near.mean().item() == pytest.approx(mode, abs=0.03)


# ESD


def esd(entropy: float, cfg_scale: float = 1.0) -> EsdConfig:
    return EsdConfig(entropy=entropy, cfg_scale=cfg_scale, weight="uniform")


def critic_of_both() -> GivenCritic:
    return knowing(random_mixture(3), without_camera=random_mixture(2))


def esd_direction(entropy: float) -> Tensor:
    prior = mixtures()
    conditioning = told_cameras(conditioning_of(prior), 3)
    method = method_of(esd(entropy, 7.5))
    return run_beside(critic_of_both(), method, prior, conditioning, images(3), 500.0, images(3, 1)).gradient


def test_esd_without_entropy_is_vsd() -> None:
    prior = mixtures()
    conditioning = told_cameras(conditioning_of(prior), 3)
    vsd = method_of(VsdConfig(weight="uniform"))
    got = run_beside(critic_of_both(), vsd, prior, conditioning, images(3), 500.0, images(3, 1))
    torch.testing.assert_close(esd_direction(0.0), got.gradient)
    assert got.denoiser_calls == 9  # The camera-free branch is not asked for nothing.


def test_esd_is_linear_in_its_entropy() -> None:
    vsd, marginal = esd_direction(0.0), esd_direction(1.0)
    assert (vsd - marginal).norm() > 1
    torch.testing.assert_close(esd_direction(0.3), 0.7 * vsd + 0.3 * marginal)


def test_esd_is_guidance_of_the_critic() -> None:
    """critic_null + s (critic - critic_null) with s = 1 - entropy, as the released code has it."""
    scores = {POSITIVE: images(2), CRITIC: images(2, 1), CRITIC_NULL: images(2, 2)}
    state = state_at(images(2, 3), images(2, 4), 400.0)
    scale = 0.4
    expected = scores[POSITIVE] - (scores[CRITIC_NULL] + scale * (scores[CRITIC] - scores[CRITIC_NULL]))
    torch.testing.assert_close(method_of(esd(1 - scale)).combine(scores, state, 0.0), expected)


def test_the_fitted_critic_knows_each_camera_apart() -> None:
    """Three scenes from two cameras: the score of three point masses, by camera or over all six."""
    critic, renders, x_t = FittedCritic(STABLE_DIFFUSION, "particles"), images(6), images(6, 1)
    conditioning = told_cameras(conditioning_of(mixtures()), 2)
    repeated = [0, 1] * 3
    assert conditioning.plain is not None and conditioning.plain.cameras is not None
    plain = replace(conditioning.plain, cameras=conditioning.plain.cameras[repeated])
    critic.learn(renders, replace(conditioning, plain=plain), torch.Generator())
    timesteps = torch.full((6,), 950.0)
    alpha, sigma = STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64)
    got = critic.predict_noise(x_t, timesteps, plain)
    for camera in (0, 1):
        alone = GaussianMixture.particles(renders[camera::2])
        expected = alone.noise(x_t[camera::2], alpha[camera::2], sigma[camera::2])
        torch.testing.assert_close(got[camera::2], expected)
    together = critic.predict_noise(x_t, timesteps, replace(plain, cameras=None))
    torch.testing.assert_close(together, GaussianMixture.particles(renders).noise(x_t, alpha, sigma))
    assert (together - got).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("timestep", "entropy", "published"),
    [(100, 0.9, 0.4617), (100, 0.5, 0.25662), (400, 0.9, 0.29903), (400, 0.5, 0.0), (250, 0.8, 0.32121),
     (400, 1.0, 0.5), (400, 0.0, 0.0)],
)  # fmt: skip
def test_esd_spreads_the_views(timestep: int, entropy: float, published: float) -> None:
    """At one level the views of a scene spread by r² = max(0, entropy s² - (1 - entropy) sigma²/alpha²)."""
    alpha, sigma = stable_diffusion_level(timestep)
    expected = max(0.0, entropy * 0.25 - (1 - entropy) * sigma**2 / alpha**2) ** 0.5
    assert expected == pytest.approx(published, abs=5e-5)
    prior = two_gaussians()
    conditioning, method = told_cameras(conditioning_of(prior), 32), method_of(esd(entropy))
    views = ensemble(32, 0.8, 0.45)
    silence = torch.zeros_like(views)
    critic = FittedCritic(STABLE_DIFFUSION, "gaussian")  # Told the camera it knows the one render from there.
    rate = (alpha**2 * 0.25 + sigma**2) / (alpha * sigma)  # The prior's pull times this is the whole way.
    for _ in range(120):
        step = run_beside(critic, method, prior, conditioning, views, timestep, silence).gradient
        views = views - rate * step
    got = views.std(0, unbiased=False)
    torch.testing.assert_close(got, constant(expected)[0], atol=5e-3, rtol=0)


def janus_rate(
    entropy: float, scenes: int = 200, steps: int = 1000, rate: float = 0.04
) -> tuple[float, float]:
    """Shares of scenes with a face on both sides, and with a face in front.

    Two cameras; a face (1) or a back (-1), of width 0.3; the prior shows a face to 90 % of the front cameras
    and, for its bias, to 65 % of those behind. The camera-free critic knows both views of a scene.
    """
    method = method_of(esd(entropy))
    rng = torch.Generator().manual_seed(2)
    x = 0.3 * torch.randn(2, scenes, generator=rng, dtype=torch.float64)
    bias = torch.tensor([0.9, 0.65], dtype=torch.float64).logit().repeat_interleave(scenes)
    bias = bias[:, None, None, None]
    alphas, sigmas = STABLE_DIFFUSION.alpha_sigma(torch.arange(1000.0), torch.float64)
    nothing = torch.zeros(2 * scenes, 1, 1, 1).double()
    state = state_at(nothing, nothing, 0.0)
    for _ in range(steps):
        times = torch.randint(20, 981, (2 * scenes,), generator=rng)
        noise = torch.randn(2 * scenes, 1, 1, 1, generator=rng, dtype=torch.float64)
        own, other = x.reshape(-1, 1, 1, 1), x.flip(0).reshape(-1, 1, 1, 1)
        alpha, sigma = alphas[times], sigmas[times]
        x_t, v = alpha * own + sigma * noise, 0.09 * alpha**2 + sigma**2
        face = torch.sigmoid(bias + 2 * alpha * x_t / v)
        teacher = sigma * (x_t - alpha * (2 * face - 1)) / v
        to_other = x_t - alpha * other
        own_share = torch.sigmoid(0.5 * ((to_other / sigma) ** 2 - noise**2))
        marginal = own_share * noise + (1 - own_share) * to_other / sigma
        scores = {POSITIVE: teacher, CRITIC: noise, CRITIC_NULL: marginal}
        x = x - rate * method.combine(scores, state, 0.0).view(2, scenes)
    faces = x > 0
    return faces.all(0).double().mean().item(), faces[0].double().mean().item()


def test_esd_turns_the_second_face_away() -> None:
    """The more entropy the fewer scenes with two faces; all keep the one in front."""
    assert janus_rate(0.25)[0] > 0.97
    rate, front = janus_rate(0.75)
    assert rate < 0.03 and front > 0.99


# LODS and PG-SB


def test_lods_with_the_priors_own_null_is_sds_over_its_scale() -> None:
    prior, x, noise = mixtures(), images(2), images(2, 1)
    conditioning = conditioning_of(prior)
    got = run_beside(
        knowing(random_mixture(0)), method_of(LodsConfig()), prior, conditioning, x, 500.0, noise
    )
    sds = run(method_of(SdsConfig(cfg_scale=1000.0)), prior, conditioning, x, 500.0, noise).gradient
    torch.testing.assert_close(1000.0 * got.gradient, sds)
    assert got.denoiser_calls == 4


def test_lods_asks_its_critic_the_empty_prompt() -> None:
    prior = mixtures()
    asked: list[float] = []

    def answer(x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        asked.extend(condition.prompt.tokens.flatten().tolist())
        return x_t

    arguments = (method_of(LodsConfig()), prior, conditioning_of(prior), images(2), 500.0, images(2, 1))
    run_beside(GivenCritic(answer), *arguments)
    assert asked == [0.0, 0.0]  # The place of "" among the prior's prompts, for each image.


def pgsb(prior: AnalyticPrior, critic: GivenCritic, lowest: float, highest: float, batch: int = 2) -> Tensor:
    method = method_of(PgSbConfig(lowest_scale=lowest, highest_scale=highest))
    x, noise = images(1).expand(batch, -1, -1, -1), images(1, 1).expand(batch, -1, -1, -1)
    return run_beside(critic, method, prior, conditioning_of(prior), x, 500.0, noise).gradient


def critic_of_prompts() -> GivenCritic:
    """Other mixtures than the prior's, for the empty prompt and for the prompt."""
    known = AnalyticPrior({"": random_mixture(4), "c": random_mixture(3)}, STABLE_DIFFUSION)
    return GivenCritic(known.predict_noise)


def test_pgsb_is_affine_in_its_scale_so_only_the_spread_is_random() -> None:
    prior, critic = mixtures(), critic_of_prompts()
    low, middle, high = (pgsb(prior, critic, scale, scale) for scale in (2.0, 4.5, 7.0))
    torch.testing.assert_close(middle, (low + high) / 2)
    drawn = pgsb(prior, critic, 2.0, 7.0, batch=4000)
    along = ((drawn - low[:1]) / (high - low)[:1]).mean(dim=(1, 2, 3))
    assert along.min() >= 0 and along.max() <= 1
    assert along.mean().item() == pytest.approx(0.5, abs=4 / (12 * 4000) ** 0.5)
    assert along.std().item() == pytest.approx(12**-0.5, abs=0.01)


@pytest.mark.parametrize("scale", [0.0, 4.5, 7.0])
def test_pgsb_rests_where_the_critic_is_the_prior(scale: float) -> None:
    prior = mixtures()
    assert pgsb(prior, GivenCritic(prior.predict_noise), scale, scale).abs().max() < 1e-12


def test_pgsb_at_scale_one_is_vsd_at_scale_one() -> None:
    prior, critic = mixtures(), critic_of_prompts()
    x, noise = images(1).expand(2, -1, -1, -1), images(1, 1).expand(2, -1, -1, -1)
    vsd = run_beside(
        critic, method_of(VsdConfig(cfg_scale=1.0)), prior, conditioning_of(prior), x, 500.0, noise
    )
    torch.testing.assert_close(pgsb(prior, critic, 1.0, 1.0), vsd.gradient)
