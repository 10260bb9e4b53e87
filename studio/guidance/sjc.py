"""Score Jacobian chaining: the same direction from the variance-exploding side.

The paper makes ``x + (sigma/alpha) noise`` and hands the model that over sqrt(1 + (sigma/alpha)²), which on a
variance-preserving schedule is the usual noisy image. What differs from SDS is the weight, 1, and that the
noise may be left in the gradient: it averages to zero.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.recipes.guidance import SjcConfig

CITATION = Citation(
    authors="H. Wang, X. Du, J. Li, R. A. Yeh, G. Shakhnarovich",
    title="Score Jacobian Chaining: Lifting Pretrained 2D Diffusion Models for 3D Generation",
    year=2022,
    arxiv="2212.00774",
)


def method(config: SjcConfig) -> Method:
    """The paper's perturb-and-average scoring."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=guided_minus_noise(config.cfg_scale, -1.0 if config.variance_reduction else 0.0),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
