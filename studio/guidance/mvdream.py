"""MVDream: SDS as the distance to a denoised image, whose contrast is pulled towards the unguided one's.

    g = x - x0',   x0' = (rescale_std std(x0 unguided) / std(x0) + 1 - rescale_std) x0

The method is made for a prior that sees several views at once, hence one noise level for all.
"""

from __future__ import annotations

from studio.guidance import gradient, noise, times, weighting
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.recipes.guidance import MvdreamConfig

CITATION = gradient.RESCALING


def method(config: MvdreamConfig) -> Method:
    """The paper's reconstruction loss; the rescaling is ``gradient.rescale_std``."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=guided_minus_noise(config.cfg_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
