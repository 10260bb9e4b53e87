"""JSD: SDS of one prior, drawn to the images that a multi-view prior makes of the same views.

    g = w (e' - noise),   e' = null + cfg_scale (positive - null)
                               + energy_scale sigma/(alpha F) m (x0 - y0),
    x0 = (m x_t - sigma null) / alpha

with m the renders' coverage, F the views of a set and y0 the second prior's images. The last summand is
``energy_scale sigma`` times the gradient on x_t of the energy ``|x0 - y0|² / 2F``, with the predictions held
fixed. It has no weight of its own, and grows with sigma/alpha.

Deviations from the released code: F is a set's views, not the batch's, so that more sets a step, or more
scenes, change nothing; each prior is told the prompt by its own text encoder. Without coverage m is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.combine import LinearCombination
from studio.guidance.method import Method
from studio.guidance.sds import guided_minus_noise
from studio.guidance.state import MAIN, NULL, SECOND, State, Term
from studio.recipes.guidance import JsdConfig
from studio.recipes.ramps import Ramp, value_at

CITATION = Citation(
    authors="C. Jiang, Y. Zeng, T. Hu, S. Xu, W. Zhang, H. Xu, D. Y. Yeung",
    title="JointDreamer: Ensuring Geometry Consistency and Text Congruence in Text-to-3D Generation via "
    "Joint Score Distillation",
    year=2024,
    arxiv="2407.12291",
)


@dataclass(frozen=True)
class JointScores:
    """SDS's direction and, where it counts, the energy's."""

    sds: LinearCombination
    energy_scale: Ramp

    def terms(self, progress: float) -> tuple[Term, ...]:
        """SDS's, and what the energy compares."""
        energy = () if value_at(self.energy_scale, progress) == 0.0 else (NULL, SECOND)
        return tuple(dict.fromkeys((*self.sds.terms(progress), *energy)))

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """``e' - noise``."""
        direction = self.sds(scores, state, progress)
        energy_scale = value_at(self.energy_scale, progress)
        if energy_scale == 0.0:
            return direction
        alpha, sigma = state.alpha_sigma()
        mask = 1.0 if state.coverage is None else state.coverage
        unprompted = (mask * state.noisy[MAIN] - sigma * scores[NULL]) / alpha
        apart = mask * (unprompted - scores[SECOND])
        return direction + energy_scale / state.set_size * sigma / alpha * apart


def method(config: JsdConfig) -> Method:
    """JointDreamer's method."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=JointScores(guided_minus_noise(config.cfg_scale), config.energy_scale),
        weight=weighting.named(config.weight),
        scores=config.scores,
        gradient=config.gradient,
        second=config.second,
    )
