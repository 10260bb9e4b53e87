"""Which terms count in a step: all without a share, and one of those with one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from studio.guidance.hybrid import drawn
from studio.randomness import generator


def test_each_expert_is_drawn_by_its_odds() -> None:
    steps, shares = 4000, (3.0, 1.0, None, 0.0, 4.0)
    seen = Counter(
        place for step in range(steps) for place in drawn(shares, generator(5, "expert", step)) if place != 2
    )
    assert sum(seen.values()) == steps and seen[3] == 0
    for place, odds in ((0, 3 / 8), (1, 1 / 8), (4, 4 / 8)):
        assert abs(seen[place] - odds * steps) < 3 * (steps * odds * (1 - odds)) ** 0.5


@pytest.mark.parametrize(
    ("shares", "places"),
    [((None, None), (0, 1)), ((None, 1.0, None), (0, 1, 2)), ((0.0, 0.3), (1,)), ((2.0, None, 0.0), (0, 1))],
)
def test_where_there_is_no_choice(shares: tuple[float | None, ...], places: tuple[int, ...]) -> None:
    assert all(drawn(shares, generator(0, "expert", step)) == places for step in range(20))


def test_without_shares_nothing_is_drawn() -> None:
    rng = generator(0, "expert")
    before = rng.get_state()
    drawn((None, None), rng)
    assert torch.equal(rng.get_state(), before)
