"""Scores on request: each distinct one is predicted once, all of them in one forward pass where possible.

Also the ways to combine branches that every method shares, beside ``studio.ops.classifier_free``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.guidance.batching import concatenate, layout
from studio.guidance.citation import Citation
from studio.guidance.state import Branch, State, Term
from studio.interfaces import NoisePredictor, Prior
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
        if use_perp_neg and _may_be_steered(term):
            wanted[replace(term, branch=Branch.NULL)] = None
            wanted.update((replace(term, branch=Branch.REPULSION, index=i), None) for i in range(REPULSIONS))
    return tuple(wanted)


def _may_be_steered(term: Term) -> bool:
    return term.branch is Branch.POSITIVE and not term.unsteered


@runtime_checkable
class LogRatio(Protocol):
    """Log p/q of noisy images: how much more likely they are under the prior than among the renders."""

    def __call__(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"]
    ) -> Float[Tensor, "b 1 1 1"]:
        """One number an image, natural logarithm."""


def told_to_critic(conditioning: Conditioning) -> Condition:
    """The prompt without words for the view, with the cameras."""
    return conditioning.positive if conditioning.plain is None else conditioning.plain


@runtime_checkable
class SecondOpinion(Protocol):
    """What a second prior makes of the step's renders."""

    def __call__(self, state: State) -> tuple[Float[Tensor, "b c h w"], int]:
        """The denoised images at ``MAIN``'s level, and how many images went through its denoiser."""


@dataclass(frozen=True)
class Request:
    """One prediction to make: of which images, at which timesteps, who is told what (None: the prior)."""

    condition: Condition
    x_t: Float[Tensor, "b c h w"]
    timesteps: Float[Tensor, "b"]
    predictor: NoisePredictor | None = None


class ScoreBank:
    """One step's access to the prior.

    Args:
        perp_neg: scale of the repulsion that replaces the positive branch; 0 leaves it alone.
        terms_per_forward: at most this many requests in one forward pass, or None for all.
        critic: answers for the critic's branches.
        ratio: answers for the log-density ratio.
        second: answers for the second prior.

    Attributes:
        denoiser_calls: images sent through the denoiser so far.
    """

    def __init__(
        self,
        prior: Prior,
        conditioning: Conditioning,
        perp_neg: float = 0.0,
        terms_per_forward: int | None = None,
        *,
        critic: NoisePredictor | None = None,
        ratio: LogRatio | None = None,
        second: SecondOpinion | None = None,
    ) -> None:
        self._prior = prior
        self._critic = critic
        self._ratio = ratio
        self._second = second
        self._conditioning = conditioning
        self._perp_neg = perp_neg
        self._terms_per_forward = terms_per_forward
        self.denoiser_calls = 0

    @property
    def conditioning(self) -> Conditioning:
        """What the prior is told."""
        return self._conditioning

    def get(self, terms: Sequence[Term], state: State) -> dict[Term, Float[Tensor, "b c h w"]]:
        """The scores of ``terms``, each predicted at most once."""
        unknown = [term for term in terms if term not in state.scores]
        needed = predictions_for(unknown, self._perp_neg != 0)
        asked = [term for term in needed if term not in state.scores and term.branch.is_score]
        requests = [
            Request(
                self._condition(term),
                state.noisy[term.level],
                state.levels[term.level],
                self._predictor(term.branch),
            )
            for term in asked
        ]
        predicted = {**state.scores, **dict(zip(asked, self.predict(requests), strict=True))}
        for term in needed:
            if term.branch is Branch.LOG_RATIO and term not in predicted:
                assert self._ratio is not None
                x_t = state.noisy[term.level]
                predicted[term] = self._ratio(x_t, state.levels[term.level]).to(x_t.dtype).expand_as(x_t)
            elif term.branch is Branch.SECOND and term not in predicted:
                assert self._second is not None, "a method that asks a second prior is built with one"
                predicted[term], calls = self._second(state)
                self.denoiser_calls += calls
        return {
            term: state.scores[term] if term in state.scores else self._steered(term, predicted)
            for term in terms
        }

    def predict(self, requests: Sequence[Request]) -> list[Float[Tensor, "b c h w"]]:
        """The noise in each request's images, in the images' precision."""
        answers: dict[int, Tensor] = {}
        for group in self._forward_groups(requests):
            answers.update(zip(group, self._forward([requests[i] for i in group]), strict=True))
        return [answers[i] for i in range(len(requests))]

    def _forward_groups(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        by_layout: dict[object, list[int]] = {}
        for index, request in enumerate(requests):
            key = (id(request.predictor), layout(request.condition))
            by_layout.setdefault(key, []).append(index)
        for indices in by_layout.values():
            size = self._terms_per_forward or len(indices)
            yield from (indices[start : start + size] for start in range(0, len(indices), size))

    def _forward(self, requests: Sequence[Request]) -> tuple[Tensor, ...]:
        batch = len(requests[0].x_t)
        x_t = torch.cat([request.x_t for request in requests])
        timesteps = torch.cat([request.timesteps for request in requests])
        condition = concatenate([request.condition for request in requests], batch)
        self.denoiser_calls += len(x_t)
        predictor = requests[0].predictor or self._prior
        noise = predictor.predict_noise(x_t, timesteps, condition).to(x_t.dtype)
        return torch.split(noise, batch)

    def _predictor(self, branch: Branch) -> NoisePredictor | None:
        """Whom to ask; None is the prior."""
        match branch:
            case Branch.CRITIC | Branch.CRITIC_NULL | Branch.CRITIC_UNPROMPTED:
                assert self._critic is not None, "a method that asks a critic is built with one"
                return self._critic
            case _:
                return None

    def _condition(self, term: Term) -> Condition:
        match term.branch:
            case Branch.CRITIC:
                return told_to_critic(self._conditioning)
            case Branch.CRITIC_NULL:
                return replace(told_to_critic(self._conditioning), cameras=None)
            case Branch.CRITIC_UNPROMPTED:
                prompt = self._conditioning.null.prompt
                return replace(told_to_critic(self._conditioning), prompt=prompt)
            case Branch.LOG_RATIO | Branch.SECOND:
                raise AssertionError("what is no score has no condition")
            case Branch.POSITIVE:
                return self._conditioning.positive
            case Branch.TEXT_ONLY:
                return replace(self._conditioning.positive, image=None)
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
        if self._perp_neg == 0 or not _may_be_steered(term) or repulsion is None:
            return predicted[term]
        wrong_views = [predicted[replace(term, branch=Branch.REPULSION, index=i)] for i in range(REPULSIONS)]
        null = predicted[replace(term, branch=Branch.NULL)]
        return perp_neg(null, predicted[term], wrong_views, self._perp_neg * repulsion.weights)
