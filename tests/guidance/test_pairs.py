"""ASD, BSD and MVDream against pencil and paper."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from studio.guidance.bsd import shortest_between
from studio.guidance.methods import method_of
from studio.guidance.state import MAIN, NOISIER
from studio.recipes.guidance import (
    AsdConfig,
    AutomaticBalance,
    BsdConfig,
    FixedBalance,
    GradientConfig,
    MvdreamConfig,
    ScoresConfig,
    UniformTimes,
)
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    CountingPrior,
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
    with_wrong_views,
)
from tests.truth.gaussian import sds_mean, stable_diffusion_level


def asd(scale: float, rate: float = 0.1, **window: float) -> AsdConfig:
    return AsdConfig(
        cfg_scale=scale,
        shift_rate=rate,
        shift_drawn=False,
        times=UniformTimes(t_min=window.get("t_min", 0.02), t_max=0.98),
        weight="uniform",
    )


# ASD


@pytest.mark.parametrize(("scale", "x"), [(7.5, -1.0), (1.0, 2.0), (0.0, 0.4)])
def test_asd_of_gaussians_in_closed_form(scale: float, x: float) -> None:
    """t+ = 400 + floor(0.1 (400 - 20)) = 438."""
    prior = two_gaussians()
    got = expected_gradient(method_of(asd(scale)), prior, conditioning_of(prior), constant(x), 400.0)
    now, noisier = stable_diffusion_level(400), stable_diffusion_level(438)
    expected = (
        (1 - scale) * sds_mean(x, 0.2, 0.5, *now)
        + scale * sds_mean(x, 1.0, 0.5, *now)
        - sds_mean(x, 1.0, 0.5, *noisier)
    )
    torch.testing.assert_close(got, constant(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("timestep", "sign"), [(100.0, -1.0), (800.0, 1.0)])
def test_asd_without_guidance_turns_round_where_the_score_is_steepest(timestep: float, sign: float) -> None:
    """sigma alpha / v rises with the noise up to its maximum (sigma² = 1/2 for unit spread), then falls."""
    prior = by_name({"": gaussian(0.0, 1.0), "c": gaussian(0.0, 1.0)})
    got = expected_gradient(method_of(asd(1.0)), prior, conditioning_of(prior), constant(1.0), timestep)
    assert (sign * got > 0.001).all()


def test_asd_shares_its_noise_between_the_levels() -> None:
    """The image itself as the prompt predicts exactly the noise at every level: both predictions agree."""
    x = images(1)
    prior = by_name({"": gaussian(0.2, 0.5), "c": gaussian(0.7, 0.0)})
    point = torch.full_like(x, 0.7)
    got = run(method_of(asd(1.0)), prior, conditioning_of(prior), point, 400.0, images(1, 1)).gradient
    assert got.abs().max().item() < 1e-9


def test_asds_noisier_level_follows_the_window() -> None:
    times = method_of(AsdConfig(times=UniformTimes(t_min=0.3, t_max=0.98), shift_rate=0.5)).times
    levels = times(STABLE_DIFFUSION, 0.0, 20_000, torch.Generator().manual_seed(0))
    step = levels[NOISIER] - levels[MAIN]
    reach = 0.5 * (levels[MAIN] - 300)
    inside = levels[MAIN] + reach < 999
    assert bool((step >= 0).all()) and bool((step <= reach).all())
    assert levels[NOISIER].max().item() == 999.0
    assert step[levels[MAIN] == 300].abs().max().item() == 0.0
    assert (step[inside] / reach[inside].clamp(min=1)).mean().item() == pytest.approx(0.5, abs=0.02)
    largest = method_of(asd(1.0, 0.5, t_min=0.3)).times(STABLE_DIFFUSION, 0.0, 50, torch.Generator())
    expected = (largest[MAIN] + (0.5 * (largest[MAIN] - 300)).floor()).clamp(max=999)
    assert torch.equal(largest[NOISIER], expected)


def test_asd_shares_its_distance_where_it_shares_its_level() -> None:
    shared = AsdConfig(times=UniformTimes(shared=True), shift_rate=1.0)
    levels = method_of(shared).times(STABLE_DIFFUSION, 0.0, 8, torch.Generator().manual_seed(0))
    assert len(set(levels[NOISIER].tolist())) == 1
    apart = method_of(AsdConfig(shift_rate=1.0)).times(STABLE_DIFFUSION, 0.0, 8, torch.Generator())
    assert len(set(apart[NOISIER].tolist())) > 1


def test_perp_neg_steers_the_first_of_asds_predictions_only() -> None:
    prior, x, noise = CountingPrior(mixtures()), images(2), images(2, 1)
    weights = torch.tensor([[-0.5, -1.0], [-0.3, -0.2]])
    conditioning = with_wrong_views(conditioning_of(prior.inner), prior.inner, weights)
    config = asd(7.5)
    steered = method_of(AsdConfig(**{**vars(config), "scores": ScoresConfig(perp_neg=1.0)}))
    output = run(steered, prior, conditioning, x, 400.0, noise)
    assert output.denoiser_calls == 5 * 2 == sum(prior.forward_sizes)
    plain = run(method_of(config), prior, conditioning, x, 400.0, noise).gradient
    nothing = method_of(AsdConfig(**{**vars(asd(0.0)), "scores": ScoresConfig(perp_neg=1.0)}))
    unguided = run(method_of(asd(0.0)), prior, conditioning, x, 400.0, noise).gradient
    assert not torch.allclose(output.gradient, plain)
    torch.testing.assert_close(
        run(nothing, prior, conditioning, x, 400.0, noise).gradient, unguided, rtol=0, atol=0
    )


# BSD


def pairs(count: int) -> tuple[Tensor, Tensor]:
    one, other = torch.randn(
        2, count, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return one * torch.logspace(-1, 1, count, dtype=torch.float64)[:, None, None, None], other


def inner(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=(1, 2, 3))


def plane(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, :, None, None]


def test_the_shortest_mixture_serves_both() -> None:
    one, other = pairs(1000)
    shortest = shortest_between(one, other)
    length = inner(shortest, shortest)
    along, across = inner(shortest, one), inner(shortest, other)
    assert bool((along >= length - 1e-9).all()) and bool((across >= length - 1e-9).all())
    assert bool((length <= torch.minimum(inner(one, one), inner(other, other)) + 1e-9).all())
    # Between the ends, both gain exactly as much.
    ends = (shortest == one).flatten(1).all(1) | (shortest - one).flatten(1).norm(dim=1).lt(1e-9)
    ends |= (shortest - other).flatten(1).norm(dim=1).lt(1e-9)
    assert 100 < int(ends.sum()) < 900
    torch.testing.assert_close(along[~ends], length[~ends], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(across[~ends], length[~ends], rtol=1e-9, atol=1e-9)


def test_the_shortest_mixture_by_hand() -> None:
    torch.testing.assert_close(shortest_between(plane(1, 0), plane(0, 3)), plane(0.9, 0.3))
    assert shortest_between(plane(2, 0), plane(-0.5, 0)).norm().item() < 1e-15
    torch.testing.assert_close(shortest_between(plane(1, 2), plane(3, 6)), plane(1, 2))
    torch.testing.assert_close(shortest_between(plane(3, 6), plane(1, 2)), plane(1, 2))
    torch.testing.assert_close(shortest_between(plane(1, 2), plane(1, 2)), plane(1, 2))


def test_bsd_in_the_form_of_its_paper() -> None:
    prior, x, noise = mixtures(), images(3, 5), images(3, 1)
    timesteps = torch.tensor([150.0, 400.0, 900.0])
    x_t = STABLE_DIFFUSION.add_noise(x, noise, timesteps)
    positive, null = (prior.predict_noise(x_t, timesteps, branch(prior, name)) for name in ("c", ""))
    alpha, sigma = STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64)
    scaled = 0.7 * (positive - null)
    gap = null - scaled
    share = (inner(gap, null) / inner(gap, gap)).clamp(0, 1)[:, None, None, None]
    fixed = BsdConfig(balance=FixedBalance(classifier_scale=0.7))
    got = run(method_of(fixed), prior, conditioning_of(prior), x, timesteps, noise).gradient
    torch.testing.assert_close(got, alpha * (share * scaled + (1 - share) * null))

    residual = null - noise
    one, other = positive - null, 1.25 * residual
    share = (inner(other - one, other) / inner(other - one, other - one)).clamp(0, 1)[:, None, None, None]
    length = inner(residual, residual).sqrt()[:, None, None, None]
    automatic = BsdConfig(balance=AutomaticBalance())
    got = run(method_of(automatic), prior, conditioning_of(prior), x, timesteps, noise).gradient
    torch.testing.assert_close(got, sigma * length / 50 * (share * one + (1 - share) * other))


def test_bsd_stops_where_its_aims_contradict_each_other() -> None:
    """Unconditional images lie at 0, the prompt's at 1: between them each score opposes the other."""
    prior = by_name({"": gaussian(0.0, 0.5), "c": gaussian(1.0, 0.5)})
    config = BsdConfig(balance=FixedBalance(classifier_scale=1.0))
    arguments = (prior, conditioning_of(prior))
    zero = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    assert run(method_of(config), *arguments, constant(0.5), 400.0, zero).gradient.abs().max() < 1e-12
    assert run(method_of(config), *arguments, constant(-0.5), 400.0, zero).gradient.abs().min() > 0.01


# MVDream


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_mvdream_is_the_distance_to_an_image_of_tempered_contrast(strength: float) -> None:
    prior, x, noise = mixtures(), images(4), images(4, 1)
    timesteps = torch.full((4,), 600.0)
    x_t = STABLE_DIFFUSION.add_noise(x, noise, timesteps)
    positive, null = (prior.predict_noise(x_t, timesteps, branch(prior, name)) for name in ("c", ""))
    guided, unguided = (
        STABLE_DIFFUSION.clean_from_noise(x_t, score, timesteps)
        for score in (null + 50.0 * (positive - null), positive)
    )
    tempered = (strength * unguided.std() / guided.std() + 1 - strength) * guided
    config = MvdreamConfig(gradient=GradientConfig(rescale_std=strength))
    got = run(method_of(config), prior, conditioning_of(prior), x, timesteps, noise).gradient
    torch.testing.assert_close(got, x - tempered)


def test_mvdream_without_guidance_has_nothing_to_temper() -> None:
    prior = mixtures()
    arguments = (prior, conditioning_of(prior), images(2), 600.0, images(2, 1))
    got, expected = (
        run(
            method_of(MvdreamConfig(cfg_scale=1.0, gradient=GradientConfig(rescale_std=strength))), *arguments
        ).gradient
        for strength in (0.8, 0.0)
    )
    torch.testing.assert_close(got, expected)
