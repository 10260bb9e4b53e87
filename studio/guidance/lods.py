"""Score distillation with a learned null: SDS over its scale, its unconditional branch fitted to the scene.

    g = sigma² (positive + (1/cfg_scale - 1) learned_null - noise/cfg_scale)

The learned null is the critic under the empty prompt, trained on the renders.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import Coefficients, LinearCombination
from studio.guidance.method import Method
from studio.guidance.state import CRITIC_UNPROMPTED, POSITIVE
from studio.recipes.guidance import LodsConfig

CITATION = Citation(
    authors="X. Yang, Y. Chen, C. Chen, C. Zhang, Y. Xu, X. Yang, F. Liu, G. Lin",
    title="Learn to Optimize Denoising Scores: A Unified and Improved Diffusion Prior for 3D Generation",
    year=2023,
    arxiv="2312.04820",
)


def method(config: LodsConfig) -> Method:
    """The paper's method, for a learned embedding or a low-rank change."""
    share = 1.0 / config.cfg_scale
    coefficients = Coefficients({POSITIVE: 1.0, CRITIC_UNPROMPTED: share - 1.0}, noise=-share)
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=LinearCombination(lambda progress: coefficients),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
    )
