"""Multiresolution hash encoding of points, with gradients of gradients.

Müller et al., Instant Neural Graphics Primitives with a Multiresolution Hash Encoding, 2022
(arXiv:2201.05989). The kernels are in ``kernels/hash_grid``; ``hash_grid_reference.py`` is the same in plain
torch.
"""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, contiguous, launch, must_be_alike, native, pointers
from studio.ops.hash_grid_reference import HashLevel, hash_grid_reference
from studio.ops.library import Backend, select

FEATURES = (1, 2, 4, 8)
MAX_LEVELS = 32


@dataclass(frozen=True)
class HashGrid:
    """The shape of an encoding; its table is a parameter [``entries``, ``features``].

    Resolutions, in cells along a side of the unit cube, grow geometrically from the first to the last. A
    level whose corners fit into 2^``log2_table_size`` entries has one entry for each, x fastest; a finer one
    shares them by hash.

    Raises:
        StudioError: a number out of range.
    """

    levels: int = 16  # 1-32
    features: int = 2  # of an entry: 1, 2, 4 or 8
    log2_table_size: int = 19  # 1-24, of each level
    base_resolution: int = 16
    finest_resolution: int = 2048  # base_resolution to 2^20

    def __post_init__(self) -> None:
        limits = (
            ("levels", 1, MAX_LEVELS),
            ("log2_table_size", 1, 24),
            ("base_resolution", 1, 2**20),
            ("finest_resolution", self.base_resolution, 2**20),
        )
        for name, low, high in limits:
            if not low <= getattr(self, name) <= high:
                raise StudioError(
                    f"{name} of the hash grid is {getattr(self, name)}, expected {low} to {high}"
                )
        if self.features not in FEATURES:
            raise StudioError(f"features of the hash grid is {self.features}, expected 1, 2, 4 or 8")

    @functools.cached_property
    def grids(self) -> tuple[HashLevel, ...]:
        """The levels, from coarse to fine."""
        growth = math.log(self.finest_resolution / self.base_resolution) / max(self.levels - 1, 1)
        grids, first, table_size = [], 0, 1 << self.log2_table_size
        for level in range(self.levels):
            # The paper's floor, with room for rounding where the product is whole.
            resolution = math.floor(self.base_resolution * math.exp(level * growth) * (1 + 1e-12))
            dense = (resolution + 1) ** 3 <= table_size
            grids.append(HashLevel(first, resolution, 0 if dense else table_size - 1))
            first = grids[-1].end
        return tuple(grids)

    @property
    def entries(self) -> int:
        """Rows of the table."""
        return self.grids[-1].end

    @property
    def width(self) -> int:
        """Features of an encoded point."""
        return self.levels * self.features


def hash_grid(
    positions: Float[Tensor, "n 3"],
    table: Float[Tensor, "entries features"],
    grid: HashGrid,
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "n width"]:
    """The features around each point, interpolated trilinearly, from the coarsest level to the finest.

    Gradients reach positions and table, and gradients of these gradients reach both too, so that a loss on
    normals works; third derivatives are the reference's alone. A coordinate outside [0, 1] counts as the
    nearest inside and gets no gradient. A point with a NaN gets NaN features, and neither takes nor gives a
    gradient. On a CPU, the bits depend on neither run nor number of threads.

    Args:
        positions: points of the unit cube.
        table: of ``grid.entries`` rows of ``grid.features``; 1e-4 x uniform(-1, 1) is the paper's beginning.
        grid: the encoding's shape.
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    Raises:
        StudioError: a table of another shape, or native kernels that are insisted on and cannot run.
    """
    if table.shape != (grid.entries, grid.features):
        raise StudioError(
            f"The hash grid's table is {list(table.shape)}, expected [{grid.entries}, {grid.features}]"
        )
    must_be_alike(positions=positions, table=table)
    if select(positions.device, positions.dtype, backend) is None:
        return hash_grid_reference(positions, table, grid.grids)
    features: Tensor = _encode(positions, None, table, [number for level in grid.grids for number in level])
    return features


class _Level(ctypes.Structure):
    """StudioHashLevel of kernels/hash_grid/hash_grid.h."""

    _fields_ = (("first", ctypes.c_int64), ("resolution", ctypes.c_uint32), ("mask", ctypes.c_uint32))


class _Grid(ctypes.Structure):
    """StudioHashGrid of kernels/hash_grid/hash_grid.h."""

    _fields_ = (
        *(("launch", Launch), ("points", ctypes.c_int64), ("entries", ctypes.c_int64)),
        *(("levels", ctypes.c_int32), ("features", ctypes.c_int32), ("level", _Level * MAX_LEVELS)),
        *((name, ctypes.c_void_p) for name in ("positions", "directions", "table", "v_features", "result")),
    )


def _call(
    entry: str,
    positions: Tensor,
    directions: Tensor | None,
    table: Tensor | None,
    v_features: Tensor | None,
    levels: list[int],
    result: Tensor,
    entries: int,
    features: int,
) -> Tensor:
    kept = contiguous(positions, directions, table, v_features)
    grids = (_Level * MAX_LEVELS)(*(_Level(*levels[i : i + 3]) for i in range(0, len(levels), 3)))
    sizes = (positions.shape[0], entries, len(levels) // 3, features)
    native(positions).call(entry, _Grid(launch(positions), *sizes, grids, *pointers(*kept, result)))
    return result


# All three are linear in their last tensor or tensors; with directions, of the interpolation's derivative
# along them. So each is the gradient of the others: of what comes in, of the table, and of the positions.


@torch.library.custom_op(
    "studio::hash_grid_encode",
    mutates_args=(),
    schema="(Tensor positions, Tensor? directions, Tensor table, int[] levels) -> Tensor",
)
def _encode(positions: Tensor, directions: Tensor | None, table: Tensor, levels: list[int]) -> Tensor:
    result = _encode_like(positions, directions, table, levels)
    return _call("studio_hash_grid_encode", positions, directions, table, None, levels, result, *table.shape)


@_encode.register_fake
def _encode_like(positions: Tensor, directions: Tensor | None, table: Tensor, levels: list[int]) -> Tensor:
    return positions.new_empty(positions.shape[0], len(levels) // 3 * table.shape[1])


@torch.library.custom_op(
    "studio::hash_grid_scatter",
    mutates_args=(),
    schema="(Tensor positions, Tensor? directions, Tensor v_features, int[] levels) -> Tensor",
)
def _scatter(positions: Tensor, directions: Tensor | None, v_features: Tensor, levels: list[int]) -> Tensor:
    result = _scatter_like(positions, directions, v_features, levels)
    return _call(
        "studio_hash_grid_scatter", positions, directions, None, v_features, levels, result, *result.shape
    )


@_scatter.register_fake
def _scatter_like(
    positions: Tensor, directions: Tensor | None, v_features: Tensor, levels: list[int]
) -> Tensor:
    return positions.new_empty(HashLevel(*levels[-3:]).end, v_features.shape[1] // (len(levels) // 3))


@torch.library.custom_op(
    "studio::hash_grid_slopes",
    mutates_args=(),
    schema="(Tensor positions, Tensor? directions, Tensor v_features, Tensor table, int[] levels) -> Tensor",
)
def _slopes(
    positions: Tensor, directions: Tensor | None, v_features: Tensor, table: Tensor, levels: list[int]
) -> Tensor:
    result = positions.new_empty(positions.shape)
    return _call(
        "studio_hash_grid_slopes", positions, directions, table, v_features, levels, result, *table.shape
    )


@_slopes.register_fake
def _(
    positions: Tensor, directions: Tensor | None, v_features: Tensor, table: Tensor, levels: list[int]
) -> Tensor:
    return positions.new_empty(positions.shape)


def _first_order(directions: Tensor | None) -> None:
    if directions is not None:
        raise StudioError("The native hash grid has no third derivatives; use backend='torch' for them")


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.levels = inputs
    ctx.save_for_backward(*tensors)


def _encode_backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    positions, directions, table = ctx.saved_tensors
    _first_order(directions)
    to_positions, _, to_table, _ = ctx.needs_input_grad
    v_positions = _slopes(positions, None, v, table, ctx.levels) if to_positions else None
    v_table = _scatter(positions, None, v, ctx.levels) if to_table else None
    return v_positions, None, v_table, None


def _scatter_backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    positions, directions, v_features = ctx.saved_tensors
    _first_order(directions)
    to_positions, _, to_features, _ = ctx.needs_input_grad
    return (
        _slopes(positions, None, v_features, v, ctx.levels) if to_positions else None,
        None,
        _finite(_encode(positions, None, v, ctx.levels), positions) if to_features else None,
        None,
    )


def _slopes_backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    positions, directions, v_features, table = ctx.saved_tensors
    _first_order(directions)
    to_positions, _, to_features, to_table, _ = ctx.needs_input_grad
    return (
        _slopes(positions, v, v_features, table, ctx.levels) if to_positions else None,
        None,
        _encode(positions, v, table, ctx.levels) if to_features else None,
        _scatter(positions, v, v_features, ctx.levels) if to_table else None,
        None,
    )


def _finite(features: Tensor, positions: Tensor) -> Tensor:
    """Zero for the points whose coordinates are NaN."""
    return features.where(~positions.isnan().any(-1, keepdim=True), features.new_zeros(()))


_encode.register_autograd(_encode_backward, setup_context=_save)
_scatter.register_autograd(_scatter_backward, setup_context=_save)
_slopes.register_autograd(_slopes_backward, setup_context=_save)
