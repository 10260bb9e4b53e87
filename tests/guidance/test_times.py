from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.errors import StudioError
from studio.guidance.state import ANCHOR, LATER, MAIN
from studio.guidance.times import Ahead, Anchored, Between, Raised, sampler
from studio.recipes.guidance import DreamTimeTimes, SweepTimes, TimesConfig, UniformTimes
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


@pytest.mark.parametrize(
    ("progress", "timestep"), [(0.0, 980), (0.25, 917), (0.5, 832), (0.75, 694), (1.0, 20)]
)
def test_dreamtime_takes_its_authors_levels(progress: float, timestep: int) -> None:
    rng = generator()
    before = rng.get_state()
    levels = sampler(DreamTimeTimes())(STABLE_DIFFUSION, progress, 3, rng)[MAIN]
    assert levels.tolist() == [timestep] * 3
    assert torch.equal(rng.get_state(), before)


def test_dreamtime_spends_its_steps_by_importance() -> None:
    """Over 40000 steps each level is visited in proportion to W, written out here with NumPy."""
    draw = sampler(DreamTimeTimes())
    steps = 40_000
    visits = [
        int(draw(STABLE_DIFFUSION, k / steps, 1, generator())[MAIN].item()) for k in range(0, steps, 10)
    ]
    assert visits == sorted(visits, reverse=True)
    t = np.arange(20, 981)
    betas = np.linspace(np.sqrt(0.00085), np.sqrt(0.012), 1000) ** 2
    alpha_bar = np.cumprod(1 - betas)[t]
    importance = np.sqrt((1 - alpha_bar) / alpha_bar)
    importance *= np.where(t > 800, np.exp(-((t - 800) ** 2) / (2 * 300**2)), 1.0)
    importance *= np.where(t < 500, np.exp(-((t - 500) ** 2) / (2 * 100**2)), 1.0)
    expected = importance / importance.sum() * len(visits)
    counts = np.bincount(visits, minlength=981)[20:]
    assert np.abs(counts - expected).max() < 2.0


@pytest.mark.parametrize(
    "times",
    [
        UniformTimes(t_min=0.3, t_max=0.7),
        SweepTimes(),
        DreamTimeTimes(),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "anchored", "between", "ahead", "raised"])
def test_nothing_is_drawn_beyond_what_a_sampler_says(times: TimesConfig, kind: str) -> None:
    draw = {
        "plain": sampler(times),
        "anchored": Anchored(sampler(times), 0.4),
        "between": Between(Anchored(sampler(times), 0.1), 0.5),
        "ahead": Ahead(sampler(times), 0.3, 0.5, drawn=True, shared=False),
        "raised": Raised(sampler(times), 0.1, 0.6, keep_later=True),
    }[kind]
    low, high = draw.extremes(STABLE_DIFFUSION, 0.4)
    for seed in range(5):
        levels = draw(STABLE_DIFFUSION, 0.4, 200, generator(seed))
        assert levels.keys() == low.keys() == high.keys()
        assert bool((levels[MAIN] >= low[MAIN]).all()) and bool((levels[MAIN] <= high[MAIN]).all())
        assert all(bool((one >= 0).all() and (one <= 999).all()) for one in levels.values())


def test_a_step_up_is_within_its_bounds_and_the_schedule() -> None:
    """Consistent3D: t' sweeps, t lies 100-299 above it."""
    draw = Raised(sampler(SweepTimes(start=0.7, end=0.1)), 0.1, 0.3, keep_later=True)
    gaps = set()
    for seed in range(2000):
        levels = draw(STABLE_DIFFUSION, 1.0, 2, generator(seed))
        assert levels[LATER].tolist() == [100.0, 100.0]
        assert levels[MAIN].unique().numel() == 1
        gaps.add(int((levels[MAIN] - levels[LATER])[0]))
    assert (min(gaps), max(gaps)) == (100, 299)
    top = Raised(sampler(SweepTimes(start=0.98, end=0.98)), 0.1, 0.3, keep_later=True)
    levels = top(STABLE_DIFFUSION, 0.5, 1, generator())
    assert levels[MAIN].item() == 999.0 and levels[LATER].item() < 900.0


def test_an_anchor_stops_at_the_clean_end() -> None:
    draw = Anchored(sampler(SweepTimes(start=0.05, end=0.05)), Linear(start=0.1, end=0.02))
    assert draw(STABLE_DIFFUSION, 0.0, 1, generator())[ANCHOR].item() == 0.0
    assert draw(STABLE_DIFFUSION, 1.0, 1, generator())[ANCHOR].item() == 30.0
