from __future__ import annotations

import pytest
import torch

from studio.guidance.weighting import named
from studio.recipes.guidance import WeightName
from tests.guidance.bench import STABLE_DIFFUSION

AT_400 = {
    "sigma2": 0.57553,
    "uniform": 1.0,
    "alpha": 0.65150,
    "fantasia3d": 0.37496,
    "sigma_over_alpha": 1.16444,
    "inverse_alpha": 1.53491,
}
"""From alpha = 0.651505, sigma = 0.758642 at Stable Diffusion's timestep 400, with a pocket calculator."""


@pytest.mark.parametrize("name", AT_400)
def test_weights_at_a_known_level(name: WeightName) -> None:
    alpha, sigma = STABLE_DIFFUSION.alpha_sigma(torch.tensor([400.0, 400.0]), torch.float64)
    weight = named(name)(alpha, sigma)
    assert weight.shape == (2, 1, 1, 1)
    assert weight[0].item() == pytest.approx(AT_400[name], abs=5e-5)


def test_sigma2_is_one_minus_alphas_cumprod() -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    timesteps = torch.arange(1000)
    weight = named("sigma2")(*STABLE_DIFFUSION.alpha_sigma(timesteps.float(), torch.float64)).flatten()
    torch.testing.assert_close(weight.float(), 1 - scheduler.alphas_cumprod, atol=1e-6, rtol=1e-5)
