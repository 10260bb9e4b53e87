"""Image to image: renders follow, as pixels, what the prior makes of them from a low noise level.

    x_t = alpha x + sigma noise, led down the ODE with guidance to x0;   loss = |rgb - decoded x0|² / 2

DreamGaussian refines a mesh's texture so, and PLA4D ends with a refinement of pictures on whose loss it is
silent. The way down is SDEdit's (Meng et al. 2022, arXiv:2108.01073) in steps of DDIM.
"""

from __future__ import annotations

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.inversion import Denoised
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.recipes.guidance import RefineConfig

CITATION = Citation(
    authors="J. Tang, J. Ren, H. Zhou, Z. Liu, G. Zeng",
    title="DreamGaussian: Generative Gaussian Splatting for Efficient 3D Content Creation",
    year=2024,
    arxiv="2309.16653",
)


def method(config: RefineConfig) -> Method:
    """The distance to the denoised picture."""
    guided = guided_minus_noise(config.cfg_scale, 0.0)
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=Denoised(noise.policy(config.noise), guided, config.steps),
        combine=guided_minus_noise(config.cfg_scale),
        weight=weighting.named("sigma_over_alpha"),
        scores=config.scores,
        gradient=config.gradient,
        as_pixels=True,
    )
