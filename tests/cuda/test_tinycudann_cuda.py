"""tiny-cuda-nn as a field's network against ours, where there is a GPU and it is installed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from studio.ops.field import Field
from studio.ops.marching import OccupancyGrid
from studio.renderers import tinycudann_backend
from studio.renderers.volume import Network, VolumeRenderer
from tests.renderers.test_tinycudann_backend import some_field
from tests.renderers.test_volume import views

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def moved_field(hidden: tuple[int, ...], device: str) -> Field:
    """Of small numbers, as half precision likes them."""
    here = some_field(*hidden)

    def leaf(values: Tensor) -> Tensor:
        return (0.3 * values.detach()).to(device).requires_grad_()

    return replace(
        here,
        table=leaf(here.table),
        weights=tuple(leaf(weight) for weight in here.weights),
        biases=tuple(leaf(bias) for bias in here.biases),
        occupancy=OccupancyGrid.full(8, device),
    )


@pytest.mark.parametrize("hidden", [(15,), (64,), (20, 9, 33)], ids=str)
@pytest.mark.parametrize("count", [1, 1000])
def test_values_and_slopes_are_ours(hidden: tuple[int, ...], count: int) -> None:
    """In half precision: values to a fiftieth of the largest, and slopes to a twentieth of them all, of which
    single ones differ where rounding decides whether a neuron is on."""
    pytest.importorskip("tinycudann")
    here = moved_field(hidden, "cuda")
    rng = torch.Generator().manual_seed(1)
    points = torch.rand(count, 3, generator=rng).cuda().requires_grad_()
    v = torch.randn(count, generator=rng).cuda(), torch.randn(count, 3, generator=rng).cuda()
    leaves = [points, here.table, *here.weights, *here.biases]
    both = tinycudann_backend.sampled(here, points), here.sampled(points)
    for theirs, ours in zip(*both, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-2 * float(ours.detach().abs().max()))
    slopes = [torch.autograd.grad(values, leaves, v) for values in both]
    for theirs, ours in zip(*slopes, strict=True):
        assert float((theirs - ours).norm()) < 5e-2 * float(ours.norm())


def assert_fits(device: str) -> None:
    """A field that is fitted to another's pictures comes as near to them as with ours, drawn by ours."""
    cameras, background = views(4, 24).to(device), torch.ones(4, 3, device=device)
    draw = VolumeRenderer(step=0.05)
    target = draw(moved_field((32,), device), cameras, background).rgb.detach()

    def error(steps: int, network: Network) -> float:
        here = moved_field((32,), device)
        leaves = [here.table, *here.weights, *here.biases]
        with torch.no_grad():
            for leaf in leaves:
                leaf.mul_(0.5)
        optimizer = torch.optim.Adam(leaves, 1e-2)
        for _ in range(steps):
            shown = replace(draw, network=network)(here, cameras, background).rgb
            optimizer.zero_grad()
            (shown - target).square().mean().backward()
            optimizer.step()
        return float((draw(here, cameras, background).rgb - target).detach().square().mean())

    assert error(60, "tinycudann") < min(1.5 * error(60, "auto"), error(0, "auto") / 10)


def test_a_fit_goes_as_ours_goes() -> None:
    pytest.importorskip("tinycudann")
    assert_fits("cuda")
