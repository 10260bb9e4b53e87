"""Volume rendering of packed samples, forward and backward.

Max, Optical Models for Direct Volume Rendering, 1995; Mildenhall et al., NeRF, 2020 (arXiv:2003.08934), eq.
3. The kernels are in ``kernels/compositing``; ``compositing_reference.py`` is the same in plain torch.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, contiguous, launch, must_be_alike, native, pointers
from studio.ops.compositing_reference import composite_reference
from studio.ops.library import Backend, select


class Composite(NamedTuple):
    """What rays see. ``1 - opacity`` of the background shows through."""

    rgb: Float[Tensor, "r c"]  # Σ w colour, over black
    opacity: Float[Tensor, "r"]  # Σ w
    depth: Float[Tensor, "r"]  # Σ w t
    weights: Float[Tensor, "s"]  # w = T (1 - exp(-density length))
    transmittance: Float[Tensor, "s"]  # T, the light that reaches a sample; 0 beyond the ray's end


def composite(
    densities: Float[Tensor, "s"],
    lengths: Float[Tensor, "s"] | float,
    colors: Float[Tensor, "s c"],
    t: Float[Tensor, "s"],
    starts: Int[Tensor, "_"],
    *,
    min_transmittance: float = 1e-4,
    backend: Backend = "auto",
) -> Composite:
    """Composites each ray's samples, front to back.

    A ray ends before the first sample that less than ``min_transmittance`` of the light reaches: it and those
    behind it weigh nothing and get no gradient. Gradients reach densities, lengths, colours and t through all
    five results; gradients of gradients are the reference's alone. What is not a number stays so in the
    results of its ray. On a CPU, the bits depend on neither run nor number of threads.

    Args:
        densities: of the samples, not negative.
        lengths: of the ray that each sample stands for.
        colors: any number of channels: colours, normals, features.
        t: of the samples, for ``depth``.
        starts: ray i has the samples ``starts[i]`` to ``starts[i + 1] - 1``, as ``march`` returns them.
        min_transmittance: 0 to composite everything.
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    Raises:
        StudioError: starts that do not rise from 0 to the number of samples, or native kernels that are
            insisted on and cannot run.
    """
    must_be_alike(densities=densities, colors=colors, t=t)
    # On CUDA, looking would wait for the device; the kernels stay within the samples there.
    if not starts.is_cuda and not _rise(starts, len(t)):
        raise StudioError(f"starts of packed samples must rise from 0 to their number {len(t)}")
    optical_depths = densities * lengths
    if select(t.device, t.dtype, backend) is None:
        return Composite(*composite_reference(optical_depths, colors, t, starts, min_transmittance))
    return Composite(*_composite(optical_depths, colors, t, starts, min_transmittance))


def _rise(starts: Int[Tensor, "_"], last: int) -> bool:
    return (
        len(starts) > 0
        and int(starts[0]) == 0
        and int(starts[-1]) == last
        and bool((starts.diff() >= 0).all())
    )


_RESULTS = ("rgb", "opacity", "depth", "weights", "transmittance")


class _Arguments(ctypes.Structure):
    """StudioComposite of kernels/compositing/compositing.h."""

    _fields_ = (
        *(("launch", Launch), ("rays", ctypes.c_int64), ("samples", ctypes.c_int64)),
        *(("channels", ctypes.c_int32), ("min_transmittance", ctypes.c_float)),
        ("color_stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("starts", "optical_depths", "colors", "t", *_RESULTS)),
        *((f"v_{name}", ctypes.c_void_p) for name in _RESULTS),
        *((f"v_{name}", ctypes.c_void_p) for name in ("optical_depths", "colors", "t")),
    )


def _call(
    entry: str,
    optical_depths: Tensor,
    colors: Tensor,
    t: Tensor,
    starts: Tensor,
    min_transmittance: float,
    *others: Tensor | None,
) -> None:
    # Colours are often columns of a larger matrix, which need not be copied.
    colors = colors.detach() if colors.stride(1) == 1 else colors.detach().contiguous()
    before, after = contiguous(starts.long(), optical_depths), contiguous(t, *others)
    numbers = (launch(t), len(starts) - 1, len(t), colors.shape[1], min_transmittance, colors.stride(0))
    arguments = _Arguments(*numbers, *pointers(*before), colors.data_ptr(), *pointers(*after))
    native(t).call(entry, arguments)


_INPUTS = "Tensor optical_depths, Tensor colors, Tensor t, Tensor starts, float min_transmittance"


@torch.library.custom_op(
    "studio::composite", mutates_args=(), schema=f"({_INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def _composite(
    optical_depths: Tensor, colors: Tensor, t: Tensor, starts: Tensor, min_transmittance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    results: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _composite_like(
        optical_depths, colors, t, starts, min_transmittance
    )
    _call("studio_composite", optical_depths, colors, t, starts, min_transmittance, *results, *[None] * 8)
    return results


@_composite.register_fake
def _composite_like(
    optical_depths: Tensor, colors: Tensor, t: Tensor, starts: Tensor, min_transmittance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rays, samples = starts.shape[0] - 1, t.shape[0]
    return (
        t.new_empty(rays, colors.shape[1]),
        *(t.new_empty(rays), t.new_empty(rays)),
        *(t.new_empty(samples), t.new_empty(samples)),
    )


@torch.library.custom_op(
    "studio::composite_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, Tensor? v_rgb, Tensor? v_opacity, Tensor? v_depth, Tensor? v_weights, "
    "Tensor? v_transmittance, bool to_t) -> (Tensor, Tensor, Tensor)",
)
def _composite_backward(
    optical_depths: Tensor,
    colors: Tensor,
    t: Tensor,
    starts: Tensor,
    min_transmittance: float,
    v_rgb: Tensor | None,
    v_opacity: Tensor | None,
    v_depth: Tensor | None,
    v_weights: Tensor | None,
    v_transmittance: Tensor | None,
    to_t: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients on optical depths, colours and t, the last empty unless asked for; None comes in for zero."""
    incoming = (v_rgb, v_opacity, v_depth, v_weights, v_transmittance)
    results: tuple[Tensor, Tensor, Tensor] = _composite_backward_like(
        optical_depths, colors, t, starts, min_transmittance, *incoming, to_t
    )
    _call(
        "studio_composite_backward", optical_depths, colors, t, starts, min_transmittance,
        *[None] * 5, *incoming, *results[:2], results[2] if to_t else None,
    )  # fmt: skip
    return results


@_composite_backward.register_fake
def _composite_backward_like(
    optical_depths: Tensor,
    colors: Tensor,
    t: Tensor,
    starts: Tensor,
    min_transmittance: float,
    v_rgb: Tensor | None,
    v_opacity: Tensor | None,
    v_depth: Tensor | None,
    v_weights: Tensor | None,
    v_transmittance: Tensor | None,
    to_t: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return t.new_empty(t.shape), t.new_empty(colors.shape), t.new_empty(t.shape if to_t else 0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.min_transmittance = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, *v: Tensor | None) -> tuple[Tensor | None, ...]:
    to_t = ctx.needs_input_grad[2]
    v_optical_depths, v_colors, v_t = _composite_backward(*ctx.saved_tensors, ctx.min_transmittance, *v, to_t)
    return v_optical_depths, v_colors, v_t if to_t else None, None, None


_composite.register_autograd(_backward, setup_context=_save)
