"""Visual-prompt classifier score matching: CSM towards a prompt and a reference image.

    g = sigma/alpha (text_scale (text - null) + image_scale (text and image - text))

The reference is ``Condition.image`` of the positive branch. Without one the second difference vanishes and
this is CSM, so recipes that show none are refused. No code was released: this is the usual way to guide by
two conditions (InstructPix2Pix, arXiv:2211.09800), and the paper's calibration of the text is left out.
"""

from __future__ import annotations

from studio.guidance import csm, noise, times, weighting
from studio.guidance.combine import Coefficients, LinearCombination
from studio.guidance.method import Method
from studio.guidance.state import NULL, POSITIVE, Branch, Term
from studio.recipes.guidance import VpcsmConfig
from studio.recipes.ramps import value_at

CITATION = csm.CITATION

TEXT_ONLY = Term(Branch.TEXT_ONLY)


def method(config: VpcsmConfig) -> Method:
    """Two classifiers, one behind the other."""

    def coefficients(progress: float) -> Coefficients:
        text = value_at(config.text_scale, progress)
        image = value_at(config.image_scale, progress)
        return Coefficients({POSITIVE: image, TEXT_ONLY: text - image, NULL: -text})

    return Method(
        citation=CITATION,
        times=times.Anchored(times.sampler(config.times), config.gap),
        noise=noise.policy(config.noise),
        combine=LinearCombination(coefficients),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
    )
