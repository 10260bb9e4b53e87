"""Interval score matching: SDS without chance, one DDIM step at a time.

    g = sigma/alpha (null + cfg_scale (positive - null) at t  -  null at s)

The image is inverted with the unconditional branch to level s and from there moved to t in one step, whose
score is the target: the guided one, where there is guidance on the way (``noise.cfg_scale``). With both
scales 1 the prompt alone is asked, and guidance-distilled models can answer. ``sigma/alpha`` times the
difference is that of the images that the two levels imply. The released code inverts from a slightly noisy
image (``noise.start_noise``), shows depth in a fifth of the steps and mirrors half of the images; none of
this is done here.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Coefficients, LinearCombination
from studio.guidance.method import Method
from studio.guidance.state import ANCHOR, NULL, POSITIVE, Branch, Term
from studio.recipes.guidance import InvertedNoise, IsmConfig
from studio.recipes.ramps import value_at

CITATION = Citation(
    authors="Y. Liang, X. Yang, J. Lin, H. Li, X. Xu, Y. Chen",
    title="LucidDreamer: Towards High-Fidelity Text-to-3D Generation via Interval Score Matching",
    year=2023,
    arxiv="2311.11284",
)

POSITIVE_BEFORE, NULL_BEFORE = Term(Branch.POSITIVE, level=ANCHOR), Term(Branch.NULL, level=ANCHOR)


def method(config: IsmConfig) -> Method:
    """The paper's interval score."""
    inverted = config.noise.cfg_scale if isinstance(config.noise, InvertedNoise) else 0.0
    target = {POSITIVE_BEFORE: -inverted, NULL_BEFORE: inverted - 1.0}

    def coefficients(progress: float) -> Coefficients:
        scale = value_at(config.cfg_scale, progress)
        return Coefficients({POSITIVE: scale, NULL: 1.0 - scale} | target)

    return Method(
        citation=CITATION,
        times=times.Anchored(times.sampler(config.times), config.gap),
        noise=noise.policy(config.noise),
        combine=LinearCombination(coefficients),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
