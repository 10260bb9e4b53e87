"""Each method against what pencil and paper say of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from studio.guidance.method import Method
from studio.guidance.methods import citations, method_of, negative_prompts
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.recipes.guidance import (
    AsdConfig,
    BridgeConfig,
    BsdConfig,
    CdsConfig,
    CfdConfig,
    CsdConfig,
    CsmConfig,
    DreamTimeTimes,
    GradientConfig,
    GuidanceConfig,
    HifaConfig,
    HifaWeightName,
    IsmConfig,
    MvdreamConfig,
    NfsdConfig,
    RfdsConfig,
    ScoresConfig,
    SdiConfig,
    SdsConfig,
    SjcConfig,
    SweepTimes,
    TsmConfig,
    UcmConfig,
    VpcsmConfig,
)
from studio.recipes.ramps import Linear
from studio.schedule import NoiseSchedule, Prediction
from tests.guidance.bench import (
    NULL_A,
    NULL_B,
    PROMPT,
    STABLE_DIFFUSION,
    branch,
    by_name,
    conditioning_of,
    constant,
    expected_gradient,
    gaussian,
    images,
    mixtures,
    run,
    two_gaussians,
)
from tests.truth.gaussian import (
    cfg_fixed_point,
    csd_direction,
    csd_fixed_point,
    sds_deviation,
    sds_mean,
    stable_diffusion_level,
)

LEVEL = stable_diffusion_level(400)


def sds(cfg_scale: float) -> Method:
    return method_of(SdsConfig(cfg_scale=cfg_scale, weight="uniform"))


def csd(positive: float, null: float, negative: float = 0.0) -> Method:
    return method_of(
        CsdConfig(positive=positive, null=null, negative=negative, negative_prompt="neg", weight="uniform")
    )


def rest(method: Method, prior: AnalyticPrior, timestep: float = 400.0, progress: float = 0.0) -> float:
    """Where the expected gradient, affine in x for Gaussians, is zero."""
    conditioning = conditioning_of(prior)
    at = [
        expected_gradient(method, prior, conditioning, constant(x), timestep, progress).mean().item()
        for x in (0.0, 1.0)
    ]
    return at[0] / (at[0] - at[1])


# SDS (guidance at 1 leaves the prompt's score alone)


@pytest.mark.parametrize("timestep", [20, 400, 980])
@pytest.mark.parametrize("x", [-1.5, 1.0, 3.0])
def test_sds_points_from_the_mean(timestep: int, x: float) -> None:
    prior = two_gaussians()
    level = stable_diffusion_level(timestep)
    got = expected_gradient(sds(1.0), prior, conditioning_of(prior), constant(x), timestep)
    torch.testing.assert_close(got, constant(sds_mean(x, *PROMPT, *level)), atol=1e-12, rtol=1e-12)


def test_sds_is_noisy_by_as_much_as_the_data_is_spread() -> None:
    prior, x, noise = two_gaussians(), images(1), images(1, 1)
    one = run(sds(1.0), prior, conditioning_of(prior), x, 400.0, noise).gradient
    mean = expected_gradient(sds(1.0), prior, conditioning_of(prior), x, 400.0)
    torch.testing.assert_close(one - mean, -sds_deviation(PROMPT[1], *LEVEL) * noise)


def test_sds_towards_a_single_image_is_noiseless() -> None:
    prior = by_name({"": gaussian(*NULL_A), "c": gaussian(0.7, 0.0)})
    x = images(2)
    got = run(sds(1.0), prior, conditioning_of(prior), x, 400.0, images(2, 1)).gradient
    torch.testing.assert_close(got, LEVEL[0] / LEVEL[1] * (x - 0.7))


@pytest.mark.parametrize(("null", "published"), [(NULL_A, 6.2), (NULL_B, 2.15481)])
def test_guidance_over_saturates(null: tuple[float, float], published: float) -> None:
    """The prompt's mean is 1; SDS at scale 7.5 comes to rest far beyond it."""
    expected = cfg_fixed_point(PROMPT, null, 7.5, *LEVEL)
    assert expected == pytest.approx(published, abs=5e-6)
    assert rest(sds(7.5), two_gaussians(null)) == pytest.approx(expected, abs=1e-9)


def test_sds_collapses_onto_the_mean() -> None:
    """Particles that should spread by 0.5 end on one point: SDS seeks the mode."""
    prior = two_gaussians()
    conditioning = conditioning_of(prior)
    particles = images(16)
    for _ in range(25):
        particles = particles - expected_gradient(sds(1.0), prior, conditioning, particles, 400.0)
    assert particles.std(dim=0).max().item() < 1e-6
    torch.testing.assert_close(particles, torch.ones_like(particles), atol=1e-6, rtol=0)


def descend(prior: AnalyticPrior, low: int, high: int, rate: float, steps: int) -> Tensor:
    """Plain gradient descent of 128 particles with SDS at levels in [low, high)."""
    rng = torch.Generator().manual_seed(0)
    conditioning = conditioning_of(prior)
    particles = torch.randn(128, 3, 1, 1, generator=rng, dtype=torch.float64)
    for _ in range(steps):
        timesteps = torch.randint(low, high, (128,), generator=rng)
        noise = torch.randn(particles.shape, generator=rng, dtype=torch.float64)
        particles -= rate * run(sds(1.0), prior, conditioning, particles, timesteps, noise).gradient
    return particles


def two_modes() -> GaussianMixture:
    modes = torch.tensor([-2.0, 2.0], dtype=torch.float64)[:, None, None, None].expand(2, 3, 1, 1)
    return GaussianMixture(modes, torch.full((2,), 0.2, dtype=torch.float64), torch.ones(2).double())


def test_low_noise_finds_the_modes_and_high_noise_their_middle() -> None:
    prior = by_name({"": two_modes(), "c": two_modes()})
    decided = descend(prior, 20, 300, rate=0.05, steps=80)
    assert (decided > 0).any() and (decided < 0).any()
    torch.testing.assert_close(decided.abs(), torch.full_like(decided, 2.0), atol=0.15, rtol=0)
    assert decided.abs().std().item() < 0.05  # the data's own spread is 0.2
    undecided = descend(prior, 900, 980, rate=2.0, steps=50)
    assert undecided.square().mean().sqrt().item() < 0.3


# SJC


@pytest.mark.parametrize("variance_reduction", [True, False])
def test_sjc_in_the_form_of_its_paper(variance_reduction: bool) -> None:
    """z = x + (sigma / alpha) noise, into the model as z / sqrt(1 + (sigma / alpha)²)."""
    prior, x, noise = mixtures(), images(2), images(2, 1)
    timesteps = torch.tensor([60.0, 700.0])
    alpha, sigma = STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64)
    ratio = sigma / alpha
    scaled = (x + ratio * noise) / (1 + ratio**2).sqrt()
    positive = prior.predict_noise(scaled, timesteps, branch(prior, "c"))
    null = prior.predict_noise(scaled, timesteps, branch(prior, ""))
    expected = null + 10.0 * (positive - null) - (noise if variance_reduction else 0)
    method = method_of(SjcConfig(cfg_scale=10.0, variance_reduction=variance_reduction))
    got = run(method, prior, conditioning_of(prior), x, timesteps, noise).gradient
    torch.testing.assert_close(got, expected)


def test_sjc_of_a_variance_exploding_model_is_sds() -> None:
    """The same model seen through both families: images scaled by 1/alpha, the same log-SNR."""
    exploding = NoiseSchedule("ve", STABLE_DIFFUSION.log_snr)
    prior, other = mixtures(), mixtures(exploding)
    arguments = (images(2), torch.tensor([60.0, 700.0]), images(2, 1))
    got = run(method_of(SjcConfig(cfg_scale=7.5)), other, conditioning_of(other), *arguments).gradient
    expected = run(sds(7.5), prior, conditioning_of(prior), *arguments).gradient
    torch.testing.assert_close(got, expected)


# CSD


@pytest.mark.parametrize("x", [-3.0, 0.2, 8.0])
def test_csd_never_stops_where_the_spreads_are_equal(x: float) -> None:
    prior = two_gaussians()
    got = run(csd(1.0, -1.0), prior, conditioning_of(prior, negatives=[""]), constant(x), 400.0, images(1))
    expected = csd_direction(x, PROMPT, NULL_A, *LEVEL)
    assert expected == pytest.approx(-0.58009, abs=5e-6)
    torch.testing.assert_close(got.gradient, constant(expected))


def test_csd_rests_beyond_the_prompt_where_they_differ() -> None:
    expected = csd_fixed_point(PROMPT, NULL_B, *LEVEL)
    assert expected == pytest.approx(2.71286, abs=5e-6)
    assert rest(csd(1.0, -1.0), two_gaussians(NULL_B)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("coefficients", [(1.0, -1.0, 0.0), (1.0, -0.3, -0.7), (2.5, 0.5, -3.0)])
def test_coefficients_that_sum_to_zero_see_only_differences(coefficients: tuple[float, float, float]) -> None:
    same = gaussian(*PROMPT)
    prior = by_name({"": same, "c": same, "neg": same})
    conditioning = conditioning_of(prior, negatives=["neg"])
    got = run(csd(*coefficients), prior, conditioning, images(2), 400.0, images(2, 1)).gradient
    torch.testing.assert_close(got, torch.zeros_like(got), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("progress", "null", "negative"),
    [(0.0, -1.0, 0.0), (0.25, -0.5, -0.5), (0.5, 0.0, -1.0), (1.0, 0.0, -1.0)],
)
def test_the_released_schedule_hands_over_from_null_to_negative(
    progress: float, null: float, negative: float
) -> None:
    prior = mixtures()
    conditioning = conditioning_of(prior, negatives=["neg"])
    arguments = (prior, conditioning, images(2), 300.0, images(2, 1))
    got = run(method_of(CsdConfig()), *arguments, progress)
    torch.testing.assert_close(got.gradient, run(csd(1.0, null, negative), *arguments).gradient)
    assert got.denoiser_calls == 2 * (1 + (null != 0) + (negative != 0))


# NFSD


def nfsd_parts(
    prior: AnalyticPrior, x: Tensor, timesteps: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x_t = prior.schedule.add_noise(x, noise, timesteps)
    positive, null, negative = (
        prior.predict_noise(x_t, timesteps, branch(prior, name)) for name in ("c", "", "neg")
    )
    _, sigma = prior.schedule.alpha_sigma(timesteps, torch.float64)
    return positive, null, negative, sigma


def check_nfsd(prior: AnalyticPrior, timesteps: Tensor, is_noisy: list[bool]) -> None:
    x, noise = images(len(timesteps)), images(len(timesteps), 1)
    positive, null, negative, sigma = nfsd_parts(prior, x, timesteps, noise)
    residual = torch.where(torch.tensor(is_noisy)[:, None, None, None], null - negative, null)
    expected = sigma**2 * (7.5 * (positive - null) + residual)
    method = method_of(NfsdConfig(negative_prompt="neg"))
    got = run(method, prior, conditioning_of(prior, negatives=["neg"]), x, timesteps, noise)
    torch.testing.assert_close(got.gradient, expected)
    assert got.denoiser_calls == 3 * len(timesteps)


def test_nfsd_splits_at_timestep_200_image_by_image() -> None:
    timesteps = torch.tensor([199.0, 200.0, 20.0, 980.0, 201.0])
    check_nfsd(mixtures(), timesteps, [False, True, False, True, True])


def test_nfsd_splits_other_schedules_at_the_same_signal_to_noise_ratio() -> None:
    """sigma/alpha = 0.572 of Stable Diffusion's timestep 200 is sigma = 0.364 of a rectified flow."""
    flow = NoiseSchedule.rectified_flow()
    timesteps = torch.tensor([358.0, 368.0])
    _, sigma = flow.alpha_sigma(timesteps)
    assert sigma.flatten().tolist() == pytest.approx([0.359, 0.369], abs=1e-3)
    check_nfsd(mixtures(flow, Prediction.FLOW), timesteps, [False, True])


# SDS-Bridge


def test_bridge_from_the_prompt_to_the_prompt_is_no_bridge() -> None:
    prior = mixtures()
    conditioning = conditioning_of(prior, negatives=["c"])
    got = run(method_of(BridgeConfig()), prior, conditioning, images(2), 400.0, images(2, 1), progress=0.7)
    torch.testing.assert_close(got.gradient, torch.zeros_like(got.gradient), atol=1e-12, rtol=0)


def test_bridge_from_the_particles_own_distribution_keeps_their_spread() -> None:
    """The paper's claim: with the exact source, the bridge is variational score distillation."""
    particles = 2.0 * images(64) - 1.0
    method = method_of(BridgeConfig(cfg_scale=1.0, switch_at=0.0, weight="uniform"))
    for _ in range(50):
        source = GaussianMixture.gaussian(particles.mean(0), particles.std(0).mean().item())
        prior = by_name({"": source, "c": gaussian(*PROMPT), "now": source})
        conditioning = conditioning_of(prior, negatives=["now"])
        particles = particles - 1.5 * expected_gradient(method, prior, conditioning, particles, 400.0)
    torch.testing.assert_close(particles.mean(0), constant(1.0)[0], atol=5e-3, rtol=0)
    assert particles.std(0).mean().item() == pytest.approx(0.5, abs=5e-3)


def test_bridge_from_the_particles_themselves_keeps_both_modes_and_their_spread() -> None:
    """The exact score of a particle set as the source; SDS shrinks each mode to a tenth of this."""
    rng = torch.Generator().manual_seed(0)
    mixture = two_modes()
    particles = torch.randn(96, 3, 1, 1, generator=rng, dtype=torch.float64)
    method = method_of(BridgeConfig(cfg_scale=1.0, switch_at=0.0, weight="uniform"))
    for _ in range(120):
        prior = by_name({"": mixture, "c": mixture, "now": GaussianMixture.particles(particles)})
        timesteps = torch.randint(100, 300, (96,), generator=rng)
        noise = torch.randn(particles.shape, generator=rng, dtype=torch.float64)
        conditioning = conditioning_of(prior, negatives=["now"])
        particles = particles - 0.1 * run(method, prior, conditioning, particles, timesteps, noise).gradient
    is_right = particles.mean(dim=(1, 2, 3)) > 0
    for mode, mean in ((particles[is_right], 2.0), (particles[~is_right], -2.0)):
        assert mode.mean().item() == pytest.approx(mean, abs=5e-3)
        assert mode.std(0).mean().item() == pytest.approx(0.2, abs=5e-3)


@pytest.mark.parametrize(("progress", "is_bridge"), [(0.0, False), (0.2999, False), (0.3, True), (1.0, True)])
def test_bridge_begins_at_its_switch(progress: float, is_bridge: bool) -> None:
    prior = mixtures()
    arguments = (prior, conditioning_of(prior, negatives=["neg"]), images(2), 400.0, images(2, 1))
    got = run(method_of(BridgeConfig(cfg_scale=40.0, switch_at=0.3)), *arguments, progress).gradient
    first = run(method_of(SdsConfig(cfg_scale=40.0)), *arguments).gradient
    second = run(
        method_of(CsdConfig(positive=40.0, null=0.0, negative=-40.0, weight="sigma2")), *arguments
    ).gradient
    torch.testing.assert_close(got, second if is_bridge else first)


# HiFA

HIFA_AT_400: dict[HifaWeightName, float] = {
    "constant": 0.05,
    "noise_match": 0.04294,
    "alpha_sigma": 0.024713,
    "alpha2_over_sigma": 0.027975,
}
"""From alpha = 0.651505, sigma = 0.758642 with a pocket calculator."""


@pytest.mark.parametrize("name", HIFA_AT_400)
def test_hifa_is_the_weighted_distance_to_the_denoised_image(name: HifaWeightName) -> None:
    prior, x, noise = mixtures(), images(2), images(2, 1)
    timesteps = torch.full((2,), 400.0)
    x_t = STABLE_DIFFUSION.add_noise(x, noise, timesteps)
    positive, null = (prior.predict_noise(x_t, timesteps, branch(prior, name)) for name in ("c", ""))
    x0 = STABLE_DIFFUSION.clean_from_noise(x_t, null + 7.5 * (positive - null), timesteps)
    got = run(
        method_of(HifaConfig(cfg_scale=7.5, weight=name)), prior, conditioning_of(prior), x, timesteps, noise
    ).gradient
    torch.testing.assert_close(got, HIFA_AT_400[name] * (x - x0), rtol=1e-4, atol=1e-6)


def test_hifa_matched_to_noise_is_a_twentieth_of_it() -> None:
    prior = mixtures()
    arguments = (prior, conditioning_of(prior), images(3), torch.tensor([100.0, 500.0, 900.0]), images(3, 1))
    got = run(method_of(HifaConfig(cfg_scale=7.5, weight="noise_match")), *arguments).gradient
    torch.testing.assert_close(got, 0.05 * run(sds(7.5), *arguments).gradient)


def test_hifa_bounds_the_distance_by_sigma() -> None:
    prior = mixtures()
    arguments = (prior, conditioning_of(prior), images(2), torch.tensor([300.0, 900.0]), images(2, 1))
    _, sigma = STABLE_DIFFUSION.alpha_sigma(arguments[3], torch.float64)
    free = run(method_of(HifaConfig(residual_clip=None)), *arguments).gradient
    clipped = run(method_of(HifaConfig(residual_clip=3.0)), *arguments).gradient
    limit = 0.05 * 3.0 * sigma
    assert bool((free.abs() > limit).any())
    torch.testing.assert_close(clipped, free.clamp(-limit, limit))


# Whom they cite and what they need


@pytest.mark.parametrize(
    ("config", "arxiv"),
    [
        (SdsConfig(), ["2209.14988"]),
        (SjcConfig(), ["2212.00774"]),
        (CsdConfig(), ["2310.19415"]),
        (NfsdConfig(), ["2310.17590"]),
        (BridgeConfig(), ["2406.09417"]),
        (HifaConfig(), ["2305.18766"]),
        (IsmConfig(), ["2311.11284"]),
        (TsmConfig(), ["2405.11252"]),
        (CsmConfig(), ["2410.21299"]),
        (VpcsmConfig(), ["2410.21299"]),
        (SdiConfig(), ["2405.15891"]),
        (CdsConfig(), ["2401.09050", "2303.15413"]),
        (AsdConfig(), ["2407.02040"]),
        (BsdConfig(), ["2407.13976"]),
        (MvdreamConfig(), ["2308.16512"]),
        (RfdsConfig(), ["2406.03293"]),
        (UcmConfig(), ["2408.05008"]),
        (CfdConfig(), ["2501.05445"]),
        (SdsConfig(times=DreamTimeTimes()), ["2209.14988", "2306.12422"]),
        (SdsConfig(scores=ScoresConfig(perp_neg=1.0)), ["2209.14988", "2304.04968"]),
        (
            SdsConfig(
                gradient=GradientConfig(rescale_std=0.5, clamp=Linear(start=2.0, end=8.0), pixel_clip=0.1)
            ),
            ["2209.14988", "2308.16512", "2303.15413", "2310.12474"],
        ),
    ],
)
def test_every_paper_in_use_is_cited(config: GuidanceConfig, arxiv: list[str]) -> None:
    assert [citation.arxiv for citation in citations(config)] == arxiv


def test_methods_say_which_texts_they_need() -> None:
    assert negative_prompts(SdsConfig()) == ()
    (bad,) = negative_prompts(CsdConfig(negative_prompt="blurry"))
    assert (bad.text, bad.extends_prompt) == ("blurry", False)
    (source,) = negative_prompts(BridgeConfig(source_suffix=", noisy"))
    assert (source.text, source.extends_prompt) == (", noisy", True)


def test_hifa_sweeps_by_default() -> None:
    assert HifaConfig().times == SweepTimes(start=0.98, end=0.3, shape="sqrt")
