from __future__ import annotations

import pytest
import torch

from studio.errors import StudioError
from studio.guidance.state import MAIN
from studio.guidance.times import sampler
from studio.recipes.guidance import SweepTimes, UniformTimes
from studio.recipes.ramps import Linear
from tests.guidance.bench import STABLE_DIFFUSION


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_uniform_levels_fill_their_window_evenly() -> None:
    draw = sampler(UniformTimes(t_min=0.02, t_max=0.04))
    timesteps = draw(STABLE_DIFFUSION, 0.0, 21_000, generator())[MAIN]
    counts = torch.bincount(timesteps.long(), minlength=50)
    assert counts.nonzero().flatten().tolist() == list(range(20, 41))
    expected = 1000
    chi_squared = ((counts[20:41] - expected) ** 2 / expected).sum().item()
    assert chi_squared < 45.3  # the 99.9 % quantile for 20 degrees of freedom


def test_the_whole_schedule_may_be_asked_for() -> None:
    timesteps = sampler(UniformTimes(t_min=0.0, t_max=1.0))(STABLE_DIFFUSION, 0.0, 20_000, generator())[MAIN]
    assert (timesteps.min().item(), timesteps.max().item()) == (0.0, 999.0)


@pytest.mark.parametrize(("progress", "last"), [(0.0, 980), (0.25, 740), (0.5, 500), (1.0, 500)])
def test_the_window_follows_its_ramps(progress: float, last: int) -> None:
    falling = UniformTimes(t_max=Linear(start=0.98, end=0.5, end_at=0.5))
    timesteps = sampler(falling)(STABLE_DIFFUSION, progress, 20_000, generator())[MAIN]
    assert (timesteps.min().item(), timesteps.max().item()) == (20.0, float(last))


def test_shared_levels_are_one_for_the_batch() -> None:
    apart = sampler(UniformTimes())(STABLE_DIFFUSION, 0.0, 8, generator())[MAIN]
    together = sampler(UniformTimes(shared=True))(STABLE_DIFFUSION, 0.0, 8, generator())[MAIN]
    assert apart.unique().numel() > 1
    assert together.shape == (8,) and together.unique().numel() == 1


@pytest.mark.parametrize(
    ("shape", "progress", "timestep"),
    [
        ("sqrt", 0.0, 980),
        ("sqrt", 0.25, 640),
        ("sqrt", 1.0, 300),
        ("linear", 0.25, 810),
        ("linear", 0.5, 640),
    ],
)
def test_a_sweep_takes_the_published_levels(shape: str, progress: float, timestep: int) -> None:
    """HiFA: t_min + (t_max - t_min) (1 - sqrt(k / N))."""
    sweep = sampler(SweepTimes(start=0.98, end=0.3, shape="sqrt" if shape == "sqrt" else "linear"))
    assert sweep(STABLE_DIFFUSION, progress, 3, generator())[MAIN].tolist() == [timestep] * 3


def test_a_sweep_draws_nothing() -> None:
    rng = generator()
    before = rng.get_state()
    sampler(SweepTimes())(STABLE_DIFFUSION, 0.3, 4, rng)
    assert torch.equal(rng.get_state(), before)


def test_a_window_turned_inside_out_is_an_error() -> None:
    crossing = sampler(UniformTimes(t_min=0.3, t_max=Linear(start=0.9, end=0.1)))
    crossing(STABLE_DIFFUSION, 0.5, 1, generator())
    with pytest.raises(StudioError, match=r"t_min 0.3 and t_max 0.1 at progress 1.000; expected"):
        crossing(STABLE_DIFFUSION, 1.0, 1, generator())
