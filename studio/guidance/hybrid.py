"""Hybrid score distillation (4D-fy): each step takes one expert of several, drawn with given odds.

The mean gradient is the sum of the experts' own, each times its odds, at the cost of one of them a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from studio.guidance.citation import Citation

CITATION = Citation(
    authors="S. Bahmani, I. Skorokhodov, V. Rong, G. Wetzstein, L. Guibas, P. Wonka, S. Tulyakov, "
    "J. J. Park, A. Tagliasacchi, D. B. Lindell",
    title="4D-fy: Text-to-4D Generation Using Hybrid Score Distillation Sampling",
    year=2023,
    arxiv="2311.17984",
)


def drawn(shares: Sequence[float | None], rng: torch.Generator) -> tuple[int, ...]:
    """The places of the terms that count in a step: those without a share, and one of those with one.

    Args:
        shares: odds of each term, of any sum above 0; None counts always.
        rng: drawn from once, on the CPU, if any term has a share.
    """
    experts = [place for place, share in enumerate(shares) if share is not None]
    if not experts:
        return tuple(range(len(shares)))
    odds = torch.tensor([share for share in shares if share is not None], dtype=torch.float64)
    chosen = experts[int(torch.multinomial(odds, 1, generator=rng))]
    return tuple(place for place, share in enumerate(shares) if share is None or place == chosen)
