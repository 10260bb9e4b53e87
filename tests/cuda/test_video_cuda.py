"""Video models on a GPU in half precision, against the CPU in float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.priors.test_video import assert_half_precision_answers_alike
from tests.priors.video_models import VIDEO_FAMILIES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_half_precision(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    dtype = torch.float16 if name in ("modelscope", "animatediff") else torch.bfloat16
    assert_half_precision_answers_alike(name, VIDEO_FAMILIES[name](tmp_path / name), "cuda", dtype)
