"""PyTorch3D's rasterizer on a GPU, where it is installed: the CPU's assertions again."""

from __future__ import annotations

import pytest
import torch

from tests.renderers.test_pytorch3d_backend import SIZES, assert_fragments_agree


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_fragments_are_ours(width: int, height: int) -> None:
    pytest.importorskip("pytorch3d")
    assert_fragments_agree(width, height, "cuda")
