from __future__ import annotations

import torch

from studio.guidance.forward import NoisePolicy
from studio.guidance.noise import policy
from studio.guidance.state import MAIN, State
from studio.guidance.terms import ScoreBank
from studio.recipes.guidance import FixedNoise, RandomNoise
from tests.guidance.bench import STABLE_DIFFUSION, conditioning_of, images, two_gaussians
from tests.truth.gaussian import stable_diffusion_level

TIMESTEPS = torch.tensor([20.0, 400.0, 980.0])


def noised(noise: NoisePolicy, rng: torch.Generator, batch_seed: int = 0) -> State:
    prior = two_gaussians()
    levels = {MAIN: TIMESTEPS, "later": TIMESTEPS / 2}
    bank = ScoreBank(prior, conditioning_of(prior))
    return noise(images(3, batch_seed), levels, STABLE_DIFFUSION, bank, 0.0, rng)


def test_the_forward_process_is_followed_at_every_level() -> None:
    state = noised(policy(RandomNoise()), torch.Generator().manual_seed(0))
    for level, timesteps in {MAIN: TIMESTEPS, "later": TIMESTEPS / 2}.items():
        for row, timestep in enumerate(timesteps.tolist()):
            alpha, sigma = stable_diffusion_level(int(timestep))
            expected = alpha * state.clean[row] + sigma * state.noise[row]
            torch.testing.assert_close(state.noisy[level][row], expected)


def test_random_noise_is_normal_and_named_by_its_generator() -> None:
    first = noised(policy(RandomNoise()), torch.Generator().manual_seed(0)).noise
    again = noised(policy(RandomNoise()), torch.Generator().manual_seed(0)).noise
    other = noised(policy(RandomNoise()), torch.Generator().manual_seed(1)).noise
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert abs(first.mean().item()) < 4 / first.numel() ** 0.5
    assert abs(first.var().item() - 1) < 4 * (2 / first.numel()) ** 0.5


def test_fixed_noise_is_one_image_for_all_and_draws_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    before = rng.get_state()
    first = noised(policy(FixedNoise(seed=3)), rng)
    later = noised(policy(FixedNoise(seed=3)), rng, batch_seed=7)
    assert torch.equal(rng.get_state(), before)
    assert torch.equal(first.noise, later.noise)
    assert torch.equal(first.noise[0], first.noise[2])
    assert not torch.equal(first.noise, noised(policy(FixedNoise(seed=4)), rng).noise)
