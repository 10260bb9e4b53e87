"""Points of space, or of space and time, through factored planes: K-planes, and HexPlane with a product.

Fridovich-Keil et al., K-Planes, 2023 (arXiv:2301.10241); Cao and Johnson, HexPlane, 2023 (arXiv:2301.09632).
The kernels are in ``kernels/planes``; ``planes_reference.py`` is the same in plain torch.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, contiguous, launch, must_be_alike, native, pointers
from studio.ops.library import Backend, select
from studio.ops.planes_reference import planes_reference

MAX_SCALES, MAX_AXES = 8, 4


@dataclass(frozen=True)
class PlaneGrid:
    """The shape of a set of planes; their texels are one parameter [``texels``, ``channels``].

    ``resolutions`` has for each scale the texels along each axis: three axes for a field at rest, four for
    one that moves. The first texel of an axis is at 0, the last at 1.

    Raises:
        StudioError: a number out of range.
    """

    resolutions: tuple[tuple[int, ...], ...]  # 1-8 scales of 2-4 axes, each 2-65536
    channels: int = 16

    def __post_init__(self) -> None:
        axes = len(self.resolutions[0]) if self.resolutions else 0
        if not (1 <= len(self.resolutions) <= MAX_SCALES and 2 <= axes <= MAX_AXES):
            raise StudioError(f"Planes need 1 to 8 scales of 2 to 4 axes, not {self.resolutions}")
        if any(len(scale) != axes for scale in self.resolutions):
            raise StudioError(f"All scales of planes need as many axes as the first, not {self.resolutions}")
        if not all(2 <= side <= 2**16 for scale in self.resolutions for side in scale):
            raise StudioError(f"Planes need 2 to 65536 texels along an axis, not {self.resolutions}")
        if not 1 <= self.channels <= 1024:
            raise StudioError(f"Planes need 1 to 1024 channels, not {self.channels}")

    @property
    def axes(self) -> int:
        """Numbers of a point's position."""
        return len(self.resolutions[0])

    @property
    def width(self) -> int:
        """Features of a sampled point."""
        return len(self.resolutions) * self.channels

    @functools.cached_property
    def shapes(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Rows and columns of each scale's planes: of axes a < b, b down the rows and a along the columns."""
        pairs = [itertools.combinations(scale, 2) for scale in self.resolutions]
        return tuple(tuple((b, a) for a, b in scale) for scale in pairs)

    @property
    def texels(self) -> int:
        """Rows of the parameter."""
        return sum(math.prod(shape) for scale in self.shapes for shape in scale)

    def views(self, planes: Float[Tensor, "texels c"]) -> list[list[Float[Tensor, "_ _ c"]]]:
        """The planes of each scale, as pictures that share their memory with the parameter."""
        views: list[list[Tensor]] = []
        first = 0
        for scale in self.shapes:
            views.append([])
            for rows, columns in scale:
                last = first + rows * columns
                views[-1].append(planes[first:last].view(rows, columns, planes.shape[1]))
                first = last
        return views


def sample_planes(
    positions: Float[Tensor, "n axes"],
    planes: Float[Tensor, "texels channels"],
    grid: PlaneGrid,
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "n width"]:
    """The product over all pairs of axes of a bilinear sample of that pair's plane, scale after scale.

    Gradients reach positions and planes; gradients of gradients are the reference's alone. A coordinate
    outside [0, 1] counts as the nearest inside and gets no gradient. A point with a NaN gets NaN features,
    and neither takes nor gives a gradient. On a CPU, the bits depend on neither run nor number of threads.

    Args:
        positions: points of the unit cube; the last axis is time where there are four.
        planes: of ``grid.texels`` rows of ``grid.channels``. K-planes begins with uniform(0.1, 0.5) in the
            planes of space and ones in those of time.
        grid: the planes' shape.
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    Raises:
        StudioError: planes or positions of another shape, or native kernels that are insisted on and cannot
            run.
    """
    if planes.shape != (grid.texels, grid.channels):
        raise StudioError(f"The planes are {list(planes.shape)}, expected [{grid.texels}, {grid.channels}]")
    if positions.shape[1] != grid.axes:
        raise StudioError(f"The positions have {positions.shape[1]} axes, the planes {grid.axes}")
    must_be_alike(positions=positions, planes=planes)
    if select(positions.device, positions.dtype, backend) is None:
        return planes_reference(positions, grid.views(planes))
    sides = [side for scale in grid.resolutions for side in scale]
    features: Tensor = _sample(positions, planes, sides)
    return features


class _Scale(ctypes.Structure):
    """StudioPlaneScale of kernels/planes/planes.h."""

    _fields_ = (("first", ctypes.c_int64), ("resolution", ctypes.c_int32 * MAX_AXES))


class _Planes(ctypes.Structure):
    """StudioPlanes of kernels/planes/planes.h."""

    _fields_ = (
        *(("launch", Launch), ("points", ctypes.c_int64), ("texels", ctypes.c_int64)),
        *((name, ctypes.c_int32) for name in ("scales", "axes", "channels", "unused")),
        ("scale", _Scale * MAX_SCALES),
        *((name, ctypes.c_void_p) for name in ("positions", "planes", "v_features")),
        *((name, ctypes.c_void_p) for name in ("features", "v_planes", "v_positions")),
    )


def _call(
    entry: str,
    positions: Tensor,
    planes: Tensor,
    sides: list[int],
    v_features: Tensor | None,
    *results: Tensor | None,
) -> None:
    kept = contiguous(positions, planes, v_features)
    (points, axes), (texels, channels) = positions.shape, planes.shape
    scales, first = (_Scale * MAX_SCALES)(), 0
    for s, begin in enumerate(range(0, len(sides), axes)):
        scale = sides[begin : begin + axes]
        scales[s] = _Scale(first, (ctypes.c_int32 * MAX_AXES)(*scale))
        first += sum(a * b for a, b in itertools.combinations(scale, 2))
    sizes = (points, texels, len(sides) // axes, axes, channels, 0)
    native(positions).call(entry, _Planes(launch(positions), *sizes, scales, *pointers(*kept, *results)))


@torch.library.custom_op(
    "studio::sample_planes",
    mutates_args=(),
    schema="(Tensor positions, Tensor planes, int[] sides) -> Tensor",
)
def _sample(positions: Tensor, planes: Tensor, sides: list[int]) -> Tensor:
    features: Tensor = _sample_like(positions, planes, sides)
    _call("studio_planes_sample", positions, planes, sides, None, features, None, None)
    return features


@_sample.register_fake
def _sample_like(positions: Tensor, planes: Tensor, sides: list[int]) -> Tensor:
    return positions.new_empty(positions.shape[0], len(sides) // positions.shape[1] * planes.shape[1])


@torch.library.custom_op(
    "studio::sample_planes_backward",
    mutates_args=(),
    schema="(Tensor positions, Tensor planes, int[] sides, Tensor v_features, bool to_positions, "
    "bool to_planes) -> (Tensor, Tensor)",
)
def _sample_backward(
    positions: Tensor,
    planes: Tensor,
    sides: list[int],
    v_features: Tensor,
    to_positions: bool,
    to_planes: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients on positions and planes, empty where they are not asked for."""
    results = _sample_backward_like(positions, planes, sides, v_features, to_positions, to_planes)
    v_positions, v_planes = results
    _call(
        "studio_planes_backward", positions, planes, sides, v_features,
        None, v_planes if to_planes else None, v_positions if to_positions else None,
    )  # fmt: skip
    return v_positions, v_planes


@_sample_backward.register_fake
def _sample_backward_like(
    positions: Tensor,
    planes: Tensor,
    sides: list[int],
    v_features: Tensor,
    to_positions: bool,
    to_planes: bool,
) -> tuple[Tensor, Tensor]:
    return (
        positions.new_empty(positions.shape if to_positions else 0),
        planes.new_empty(planes.shape if to_planes else 0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.sides = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    positions, planes = ctx.saved_tensors
    to_positions, to_planes, _ = ctx.needs_input_grad
    v_positions, v_planes = _sample_backward(positions, planes, ctx.sides, v, to_positions, to_planes)
    return v_positions if to_positions else None, v_planes if to_planes else None, None


_sample.register_autograd(_backward, setup_context=_save)
