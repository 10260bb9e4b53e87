"""A small multi-layer perceptron over many points, as fields have behind their encoding.

Müller et al., Real-time Neural Radiance Caching for Path Tracing, 2021 (arXiv:2106.12372), keep the layers of
a block of points together in fast memory; so does the kernel in ``kernels/mlp`` on a CPU, and on CUDA a
layer is a product of matrices, in full precision. ``mlp_reference.py`` is the same in plain torch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, contiguous, launch, must_be_alike, native, pointers
from studio.ops.library import Backend, select
from studio.ops.mlp_reference import Activation, mlp_reference

MAX_LAYERS, MAX_WIDTH = 8, 256


def mlp(
    inputs: Float[Tensor, "n i"],
    weights: Sequence[Float[Tensor, "_ _"]],
    biases: Sequence[Float[Tensor, "_"]],
    *,
    activation: Activation = "relu",
    backend: Backend = "auto",
) -> Float[Tensor, "n _"]:
    """Layers of weights and biases with an activation after each but the last.

    Gradients reach inputs, weights and biases; gradients of gradients are computed in plain torch. On a CPU,
    the bits depend on neither run nor number of threads.

    Args:
        inputs: of the first layer.
        weights: 1-8 matrices [outputs, inputs] as ``torch.nn.Linear`` has them, up to 256 wide.
        biases: for each layer its outputs' number.
        activation: ``"relu"``, or ``"softplus"`` where second derivatives are wanted.
        backend: ``"native"`` insists on the compiled kernel, ``"torch"`` on the reference.

    Raises:
        StudioError: layers that do not fit together, or a native kernel that is insisted on and cannot run.
    """
    widths = [inputs.shape[1], *(len(bias) for bias in biases)]
    shapes = [tuple(weight.shape) for weight in weights]
    if not weights or shapes != list(zip(widths[1:], widths, strict=False)):
        raise StudioError(f"Layers of {shapes} with {widths[1:]} biases do not fit on {widths[0]} inputs")
    named = {
        f"{name} {i}": x for name, xs in (("weight", weights), ("bias", biases)) for i, x in enumerate(xs)
    }
    must_be_alike(inputs=inputs, **named)
    small = len(weights) <= MAX_LAYERS and 1 <= min(widths) and max(widths) <= MAX_WIDTH
    if backend == "native" and not small:
        raise StudioError(f"The native perceptron has 1 to 8 layers 1 to 256 wide, not {widths}")
    library = select(inputs.device, inputs.dtype, backend) if small else None
    # On a CPU's narrowest vectors torch's own products are at least as fast.
    slow = library is not None and library.isa == "base" and inputs.device.type == "cpu"
    if library is None or (slow and backend == "auto"):
        return mlp_reference(inputs, weights, biases, activation)
    outputs: Tensor = _mlp(inputs, list(weights), list(biases), activation == "softplus")
    return outputs


_Each = ctypes.c_void_p * MAX_LAYERS


class _Arguments(ctypes.Structure):
    """StudioMlp of kernels/mlp/mlp.h."""

    _fields_ = (
        *(("launch", Launch), ("points", ctypes.c_int64)),
        *(("layers", ctypes.c_int32), ("softplus", ctypes.c_int32)),
        *(("widths", ctypes.c_int32 * (MAX_LAYERS + 1)), ("weights", _Each), ("biases", _Each)),
        *((name, ctypes.c_void_p) for name in ("inputs", "v_outputs", "outputs", "v_inputs")),
        *(("v_weights", _Each), ("v_biases", _Each)),
    )


def _call(
    entry: str,
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    softplus: bool,
    v_outputs: Tensor | None = None,
    outputs: Tensor | None = None,
    v_inputs: Tensor | None = None,
    v_weights: Sequence[Tensor] = (),
    v_biases: Sequence[Tensor] = (),
) -> None:
    kept_weights, kept_biases, kept = (contiguous(*x) for x in (weights, biases, (inputs, v_outputs)))
    widths = (ctypes.c_int32 * (MAX_LAYERS + 1))(inputs.shape[1], *(len(bias) for bias in biases))
    native(inputs).call(
        entry,
        _Arguments(
            *(launch(inputs), len(inputs), len(weights), softplus, widths),
            *(_Each(*pointers(*kept_weights)), _Each(*pointers(*kept_biases))),
            *pointers(*kept, outputs, v_inputs),
            *(_Each(*pointers(*v_weights)), _Each(*pointers(*v_biases))),
        ),
    )


_INPUTS = "Tensor inputs, Tensor[] weights, Tensor[] biases, bool softplus"


@torch.library.custom_op("studio::mlp", mutates_args=(), schema=f"({_INPUTS}) -> Tensor")
def _mlp(inputs: Tensor, weights: list[Tensor], biases: list[Tensor], softplus: bool) -> Tensor:
    outputs: Tensor = _mlp_like(inputs, weights, biases, softplus)
    _call("studio_mlp", inputs, weights, biases, softplus, outputs=outputs)
    return outputs


@_mlp.register_fake
def _mlp_like(inputs: Tensor, weights: list[Tensor], biases: list[Tensor], softplus: bool) -> Tensor:
    return inputs.new_empty(inputs.shape[0], weights[-1].shape[0])


@torch.library.custom_op(
    "studio::mlp_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, Tensor v_outputs, bool to_inputs, bool to_layers) -> (Tensor, Tensor[], Tensor[])",
)
def _mlp_backward(
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    softplus: bool,
    v_outputs: Tensor,
    to_inputs: bool,
    to_layers: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients on inputs, weights and biases, empty where they are not asked for."""
    made = _mlp_backward_like(inputs, weights, biases, softplus, v_outputs, to_inputs, to_layers)
    v_inputs, v_weights, v_biases = made
    _call(
        "studio_mlp_backward", inputs, weights, biases, softplus, v_outputs,
        v_inputs=v_inputs if to_inputs else None, v_weights=v_weights, v_biases=v_biases,
    )  # fmt: skip
    return v_inputs, v_weights, v_biases


@_mlp_backward.register_fake
def _mlp_backward_like(
    inputs: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    softplus: bool,
    v_outputs: Tensor,
    to_inputs: bool,
    to_layers: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    return (
        inputs.new_empty(inputs.shape if to_inputs else 0),
        [weight.new_empty(weight.shape) for weight in weights] if to_layers else [],
        [bias.new_empty(bias.shape) for bias in biases] if to_layers else [],
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    points, weights, biases, ctx.softplus = inputs
    ctx.layers = len(weights)
    ctx.save_for_backward(points, *weights, *biases)


def _backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None], None]:
    inputs, *layers = ctx.saved_tensors
    weights, biases = layers[: ctx.layers], layers[ctx.layers :]
    if torch.is_grad_enabled():  # a gradient of this gradient may be asked for
        return _differentiable_backward(inputs, weights, biases, ctx.softplus, v)
    to_layers = any(x.requires_grad for x in layers)
    v_inputs, v_weights, v_biases = _mlp_backward(
        inputs, weights, biases, ctx.softplus, v, inputs.requires_grad, to_layers
    )
    none: list[Tensor | None] = [None] * ctx.layers
    return (
        v_inputs if inputs.requires_grad else None,
        v_weights if to_layers else none,
        v_biases if to_layers else none,
        None,
    )


def _differentiable_backward(
    inputs: Tensor, weights: list[Tensor], biases: list[Tensor], softplus: bool, v: Tensor
) -> tuple[Tensor | None, list[Tensor | None], list[Tensor | None], None]:
    outputs = mlp_reference(inputs, weights, biases, "softplus" if softplus else "relu")
    leaves = [inputs, *weights, *biases]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad(outputs, wanted, v, create_graph=True))
    v_inputs, *rest = (next(found) if leaf.requires_grad else None for leaf in leaves)
    return v_inputs, rest[: len(weights)], rest[len(weights) :], None


_mlp.register_autograd(_backward, setup_context=_save)
