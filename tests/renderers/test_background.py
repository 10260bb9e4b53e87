"""Background policies."""

from __future__ import annotations

import pytest
import torch

from studio.recipes.config import FixedBackgroundConfig, RandomBackgroundConfig
from studio.recipes.ramps import Linear
from studio.renderers.background import background_colors


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_fixed() -> None:
    colors = background_colors(FixedBackgroundConfig(color=(0.1, 0.2, 0.3)), 2, 0.0, rng())
    torch.testing.assert_close(colors, torch.tensor([[0.1, 0.2, 0.3]] * 2))


def test_shares_of_the_mix() -> None:
    config = RandomBackgroundConfig(grey=0.3, fixed=0.2, color=(1.0, 0.0, 1.0))
    colors = background_colors(config, 20_000, 0.0, rng())
    assert bool(((colors >= 0) & (colors <= 1)).all())
    is_fixed = (colors == torch.tensor([1.0, 0.0, 1.0])).all(1)
    is_grey = (colors == colors[:, :1]).all(1)
    assert float(is_fixed.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert float(is_grey.float().mean()) == pytest.approx(0.3, abs=0.02)
    rest = colors[~is_fixed & ~is_grey]
    torch.testing.assert_close(rest.mean(0), torch.full((3,), 0.5), atol=0.02, rtol=0)


def test_the_generator_decides() -> None:
    config = RandomBackgroundConfig(grey=0.5)
    assert torch.equal(background_colors(config, 4, 0.0, rng()), background_colors(config, 4, 0.0, rng()))


def test_shares_may_change_over_the_run() -> None:
    config = RandomBackgroundConfig(fixed=Linear(start=1.0, end=0.0), color=(0.0, 1.0, 0.0))
    for progress, share in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        colors = background_colors(config, 4000, progress, rng())
        is_fixed = (colors == torch.tensor([0.0, 1.0, 0.0])).all(1)
        assert float(is_fixed.float().mean()) == pytest.approx(share, abs=0.03)
