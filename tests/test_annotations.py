"""The studio's annotations are executed in the tests."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from studio.cameras import orbit
from tests.annotations import checked


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(TypeCheckError):
        orbit(torch.zeros(2), torch.zeros(3), 8, 8)


def in_another(value: Tensor) -> Tensor:
    @jaxtyped(typechecker=checked)
    def doubled(x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        return 2 * x

    return doubled(value)


def test_of_a_function_in_another_too() -> None:
    """Each time it is made."""
    for _ in range(2):
        assert torch.equal(in_another(torch.ones(2)), torch.tensor([2.0, 2.0]))
        with pytest.raises(TypeCheckError):
            in_another(torch.ones(2, 2))
