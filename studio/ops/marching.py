"""Where rays through the unit cube need samples: marching over an occupancy grid, without gradients.

Müller et al., Instant Neural Graphics Primitives with a Multiresolution Hash Encoding, 2022
(arXiv:2201.05989), section 5.4 and appendix E. The kernels are in ``kernels/marching``;
``marching_reference.py`` is the same in plain torch.
"""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, contiguous, launch, must_be_alike, native, pointers
from studio.ops.library import Backend, select
from studio.ops.marching_reference import MAX_STEPS, march_reference

MIN_STEP = 1e-5
MAX_SAMPLES = 2**31 - 1  # of all rays together


@dataclass(frozen=True)
class OccupancyGrid:
    """Where in the unit cube there may be matter: remembered ``densities``, and the cells they occupy."""

    densities: Float[Tensor, "x x x"]
    occupied: Bool[Tensor, "x x x"]

    def __post_init__(self) -> None:
        if not 1 <= self.occupied.shape[0] <= 1024:
            raise StudioError(f"An occupancy grid has 1 to 1024 cells a side, not {self.occupied.shape[0]}")

    @staticmethod
    def full(resolution: int, device: torch.device | str = "cpu") -> OccupancyGrid:
        """Nothing is known yet: all cells are occupied, at density 0."""
        densities = torch.zeros((resolution,) * 3, device=device)
        return OccupancyGrid(densities, torch.ones_like(densities, dtype=torch.bool))

    def updated(
        self, densities: Float[Tensor, "x x x"], *, decay: float = 0.95, threshold: float = 0.01
    ) -> OccupancyGrid:
        """After a look at the field: the larger of the fading memory and the new densities.

        Args:
            densities: one sample from each cell, such as at ``cell_points``; not negative.
            decay: what is left of the memory, 0-1.
            threshold: occupied is what has at least this density, or the mean of all where that is less, and
                is not empty.

        Raises:
            StudioError: densities that are not finite.
        """
        if not bool(densities.isfinite().all()):
            raise StudioError("The occupancy grid was given densities that are not finite; look at the field")
        remembered = torch.maximum(self.densities * decay, densities.detach().to(self.densities))
        least = min(threshold, float(remembered.double().mean()))
        return OccupancyGrid(remembered, (remembered >= least) & (remembered > 0))

    @functools.cached_property
    def bits(self) -> Int[Tensor, "words"]:
        """``occupied`` as the kernels read it: 32 cells a word, the lowest bit first."""
        cells = torch.nn.functional.pad(self.occupied.flatten(), (0, -self.occupied.numel() % 32)).view(-1, 8)
        places = torch.arange(8, dtype=torch.uint8, device=cells.device)
        return (cells.byte() << places).sum(-1, dtype=torch.uint8).view(torch.int32)


def cell_points(jitter: Float[Tensor, "x x x 3"]) -> Float[Tensor, "n 3"]:
    """A point in each cell of a grid over the unit cube, cell [i, j, k] in the order of memory.

    Args:
        jitter: where in its cell, 0-1 along each axis.
    """
    side = jitter.shape[0]
    axis = torch.arange(side, dtype=jitter.dtype, device=jitter.device)
    corners = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return ((corners + jitter) / side).reshape(-1, 3)


class PackedSamples(NamedTuple):
    """Samples of many rays without gaps: ray i has numbers ``starts[i]`` to ``starts[i + 1] - 1``."""

    starts: Int[Tensor, "_"]
    t: Float[Tensor, "s"]
    positions: Float[Tensor, "s 3"]  # origin + t direction, without gradient

    @property
    def ray_indices(self) -> Int[Tensor, "s"]:
        """Which ray each sample lies on."""
        counts = self.starts.diff()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)


def march(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    grid: OccupancyGrid,
    *,
    step: float,
    max_samples: int,
    jitter: Float[Tensor, "r"] | None = None,
    near: float = 0.0,
    backend: Backend = "auto",
) -> PackedSamples:
    """The samples of a regular lattice along each ray that lie in occupied cells of the unit cube.

    Each sample stands for a length ``step`` of its ray. The lattice begins where the ray enters the cube, or
    at ``near``, whichever is later. A ray that misses, has no direction or a number that is not finite has no
    samples.

    Args:
        origins: of the rays; may lie inside the cube.
        directions: unit vectors, or t counts in their lengths.
        grid: where there may be matter.
        step: between samples, at least 1e-5.
        max_samples: of one ray, the nearest; 1 to 2^18.
        jitter: the place of each ray's samples in their steps, 0-1; None is the middle.
        near: no sample is nearer than this.
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    Raises:
        StudioError: a number out of range, more than 2^31 - 1 samples, or native kernels that are insisted on
            and cannot run.
    """
    if not (step >= MIN_STEP and math.isfinite(step)):
        raise StudioError(f"The step between samples is {step}, expected {MIN_STEP} or more")
    if not 1 <= max_samples <= MAX_STEPS:
        raise StudioError(f"max_samples is {max_samples}, expected 1 to {MAX_STEPS}")
    if not math.isfinite(near):
        raise StudioError(f"near is {near}, expected a finite number")
    if jitter is None:
        jitter = origins.new_full((len(origins),), 0.5)
    must_be_alike(origins=origins, directions=directions, jitter=jitter)
    if grid.occupied.device != origins.device:
        raise StudioError(f"The occupancy grid is on {grid.occupied.device}, the rays on {origins.device}")
    origins, directions, jitter = origins.detach(), directions.detach(), jitter.detach()
    if select(origins.device, origins.dtype, backend) is None:
        counts, t, positions = march_reference(
            origins, directions, grid.occupied, jitter, step, near, max_samples
        )
        return PackedSamples(_starts(counts), t, positions)

    library = native(origins)
    kept = contiguous(origins, directions, jitter, grid.bits)
    counts = torch.empty(len(origins), dtype=torch.int64, device=origins.device)
    numbers = (launch(origins), len(origins), grid.occupied.shape[0], max_samples, step, near)
    library.call("studio_march_count", _March(*numbers, *pointers(*kept, counts, None, None, None)))
    starts = _starts(counts)
    total = int(starts[-1])
    if total > MAX_SAMPLES:
        raise StudioError(
            f"The rays have {total} samples, more than {MAX_SAMPLES}: use fewer rays or a larger step"
        )
    t, positions = origins.new_empty(total), origins.new_empty(total, 3)
    library.call("studio_march_write", _March(*numbers, *pointers(*kept, None, starts, t, positions)))
    return PackedSamples(starts, t, positions)


def _starts(counts: Int[Tensor, "r"]) -> Int[Tensor, "_"]:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


class _March(ctypes.Structure):
    """StudioMarch of kernels/marching/marching.h."""

    _fields_ = (
        *(("launch", Launch), ("rays", ctypes.c_int64)),
        *(("resolution", ctypes.c_int32), ("max_samples", ctypes.c_int32)),
        *(("step", ctypes.c_float), ("near", ctypes.c_float)),
        *((name, ctypes.c_void_p) for name in ("origins", "directions", "jitter", "occupied")),
        *((name, ctypes.c_void_p) for name in ("counts", "starts", "t", "positions")),
    )
