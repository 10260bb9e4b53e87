"""The small perceptron against torch's layers, finite differences, and its other backend."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.ops import mlp as module
from studio.ops.hash_grid import HashGrid, hash_grid
from studio.ops.library import Backend
from studio.ops.mlp import mlp
from studio.ops.mlp_reference import Activation
from tests.truth.bits import assert_same_bits

BACKENDS: tuple[Backend, ...] = ("native", "torch")
backends = pytest.mark.parametrize("backend", BACKENDS)
activations = pytest.mark.parametrize("activation", ["relu", "softplus"])
WIDTHS = (19, 64, 33, 4)


def inputs(points: int, widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> list[Tensor]:
    """Inputs, then each layer's weights, then each layer's biases, as leaves."""
    rng = torch.Generator().manual_seed(seed)
    pairs = list(itertools.pairwise(widths))
    leaves = [
        torch.randn(points, widths[0], generator=rng),
        *(torch.randn(o, i, generator=rng) / math.sqrt(i) for i, o in pairs),
        *(torch.randn(o, generator=rng) for _, o in pairs),
    ]
    return [leaf.requires_grad_() for leaf in leaves]


def run(leaves: list[Tensor], activation: Activation, backend: Backend) -> Tensor:
    layers = len(leaves) // 2
    return mlp(
        leaves[0], leaves[1 : 1 + layers], leaves[1 + layers :], activation=activation, backend=backend
    )


def results(leaves: list[Tensor], activation: Activation, backend: Backend) -> list[Tensor]:
    outputs = run(leaves, activation, backend)
    v = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1)).to(outputs)
    return [outputs.detach(), *torch.autograd.grad(outputs, leaves, v)]


def assert_agrees(
    points: int,
    widths: tuple[int, ...] = WIDTHS,
    activation: Activation = "softplus",
    device: str = "cpu",
) -> None:
    """Native in float32 is the reference in double."""
    leaves = [leaf.detach().to(device).requires_grad_() for leaf in inputs(points, widths)]
    doubles = [leaf.detach().cpu().double().requires_grad_() for leaf in leaves]
    expected = results(doubles, activation, "torch")
    for got, target in zip(results(leaves, activation, "native"), expected, strict=True):
        size = float(target.abs().max()) if target.numel() else 0.0
        torch.testing.assert_close(got.cpu().double(), target, rtol=0, atol=1e-5 * size)


@backends
@pytest.mark.parametrize(("activation", "layer"), [("relu", torch.nn.ReLU), ("softplus", torch.nn.Softplus)])
def test_layers_are_those_of_torch(
    activation: Activation, layer: type[torch.nn.Module], backend: Backend
) -> None:
    leaves = inputs(50)
    linears = [torch.nn.Linear(i, o) for i, o in itertools.pairwise(WIDTHS)]
    for linear, weight, bias in zip(linears, leaves[1:4], leaves[4:], strict=True):
        linear.weight, linear.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    network = torch.nn.Sequential(linears[0], layer(), linears[1], layer(), linears[2])
    torch.testing.assert_close(run(leaves, activation, backend), network(leaves[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "widths",
    [WIDTHS, (3, 1), (1, 1, 1), (32, 64, 64, 4), (32, 256, 7), (5, 16, 31, 47, 12, 20, 8, 9, 2)],
    ids=str,
)
@pytest.mark.parametrize("points", [0, 1, 95, 96, 400])
def test_native_agrees_with_the_reference(points: int, widths: tuple[int, ...]) -> None:
    assert_agrees(points, widths)


def test_native_agrees_on_many_points() -> None:
    assert_agrees(160_000, (4, 16, 3))  # more than fit into the usual tasks


def test_native_relu_agrees_with_the_reference() -> None:
    assert_agrees(100, activation="relu")


@backends
@activations
def test_gradients_match_finite_differences(activation: Activation, backend: Backend) -> None:
    leaves = inputs(3, (2, 5, 4, 2), seed=2)
    gradients = results(leaves, activation, backend)[1:]
    v = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    for index, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(index))
        losses = []
        for step in (1e-4, -1e-4):
            moved = [x.detach().double() for x in leaves]
            moved[index] = moved[index] + step * direction
            losses.append(float((run(moved, activation, "torch") * v).sum()))
        expected = (losses[0] - losses[1]) / 2e-4
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@activations
def test_gradients_of_gradients(activation: Activation) -> None:
    """As a loss on normals needs: native first, then torch."""
    found = []
    for backend in BACKENDS:
        leaves = inputs(60)
        outputs = run(leaves, activation, backend)
        (slopes,) = torch.autograd.grad(outputs.square().sum(), leaves[0], create_graph=True)
        found.append(torch.autograd.grad(slopes.square().sum(), leaves[:4]))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_bits_do_not_depend_on_run_or_threads() -> None:
    leaves = inputs(9000)
    assert_same_bits(lambda: results(leaves, "relu", "native"))


@pytest.mark.parametrize("wanted", [[0], [1, 2, 3, 4, 5, 6], [2], [5]], ids=str)
def test_some_gradients_alone(wanted: list[int]) -> None:
    every = results(inputs(200), "relu", "native")[1:]
    leaves = [leaf.detach() for leaf in inputs(200)]
    for index in wanted:
        leaves[index].requires_grad_()
    outputs = run(leaves, "relu", "native")
    v = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    alone = torch.autograd.grad(outputs, [leaves[index] for index in wanted], v)
    for index, gradient in zip(wanted, alone, strict=True):
        assert torch.equal(gradient, every[index])


@backends
@activations
def test_nan_stays_in_its_row(activation: Activation, backend: Backend) -> None:
    leaves = inputs(100)
    broken = [leaf.detach().clone() for leaf in leaves]
    broken[0][41, 3] = math.nan
    outputs, whole = run(broken, activation, backend), run(leaves, activation, backend)
    assert bool(outputs[41].isnan().all())
    others = torch.arange(100) != 41
    assert torch.equal(outputs[others], whole[others])


@backends
def test_softplus_holds_for_large_numbers(backend: Backend) -> None:
    x = torch.tensor([[-1e30], [-200.0], [-20.0], [0.0], [30.0], [1e4], [1e30]], requires_grad=True)
    ones, zeros = [torch.ones(1, 1)] * 2, [torch.zeros(1)] * 2
    y = mlp(x, ones, zeros, activation="softplus", backend=backend)
    expected = torch.nn.functional.softplus(x.detach().double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=2e-7)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope.double(), torch.sigmoid(x.detach().double()), rtol=1e-6, atol=2e-7)


@backends
def test_layers_that_do_not_fit_are_refused(backend: Backend) -> None:
    x = torch.zeros(2, 3)
    for weights, biases in (
        ([], []),
        ([torch.zeros(4, 2)], [torch.zeros(4)]),
        ([torch.zeros(4, 3)], [torch.zeros(5)]),
        ([torch.zeros(4, 3)], [torch.zeros(4), torch.zeros(4)]),
        ([torch.zeros(4, 3), torch.zeros(2, 5)], [torch.zeros(4), torch.zeros(2)]),
    ):
        with pytest.raises(StudioError, match="do not fit on 3 inputs"):
            mlp(x, weights, biases, backend=backend)
    with pytest.raises(StudioError, match="float64"):
        mlp(x, [torch.zeros(4, 3).double()], [torch.zeros(4)], backend=backend)


def test_wide_layers_are_torch_s_alone() -> None:
    leaves = inputs(3, (2, 300, 1))
    assert run(leaves, "relu", "auto").shape == (3, 1)
    with pytest.raises(StudioError, match="1 to 256 wide"):
        run(leaves, "relu", "native")


def test_operator_keeps_the_rules_of_torch() -> None:
    leaves = inputs(30)
    torch.library.opcheck(module._mlp, (leaves[0], leaves[1:4], leaves[4:], True))


def test_normals_of_a_field() -> None:
    """Encoding, perceptron, and a loss on the gradient of the density: all native, against all double."""
    grid = HashGrid(levels=4, features=2, log2_table_size=8, base_resolution=2, finest_resolution=20)
    rng = torch.Generator().manual_seed(0)
    positions = torch.rand(200, 3, generator=rng)
    table = torch.randn(grid.entries, 2, generator=rng)
    layers = inputs(0, (grid.width, 32, 32, 1))[1:]

    def gradients(dtype: torch.dtype, backend: Backend) -> list[Tensor]:
        x, *leaves = (leaf.detach().to(dtype).requires_grad_() for leaf in (positions, table, *layers))
        features = hash_grid(x, leaves[0], grid, backend=backend)
        density = run([features, *leaves[1:]], "softplus", backend)
        (slopes,) = torch.autograd.grad(density.sum(), x, create_graph=True)
        loss = (slopes.norm(dim=-1) - 1).square().mean() + density.square().mean()
        return list(torch.autograd.grad(loss, [x, *leaves]))

    for one, two in zip(gradients(torch.float32, "native"), gradients(torch.float64, "torch"), strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-3, atol=1e-4 * float(two.abs().max()))
