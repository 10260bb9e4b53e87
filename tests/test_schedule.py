from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from studio.schedule import NoiseSchedule, Prediction
from tests.truth.gaussian import stable_diffusion_level

SCHEDULES = {
    "vp": NoiseSchedule.scaled_linear(),
    "cosine": NoiseSchedule.cosine(),
    "flow": NoiseSchedule.rectified_flow(shift=3.0),
    "ve": NoiseSchedule("ve", torch.linspace(10.0, -8.0, 50, dtype=torch.float64)),
}


def batch(schedule: NoiseSchedule, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images, noise and fractional timesteps over the whole table."""
    rng = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, 8, 3, 4, 4, generator=rng, dtype=torch.float64)
    timesteps = torch.rand(8, generator=rng, dtype=torch.float64) * (len(schedule) - 1)
    return x, noise, timesteps


@pytest.mark.parametrize(
    ("timestep", "alpha", "sigma", "ratio"),
    [
        (20, 0.9906, 0.1367, 0.138),
        (100, 0.9456, 0.3252, 0.3439),
        (400, 0.6515, 0.7586, 1.1644),
        (500, 0.5257, 0.8507, 1.6183),
        (980, 0.0764, 0.9971, 13.04),
    ],
)
def test_stable_diffusion_has_its_published_levels(
    timestep: int, alpha: float, sigma: float, ratio: float
) -> None:
    got_alpha, got_sigma = SCHEDULES["vp"].alpha_sigma(torch.tensor([float(timestep)]), torch.float64)
    assert (got_alpha.item(), got_sigma.item()) == pytest.approx((alpha, sigma), abs=6e-5)
    assert got_sigma.item() / got_alpha.item() == pytest.approx(ratio, rel=6e-4)
    assert (got_alpha.item(), got_sigma.item()) == pytest.approx(stable_diffusion_level(timestep), abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_family_keeps_its_law(name: str) -> None:
    schedule = SCHEDULES[name]
    alpha, sigma = schedule.alpha_sigma(batch(schedule)[2], torch.float64)
    law = {"vp": alpha**2 + sigma**2, "flow": alpha + sigma, "ve": alpha}[schedule.family]
    torch.testing.assert_close(law, torch.ones_like(alpha), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_between_timesteps_are_linear_in_log_snr(name: str) -> None:
    schedule = SCHEDULES[name]
    table = schedule.log_snr
    got = schedule.log_snr_at(torch.tensor([3.0, 3.25, 4.0, -5.0, 1e9]))
    expected = torch.stack([table[3], 0.75 * table[3] + 0.25 * table[4], table[4], table[0], table[-1]])
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_timestep_at_inverts_log_snr_at(name: str) -> None:
    schedule = SCHEDULES[name]
    timesteps = torch.cat([batch(schedule)[2], torch.tensor([0.0, 1.0, len(schedule) - 1.0])])
    torch.testing.assert_close(schedule.timestep_at(schedule.log_snr_at(timesteps)), timesteps.double())


@pytest.mark.parametrize("prediction", Prediction)
@pytest.mark.parametrize("name", SCHEDULES)
def test_predictions_round_trip(name: str, prediction: Prediction) -> None:
    schedule = SCHEDULES[name]
    x, noise, timesteps = batch(schedule)
    x_t = schedule.add_noise(x, noise, timesteps)
    output = schedule.output_from_noise(noise, x_t, timesteps, prediction)
    alpha, sigma = schedule.alpha_sigma(timesteps, torch.float64)
    meaning = {
        Prediction.EPSILON: noise,
        Prediction.X0: x,
        Prediction.V: alpha * noise - sigma * x,
        Prediction.FLOW: noise - x,
    }[prediction]
    torch.testing.assert_close(output, meaning, atol=1e-8, rtol=1e-8)
    back = schedule.noise_from_output(output, x_t, timesteps, prediction)
    torch.testing.assert_close(back, noise, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(schedule.clean_from_noise(x_t, noise, timesteps), x, atol=1e-8, rtol=1e-8)


def test_a_ddim_step_of_a_flow_is_an_euler_step() -> None:
    schedule = NoiseSchedule.rectified_flow()
    x_t, noise, timesteps = batch(schedule)
    later = timesteps * 0.7
    _, sigma = schedule.alpha_sigma(timesteps, torch.float64)
    _, next_sigma = schedule.alpha_sigma(later, torch.float64)
    velocity = schedule.output_from_noise(noise, x_t, timesteps, Prediction.FLOW)
    euler = x_t + (next_sigma - sigma) * velocity
    torch.testing.assert_close(
        schedule.ddim_step(x_t, noise, timesteps, later), euler, atol=1e-10, rtol=1e-10
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_steps_keep_the_image_of_a_true_noise(name: str) -> None:
    """With the true noise every step stays on the line from the image to the noise."""
    schedule = SCHEDULES[name]
    x, noise, timesteps = batch(schedule)
    later = timesteps * 0.5
    stepped = schedule.ddim_step(schedule.add_noise(x, noise, timesteps), noise, timesteps, later)
    torch.testing.assert_close(stepped, schedule.add_noise(x, noise, later), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("shape", ["scaled_linear", "squaredcos_cap_v2"])
def test_diffusers_agrees(shape: str) -> None:
    from diffusers import DDIMScheduler, DDPMScheduler

    beta = {"beta_start": 0.00085, "beta_end": 0.012}
    ddpm = DDPMScheduler(1000, beta_schedule=shape, clip_sample=False, **beta)
    ours = NoiseSchedule.scaled_linear() if shape == "scaled_linear" else NoiseSchedule.cosine()
    from_table = NoiseSchedule.from_alphas_cumprod(ddpm.alphas_cumprod)
    rng = torch.Generator().manual_seed(0)
    x, noise, output = torch.randn(3, 4, 3, 4, 4, generator=rng)
    timesteps = torch.tensor([60, 250, 640, 980])
    levels = timesteps.float()
    close = {"atol": 2e-5, "rtol": 2e-4}

    for schedule in (ours, from_table):
        torch.testing.assert_close(
            schedule.add_noise(x, noise, levels), ddpm.add_noise(x, noise, timesteps), **close
        )
        torch.testing.assert_close(
            schedule.output_from_noise(noise, schedule.add_noise(x, noise, levels), levels, Prediction.V),
            ddpm.get_velocity(x, noise, timesteps),
            **close,
        )
        for prediction in (Prediction.EPSILON, Prediction.V, Prediction.X0):
            ddim = DDIMScheduler(
                1000,
                beta_schedule=shape,
                clip_sample=False,
                prediction_type=prediction.value,
                timestep_spacing="leading",
                **beta,
            )
            ddim.set_timesteps(50)
            for row, timestep in enumerate([60, 240, 640, 980]):
                one = slice(row, row + 1)
                theirs = ddim.step(output[one], timestep, x[one], eta=0.0).prev_sample
                at, to = torch.tensor([float(timestep)]), torch.tensor([timestep - 20.0])
                predicted = schedule.noise_from_output(output[one], x[one], at, prediction)
                torch.testing.assert_close(schedule.ddim_step(x[one], predicted, at, to), theirs, **close)


@pytest.mark.parametrize("name", SCHEDULES)
def test_shifting_multiplies_the_noise_to_signal_ratio(name: str) -> None:
    schedule = SCHEDULES[name]
    timesteps = batch(schedule)[2]
    alpha, sigma = schedule.alpha_sigma(timesteps, torch.float64)
    shifted_alpha, shifted_sigma = schedule.shifted(4.0).alpha_sigma(timesteps, torch.float64)
    torch.testing.assert_close(shifted_sigma / shifted_alpha, 4.0 * sigma / alpha)


def test_shifting_a_flow_is_the_shift_of_stable_diffusion_3() -> None:
    """sigma' = k sigma / (1 + (k - 1) sigma): the same thing in other words."""
    torch.testing.assert_close(
        NoiseSchedule.rectified_flow(shift=3.0).log_snr, NoiseSchedule.rectified_flow().shifted(3.0).log_snr
    )


@pytest.mark.parametrize(
    ("timestep", "flow_sigma"), [(20, 0.1213), (250, 0.4103), (500, 0.6181), (750, 0.8039), (980, 0.9288)]
)
def test_levels_translate_between_families_by_log_snr(timestep: int, flow_sigma: float) -> None:
    flow = NoiseSchedule.rectified_flow(levels=10_000)
    log_snr = NoiseSchedule.scaled_linear().log_snr_at(torch.tensor([float(timestep)]))
    _, sigma = flow.alpha_sigma(flow.timestep_at(log_snr))
    assert sigma.item() == pytest.approx(flow_sigma, abs=6e-5)


def test_a_table_that_ends_in_pure_noise_stays_finite() -> None:
    """Zero terminal SNR: the last alpha is 0 in the table, and x0 could not be read from it."""
    alphas_cumprod = NoiseSchedule.scaled_linear().log_snr.sigmoid()
    schedule = NoiseSchedule.from_alphas_cumprod(torch.cat([alphas_cumprod[:-1], torch.zeros(1)]))
    last = torch.tensor([len(schedule) - 1.0, len(schedule) - 1.5])
    x, noise = torch.ones(2, 2, 3, 4, 4, dtype=torch.float64)
    back = schedule.clean_from_noise(schedule.add_noise(x, noise, last), noise, last)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)


def test_a_rising_table_is_refused() -> None:
    with pytest.raises(ValueError, match="strictly"):
        NoiseSchedule("vp", torch.tensor([0.0, -1.0, -1.0]))


def test_half_precision_levels_come_from_double_arithmetic() -> None:
    alpha, sigma = SCHEDULES["vp"].alpha_sigma(torch.tensor([20.0]), torch.float16)
    truth = stable_diffusion_level(20)
    assert alpha.dtype == torch.float16
    assert math.isclose(alpha.item(), truth[0], rel_tol=1e-3)
    assert math.isclose(sigma.item(), truth[1], rel_tol=1e-3)
