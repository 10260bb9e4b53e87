"""Losses through the networks: methods that say what should be small, not which way to go.

The direction is the gradient of a loss of the scores on the clean images, taken through the noisy images and
every network that saw them; the networks' weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.guidance.state import State, Term


@runtime_checkable
class Objective(Protocol):
    """A loss of differentiable scores."""

    def terms(self, progress: float) -> tuple[Term, ...]:
        """The scores it wants at ``progress``."""

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b"]:
        """The loss of each image."""


@dataclass(frozen=True)
class Descent:
    """A combination whose direction is the gradient of an objective on the clean images."""

    objective: Objective

    def terms(self, progress: float) -> tuple[Term, ...]:
        """Those of the objective."""
        return self.objective.terms(progress)

    def __call__(
        self, scores: Mapping[Term, Float[Tensor, "b c h w"]], state: State, progress: float
    ) -> Float[Tensor, "b c h w"]:
        """The gradient of each image's own loss.

        Raises:
            StudioError: a score came without a way back to the images.
        """
        for term, score in scores.items():
            if not score.requires_grad:
                raise StudioError(
                    f"the {term.branch.value} score lets no gradient through; this method needs priors that "
                    "do, try an exact or a small prior, or another method"
                )
        losses = self.objective(scores, state, progress)
        (direction,) = torch.autograd.grad(losses.sum(), state.clean)
        return direction
