"""nerfacc as a renderer's backend against ours, where there is a GPU and nerfacc is installed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from studio.ops.marching import OccupancyGrid
from studio.renderers.volume import Backend, VolumeRenderer
from studio.types import Cameras
from tests.renderers.test_volume import field, views


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_draws_the_same_pictures_and_gradients() -> None:
    """To a fiftieth: the samples of both begin at other places of a ray."""
    pytest.importorskip("nerfacc")
    here = field()
    full = OccupancyGrid.full(8, "cuda")
    cameras: Cameras = views().to("cuda")

    def drawn(backend: Backend) -> tuple[torch.Tensor, torch.Tensor]:
        table = here.table.cuda().requires_grad_()
        on_gpu = replace(
            here, table=table, occupancy=full,
            weights=tuple(weight.cuda() for weight in here.weights),
            biases=tuple(bias.cuda() for bias in here.biases),
        )  # fmt: skip
        shown = VolumeRenderer(step=0.002, backend=backend)(on_gpu, cameras, torch.ones(2, 3, device="cuda"))
        (gradient,) = torch.autograd.grad(shown.rgb.square().sum(), table)
        return shown.rgb.detach(), gradient

    for one, two in zip(drawn("nerfacc"), drawn("auto"), strict=True):
        torch.testing.assert_close(one, two, atol=2e-2 * float(two.abs().max()), rtol=0)
