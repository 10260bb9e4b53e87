"""Attributes of vertices at the pixels of a batch of views."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, contiguous, launch, must_be_alike, native, pointers
from studio.ops.library import Backend, select
from studio.ops.mesh_raster.interpolate_reference import interpolate_reference
from studio.ops.mesh_raster.mesh import pixel_arguments, prepared_faces
from studio.ops.mesh_raster.rasterize import Fragments


def interpolate(
    attributes: Float[Tensor, "v c"] | Float[Tensor, "b v c"],
    faces: Int[Tensor, "f 3"] | Int[Tensor, "b f 3"],
    fragments: Fragments,
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "b c h w"]:
    """The attributes at each pixel, 0 where there is no face. Gradients reach attributes and weights.

    Args:
        attributes: of all views or of each one; any number of channels.
        faces: for each face of ``fragments`` the rows of its corners' attributes: the faces that were
            rasterized, or others where attributes have seams. Texture coordinates of corners [f 3 2] are
            ``interpolate(uvs.reshape(-1, 2), torch.arange(3 * f).reshape(-1, 3), fragments)``.
        fragments: what the pixels show.
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    Raises:
        StudioError: indices without row (on a CPU), not one set of attributes or faces for each view, or
            native code that cannot run.
    """
    return _weighted(attributes, faces, fragments.face, fragments.weights, backend)


def interpolate_slopes(
    attributes: Float[Tensor, "v c"] | Float[Tensor, "b v c"],
    faces: Int[Tensor, "f 3"] | Int[Tensor, "b f 3"],
    fragments: Fragments,
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "b 2 c h w"]:
    """How the attributes change from one pixel to the next, rightwards [:, 0] and downwards [:, 1].

    Raises:
        StudioError: as ``interpolate``; or fragments without slopes.
    """
    if fragments.slopes is None:
        raise StudioError("The fragments have no slopes: rasterize with slopes=True.")
    parts = [
        _weighted(attributes, faces, fragments.face, slopes, backend) for slopes in fragments.slopes.unbind(1)
    ]
    return torch.stack(parts, dim=1)


def _weighted(attributes: Tensor, faces: Tensor, face: Tensor, weights: Tensor, backend: Backend) -> Tensor:
    must_be_alike(attributes=attributes, weights=weights)
    if attributes.dim() == 3 and attributes.shape[0] != face.shape[0]:
        raise StudioError(
            f"There are {attributes.shape[0]} sets of attributes for {face.shape[0]} views: "
            "give each view its own, or one [v c] for all."
        )
    faces = prepared_faces(faces, face.shape[0])
    if select(attributes.device, attributes.dtype, backend) is None:
        return interpolate_reference(attributes, faces, face, weights)
    image: Tensor = _interpolate(attributes, faces, face, weights)
    return image


class _Arguments(ctypes.Structure):
    """StudioMeshInterpolate of kernels/mesh_raster/mesh_raster.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("views", "vertices", "faces", "channels", "pixels")),
        *((name, ctypes.c_int32) for name in ("own_faces", "own_attributes")),
        ("launch", Launch),
        *((name, ctypes.c_void_p) for name in ("attributes", "indices", "face", "weights")),
    )


_Forward = pixel_arguments("StudioMeshInterpolateForward", _Arguments, "out")
_Backward = pixel_arguments("StudioMeshInterpolateBackward", _Arguments, "v_out", "v_attributes", "v_weights")


def _arguments(
    attributes: Tensor, faces: Tensor, face: Tensor, weights: Tensor
) -> tuple[_Arguments, list[Tensor | None]]:
    """What the kernels read, and the tensors that must outlive it."""
    kept = contiguous(attributes, faces, face, weights)
    views, height, width = face.shape
    arguments = _Arguments(
        views, attributes.shape[-2], faces.shape[-2], attributes.shape[-1], height * width,
        faces.dim() == 3, attributes.dim() == 3, launch(attributes), *pointers(*kept),
    )  # fmt: skip
    return arguments, kept


@torch.library.custom_op(
    "studio::mesh_interpolate",
    mutates_args=(),
    schema="(Tensor attributes, Tensor faces, Tensor face, Tensor weights) -> Tensor",
)
def _interpolate(attributes: Tensor, faces: Tensor, face: Tensor, weights: Tensor) -> Tensor:
    arguments, kept = _arguments(attributes, faces, face, weights)
    out: Tensor = _interpolate_like(attributes, faces, face, weights)
    native(attributes).call("studio_mesh_interpolate", _Forward(arguments, *pointers(out)))
    del kept
    return out


@_interpolate.register_fake
def _interpolate_like(attributes: Tensor, faces: Tensor, face: Tensor, weights: Tensor) -> Tensor:
    views, height, width = face.shape
    return weights.new_empty(views, attributes.shape[-1], height, width)


@torch.library.custom_op(
    "studio::mesh_interpolate_backward",
    mutates_args=(),
    schema="(Tensor attributes, Tensor faces, Tensor face, Tensor weights, Tensor v_out, bool to_attributes, "
    "bool to_weights) -> (Tensor, Tensor)",
)
def _interpolate_backward(
    attributes: Tensor,
    faces: Tensor,
    face: Tensor,
    weights: Tensor,
    v_out: Tensor,
    to_attributes: bool,
    to_weights: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients on attributes and weights, empty where they are not asked for."""
    arguments, kept = _arguments(attributes, faces, face, weights)
    made: tuple[Tensor, Tensor] = _interpolate_backward_like(
        attributes, faces, face, weights, v_out, to_attributes, to_weights
    )
    (incoming,) = contiguous(v_out)
    wanted = (made[0] if to_attributes else None, made[1] if to_weights else None)
    native(attributes).call(
        "studio_mesh_interpolate_backward", _Backward(arguments, *pointers(incoming, *wanted))
    )
    del kept
    return made


@_interpolate_backward.register_fake
def _interpolate_backward_like(
    attributes: Tensor,
    faces: Tensor,
    face: Tensor,
    weights: Tensor,
    v_out: Tensor,
    to_attributes: bool,
    to_weights: bool,
) -> tuple[Tensor, Tensor]:
    return (
        attributes.new_empty(attributes.shape if to_attributes else (0,)),
        weights.new_empty(weights.shape if to_weights else (0,)),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, v_out: Tensor) -> tuple[Tensor | None, ...]:
    to_attributes, _, _, to_weights = ctx.needs_input_grad
    v_attributes, v_weights = _interpolate_backward(*ctx.saved_tensors, v_out, to_attributes, to_weights)
    return v_attributes if to_attributes else None, None, None, v_weights if to_weights else None


_interpolate.register_autograd(_backward, setup_context=_save)
