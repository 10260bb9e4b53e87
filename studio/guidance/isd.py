"""Identity score distillation: VSD, or SDS, with a prior that is told whose head it is.

    g = sigma² (null + cfg_scale (positive - null) - critic)

The critic is a tuned copy of the prior and told what it is told; the prior itself is never changed, which the
released code does by mistake.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.guidance.vsd import guided_minus_critic
from studio.recipes.guidance import IsdConfig

CITATION = Citation(
    authors="J. Hao, J. Tang, J. Zhang, R. Yi, Y. Hong, M. Li, W. Cao, Y. Wang, C. Wang, L. Ma",
    title="ID-Sculpt: ID-aware 3D Head Generation from Single In-the-wild Portrait Image",
    year=2024,
    arxiv="2406.16710",
)


def method(config: IsdConfig) -> Method:
    """The released code's form, or the one with noise."""
    with_critic = config.form == "vsd"
    make = guided_minus_critic if with_critic else guided_minus_noise
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=make(config.cfg_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic if with_critic else None,
    )
