"""Score distillation via reparametrised DDIM: SDS whose noise is found by inversion, with negative guidance.

    g = x - x0 = sigma/alpha (null + cfg_scale (positive - null) - noise)

``noise`` leads from the image to where the inversion ends. The released code asks the denoiser at the level
before the jitter about an image after it, and divides by the number of elements; neither is done here.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.recipes.guidance import SdiConfig

CITATION = Citation(
    authors="A. Lukoianov, H. Sáez de Ocáriz Borde, K. Greenewald, V. C. Guizilini, T. Bagautdinov, "
    "V. Sitzmann, J. Solomon",
    title="Score Distillation via Reparametrized DDIM",
    year=2024,
    arxiv="2405.15891",
)


def method(config: SdiConfig) -> Method:
    """The paper's denoised image as a target."""
    return Method(
        citation=CITATION,
        times=times.Raised(times.sampler(config.times), 0.0, config.jitter, keep_later=False),
        noise=noise.policy(config.noise),
        combine=guided_minus_noise(config.cfg_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
