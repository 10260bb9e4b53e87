"""ISM, TSM, CSM, VPCSM, SDI, Refine and CDS against pencil and paper."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from studio.guidance.inversion import Inverted
from studio.guidance.method import Method
from studio.guidance.methods import build_guidance, method_of
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.state import ANCHOR, LATER, MAIN, MIDDLE, NULL, Branch, State, Term
from studio.guidance.terms import ScoreBank
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.recipes.guidance import (
    CdsConfig,
    CsmConfig,
    FixedNoise,
    GradientConfig,
    GuidanceConfig,
    InvertedNoise,
    IsmConfig,
    RefineConfig,
    SdiConfig,
    SweepTimes,
    TsmConfig,
    VpcsmConfig,
)
from studio.types import Condition, Conditioning
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    at,
    branch,
    by_name,
    conditioning_of,
    constant,
    gaussian,
    images,
    mixtures,
    run,
    two_gaussians,
    under,
)
from tests.truth.gaussian import csd_direction, stable_diffusion_level

NO_NOISE = torch.zeros(())
FINE = InvertedNoise(stride=0.001)


def walk(method: Method, prior: AnalyticPrior, x: Tensor, timestep: float, noise: Tensor = NO_NOISE) -> State:
    """The state that the method's own policy makes at a given level."""
    rng = torch.Generator()
    levels = at(method.times, torch.tensor(timestep))(STABLE_DIFFUSION, 0.0, len(x), rng)
    bank = ScoreBank(prior, conditioning_of(prior))
    return under(method.noise, noise)(x, levels, STABLE_DIFFUSION, bank, 0.0, rng)


def guided(prior: AnalyticPrior, x_t: Tensor, timesteps: Tensor, scale: float) -> Tensor:
    positive, null = (prior.predict_noise(x_t, timesteps, branch(prior, name)) for name in ("c", ""))
    return null + scale * (positive - null)


# The inversion


def test_an_inversion_of_a_gaussian_follows_its_ode() -> None:
    """(x_t - alpha mean) / sqrt(v_t) does not change along the way."""
    prior, x = two_gaussians(), images(2)
    state = walk(method_of(CsmConfig(noise=FINE, gap=0.05)), prior, x, 400.0)
    start = stable_diffusion_level(0)
    for level, timestep in ((ANCHOR, 350), (MAIN, 400)):
        alpha, sigma = stable_diffusion_level(timestep)
        now = (state.noisy[level] - alpha * 0.2) / np.sqrt(alpha**2 * 0.25 + sigma**2)
        then = start[0] * (x - 0.2) / np.sqrt(start[0] ** 2 * 0.25 + start[1] ** 2)
        torch.testing.assert_close(now, then, rtol=0.02, atol=0.005)


def test_an_inversion_in_strides_visits_them_and_lands_on_its_end() -> None:
    prior, x = two_gaussians(), images(1)
    visited: list[float] = []

    class Spy(AnalyticPrior):
        def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
            visited.extend(timesteps.tolist())
            return prior.predict_noise(x_t, timesteps, condition)

    spy = Spy({"": gaussian(0.2, 0.5), "c": gaussian(1.0, 0.5)}, STABLE_DIFFUSION)
    walk(method_of(IsmConfig(gap=0.08)), spy, x, 530.0)
    assert visited == [0.0, 200.0, 400.0, 450.0]


def test_images_at_levels_of_their_own_wait_for_one_another() -> None:
    """A step of no length changes nothing, with fresh noise in the others' steps too."""
    prior, x = mixtures(), images(3)
    timesteps = torch.tensor([90.0, 500.0, 730.0])
    bank = ScoreBank(prior, conditioning_of(prior))
    together = Inverted()(x, {MAIN: timesteps}, STABLE_DIFFUSION, bank, 0.0, torch.Generator())
    for row in range(3):
        one = slice(row, row + 1)
        alone = Inverted()(x[one], {MAIN: timesteps[one]}, STABLE_DIFFUSION, bank, 0.0, torch.Generator())
        torch.testing.assert_close(together.noisy[MAIN][one], alone.noisy[MAIN], rtol=1e-12, atol=1e-12)
    arrived = {MAIN: torch.full((3,), 200.0)}
    late = {MAIN: torch.tensor([200.0, 200.0, 900.0])}
    calm, shaken = (
        Inverted(eta=1.0)(x, levels, STABLE_DIFFUSION, bank, 0.0, torch.Generator().manual_seed(0))
        for levels in (arrived, late)
    )
    torch.testing.assert_close(shaken.noisy[MAIN][:2], calm.noisy[MAIN][:2], rtol=1e-9, atol=1e-9)


def test_fresh_noise_on_the_way_is_that_of_ddpms_way_back() -> None:
    """Its variance is of q(x_here | x_there, x0): precisions of the two Gaussians add up."""
    prior = two_gaussians()
    x = torch.zeros(400, 3, 4, 4, dtype=torch.float64)
    bank = ScoreBank(prior, conditioning_of(prior))
    levels = {MAIN: torch.full((400,), 300.0)}
    still = Inverted(stride=0.3)(x, levels, STABLE_DIFFUSION, bank, 0.0, torch.Generator())
    moved = Inverted(stride=0.3, eta=0.5)(
        x, levels, STABLE_DIFFUSION, bank, 0.0, torch.Generator().manual_seed(0)
    )
    (alpha, sigma), (next_alpha, next_sigma) = stable_diffusion_level(0), stable_diffusion_level(300)
    ratio = next_alpha / alpha
    posterior = 1 / (1 / sigma**2 + ratio**2 / (next_sigma**2 - ratio**2 * sigma**2))
    got = (moved.noisy[MAIN] - still.noisy[MAIN]).square().mean().item()
    assert got == pytest.approx(0.25 * posterior, rel=4 * (2 / x.numel()) ** 0.5)


DETERMINISTIC: list[GuidanceConfig] = [
    IsmConfig(times=SweepTimes()),
    TsmConfig(times=SweepTimes()),
    CsmConfig(times=SweepTimes()),
    VpcsmConfig(times=SweepTimes()),
    SdiConfig(noise=InvertedNoise(stride=0.1, cfg_scale=-7.5), jitter=0.0),
    CdsConfig(gap_min=0.1, gap_max=0.1),
]


@pytest.mark.parametrize("config", DETERMINISTIC, ids=lambda config: config.kind)
def test_nothing_is_drawn_where_nothing_is_said_to_be(config: GuidanceConfig) -> None:
    prior, rng = mixtures(), torch.Generator().manual_seed(0)
    before = rng.get_state()
    build_guidance(config, prior)(images(2), conditioning_of(prior), 0.4, rng)
    assert torch.equal(rng.get_state(), before)


@pytest.mark.parametrize("noise", [InvertedNoise(eta=0.3), InvertedNoise(start_noise=1.0)])
def test_noise_that_is_asked_for_comes_from_the_generator(noise: InvertedNoise) -> None:
    prior = mixtures()
    guidance = build_guidance(IsmConfig(times=SweepTimes(), noise=noise), prior)
    first, again, other = (
        guidance(images(2), conditioning_of(prior), 0.4, torch.Generator().manual_seed(seed)).gradient
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


# ISM


@pytest.mark.parametrize(("scale", "along"), [(0.0, 0.0), (1.0, 0.0), (7.5, 0.0), (1.0, 1.0), (7.5, -2.0)])
@pytest.mark.parametrize("timestep", [120.0, 500.0, 930.0])
def test_ism_is_the_difference_of_the_images_that_two_levels_imply(
    timestep: float, scale: float, along: float
) -> None:
    """For any denoiser and any guidance on the way, because t is one DDIM step from s."""
    prior, x = mixtures(), images(2, 5)
    method = method_of(IsmConfig(cfg_scale=scale, noise=InvertedNoise(cfg_scale=along)))
    state = walk(method, prior, x, timestep)
    at_t = guided(prior, state.noisy[MAIN], state.levels[MAIN], scale)
    at_s = guided(prior, state.noisy[ANCHOR], state.levels[ANCHOR], along)
    expected = STABLE_DIFFUSION.clean_from_noise(
        state.noisy[ANCHOR], at_s, state.levels[ANCHOR]
    ) - STABLE_DIFFUSION.clean_from_noise(state.noisy[MAIN], at_t, state.levels[MAIN])
    got = run(method, prior, conditioning_of(prior), x, timestep, NO_NOISE).gradient
    assert got.norm() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)
    if along == 0:
        torch.testing.assert_close(state.scores[Term(Branch.NULL, level=ANCHOR)], at_s, rtol=0, atol=0)


def test_ism_of_a_gaussian_in_closed_form() -> None:
    """e_t - e_s = zeta (sigma_t / sqrt(v_t) - sigma_s / sqrt(v_s)), zeta = (x - mean) / std."""
    prior, x = two_gaussians(), images(2)
    method = method_of(IsmConfig(cfg_scale=0.0, gap=0.01, noise=FINE, weight="uniform"))
    got = run(method, prior, conditioning_of(prior), x, 400.0, NO_NOISE).gradient
    slopes = []
    for timestep in (400, 390):
        alpha, sigma = stable_diffusion_level(timestep)
        slopes.append(sigma / np.sqrt(alpha**2 * 0.25 + sigma**2))
    torch.testing.assert_close(got, (x - 0.2) / 0.5 * (slopes[0] - slopes[1]), rtol=0.02, atol=1e-4)


def test_ism_over_no_interval_and_without_guidance_is_nothing() -> None:
    prior = mixtures()
    method = method_of(IsmConfig(cfg_scale=0.0, gap=0.0))
    got = run(method, prior, conditioning_of(prior), images(2), 400.0, NO_NOISE).gradient
    assert got.abs().max().item() < 1e-12


# TSM


def test_tsms_target_lies_where_the_paper_says() -> None:
    levels = at(method_of(TsmConfig(gap=0.05)).times, torch.tensor(400.0))(
        STABLE_DIFFUSION, 0.0, 1, torch.Generator()
    )
    assert {name: timesteps.item() for name, timesteps in levels.items()} == {
        MAIN: 400.0,
        ANCHOR: 350.0,
        MIDDLE: 398.0,
    }


def test_tsms_target_moves_from_t_to_s() -> None:
    middles = [
        at(method_of(TsmConfig(gap=0.08, gamma=gamma)).times, torch.tensor(400.0))(
            STABLE_DIFFUSION, 0.0, 1, torch.Generator()
        )[MIDDLE].item()
        for gamma in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    assert middles == sorted(middles, reverse=True)
    assert (middles[0], middles[-1]) == (400.0, 320.0)


def test_tsms_target_is_one_step_from_the_inversions_end() -> None:
    prior, x = mixtures(), images(2)
    state = walk(method_of(TsmConfig(gamma=0.7)), prior, x, 400.0)
    null = state.scores[Term(Branch.NULL, level=ANCHOR)]
    for level in (MIDDLE, MAIN):
        expected = STABLE_DIFFUSION.ddim_step(
            state.noisy[ANCHOR], null, state.levels[ANCHOR], state.levels[level]
        )
        torch.testing.assert_close(state.noisy[level], expected, rtol=0, atol=0)


# CSM and VPCSM


def test_csm_of_equal_spreads_is_a_constant() -> None:
    prior = two_gaussians()
    method = method_of(CsmConfig(weight="uniform"))
    got = run(method, prior, conditioning_of(prior), images(2), 400.0, NO_NOISE).gradient
    expected = csd_direction(0.0, (1.0, 0.5), (0.2, 0.5), *stable_diffusion_level(400))
    assert expected == pytest.approx(-0.58009, abs=5e-6)
    torch.testing.assert_close(got, torch.full_like(got, expected), rtol=1e-9, atol=1e-9)


class Seeing(AnalyticPrior):
    """A prior for which a reference image means the prompt ``seen``."""

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        if condition.image is not None:
            condition = Condition(self.encode_prompts(["seen"] * len(x_t)))
        return super().predict_noise(x_t, timesteps, condition)


def seeing() -> tuple[Seeing, Conditioning]:
    prior = Seeing(
        {"": gaussian(0.2, 0.5), "c": gaussian(1.0, 0.5), "seen": gaussian(1.5, 0.5)}, STABLE_DIFFUSION
    )
    plain = conditioning_of(prior)
    return prior, replace(plain, positive=replace(plain.positive, image=torch.zeros(2, 3, 8, 8)))


@pytest.mark.parametrize(("text", "image"), [(1.0, 1.0), (2.0, 0.5), (0.0, 3.0), (4.0, 0.0)])
def test_vpcsm_has_one_classifier_behind_the_other(text: float, image: float) -> None:
    """Equal spreads: each difference of scores is the difference of the means times a constant."""
    prior, conditioning = seeing()
    method = method_of(VpcsmConfig(text_scale=text, image_scale=image, weight="uniform"))
    output = run(method, prior, conditioning, images(2), 400.0, NO_NOISE)
    unit = csd_direction(0.0, (1.0, 0.5), (0.0, 0.5), *stable_diffusion_level(400))
    expected = unit * (0.8 * text + 0.5 * image)
    torch.testing.assert_close(output.gradient, torch.full_like(output.gradient, expected))


def test_vpcsm_without_an_image_is_csm() -> None:
    prior = mixtures()
    arguments = (prior, conditioning_of(prior), images(2), 400.0, NO_NOISE)
    got = run(method_of(VpcsmConfig(text_scale=1.0, image_scale=3.0)), *arguments).gradient
    torch.testing.assert_close(got, run(method_of(CsmConfig()), *arguments).gradient, rtol=1e-12, atol=1e-12)


def test_vpcsm_that_does_not_listen_to_the_image_is_csm() -> None:
    prior, conditioning = seeing()
    without = conditioning_of(prior)
    got = run(method_of(VpcsmConfig(image_scale=0.0)), prior, conditioning, images(2), 400.0, NO_NOISE)
    expected = run(method_of(CsmConfig()), prior, without, images(2), 400.0, NO_NOISE)
    torch.testing.assert_close(got.gradient, expected.gradient, rtol=1e-12, atol=1e-12)


# SDI


@pytest.mark.parametrize("timestep", [250, 600, 980])
def test_sdi_of_a_gaussian_in_closed_form(timestep: int) -> None:
    """With an exact inversion by the prompt itself, x - x0 = (x - mean) (1 - alpha std / sqrt(v))."""
    prior, x = two_gaussians(), images(2)
    exact = InvertedNoise(stride=0.002, cfg_scale=1.0)
    method = method_of(SdiConfig(cfg_scale=1.0, jitter=0.0, noise=exact))
    got = run(method, prior, conditioning_of(prior), x, float(timestep), NO_NOISE).gradient
    alpha, sigma = stable_diffusion_level(timestep)
    shrunk = 1 - alpha * 0.5 / np.sqrt(alpha**2 * 0.25 + sigma**2)
    torch.testing.assert_close(got, (x - 1.0) * shrunk, rtol=0.02, atol=1e-3)


def test_sdi_is_the_distance_to_the_denoised_image_whatever_the_way() -> None:
    prior, x = mixtures(), images(2)
    method = method_of(SdiConfig(jitter=0.0, noise=InvertedNoise(stride=0.1, cfg_scale=-7.5)))
    state = walk(method, prior, x, 730.0)
    denoised = STABLE_DIFFUSION.clean_from_noise(
        state.noisy[MAIN], guided(prior, state.noisy[MAIN], state.levels[MAIN], 7.5), state.levels[MAIN]
    )
    got = run(method, prior, conditioning_of(prior), x, 730.0, NO_NOISE).gradient
    torch.testing.assert_close(got, x - denoised, rtol=1e-9, atol=1e-9)


# Refine


@pytest.mark.parametrize("timestep", [100, 400, 800])
def test_refined_pictures_of_a_gaussian_in_closed_form(timestep: int) -> None:
    """A step of DDIM from s to t shrinks the distance from the mean by (a_s a_t std² + o_s o_t) / v_s."""
    prior, x, noise = two_gaussians(), images(2), images(2, 1)
    method = method_of(RefineConfig(cfg_scale=1.0, steps=4))
    got = run(method, prior, conditioning_of(prior), x, float(timestep), noise).gradient
    levels = [stable_diffusion_level(timestep * share // 4) for share in (4, 3, 2, 1)]
    (alpha, sigma), clean = levels[0], (1.0, 0.0)
    distance = alpha * (x - 1.0) + sigma * noise
    for (alpha, sigma), (alpha_next, sigma_next) in pairwise([*levels, clean]):
        shrunk = (alpha * alpha_next * 0.25 + sigma * sigma_next) / (alpha**2 * 0.25 + sigma**2)
        distance = shrunk * distance
    torch.testing.assert_close(x - got, 1.0 + distance, rtol=1e-6, atol=1e-6)


def test_a_picture_is_refined_step_by_step() -> None:
    prior, x, noise = mixtures(), images(2), images(2, 1)
    x_t = STABLE_DIFFUSION.add_noise(x, noise, torch.full((2,), 300.0))
    for here, there in ((300.0, 200.0), (200.0, 100.0), (100.0, None)):
        level = torch.full((2,), here)
        score = guided(prior, x_t, level, 7.5)
        denoised = STABLE_DIFFUSION.clean_from_noise(x_t, score, level)
        if there is not None:
            x_t = STABLE_DIFFUSION.add_noise(denoised, score, torch.full((2,), there))
    got = run(method_of(RefineConfig(steps=3)), prior, conditioning_of(prior), x, 300.0, noise)
    torch.testing.assert_close(got.gradient, x - denoised, rtol=1e-9, atol=1e-9)


class Halved(AnalyticPrior):
    """Sees images at half the size and in -1 to 1, as a codec would."""

    def encode_images(self, rgb: Tensor) -> Tensor:
        return 2 * avg_pool2d(rgb, 2) - 1

    def decode_images(self, x: Tensor) -> Tensor:
        return (x + 1) / 2


def test_refining_follows_the_decoded_picture_pixel_by_pixel() -> None:
    """Of a prior that knows one picture, whatever the noise: the mean squared error to that one."""
    known = GaussianMixture.gaussian(images(1)[0], 1e-3)
    prior = Halved({"": known, "c": known}, STABLE_DIFFUSION)
    rgb = torch.rand(2, 3, 8, 8, dtype=torch.float64).requires_grad_()
    guidance = ScoreDistillation(prior, method_of(RefineConfig()))
    output = guidance(rgb, conditioning_of(prior), 0.0, torch.Generator().manual_seed(0))
    wanted = interpolate((images(1) + 1) / 2, (8, 8), mode="bilinear")
    output.loss.backward()
    torch.testing.assert_close(2 * rgb.grad, rgb.detach() - wanted, rtol=0.0, atol=1e-3)
    torch.testing.assert_close(output.loss, 0.25 * (rgb - wanted).square().sum(), rtol=1e-3, atol=0.0)


# CDS


def cds(scale: float, gap: float = 0.15) -> Method:
    """Without its clamp, at levels with nothing drawn."""
    free = GradientConfig()
    return method_of(CdsConfig(cfg_scale=scale, gap_min=gap, gap_max=gap, gradient=free))


@pytest.mark.parametrize("scale", [1.0, 51.0])
def test_cds_is_the_difference_of_the_denoised_images(scale: float) -> None:
    """sigma'/alpha' g = D(x_t', t') - D(x_t, t), with t' one step down the ODE."""
    prior, x, noise = mixtures(), images(2), images(2, 1)
    method = cds(scale)
    state = walk(method, prior, x, 300.0, noise)
    assert (state.levels[MAIN][0].item(), state.levels[LATER][0].item()) == (450.0, 300.0)
    denoised = {
        level: STABLE_DIFFUSION.clean_from_noise(
            state.noisy[level],
            guided(prior, state.noisy[level], state.levels[level], scale),
            state.levels[level],
        )
        for level in (MAIN, LATER)
    }
    alpha, sigma = STABLE_DIFFUSION.alpha_sigma(state.levels[LATER], torch.float64)
    got = run(method, prior, conditioning_of(prior), x, 300.0, noise).gradient
    assert got.norm() > 0.1
    torch.testing.assert_close(
        sigma / alpha * got, denoised[LATER] - denoised[MAIN], rtol=1e-11, atol=1e-12 * scale
    )


def test_cds_walks_in_the_variance_exploding_picture() -> None:
    """z = x + (sigma/alpha) n; the step adds the difference of sigma/alpha times the score."""
    prior, x, noise = mixtures(), images(1), images(1, 1)
    state = walk(cds(1.0), prior, x, 300.0, noise)
    (alpha, sigma), (later_alpha, later_sigma) = stable_diffusion_level(450), stable_diffusion_level(300)
    score = guided(prior, state.noisy[MAIN], state.levels[MAIN], 1.0)
    z = x + sigma / alpha * noise + (later_sigma / later_alpha - sigma / alpha) * score
    torch.testing.assert_close(state.noisy[LATER], later_alpha * z)


def test_cds_comes_to_rest_the_noise_away_from_the_mean() -> None:
    """x* = mean - sigma/alpha n, reached by descent: with the other sign this runs away."""
    prior, noise = two_gaussians(), images(1, 1)
    alpha, sigma = stable_diffusion_level(450)
    x = images(1)
    for _ in range(200):
        x = x - 3.0 * run(cds(1.0), prior, conditioning_of(prior), x, 300.0, noise).gradient
    torch.testing.assert_close(x, 1.0 - sigma / alpha * noise, rtol=1e-6, atol=1e-6)


def test_cds_has_one_noise_for_all_views() -> None:
    prior, x = mixtures(), constant(0.3, 2)
    method = method_of(CdsConfig(noise=FixedNoise(seed=4)))
    rng = torch.Generator()
    levels = method.times(STABLE_DIFFUSION, 0.5, 2, rng)
    state = method.noise(x, levels, STABLE_DIFFUSION, ScoreBank(prior, conditioning_of(prior)), 0.5, rng)
    assert torch.equal(state.noise[0], state.noise[1])
    assert torch.equal(state.noisy[LATER][0], state.noisy[LATER][1])
    assert set(state.scores) == {Term(Branch.POSITIVE), NULL}


def test_ism_at_scale_zero_knows_only_the_null() -> None:
    """The prompt's distribution plays no part, neither on the way nor at its end."""
    x = images(1)
    same = {"": gaussian(0.2, 0.5), "c": gaussian(1.0, 0.5)}
    other = {"": gaussian(0.2, 0.5), "c": gaussian(-3.0, 0.1)}
    first, second = (
        run(
            method_of(IsmConfig(cfg_scale=0.0)),
            by_name(prompts),
            conditioning_of(by_name(prompts)),
            x,
            400.0,
            NO_NOISE,
        )
        for prompts in (same, other)
    )
    assert torch.equal(first.gradient, second.gradient)
