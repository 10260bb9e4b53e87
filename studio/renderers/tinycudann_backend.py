"""A field's hash grid and perceptron by tiny-cuda-nn (Müller 2021), in the terms of ``studio.ops.field``.

It computes the same function of the same parameters, so a scene that was optimised with it is looked at,
exported and resumed without it. Its grids and perceptron are laid out otherwise:

- It counts a grid's corners, so ours of r cells is its of r + 1, and it looks half a cell further on. Growing
  grids of its own would not have our resolutions: each of our levels is a grid of one level.
- Its layers have no biases. Ours get a neuron more, which is always 1 and whose weights they are; the first
  such is an input of the network.
- Widths are multiples of 16, and of the hidden layers a power of 2 up to 128, filled up with zeros.

Weights, table and results are rounded to half precision.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from studio.errors import StudioError
from studio.ops.field import OUTPUTS, Field
from studio.ops.hash_grid import HashGrid

NO_NORMALS = (
    "A field's normals want gradients of gradients, which tiny-cuda-nn's perceptron has none of; use "
    "renderer.network = 'auto', or renderer.normals = false without regularizers.orientation."
)
_NEURONS = (16, 32, 64, 128)
_OUTPUT_ROWS = 16


def sampled(field: Field, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
    """As ``Field.sampled``, in half precision; gradients reach the field's parameters and the points, once.

    Raises:
        StudioError: hidden layers beyond 127 neurons or none, or a tiny-cuda-nn that cannot run here.
    """
    if not len(points):  # which it refuses
        return field.sampled(points)
    neurons = _neurons(field)
    network = _network(field.grid, len(field.weights) - 1, neurons)
    parameters = _parameters(field, neurons)
    if network.params.shape != parameters.shape:
        raise StudioError(
            f"This tiny-cuda-nn has {network.params.numel()} parameters for the field and version 2.0 has "
            f"{parameters.numel()}; install 2.0, or use renderer.network = 'auto'."
        )
    shifts = [0.5 / level.resolution for level in field.grid.grids]
    places = points.clamp(0, 1).repeat(1, len(shifts)) - points.new_tensor(shifts).repeat_interleave(3)
    outputs = torch.func.functional_call(network, {"params": parameters}, (pad(places, (0, 1), value=1.0),))
    log_densities, colors = field.read(outputs.to(points), points)
    return log_densities.exp(), colors


def _neurons(field: Field) -> int:
    """Of each hidden layer: ours, the one that is always 1, and what is filled up with zeros."""
    most = max((len(bias) for bias in field.biases[:-1]), default=0)
    for neurons in _NEURONS:
        if 0 < most < neurons:
            return neurons
    raise StudioError(
        f"The field's widest hidden layer has {most} neurons, expected 1 to {_NEURONS[-1] - 1} for "
        "tiny-cuda-nn; use renderer.network = 'auto', or scene.width = 64."
    )


@functools.cache
def _network(grid: HashGrid, hidden_layers: int, neurons: int) -> Any:
    """Kept for as long as the process lives, since making one takes longer than using it."""
    try:
        import tinycudann
    except OSError as error:  # which it raises where it is built for another GPU
        raise StudioError(f"tiny-cuda-nn cannot run here: {error} Use renderer.network = 'auto'.") from error
    grids = [
        {
            "otype": "Grid", "type": "Hash", "n_dims_to_encode": 3, "n_levels": 1,
            "n_features_per_level": grid.features, "log2_hashmap_size": grid.log2_table_size,
            "base_resolution": level.resolution + 1,
        }
        for level in grid.grids
    ]  # fmt: skip
    always_one = {"otype": "Identity", "n_dims_to_encode": 1}
    perceptron = {
        "otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": "None",
        "n_neurons": neurons, "n_hidden_layers": hidden_layers,
    }  # fmt: skip
    encoding = {"otype": "Composite", "nested": [*grids, always_one]}
    return tinycudann.NetworkWithInputEncoding(3 * grid.levels + 1, OUTPUTS, encoding, perceptron)


def _parameters(field: Field, neurons: int) -> Float[Tensor, "_"]:
    """In its order: the layers' matrices, then the levels' tables."""
    parts, last = [], len(field.weights) - 1
    for layer, (weight, bias) in enumerate(zip(field.weights, field.biases, strict=True)):
        inputs = weight.shape[1]
        rows = _OUTPUT_ROWS if layer == last else neurons
        columns = neurons if layer > 0 else -(-(inputs + 1) // 16) * 16
        matrix = torch.cat([weight, bias[:, None]], dim=1)
        if layer < last:
            matrix = torch.cat([matrix, pad(matrix.new_ones(1, 1), (inputs, 0))])
        parts.append(pad(matrix, (0, columns - matrix.shape[1], 0, rows - matrix.shape[0])))
    for level in field.grid.grids:
        entries = field.table[level.first : level.end]
        parts.append(entries if level.mask else pad(entries, (0, 0, 0, -len(entries) % 8)))
    return torch.cat([part.flatten() for part in parts])
