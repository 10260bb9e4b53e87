"""The matrix of families and methods again, on a GPU in half precision."""

from __future__ import annotations

import pytest
import torch

from tests.guidance.test_backbones import OF_CLIPS, assert_as_expected, matrix
from tests.priors.models import FAMILIES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_two_steps_or_a_reason(precision: str) -> None:
    rows = matrix("cuda", precision)
    for name in (*FAMILIES, *OF_CLIPS):
        assert_as_expected(name, rows[name])
