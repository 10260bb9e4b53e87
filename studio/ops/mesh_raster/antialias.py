"""Soft outlines that carry gradients to vertex positions."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import contiguous, must_be_alike, native, pointers
from studio.ops.library import Backend, select
from studio.ops.mesh_raster.antialias_reference import antialias_reference
from studio.ops.mesh_raster.mesh import MeshArguments, mesh_arguments, pixel_arguments, prepared_faces
from studio.ops.mesh_raster.rasterize import Fragments


def antialias(
    image: Float[Tensor, "b c h w"],
    positions: Float[Tensor, "b v 4"],
    faces: Int[Tensor, "f 3"] | Int[Tensor, "b f 3"],
    fragments: Fragments,
    neighbours: Int32[Tensor, "f 3"] | Int32[Tensor, "b f 3"] | None = None,
    *,
    backend: Backend = "auto",
) -> Float[Tensor, "b c h w"]:
    """Blends pixels along the silhouettes of surfaces by how much of them the nearer surface covers.

    Laine et al. 2020, section 3.5, with outlines followed over a few faces where they are smaller than
    pixels. Where a silhouette edge passes between the centres of two neighbouring pixels, the one that it
    does not reach the middle of receives up to half of the other's colour. Exact for straight outlines
    along the axes.

    Gradients reach image and positions: what moves an outline changes the blend. Apply it last, to colours
    and alpha that were composed without gradients of their own at outlines.

    Args:
        image: what the fragments show, any number of channels.
        positions, faces: what was rasterized. Vertices at one place must be one vertex, or edges between them
            count as silhouettes.
        fragments: from ``rasterize``.
        neighbours: ``face_neighbours(faces)``, to save the time to find them again.
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    Raises:
        StudioError: an image of another size than the fragments, or native code that cannot run.
    """
    if image.shape[2:] != fragments.face.shape[1:]:
        raise StudioError(
            f"The image has {image.shape[2]} x {image.shape[3]} pixels and the fragments "
            f"{fragments.face.shape[1]} x {fragments.face.shape[2]}: they must be of one drawing."
        )
    must_be_alike(positions=positions, image=image)
    faces = prepared_faces(faces, positions.shape[0])
    neighbours = face_neighbours(faces) if neighbours is None else neighbours.contiguous()
    if neighbours.shape != faces.shape:
        raise StudioError(
            f"neighbours is {list(neighbours.shape)} and faces {list(faces.shape)}: "
            "make them with face_neighbours."
        )
    depth = fragments.depth.detach()
    if select(image.device, image.dtype, backend) is None:
        return antialias_reference(image, positions, faces, neighbours, fragments.face, depth)
    smooth: Tensor = _antialias(image, positions, faces, neighbours, fragments.face, depth)[0]
    return smooth


def face_neighbours(faces: Int[Tensor, "*b f 3"]) -> Int32[Tensor, "*b f 3"]:
    """The face across the edge opposite to each corner: twice its index, plus 1 if both wind alike there.

    -1 where there is no other face or more than one. Depends on the faces alone: keep it while they stay.
    """
    if faces.dim() == 3:
        return torch.stack([face_neighbours(own) for own in faces]) if len(faces) else faces.int()
    corners = faces.long()
    start, end = corners.roll(-1, 1).flatten(), corners.roll(-2, 1).flatten()
    ordered, edge = (torch.minimum(start, end) << 32 | torch.maximum(start, end)).sort(stable=True)
    # The two edges of a pair follow each other, with others before and behind. By masks alone, whose shapes
    # do not depend on the faces: so nothing waits for the device.
    no = torch.zeros_like(ordered[:1], dtype=torch.bool)
    like_next = torch.cat([ordered[1:] == ordered[:-1], no])
    like_last = torch.cat([no, like_next])[:-1]
    first = like_next & ~like_last & ~torch.cat([like_next[1:], no]) & (start[edge] != end[edge])
    second = torch.cat([no, first])[:-1]
    other = torch.where(first, edge.roll(-1), edge.roll(1))
    beyond = 2 * torch.div(other, 3, rounding_mode="floor") + (start[edge] == start[other])
    neighbours = torch.full_like(beyond, -1).scatter(0, edge, torch.where(first | second, beyond, -1))
    return neighbours.reshape(faces.shape).int()


class _Arguments(ctypes.Structure):
    """StudioAntialias of kernels/mesh_raster/mesh_raster.h."""

    _fields_ = (
        *(("mesh", MeshArguments), ("channels", ctypes.c_int64)),
        *((name, ctypes.c_void_p) for name in ("neighbours", "face", "depth", "image")),
    )


_Forward = pixel_arguments("StudioAntialiasForward", _Arguments, "out", "marks")
_Backward = pixel_arguments("StudioAntialiasBackward", _Arguments, "marks", "v_out", "v_image", "v_positions")
_INPUTS = "Tensor image, Tensor positions, Tensor faces, Tensor neighbours, Tensor face, Tensor depth"


def _arguments(
    image: Tensor, positions: Tensor, faces: Tensor, neighbours: Tensor, face: Tensor, depth: Tensor
) -> tuple[_Arguments, list[Tensor | None]]:
    """What the kernels read, and the tensors that must outlive it."""
    kept = contiguous(positions, faces, neighbours, face, depth, image)
    assert kept[0] is not None and kept[1] is not None
    mesh = mesh_arguments(kept[0], kept[1], face.shape[2], face.shape[1])
    return _Arguments(mesh, image.shape[1], *pointers(*kept[2:])), kept


@torch.library.custom_op("studio::antialias", mutates_args=(), schema=f"({_INPUTS}) -> (Tensor, Tensor)")
def _antialias(
    image: Tensor, positions: Tensor, faces: Tensor, neighbours: Tensor, face: Tensor, depth: Tensor
) -> tuple[Tensor, Tensor]:
    """The image, and which pixels were blended with their neighbours."""
    arguments, kept = _arguments(image, positions, faces, neighbours, face, depth)
    made: tuple[Tensor, Tensor] = _antialias_like(image, positions, faces, neighbours, face, depth)
    native(image).call("studio_antialias", _Forward(arguments, *pointers(*made)))
    del kept
    return made


@_antialias.register_fake
def _antialias_like(
    image: Tensor, positions: Tensor, faces: Tensor, neighbours: Tensor, face: Tensor, depth: Tensor
) -> tuple[Tensor, Tensor]:
    return image.new_empty(image.shape), face.new_empty(face.shape, dtype=torch.uint8)


@torch.library.custom_op(
    "studio::antialias_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, Tensor marks, Tensor v_out) -> (Tensor, Tensor)",
)
def _antialias_backward(
    image: Tensor,
    positions: Tensor,
    faces: Tensor,
    neighbours: Tensor,
    face: Tensor,
    depth: Tensor,
    marks: Tensor,
    v_out: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients on image and positions."""
    arguments, kept = _arguments(image, positions, faces, neighbours, face, depth)
    made: tuple[Tensor, Tensor] = _antialias_backward_like(
        image, positions, faces, neighbours, face, depth, marks, v_out
    )
    incoming = contiguous(marks, v_out)
    native(image).call("studio_antialias_backward", _Backward(arguments, *pointers(*incoming, *made)))
    del kept
    return made


@_antialias_backward.register_fake
def _antialias_backward_like(
    image: Tensor,
    positions: Tensor,
    faces: Tensor,
    neighbours: Tensor,
    face: Tensor,
    depth: Tensor,
    marks: Tensor,
    v_out: Tensor,
) -> tuple[Tensor, Tensor]:
    return image.new_empty(image.shape), positions.new_empty(positions.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, v_out: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if v_out is None:
        return (None,) * 6
    v_image, v_positions = _antialias_backward(*ctx.saved_tensors, v_out)
    return v_image, v_positions, None, None, None, None


_antialias.register_autograd(_backward, setup_context=_save)
