"""Scores on request: each distinct one is predicted once, all of them in one forward pass where possible.

Also the two ways to combine branches that every method shares. Classifier-free guidance (Ho and Salimans,
arXiv:2207.12598) has one convention here: ``null + scale (positive - null)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.guidance.batching import concatenate, layout
from studio.guidance.citation import Citation
from studio.guidance.state import Branch, State, Term
from studio.interfaces import Prior
from studio.types import Condition, Conditioning

PERP_NEG = Citation(
    authors="M. Armandpour, A. Sadeghian, H. Zheng, A. Sadeghian, M. Zhou",
    title="Re-imagine the Negative Prompt Algorithm: Transform 2D Diffusion into 3D, alleviate Janus problem "
    "and Beyond",
    year=2023,
    arxiv="2304.04968",
)

REPULSIONS = 2
"""The wrong views that Perp-Neg asks for with each image."""


def cfg(
    null: Float[Tensor, "b c h w"], positive: Float[Tensor, "b c h w"], scale: float
) -> Float[Tensor, "b c h w"]:
    """Classifier-free guidance: 0 gives ``null``, 1 gives ``positive``."""
    return null + scale * (positive - null)


def perpendicular(
    vector: Float[Tensor, "b c h w"], axis: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """What of each ``vector`` is at right angles to its ``axis``."""
    along = (vector * axis).sum(dim=(1, 2, 3), keepdim=True)
    length_squared = axis.square().sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    return vector - along / length_squared * axis


def perp_neg(
    null: Float[Tensor, "b c h w"],
    positive: Float[Tensor, "b c h w"],
    repulsions: Sequence[Float[Tensor, "b c h w"]],
    weights: Float[Tensor, "n b"],
) -> Float[Tensor, "b c h w"]:
    """The prompt's prediction, pushed away from the wrong views at right angles to its own direction.

    Perp-Neg (arXiv:2304.04968): ``null + delta + sum_i w_i perp(repulsion_i - null; delta)`` with
    ``delta = positive - null``. It takes the place of ``positive`` wherever a method uses that, so with
    classifier-free guidance the scale multiplies the sum.

    Args:
        weights: 0 or negative, for each repulsion and image.
    """
    delta = positive - null
    pushed = delta
    for repulsion, weight in zip(repulsions, weights, strict=True):
        pushed = pushed + weight.to(delta)[:, None, None, None] * perpendicular(repulsion - null, delta)
    return null + pushed


def predictions_for(terms: Sequence[Term], use_perp_neg: bool) -> tuple[Term, ...]:
    """The distinct predictions that must be made to know ``terms``, in a fixed order."""
    wanted: dict[Term, None] = {}
    for term in terms:
        wanted[term] = None
        if use_perp_neg and term.branch is Branch.POSITIVE:
            wanted[replace(term, branch=Branch.NULL)] = None
            wanted.update((replace(term, branch=Branch.REPULSION, index=i), None) for i in range(REPULSIONS))
    return tuple(wanted)


@dataclass(frozen=True)
class Request:
    """One prediction to make: what the prior is told, of which images, at which timesteps."""

    condition: Condition
    x_t: Float[Tensor, "b c h w"]
    timesteps: Float[Tensor, "b"]


class ScoreBank:
    """One step's access to the prior.

    Args:
        perp_neg: scale of the repulsion that replaces the positive branch; 0 leaves it alone.
        terms_per_forward: at most this many requests in one forward pass, or None for all.

    Attributes:
        denoiser_calls: images sent through the denoiser so far.
    """

    def __init__(
        self,
        prior: Prior,
        conditioning: Conditioning,
        perp_neg: float = 0.0,
        terms_per_forward: int | None = None,
    ) -> None:
        self._prior = prior
        self._conditioning = conditioning
        self._perp_neg = perp_neg
        self._terms_per_forward = terms_per_forward
        self.denoiser_calls = 0

    def get(self, terms: Sequence[Term], state: State) -> dict[Term, Float[Tensor, "b c h w"]]:
        """The scores of ``terms``, each predicted at most once."""
        needed = predictions_for(terms, self._perp_neg != 0)
        asked = [term for term in needed if term not in state.scores]
        requests = [
            Request(self._condition(term), state.noisy[term.level], state.levels[term.level])
            for term in asked
        ]
        predicted = {**state.scores, **dict(zip(asked, self.predict(requests), strict=True))}
        return {term: self._steered(term, predicted) for term in terms}

    def predict(self, requests: Sequence[Request]) -> list[Float[Tensor, "b c h w"]]:
        """The noise in each request's images, in the images' precision."""
        answers: dict[int, Tensor] = {}
        for group in self._forward_groups(requests):
            answers.update(zip(group, self._forward([requests[i] for i in group]), strict=True))
        return [answers[i] for i in range(len(requests))]

    def _forward_groups(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        by_layout: dict[object, list[int]] = {}
        for index, request in enumerate(requests):
            by_layout.setdefault(layout(request.condition), []).append(index)
        for indices in by_layout.values():
            size = self._terms_per_forward or len(indices)
            yield from (indices[start : start + size] for start in range(0, len(indices), size))

    def _forward(self, requests: Sequence[Request]) -> tuple[Tensor, ...]:
        batch = len(requests[0].x_t)
        x_t = torch.cat([request.x_t for request in requests])
        timesteps = torch.cat([request.timesteps for request in requests])
        condition = concatenate([request.condition for request in requests], batch)
        self.denoiser_calls += len(x_t)
        noise = self._prior.predict_noise(x_t, timesteps, condition).to(x_t.dtype)
        return torch.split(noise, batch)

    def _condition(self, term: Term) -> Condition:
        match term.branch:
            case Branch.POSITIVE:
                return self._conditioning.positive
            case Branch.NULL:
                return self._conditioning.null
            case Branch.NEGATIVE:
                return self._conditioning.negatives[term.index]
            case Branch.REPULSION:
                if self._conditioning.repulsion is None:
                    raise StudioError(
                        "perp_neg is on but the prompts came without wrong views; "
                        "expected view-dependent prompts, try view_words = true or perp_neg = 0"
                    )
                return self._conditioning.repulsion.conditions[term.index]
            case _:
                assert_never(term.branch)

    def _steered(self, term: Term, predicted: Mapping[Term, Tensor]) -> Tensor:
        repulsion = self._conditioning.repulsion
        if self._perp_neg == 0 or term.branch is not Branch.POSITIVE or repulsion is None:
            return predicted[term]
        wrong_views = [predicted[replace(term, branch=Branch.REPULSION, index=i)] for i in range(REPULSIONS)]
        null = predicted[replace(term, branch=Branch.NULL)]
        return perp_neg(null, predicted[term], wrong_views, self._perp_neg * repulsion.weights)
