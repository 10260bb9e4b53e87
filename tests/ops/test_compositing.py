"""Compositing of packed samples against dense products, fog, finite differences, and its other backend."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.ops import compositing as module
from studio.ops.compositing import Composite, composite
from studio.ops.library import Backend
from tests.truth.bits import assert_same_bits

BACKENDS: tuple[Backend, ...] = ("native", "torch")
backends = pytest.mark.parametrize("backend", BACKENDS)


def starts_of(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def inputs(rays: int, longest: int, channels: int = 3, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Densities, lengths, colours and t as leaves, and starts; some rays have no samples."""
    rng = torch.Generator().manual_seed(seed)
    counts = (torch.randint(-longest // 4, longest + 1, (rays,), generator=rng)).clamp(min=0)
    total = int(counts.sum())
    leaves = [
        10 * torch.rand(total, generator=rng) ** 4,
        0.1 * torch.rand(total, generator=rng) + 0.01,
        torch.randn(total, channels, generator=rng),
        torch.rand(total, generator=rng),
    ]
    return [leaf.requires_grad_() for leaf in leaves], starts_of(counts)


def results(
    leaves: list[Tensor], starts: Tensor, backend: Backend, min_transmittance: float = 1e-4
) -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    seen = composite(*leaves, starts, min_transmittance=min_transmittance, backend=backend)
    loss = sum((image * torch.randn(image.shape, generator=rng).to(image)).sum() for image in seen)
    return [*(image.detach() for image in seen), *torch.autograd.grad(loss, leaves)]


def assert_agrees(
    rays: int, longest: int, channels: int = 3, min_transmittance: float = 1e-4, device: str = "cpu"
) -> None:
    """Native in float32 is the reference in double on the CPU."""
    leaves, starts = inputs(rays, longest, channels)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = results(doubles, starts, "torch", min_transmittance)
    floats = [leaf.detach().to(device).requires_grad_() for leaf in leaves]
    got_all = results(floats, starts.to(device), "native", min_transmittance)
    for got, target in zip(got_all, expected, strict=True):
        size = float(target.abs().max()) if target.numel() else 0.0
        torch.testing.assert_close(got.cpu().double(), target, rtol=1e-4, atol=2e-6 * max(size, 1.0))


def dense(densities: Tensor, lengths: Tensor, colors: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """NeRF's own form over [r s]: alphas and a running product."""
    alphas = 1 - torch.exp(-densities * lengths)
    light = torch.cat([torch.ones_like(t[:, :1]), (1 - alphas).cumprod(1)[:, :-1]], dim=1)
    weights = alphas * light
    return (weights[..., None] * colors).sum(1), weights.sum(1), (weights * t).sum(1)


@backends
def test_two_samples_by_hand(backend: Backend) -> None:
    """Half of the light stays in the first, three quarters of the rest in the second."""
    seen = composite(
        torch.tensor([math.log(2), math.log(4)]), 1.0,
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([3.0, 5.0]), torch.tensor([0, 2, 2]),
        backend=backend,
    )  # fmt: skip
    torch.testing.assert_close(seen.weights, torch.tensor([0.5, 0.375]))
    torch.testing.assert_close(seen.transmittance, torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(seen.rgb, torch.tensor([[0.5, 0.375], [0.0, 0.0]]))
    torch.testing.assert_close(seen.opacity, torch.tensor([0.875, 0.0]))
    torch.testing.assert_close(seen.depth, torch.tensor([0.5 * 3 + 0.375 * 5, 0.0]))


@backends
@pytest.mark.parametrize("density", [1e-5, 0.3, 4.0])
def test_a_slab_of_fog_lets_exp_of_its_depth_pass(density: float, backend: Backend) -> None:
    """T = exp(-density x) inside and opacity 1 - exp(-density) behind, in steps of any size."""
    for count in (1, 7, 400):
        t = (torch.arange(count) + 0.5) / count
        seen = composite(
            torch.full((count,), density), 1 / count, torch.ones(count, 1), t, torch.tensor([0, count]),
            min_transmittance=0.0, backend=backend,
        )  # fmt: skip
        expected = torch.exp(-density * (t - 0.5 / count))
        torch.testing.assert_close(seen.transmittance, expected, rtol=2e-5, atol=0)
        assert float(seen.opacity) == pytest.approx(-math.expm1(-density), rel=2e-5)
        assert float(seen.rgb) == pytest.approx(-math.expm1(-density), rel=2e-5)
        if count == 400:  # ∫ density exp(-density t) t dt
            depth = (1 - math.exp(-density) * (1 + density)) / density
            assert float(seen.depth) == pytest.approx(depth, rel=1e-4)


@backends
def test_packed_is_dense_where_nothing_is_left_out(backend: Backend) -> None:
    rng = torch.Generator().manual_seed(0)
    rays, count = 50, 24
    shape = (rays, count)
    leaves = [
        torch.rand(shape, generator=rng) * 3, torch.rand(shape, generator=rng),
        torch.rand(*shape, 3, generator=rng), torch.rand(shape, generator=rng),
    ]  # fmt: skip
    leaves = [leaf.requires_grad_() for leaf in leaves]
    starts = torch.arange(rays + 1) * count
    flat = [leaf.flatten(0, 1) for leaf in leaves]
    seen = composite(*flat, starts, min_transmittance=0.0, backend=backend)
    expected = dense(*leaves)
    v = [torch.randn(image.shape, generator=rng) for image in expected]
    for got, target in zip(seen[:3], expected, strict=True):
        torch.testing.assert_close(got, target, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(images, leaves, v) for images in (seen[:3], expected)]
    for got, target in zip(*gradients, strict=True):
        torch.testing.assert_close(got, target, rtol=1e-3, atol=1e-4)


def test_reference_gradients_match_finite_differences() -> None:
    leaves, starts = inputs(4, 5, channels=2, seed=2)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]

    def run(*leaves: Tensor) -> Composite:
        return composite(*leaves, starts, min_transmittance=0.0)

    assert torch.autograd.gradcheck(run, doubles)


def test_native_gradients_match_finite_differences() -> None:
    leaves, starts = inputs(1, 6, seed=5)
    *_, v_densities, _, _, _ = results(leaves, starts, "native", 0.0)
    for i in range(len(v_densities)):
        step = torch.zeros(len(v_densities))
        step[i] = 0.02
        losses = []
        for moved in (leaves[0] + step, leaves[0] - step):
            rng = torch.Generator().manual_seed(1)
            seen = composite(moved, *leaves[1:], starts, min_transmittance=0.0, backend="native")
            losses.append(sum(float((x * torch.randn(x.shape, generator=rng)).sum().detach()) for x in seen))
        assert float(v_densities[i]) == pytest.approx((losses[0] - losses[1]) / 0.04, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("channels", [0, 1, 3, 7])
@pytest.mark.parametrize(("rays", "longest"), [(0, 4), (1, 1), (130, 30), (20, 300)])
def test_native_agrees_with_the_reference(rays: int, longest: int, channels: int) -> None:
    assert_agrees(rays, longest, channels)
    assert_agrees(rays, longest, channels, min_transmittance=0.2)


def test_bits_do_not_depend_on_run_or_threads() -> None:
    leaves, starts = inputs(3000, 20)
    assert_same_bits(lambda: results(leaves, starts, "native"))


def test_bits_of_a_ray_do_not_depend_on_its_neighbours() -> None:
    leaves, starts = inputs(100, 20)
    whole = composite(*leaves, starts, backend="native")
    begin, end = int(starts[63]), int(starts[-1])
    rest = composite(*(leaf[begin:end] for leaf in leaves), starts[63:] - begin, backend="native")
    assert torch.equal(whole.rgb[63:], rest.rgb) and torch.equal(whole.weights[begin:], rest.weights)


@backends
def test_a_ray_ends_where_the_light_does(backend: Backend) -> None:
    """Each sample keeps half of the light: with a floor of 0.2 the first three alone count."""
    densities = torch.full((6,), math.log(2), requires_grad=True)
    colors = torch.ones(6, 1, requires_grad=True)
    seen = composite(
        densities, 1.0, colors, torch.ones(6), torch.tensor([0, 6]), min_transmittance=0.2, backend=backend
    )
    torch.testing.assert_close(seen.weights.detach(), torch.tensor([0.5, 0.25, 0.125, 0, 0, 0]))
    torch.testing.assert_close(seen.transmittance.detach(), torch.tensor([1, 0.5, 0.25, 0, 0, 0]))
    v_densities, v_colors = torch.autograd.grad(seen.rgb.sum(), (densities, colors))
    assert not v_densities[3:].any() and not v_colors[3:].any() and bool(v_densities[:3].all())


@backends
def test_a_wall_stops_all_light(backend: Backend) -> None:
    densities = torch.tensor([0.0, math.inf, 1.0, 3e38, 3e38], requires_grad=True)
    seen = composite(
        densities, 1.0, torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]), torch.ones(5),
        torch.tensor([0, 3, 5]), min_transmittance=0.0, backend=backend,
    )  # fmt: skip
    assert seen.rgb.flatten().tolist() == [2.0, 4.0] and seen.opacity.tolist() == [1.0, 1.0]


@backends
def test_nan_stays_in_its_ray(backend: Backend) -> None:
    leaves, starts = inputs(10, 8, seed=3)
    ray = int(starts.diff().argmax())
    densities = leaves[0].detach().clone()
    densities[starts[ray]] = math.nan
    seen = composite(densities, *leaves[1:], starts, backend=backend)
    others = torch.arange(10) != ray
    assert bool(seen.rgb[ray].isnan().all()) and bool(seen.opacity[ray].isnan())
    whole = composite(*leaves, starts, backend=backend)
    assert torch.equal(seen.rgb[others], whole.rgb[others])


@backends
@pytest.mark.parametrize("starts", [[], [0, 3], [1, 4], [0, 5, 4], [0, -1, 4], [0, 2**40, 4]], ids=str)
def test_wrong_starts_are_refused(starts: list[int], backend: Backend) -> None:
    ones = torch.ones(4)
    with pytest.raises(StudioError, match="must rise from 0 to their number 4"):
        composite(
            ones, ones, torch.ones(4, 3), ones, torch.tensor(starts, dtype=torch.int64), backend=backend
        )


@backends
def test_mixed_types_are_refused(backend: Backend) -> None:
    leaves, starts = inputs(3, 4)
    with pytest.raises(StudioError, match="float64"):
        composite(leaves[0], leaves[1], leaves[2].double(), leaves[3], starts, backend=backend)


def test_operator_keeps_the_rules_of_torch() -> None:
    leaves, starts = inputs(20, 9)
    torch.library.opcheck(module._composite, (leaves[0] * 0.1, leaves[2], leaves[3], starts, 1e-4))
