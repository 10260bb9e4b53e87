"""Trajectory distribution matching of a one-step generator, which is what a renderer is.

    g = c huber'(d) / mean |x - x0 of prior|,   d = x0 of critic - x0 of prior

With several steps the generator's own trajectory is matched; with one, the step is DMD2's under a Huber loss,
scaled so that it is DMD2's wherever ``|d|`` lies far below ``c``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.dmd2 import DistributionMatching, clean_image, guided_score, mean_distance
from studio.guidance.method import Method
from studio.guidance.state import CRITIC, State, Term
from studio.recipes.guidance import TdmConfig
from studio.recipes.ramps import value_at

CITATION = Citation(
    authors="Y. Luo, T. Hu, J. Sun, Y. Cai, J. Tang",
    title="Learning Few-Step Diffusion Models by Trajectory Distribution Matching",
    year=2025,
    arxiv="2503.06674",
)


def huber_slope(x: Float[Tensor, "..."], bend: float) -> Float[Tensor, "..."]:
    """``bend`` times the derivative of ``sqrt(x² + bend²)``: x if it is small, ``bend sign(x)`` if large."""
    return x / (1 + (x / bend) ** 2).sqrt()


@dataclass(frozen=True)
class HuberMatching:
    """Distribution matching whose elements saturate at ``bend``."""

    matching: DistributionMatching
    bend: float

    def terms(self, progress: float) -> tuple[Term, ...]:
        """Those of distribution matching."""
        return self.matching.terms(progress)

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The normalised, saturated direction."""
        guided = clean_image(state, guided_score(scores, value_at(self.matching.cfg_scale, progress)))
        step = clean_image(state, scores[CRITIC]) - guided
        return huber_slope(step, self.bend) / mean_distance(state, guided)


def method(config: TdmConfig) -> Method:
    """One step of the paper's method."""
    matching = DistributionMatching(config.cfg_scale)
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=matching if config.huber is None else HuberMatching(matching, config.huber),
        weight=weighting.named("uniform"),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
    )
