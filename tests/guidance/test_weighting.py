from __future__ import annotations

import pytest
import torch

from studio.guidance.weighting import named
from studio.recipes.guidance import WeightName
from tests.guidance.bench import STABLE_DIFFUSION
from tests.truth.gaussian import stable_diffusion_level

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


@pytest.mark.parametrize("timestep", [0, 20, 500, 999])
def test_sigma2_is_one_minus_alphas_cumprod(timestep: int) -> None:
    alpha, sigma = STABLE_DIFFUSION.alpha_sigma(torch.tensor([float(timestep)]), torch.float64)
    alpha_bar = stable_diffusion_level(timestep)[0] ** 2
    assert named("sigma2")(alpha, sigma).item() == pytest.approx(1 - alpha_bar, abs=1e-12)
