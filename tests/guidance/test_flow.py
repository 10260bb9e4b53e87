"""RFDS, RFDS-Rev, UCM and CFD against pencil and paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from studio.cameras import orbit
from studio.errors import StudioError
from studio.guidance.consistent import seen_noise, sphere
from studio.guidance.method import Method
from studio.guidance.methods import build_guidance, method_of
from studio.guidance.state import MAIN, State
from studio.guidance.terms import ScoreBank
from studio.priors.analytic import AnalyticPrior
from studio.recipes.guidance import (
    CfdConfig,
    ConsistentNoise,
    OdeNoise,
    RefinedNoise,
    RfdsConfig,
    SdsConfig,
    SweepTimes,
    UcmConfig,
)
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Cameras, Conditioning
from tests.guidance.bench import (
    branch,
    by_name,
    conditioning_of,
    gaussian,
    images,
    mixtures,
    run,
    two_gaussians,
    under,
)

FLOW = NoiseSchedule.rectified_flow()


def state_of(method: Method, prior: AnalyticPrior, x: Tensor, timestep: float, noise: Tensor) -> State:
    levels = {MAIN: torch.full((len(x),), timestep)}
    bank = ScoreBank(prior, conditioning_of(prior))
    return under(method.noise, noise)(x, levels, prior.schedule, bank, 1.0, torch.Generator())


# RFDS


def test_rfds_matches_velocities() -> None:
    """v guided - (noise - x), with the velocity that the network itself puts out."""
    prior, x, noise = mixtures(FLOW, Prediction.FLOW), images(3), images(3, 1)
    timesteps = torch.tensor([60.0, 400.0, 690.0])
    x_t = FLOW.add_noise(x, noise, timesteps)
    positive, null = (prior.network_output(x_t, timesteps, branch(prior, name)) for name in ("c", ""))
    got = run(method_of(RfdsConfig()), prior, conditioning_of(prior), x, timesteps, noise).gradient
    torch.testing.assert_close(got, null + 100.0 * (positive - null) - (noise - x), rtol=1e-9, atol=1e-9)


def test_rfds_leaves_out_the_noisiest_of_stable_diffusion_3() -> None:
    """Indices 0.3-0.98 of its descending table: sigma from 0.875 to 0.058."""
    sd3 = NoiseSchedule.rectified_flow(shift=3.0)
    low, high = method_of(RfdsConfig()).times.extremes(sd3, 0.0)
    sigmas = [sd3.alpha_sigma(levels[MAIN], torch.float64)[1].item() for levels in (low, high)]
    assert sigmas == pytest.approx([0.058, 0.875], abs=0.003)


def test_rfds_rev_replaces_the_noise_by_what_the_prompt_predicts() -> None:
    """The paper's n + (1 - sigma) (v(x_t) + x - n)."""
    prior, x, noise = mixtures(FLOW, Prediction.FLOW), images(2), images(2, 1)
    timesteps = torch.full((2,), 400.0)
    alpha, _ = FLOW.alpha_sigma(timesteps, torch.float64)
    velocity = prior.network_output(FLOW.add_noise(x, noise, timesteps), timesteps, branch(prior, "c"))
    refined = noise + alpha * (velocity + x - noise)
    method = method_of(RfdsConfig(noise=RefinedNoise()))
    state = state_of(method, prior, x, 400.0, noise)
    torch.testing.assert_close(state.noise, refined, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.noisy[MAIN], FLOW.add_noise(x, refined, timesteps))
    got = run(method, prior, conditioning_of(prior), x, timesteps, noise).gradient
    again = run(method_of(RfdsConfig()), prior, conditioning_of(prior), x, timesteps, refined).gradient
    torch.testing.assert_close(got, again)


# UCM


def on_flow() -> AnalyticPrior:
    return AnalyticPrior({"": gaussian(0.2, 0.5), "c": gaussian(1.0, 0.5)}, FLOW)


def test_ucm_finds_the_noise_that_a_gaussians_ode_couples() -> None:
    x = images(2)
    method = method_of(UcmConfig(coupled_noise=OdeNoise(steps=400)))
    for prior in (on_flow(), two_gaussians()):
        state = state_of(method, prior, x, 300.0, images(2, 1))
        torch.testing.assert_close(state.noise, (x - 1.0) / 0.5, rtol=0.03, atol=0.01)


def test_ucms_three_euler_steps_by_hand() -> None:
    """From sigma at timesteps 0, 1000/3, 2000/3 to 1: dx = d sigma v, v = noise - x0."""
    x = images(2)
    sigmas = np.interp([0.0, 1000 / 3, 2000 / 3], np.arange(1000), np.linspace(0.001, 0.9999, 1000))
    walked = (1 - sigmas[0]) * x
    for here, there in zip(sigmas, [*sigmas[1:], 1.0], strict=True):
        variance = (1 - here) ** 2 * 0.25 + here**2
        noise = here * (walked - (1 - here) * 1.0) / variance
        walked = walked + (there - here) * (noise - (walked - here * noise) / (1 - here))
    state = state_of(method_of(UcmConfig()), on_flow(), x, 300.0, images(2, 1))
    torch.testing.assert_close(state.noise, walked, rtol=1e-4, atol=1e-4)


def test_ucm_begins_as_rfds() -> None:
    prior, noise = mixtures(FLOW), images(2, 1)
    arguments = (prior, conditioning_of(prior), images(2), 400.0, noise)
    early, late = (
        run(method_of(UcmConfig(switch_at=0.4)), *arguments, progress).gradient for progress in (0.39, 0.4)
    )
    first = run(method_of(RfdsConfig(cfg_scale=60.0)), *arguments).gradient
    torch.testing.assert_close(early, first)
    assert not torch.allclose(late, first)


# CFD


def around(count: int, size: int = 8) -> Cameras:
    return orbit(torch.linspace(0, 180, count), torch.full((count,), 15.0), size, size)


def test_pixels_of_noise_seen_are_independent_and_of_unit_variance() -> None:
    """Each pixel as a row of what it takes of each grain: the rows are orthonormal, for every camera."""
    grains = 0.6 * sphere(400)
    weights, covered = seen_noise(grains, torch.eye(400, dtype=torch.float64), around(5))
    assert covered.double().mean().item() > 0.5
    for view, seen in zip(weights, covered, strict=True):
        rows = view.flatten(1).mT[seen.flatten()]
        torch.testing.assert_close(rows @ rows.mT, torch.eye(len(rows)).double(), rtol=0, atol=1e-12)
    assert weights[~covered.expand_as(weights)].abs().max().item() == 0.0


def test_noise_seen_moves_with_the_camera() -> None:
    """Near views share most of their noise, opposite ones nothing."""
    grains = 0.6 * sphere(20_000)
    values = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cameras = orbit(torch.tensor([0.0, 0.5, 180.0]), torch.zeros(3), 16, 16)
    images_seen, covered = seen_noise(grains, values, cameras)
    both = covered.all(dim=0, keepdim=True)

    def correlation(one: int, other: int) -> float:
        return float((images_seen[one] * images_seen[other])[both[0].expand(4, -1, -1)].mean())

    assert correlation(0, 1) > 0.7
    assert abs(correlation(0, 2)) < 0.15


def test_a_grain_is_seen_where_it_is() -> None:
    """The one on +x: in the middle for the camera on +x, on the right edge of the sphere for that on +z."""
    grain, value = torch.tensor([[0.6, 0.0, 0.0]]), torch.ones(1, 1)
    seen, covered = seen_noise(grain, value, orbit(torch.tensor([90.0, 45.0, 270.0]), torch.zeros(3), 9, 9))
    assert covered[0, 0].nonzero().tolist() == [[4, 4]]
    (row, column), *rest = covered[1, 0].nonzero().tolist()
    assert row == 4 and column > 4 and not rest
    assert not covered[2].any()
    assert seen.sum().item() == 2.0


def seen_from(prior: AnalyticPrior, cameras: Cameras) -> Conditioning:
    conditioning = conditioning_of(prior)
    return replace(conditioning, positive=replace(conditioning.positive, cameras=cameras))


def test_cfd_with_nothing_in_common_is_sds() -> None:
    prior, x = mixtures(), images(3)
    conditioning = seen_from(prior, around(3))
    times = SweepTimes(start=0.5, end=0.5)
    alone = CfdConfig(times=times, noise=ConsistentNoise(share=0.0))
    sds = SdsConfig(cfg_scale=70.0, times=times, weight="sigma_over_alpha")
    got, expected = (
        build_guidance(config, prior)(x, conditioning, 0.5, torch.Generator().manual_seed(1)).gradient
        for config in (alone, sds)
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_cfds_noise_depends_on_the_camera_and_not_on_the_step() -> None:
    """Where the sphere is seen; beside it noise is fresh."""
    prior, x = mixtures(), images(2)
    noise = method_of(CfdConfig(noise=ConsistentNoise(radius=1.2, cells_per_pixel=400.0))).noise
    cameras = orbit(torch.tensor([0.0, 90.0]), torch.zeros(2), 4, 4)
    bank = ScoreBank(prior, seen_from(prior, cameras))
    levels = {MAIN: torch.full((2,), 300.0)}
    first, later = (
        noise(x, levels, prior.schedule, bank, progress, torch.Generator().manual_seed(seed)).noise
        for seed, progress in ((0, 0.1), (1, 0.7))
    )
    assert torch.equal(first, later)
    assert not torch.allclose(first[0], first[1])


def test_cfd_asks_for_cameras() -> None:
    prior = by_name({"": gaussian(0.2, 0.5), "c": gaussian(1.0, 0.5)})
    with pytest.raises(StudioError, match="the conditioning has no cameras"):
        build_guidance(CfdConfig(), prior)(images(1), conditioning_of(prior), 0.5, torch.Generator())
