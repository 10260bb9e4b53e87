"""Interval score matching: SDS without chance, one DDIM step at a time.

    g = sigma/alpha (null + cfg_scale (positive - null) at t  -  null at s)

The image is inverted with the unconditional branch to level s and from there moved to t in one step, whose
score is the target. ``sigma/alpha`` times the difference is that of the images that the two levels imply.
The released code inverts from a slightly noisy image (``noise.start_noise``), shows depth in a fifth of the
steps and mirrors half of the images; none of this is done here.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import guided_against
from studio.guidance.method import Method
from studio.guidance.state import ANCHOR, Branch, Term
from studio.recipes.guidance import IsmConfig

CITATION = Citation(
    authors="Y. Liang, X. Yang, J. Lin, H. Li, X. Xu, Y. Chen",
    title="LucidDreamer: Towards High-Fidelity Text-to-3D Generation via Interval Score Matching",
    year=2023,
    arxiv="2311.11284",
)


def method(config: IsmConfig) -> Method:
    """The paper's interval score."""
    return Method(
        citation=CITATION,
        times=times.Anchored(times.sampler(config.times), config.gap),
        noise=noise.policy(config.noise),
        combine=guided_against(config.cfg_scale, Term(Branch.NULL, level=ANCHOR)),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
