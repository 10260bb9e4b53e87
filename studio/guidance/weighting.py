"""w(t): how much a step at each noise level counts, as functions of (alpha, sigma).

They multiply a difference of noise predictions. The names are those of the papers' code, the numbers are not
always: threestudio's unified guidance computes its "dreamfusion" weight from sqrt(alpha) by mistake.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.recipes.guidance import WeightName


@runtime_checkable
class Weight(Protocol):
    """A function of the noise level."""

    def __call__(
        self, alpha: Float[Tensor, "b 1 1 1"], sigma: Float[Tensor, "b 1 1 1"]
    ) -> Float[Tensor, "b 1 1 1"]:
        """The weight of each image."""


def named(name: WeightName) -> Weight:
    """The weight of that name.

    * ``sigma2`` DreamFusion's, 1 - alphas_cumprod for a VP schedule.
    * ``uniform`` 1.
    * ``alpha`` balanced score distillation.
    * ``fantasia3d`` alpha sigma².
    * ``sigma_over_alpha`` turns a difference of noises into one of denoised images.
    * ``inverse_alpha`` into one of rectified-flow velocities, on a flow schedule.
    """

    def weight(alpha: Float[Tensor, "b 1 1 1"], sigma: Float[Tensor, "b 1 1 1"]) -> Float[Tensor, "b 1 1 1"]:
        match name:
            case "sigma2":
                return sigma**2
            case "uniform":
                return sigma**0
            case "alpha":
                return alpha
            case "fantasia3d":
                return alpha * sigma**2
            case "sigma_over_alpha":
                return sigma / alpha
            case "inverse_alpha":
                return 1 / alpha
            case _:
                assert_never(name)

    return weight
