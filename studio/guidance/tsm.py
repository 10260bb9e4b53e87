"""Trajectory score matching: the target of ISM taken closer to the level of the step.

    g = sigma/alpha (null + cfg_scale (positive - null) at t  -  null at mu)
    mu = s + (t - s) sqrt(1 - gamma²)

Both t and mu are one step from s, where the inversion ends, so they share its error and it cancels. With
gamma = 1 this is ISM; with 0 only the classifier's direction is left. The released code's clipping is the
recipe's ``gradient.pixel_clip = 0.05``.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import guided_against
from studio.guidance.method import Method
from studio.guidance.state import MIDDLE, Branch, Term
from studio.recipes.guidance import TsmConfig

CITATION = Citation(
    authors="X. Miao, H. Duan, V. Ojha, J. Song, T. Shah, Y. Long, R. Ranjan",
    title="Dreamer XL: Towards High-Resolution Text-to-3D Generation via Trajectory Score Matching",
    year=2024,
    arxiv="2405.11252",
)


def method(config: TsmConfig) -> Method:
    """The paper's trajectory score."""
    return Method(
        citation=CITATION,
        times=times.Between(times.Anchored(times.sampler(config.times), config.gap), config.gamma),
        noise=noise.policy(config.noise),
        combine=guided_against(config.cfg_scale, Term(Branch.NULL, level=MIDDLE)),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
