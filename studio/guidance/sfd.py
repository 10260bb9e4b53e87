"""Score forgetting distillation: renders of a prompt that come to look like another, safe one.

    L = remain_weight L_sid(prior told the prompt) + forget_weight L_sid(prior told the safe prompt)

both against the critic of the renders. The paper alternates samples of classes to keep and to forget; a scene
has one prompt, which plays both parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from studio.guidance import noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.dmd2 import clean_image, mean_distance
from studio.guidance.method import Method
from studio.guidance.objective import Descent
from studio.guidance.sid import identity_loss
from studio.guidance.state import CRITIC, NEGATIVE, POSITIVE, State, Term
from studio.recipes.guidance import SfdConfig
from studio.types import NegativePrompt

CITATION = Citation(
    authors="T. Chen, S. Zhang, M. Zhou",
    title="Score Forgetting Distillation: A Swift, Data-Free Method for Machine Unlearning in Diffusion "
    "Models",
    year=2024,
    arxiv="2409.11219",
)


@dataclass(frozen=True)
class Forgetting:
    """A weighted sum of SiD's losses towards prompts."""

    weights: Mapping[Term, float]
    a: float

    def terms(self, progress: float) -> tuple[Term, ...]:
        """Those of a weight that is not zero, and the critic."""
        return (*(term for term, weight in self.weights.items() if weight != 0.0), CRITIC)

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b"]:
        """The loss of each image."""
        critic = clean_image(state, scores[CRITIC])
        loss = torch.zeros(len(state.clean), dtype=state.clean.dtype, device=state.clean.device)
        for term in self.terms(progress)[:-1]:
            towards = clean_image(state, scores[term])
            distance = mean_distance(state, towards).flatten()
            loss = loss + self.weights[term] * identity_loss(state.clean, towards, critic, self.a) / distance
        return loss


def method(config: SfdConfig) -> Method:
    """The paper's generator loss, for one scene."""
    weights = {POSITIVE: config.remain_weight, NEGATIVE: config.forget_weight}
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=Descent(Forgetting(weights, config.a)),
        weight=weighting.named("uniform"),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
        negatives=(NegativePrompt(config.safe_prompt),),
    )
