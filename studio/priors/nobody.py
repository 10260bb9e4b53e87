"""The prior of a run that needs none: it knows nothing and says so when it is asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.priors.library import library_schedule
from studio.schedule import NoiseSchedule
from studio.types import Condition, PromptEmbedding


class NoPrior:
    """Implements ``Prior`` for guidance that asks none."""

    @property
    def schedule(self) -> NoiseSchedule:
        """Some noise levels; nobody uses them."""
        return library_schedule(64)

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Nothing of any prompt."""
        return PromptEmbedding(torch.zeros(len(prompts), 1, 1))

    def encode_images(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The images themselves."""
        return rgb

    def decode_images(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The images themselves."""
        return x

    def predict_noise(
        self, x_t: Float[Tensor, "b 3 h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b 3 h w"]:
        """Nobody can.

        Raises:
            StudioError: always.
        """
        raise StudioError("This run has no diffusion model to ask (prior.kind = 'none'); expected another.")
