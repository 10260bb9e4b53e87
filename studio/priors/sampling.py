"""What samplers of every kind of prior share."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from studio.interfaces import Prior
from studio.ops.classifier_free import cfg
from studio.types import Condition


def guided_noise(
    prior: Prior,
    x_t: Float[Tensor, "b c h w"],
    timesteps: Float[Tensor, "b"],
    wanted: Condition,
    unwanted: Condition,
    guidance_scale: float,
) -> Float[Tensor, "b c h w"]:
    """The predicted noise under classifier-free guidance; a scale of 1 asks what is wanted alone."""
    noise = prior.predict_noise(x_t, timesteps, wanted)
    if guidance_scale == 1:
        return noise
    return cfg(prior.predict_noise(x_t, timesteps, unwanted), noise, guidance_scale)
