"""A small multi-layer perceptron in plain torch: the kernel's oracle, and what runs without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, relu, softplus

Activation = Literal["relu", "softplus"]


def mlp_reference(
    inputs: Float[Tensor, "n i"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]],
    activation: Activation,
) -> Float[Tensor, "n _"]:
    """See ``mlp``."""
    activate = relu if activation == "relu" else softplus
    hidden = inputs
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden = activate(linear(hidden, weight, bias))
    return linear(hidden, weights[-1], biases[-1])
