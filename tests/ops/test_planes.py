"""Factored planes against torch's own bilinear sampling, finite differences, and their other backend."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from studio.errors import StudioError
from studio.ops import planes as module
from studio.ops.library import Backend
from studio.ops.planes import PlaneGrid, sample_planes
from tests.truth.bits import assert_same_bits

BACKENDS: tuple[Backend, ...] = ("native", "torch")
backends = pytest.mark.parametrize("backend", BACKENDS)
MIXED = PlaneGrid(((5, 7, 3, 4), (9, 2, 6, 11)), channels=23)  # a vector, or two, some quads and single ones


def inputs(grid: PlaneGrid, points: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions, most of them inside the cube, and texels, as leaves."""
    rng = torch.Generator().manual_seed(seed)
    positions = 1.2 * torch.rand(points, grid.axes, generator=rng) - 0.1
    planes = torch.randn(grid.texels, grid.channels, generator=rng)
    return positions.requires_grad_(), planes.requires_grad_()


def results(positions: Tensor, planes: Tensor, grid: PlaneGrid, backend: Backend) -> list[Tensor]:
    features = sample_planes(positions, planes, grid, backend=backend)
    v = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)).to(features)
    return [features.detach(), *torch.autograd.grad(features, (positions, planes), v)]


def assert_agrees(grid: PlaneGrid, points: int, device: str = "cpu") -> None:
    """Native in float32 is the reference in double on the CPU."""
    positions, planes = inputs(grid, points)
    floats = [leaf.detach().to(device).requires_grad_() for leaf in (positions, planes)]
    doubles = [leaf.detach().double().requires_grad_() for leaf in (positions, planes)]
    expected = results(*doubles, grid, "torch")
    for got, target in zip(results(*floats, grid, "native"), expected, strict=True):
        torch.testing.assert_close(
            got.cpu().double(),
            target,
            rtol=1e-4,
            atol=1e-5 * float(target.abs().max()) if target.numel() else 0,
        )


@backends
def test_planes_are_bilinear_pictures(backend: Backend) -> None:
    """Against grid_sample: channels first, coordinates from -1 to 1."""
    positions, planes = inputs(MIXED, 200)
    scales = []
    for scale in MIXED.views(planes.detach()):
        product = torch.ones(200, 23)
        for plane, axes in zip(scale, itertools.combinations(range(4), 2), strict=True):
            at = 2 * positions.detach()[:, axes] - 1
            picture = plane.permute(2, 0, 1)[None]
            sampled = grid_sample(picture, at[None, None], align_corners=True, padding_mode="border")
            product = product * sampled[0, :, 0].T
        scales.append(product)
    got = sample_planes(positions, planes, MIXED, backend=backend)
    torch.testing.assert_close(got.detach(), torch.cat(scales, dim=-1), rtol=1e-4, atol=1e-5)


@backends
def test_views_share_the_parameter(backend: Backend) -> None:
    grid = PlaneGrid(((3, 4, 5),), channels=1)
    planes = torch.zeros(grid.texels, 1)
    xy, xz, yz = grid.views(planes)[0]
    assert [plane.shape for plane in (xy, xz, yz)] == [(4, 3, 1), (5, 3, 1), (5, 4, 1)]
    xy.fill_(2), xz.fill_(3), yz.fill_(5)
    assert float(sample_planes(torch.full((1, 3), 0.4), planes, grid, backend=backend)) == pytest.approx(30)


def test_reference_gradients_match_finite_differences() -> None:
    grid = PlaneGrid(((3, 4, 2, 3), (2, 2, 3, 5)), channels=2)
    positions, planes = (leaf.detach().double().requires_grad_() for leaf in inputs(grid, 3, seed=3))
    positions = (0.8 * positions.detach().clamp(0, 1) + 0.07).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: sample_planes(x, y, grid), (positions, planes))


def test_native_gradients_match_finite_differences() -> None:
    grid = PlaneGrid(((2, 2, 2, 2),), channels=5)
    _, planes = inputs(grid, 1)
    position = torch.tensor([[0.3, 0.6, 0.8, 0.45]], requires_grad=True)
    (slopes,) = torch.autograd.grad(sample_planes(position, planes, grid, backend="native").sum(), position)
    for axis in range(4):
        step = torch.zeros(1, 4)
        step[0, axis] = 0.01
        ahead, behind = (
            float(sample_planes(position.detach() + s, planes.detach(), grid).sum()) for s in (step, -step)
        )
        assert float(slopes[0, axis]) == pytest.approx((ahead - behind) / 0.02, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(
    "grid",
    [
        MIXED,
        PlaneGrid(((64, 64, 64, 25),), channels=16),
        PlaneGrid(((2, 2),), channels=1),
        PlaneGrid(((8, 6, 7),) * 8, channels=4),
        PlaneGrid(((6, 5, 4, 3), (12, 10, 8, 3)), channels=32),
    ],
    ids=str,
)
@pytest.mark.parametrize("points", [0, 1, 130, 3000])
def test_native_agrees_with_the_reference(grid: PlaneGrid, points: int) -> None:
    assert_agrees(grid, points)


def test_bits_do_not_depend_on_run_or_threads() -> None:
    positions, planes = inputs(MIXED, 6000)
    assert_same_bits(lambda: results(positions, planes, MIXED, "native"))


@pytest.mark.parametrize("leaf", [0, 1])
def test_one_gradient_alone(leaf: int) -> None:
    positions, planes = inputs(MIXED, 100)
    both = results(positions, planes, MIXED, "native")
    leaves = [positions.detach(), planes.detach()]
    leaves[leaf].requires_grad_()
    features = sample_planes(leaves[0], leaves[1], MIXED, backend="native")
    v = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    (alone,) = torch.autograd.grad(features, leaves[leaf], v)
    assert torch.equal(alone, both[1 + leaf])


@backends
def test_outside_counts_as_the_nearest_inside(backend: Backend) -> None:
    _, planes = inputs(MIXED, 1)
    outside = torch.tensor([[-0.5, 0.3, 7.0, 0.1], [math.inf, -math.inf, 0.5, 0.9]], requires_grad=True)
    features = sample_planes(outside, planes, MIXED, backend=backend)
    assert torch.equal(features, sample_planes(outside.detach().clamp(0, 1), planes, MIXED, backend=backend))
    (slopes,) = torch.autograd.grad(features.sum(), outside)
    inside = (outside >= 0) & (outside <= 1)
    assert bool((slopes[~inside] == 0).all()) and bool((slopes[inside] != 0).all())


@backends
def test_nan_positions_give_nan_and_no_gradients(backend: Backend) -> None:
    positions, planes = inputs(MIXED, 40)
    broken = positions.detach().clone()
    broken[7, 3] = math.nan
    got = results(broken.requires_grad_(), planes, MIXED, backend)
    good = torch.arange(40) != 7
    assert bool(got[0][7].isnan().all()) and not got[1][7].any()
    whole = results(positions, planes, MIXED, backend)
    assert torch.equal(got[0][good], whole[0][good]) and torch.equal(got[1][good], whole[1][good])
    assert bool(got[2].isfinite().all())


@pytest.mark.parametrize(
    ("resolutions", "channels", "message"),
    [
        ((), 4, "1 to 8 scales"),
        (((4, 4),) * 9, 4, "1 to 8 scales"),
        (((4,) * 5,), 4, "2 to 4 axes"),
        (((4, 4), (4, 4, 4)), 4, "as many axes"),
        (((4, 1),), 4, "2 to 65536 texels"),
        (((4, 2**31),), 4, "2 to 65536 texels"),
        (((4, 4),), 0, "1 to 1024 channels"),
    ],
)
def test_impossible_planes_are_refused(
    resolutions: tuple[tuple[int, ...], ...], channels: int, message: str
) -> None:
    with pytest.raises(StudioError, match=message):
        PlaneGrid(resolutions, channels)


@backends
def test_wrong_shapes_are_refused(backend: Backend) -> None:
    positions, planes = inputs(MIXED, 2)
    with pytest.raises(StudioError, match=r"planes are \[.*expected"):
        sample_planes(positions, planes[:-1], MIXED, backend=backend)
    with pytest.raises(StudioError, match="3 axes, the planes 4"):
        sample_planes(positions[:, :3], planes, MIXED, backend=backend)
    with pytest.raises(StudioError, match="float64"):
        sample_planes(positions, planes.double(), MIXED, backend=backend)


def test_operator_keeps_the_rules_of_torch() -> None:
    positions, planes = inputs(MIXED, 30)
    torch.library.opcheck(module._sample, (positions, planes, [5, 7, 3, 4, 9, 2, 6, 11]))
