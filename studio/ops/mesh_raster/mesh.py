"""What the mesh operators share: the mesh as the kernels read it, and checks of what comes in."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, launch

MAX_SIDE = 32767
MAX_FACES = 2**30 - 1


class MeshArguments(ctypes.Structure):
    """StudioMesh of kernels/mesh_raster/mesh_raster.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("views", "vertices", "faces")),
        *((name, ctypes.c_int32) for name in ("width", "height", "own_faces", "cull")),
        ("launch", Launch),
        *((name, ctypes.c_void_p) for name in ("positions", "indices")),
    )


def mesh_arguments(
    positions: Tensor, faces: Tensor, width: int, height: int, cull: bool = False
) -> MeshArguments:
    """Of contiguous tensors, which must outlive it."""
    views, vertices, _ = positions.shape
    return MeshArguments(
        views, vertices, faces.shape[-2], width, height, faces.dim() == 3, cull,
        launch(positions), positions.data_ptr(), faces.data_ptr(),
    )  # fmt: skip


def pixel_arguments(name: str, head: type[ctypes.Structure], *pointers: str) -> type[ctypes.Structure]:
    """A struct of the kernels: ``head`` and then pointers."""
    fields = (("head", head), *((pointer, ctypes.c_void_p) for pointer in pointers))
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def prepared_faces(faces: Tensor, views: int) -> Tensor:
    """The faces as the kernels read them: int32 and contiguous.

    Raises:
        StudioError: as many sets of faces as there are not views, or too many faces.
    """
    if faces.dim() == 3 and faces.shape[0] != views:
        raise StudioError(
            f"There are {faces.shape[0]} sets of faces for {views} views: "
            "give each view its own, or one [f 3] for all."
        )
    if faces.shape[-2] > MAX_FACES:
        raise StudioError(f"{faces.shape[-2]} faces are more than {MAX_FACES}: simplify the mesh.")
    return faces.to(torch.int32).contiguous()


def check_size(width: int, height: int) -> None:
    """Refuses images that the kernels cannot draw.

    Raises:
        StudioError: a side is 0, or too long.
    """
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise StudioError(f"The image would be {width} x {height} pixels, expected 1 to {MAX_SIDE} a side.")


def corner_rows(faces: Tensor, face: Tensor, vertices: int, own_vertices: bool) -> Tensor:
    """Rows of the attributes of all views, one after another, at the corners of each pixel's face [b h w 3].

    Pixels without a face get those of face 0.
    """
    views = torch.arange(face.shape[0], device=face.device)[:, None, None]
    index = face.long().clamp(min=0)
    rows = faces.long()[views.expand_as(index), index] if faces.dim() == 3 else faces.long()[index]
    return rows + views[..., None] * vertices if own_vertices else rows
