"""The matrix of families and methods again, on a GPU in half precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.guidance.matrix import row
from tests.guidance.test_backbones import OF_CLIPS, assert_as_expected
from tests.priors.models import FAMILIES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.filterwarnings("ignore:the model reads 14 tokens")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [*FAMILIES, *OF_CLIPS])
def test_two_steps_or_a_reason(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    assert_as_expected(name, row(name, tmp_path, "cuda", dtype))
