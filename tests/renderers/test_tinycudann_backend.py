"""tiny-cuda-nn as a choice. It runs on CUDA only: here what it documents is written out in plain torch."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from studio.errors import StudioError
from studio.ops.field import Field
from studio.ops.hash_grid import HashGrid
from studio.renderers import tinycudann_backend
from studio.renderers.optional import TINYCUDANN
from studio.renderers.volume import VolumeRenderer
from tests.renderers.test_volume import field, views

# Levels of 2, 4 and 8 cells: 27 entries, 125, and 256 that 729 corners share.
GRID = HashGrid(levels=3, features=2, log2_table_size=8, base_resolution=2, finest_resolution=8)


def some_field(*hidden: int) -> Field:
    rng = torch.Generator().manual_seed(0)
    widths = (GRID.width, *hidden, 4)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=rng).requires_grad_()

    return replace(
        field(),
        grid=GRID,
        table=normal(GRID.entries, GRID.features),
        weights=tuple(normal(o, i) for i, o in itertools.pairwise(widths)),
        biases=tuple(normal(o) for o in widths[1:]),
    )


class Grid:
    """One level: ``base_resolution`` corners a side, half a cell from the cube's."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        assert (config["otype"], config["type"], config["n_levels"]) == ("Grid", "Hash", 1)
        self.corners, self.features = config["base_resolution"], config["n_features_per_level"]
        self.entries = min(-(-(self.corners**3) // 8) * 8, 1 << config["log2_hashmap_size"])
        self.parameters = self.entries * self.features

    def __call__(self, positions: Tensor, parameters: Tensor) -> Tensor:
        table = parameters.reshape(-1, self.features)
        scaled = (self.corners - 1) * positions + 0.5
        low = scaled.detach().floor()
        total = torch.zeros(len(positions), self.features)
        for offset in itertools.product((0, 1), repeat=3):
            step = torch.tensor(offset)
            x, y, z = (low.long() + step).unbind(-1)
            if self.corners**3 <= self.entries:
                entry = x + self.corners * (y + self.corners * z)
            else:
                entry = x ^ (y * 2654435761) ^ (z * 805459861)
            share = torch.where(step == 1, scaled - low, 1 - scaled + low).prod(-1)
            total = total + share[:, None] * table[entry % self.entries]
        return total


class NetworkWithInputEncoding(torch.nn.Module):
    """A composite of grids and an identity, filled up with ones; then layers without biases."""

    def __init__(
        self, inputs: int, outputs: int, encoding: Mapping[str, Any], network: Mapping[str, Any]
    ) -> None:
        super().__init__()
        assert (encoding["otype"], network["otype"]) == ("Composite", "FullyFusedMLP")
        assert (network["activation"], network["output_activation"]) == ("ReLU", "None")
        *grids, identity = encoding["nested"]
        assert identity == {"otype": "Identity", "n_dims_to_encode": 1} and inputs == 3 * len(grids) + 1
        self.grids = [Grid(config) for config in grids]
        encoded = sum(grid.features for grid in self.grids) + 1
        hidden = [network["n_neurons"]] * network["n_hidden_layers"]
        assert hidden[0] in (16, 32, 64, 128)
        self.widths = [-(-encoded // 16) * 16, *hidden, 16]
        self.outputs, self.ones = outputs, self.widths[0] - encoded
        sizes = [o * i for i, o in itertools.pairwise(self.widths)]
        self.sizes = [*sizes, *(grid.parameters for grid in self.grids)]
        self.params = torch.nn.Parameter(torch.zeros(sum(self.sizes)))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.params.split(self.sizes)
        layers = list(itertools.pairwise(self.widths))
        places = x[:, :-1].split(3, dim=1)
        tables = parts[len(layers) :]
        encoded = [grid(*given) for grid, *given in zip(self.grids, places, tables, strict=True)]
        numbers = pad(torch.cat([*encoded, x[:, -1:]], dim=1), (0, self.ones), value=1.0)
        for layer, (i, o) in enumerate(layers):
            numbers = (numbers if layer == 0 else numbers.relu()) @ parts[layer].reshape(o, i).T
        return numbers[:, : self.outputs]


@pytest.fixture(autouse=True)
def tinycudann(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = SimpleNamespace(NetworkWithInputEncoding=NetworkWithInputEncoding)
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    tinycudann_backend._network.cache_clear()
    yield
    tinycudann_backend._network.cache_clear()


@pytest.mark.parametrize("hidden", [(15,), (16,), (20, 9, 33)], ids=str)
def test_densities_colours_and_gradients_are_ours(hidden: tuple[int, ...]) -> None:
    """Points beyond the cube too."""
    here = some_field(*hidden)
    rng = torch.Generator().manual_seed(1)
    points = (1.2 * torch.rand(200, 3, generator=rng) - 0.1).requires_grad_()
    v = torch.randn(200, generator=rng), torch.randn(200, 3, generator=rng)
    leaves = [points, here.table, *here.weights, *here.biases]

    ours, theirs = here.sampled(points), tinycudann_backend.sampled(here, points)
    for one, two in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    slopes = [torch.autograd.grad(values, leaves, v) for values in (theirs, ours)]
    for one, two in zip(*slopes, strict=True):
        assert float(two.abs().max()) > 0
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4 * float(two.abs().max()))


def test_no_points_have_no_densities() -> None:
    densities, colors = tinycudann_backend.sampled(some_field(8), torch.zeros(0, 3))
    assert densities.shape == (0,) and colors.shape == (0, 3)


@pytest.mark.parametrize("hidden", [(128,), ()], ids=str)
def test_layers_that_it_has_no_room_for_are_refused(hidden: tuple[int, ...]) -> None:
    with pytest.raises(StudioError, match=r"expected 1 to 127 .*renderer.network = 'auto'"):
        tinycudann_backend.sampled(some_field(*hidden), torch.rand(2, 3))


def test_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(NetworkWithInputEncoding):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.params = torch.nn.Parameter(torch.zeros(7))

    monkeypatch.setattr(sys.modules["tinycudann"], "NetworkWithInputEncoding", Other)
    with pytest.raises(StudioError, match=r"has 7 parameters .* install 2\.0"):
        tinycudann_backend.sampled(some_field(8), torch.rand(2, 3))


def test_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(StudioError, match=r"tinycudann .* CUDA device .*renderer.network = 'auto'"):
        VolumeRenderer(network="tinycudann")(field(), views(), torch.zeros(2, 3))


def test_normals_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(TINYCUDANN), "insist", lambda package, device: None)
    draw = VolumeRenderer(network="tinycudann", normals=True)
    with pytest.raises(StudioError, match=r"gradients of gradients.*renderer.network = 'auto'"):
        draw(field(), views(), torch.zeros(2, 3))
    fine = replace(draw, normals=False)(some_field(8), views(), torch.zeros(2, 3))
    torch.testing.assert_close(
        fine.rgb, VolumeRenderer()(some_field(8), views(), torch.zeros(2, 3)).rgb, rtol=0, atol=1e-4
    )
