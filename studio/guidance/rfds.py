"""Rectified-flow distillation: SDS on velocities.

    g = v_guided - (noise - x) = (guided - noise) / alpha

On a rectified flow, alpha = 1 - sigma. The default levels leave out the noisiest three tenths of Stable
Diffusion 3's schedule, as the released code does; its weight, drawn without regard to the level, is left out.
With the noise refined by the prompt's own prediction this is RFDS-Rev, with fresh noise also FlowDreamer's
VFDS.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.recipes.guidance import RfdsConfig

CITATION = Citation(
    authors="X. Yang, C. Chen, X. Yang, F. Liu, G. Lin",
    title="Text-to-Image Rectified Flow as Plug-and-Play Priors",
    year=2024,
    arxiv="2406.03293",
)


def method(config: RfdsConfig) -> Method:
    """The paper's distillation."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=guided_minus_noise(config.cfg_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
