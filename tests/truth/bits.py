"""Whether a result depends on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def assert_same_bits(run: Callable[[], Sequence[Tensor]], threads: Sequence[int] = (1, 2, 1, 5)) -> None:
    """``run`` gives the same bits, whatever the number of threads."""
    before = torch.get_num_threads()
    results = []
    try:
        for count in threads:
            torch.set_num_threads(count)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one, two)
