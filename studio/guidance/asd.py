"""Asynchronous score distillation: the prior at a noisier level stands for a fine-tuned copy of itself.

    g = sigma² (null + cfg_scale (positive - null) at t  -  positive at t+)

with one noise for both levels. A denoiser is better at noisier levels, as VSD's critic is better on renders.
Perp-Neg, where it is on, steers the first prediction only.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import guided_against
from studio.guidance.method import Method
from studio.guidance.state import NOISIER, Branch, Term
from studio.recipes.guidance import AsdConfig

CITATION = Citation(
    authors="Z. Ma, Y. Wei, Y. Zhang, X. Zhu, Z. Lei, L. Zhang",
    title="ScaleDreamer: Scalable Text-to-3D Synthesis with Asynchronous Score Distillation",
    year=2024,
    arxiv="2407.02040",
)


def method(config: AsdConfig) -> Method:
    """The paper's asynchronous pair."""
    return Method(
        citation=CITATION,
        times=times.Ahead(
            times.sampler(config.times),
            config.times.t_min,
            config.shift_rate,
            drawn=config.shift_drawn,
            shared=config.times.shared,
        ),
        noise=noise.policy(config.noise),
        combine=guided_against(config.cfg_scale, Term(Branch.POSITIVE, level=NOISIER, unsteered=True)),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
