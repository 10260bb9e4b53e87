"""Which face each pixel shows, and where on it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import contiguous, native, pointers
from studio.ops.library import Backend, select
from studio.ops.mesh_raster.mesh import (
    MeshArguments,
    check_size,
    mesh_arguments,
    pixel_arguments,
    prepared_faces,
)
from studio.ops.mesh_raster.rasterize_reference import rasterize_reference

NEAR = 0.01
"""Of the near plane's distance, where none is said, in world units."""


class Fragments(NamedTuple):
    """What the pixels of a batch of views show.

    Attributes:
        face: index of the face, -1 where there is none; of the view's own faces if it has some.
        weights: perspective-correct barycentric coordinates of the face's corners; 0 where there is no face.
        depth: z / w, from -1 at the near plane to 1 at the far plane; 1 where there is no face.
        slopes: of the weights from one pixel to the next, rightwards [:, 0] and downwards [:, 1]; or None.
    """

    face: Int32[Tensor, "b h w"]
    weights: Float[Tensor, "b 3 h w"]
    depth: Float[Tensor, "b 1 h w"]
    slopes: Float[Tensor, "b 2 3 h w"] | None

    @property
    def alpha(self) -> Float[Tensor, "b 1 h w"]:
        """1 where there is a face, else 0. ``antialias`` gives it soft outlines with gradients."""
        return (self.face >= 0)[:, None].to(self.depth)


def rasterize(
    positions: Float[Tensor, "b v 4"],
    faces: Int[Tensor, "f 3"] | Int[Tensor, "b f 3"],
    width: int,
    height: int,
    *,
    slopes: bool = False,
    cull: bool = False,
    backend: Backend = "auto",
) -> Fragments:
    """Finds the nearest face at each pixel's centre.

    Gradients reach positions through weights, depth and slopes; that a pixel shows another face has none, see
    ``antialias``. Triangles with a common edge cover each pixel of it once; of equally near faces the first
    is seen. A pixel is drawn where -1 <= z / w < 1: triangles may pass through the near plane or behind the
    camera, and are drawn as far as they are seen. Both sides of a triangle are drawn. Degenerate and
    non-finite triangles are not, and get no gradient.

    Args:
        positions: of the vertices in clip space.
        faces: vertex indices, of all views or of each one. Views with fewer faces than others can repeat a
            vertex.
        width, height: image size in pixels.
        slopes: also find how the weights change across the screen, as mip-mapping needs.
        cull: leave out faces that wind clockwise as seen, which closed surfaces hide.
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    Raises:
        StudioError: an image beyond 32767 pixels a side, indices without vertex (on a CPU), one set of faces
            too many or too few, or native code that cannot run.
    """
    check_size(width, height)
    faces = prepared_faces(faces, positions.shape[0])
    if select(positions.device, positions.dtype, backend) is None:
        return Fragments(*rasterize_reference(positions, faces, width, height, slopes, cull))
    weights, depth, made_slopes, face = _rasterize(positions, faces, width, height, slopes, cull)
    return Fragments(face, weights, depth, made_slopes if slopes else None)


def clip_matrices(
    world_to_camera: Float[Tensor, "b 4 4"],
    intrinsics: Float[Tensor, "b 3 3"],
    width: int,
    height: int,
    near: float = NEAR,
    far: float = 100.0,
) -> Float[Tensor, "b 4 4"]:
    """From the world to clip space, for pinhole cameras with OpenCV axes and intrinsics in pixels.

    ``positions = torch.nn.functional.pad(vertices, (0, 1), value=1) @ clip_matrices(...).mT``

    Raises:
        StudioError: not 0 < near < far.
    """
    if not 0 < near < far:
        raise StudioError(f"The near plane is at {near} and the far plane at {far}, expected 0 < near < far.")
    lens = torch.zeros_like(world_to_camera)
    lens[:, 0, :3] = intrinsics[:, 0] / (width / 2)
    lens[:, 1, :3] = intrinsics[:, 1] / (height / 2)
    lens[:, :2, 2] -= 1
    lens[:, 1] *= -1  # rows grow downwards
    lens[:, 2, 2], lens[:, 2, 3] = (far + near) / (far - near), -2 * far * near / (far - near)
    lens[:, 3, 2] = 1
    return lens @ world_to_camera


_Rasterize = pixel_arguments("StudioMeshRasterize", MeshArguments, "face", "weights", "depth", "slopes")
_Backward = pixel_arguments(
    "StudioMeshRasterizeBackward", MeshArguments,
    "face", "v_weights", "v_depth", "v_slopes", "v_positions",
)  # fmt: skip


@torch.library.custom_op(
    "studio::mesh_rasterize",
    mutates_args=(),
    schema="(Tensor positions, Tensor faces, SymInt width, SymInt height, bool slopes, bool cull) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
def _rasterize(
    positions: Tensor, faces: Tensor, width: int, height: int, slopes: bool, cull: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made: tuple[Tensor, Tensor, Tensor, Tensor] = _rasterize_like(
        positions, faces, width, height, slopes, cull
    )
    weights, depth, made_slopes, face = made
    (kept,) = contiguous(positions)
    assert kept is not None
    mesh = mesh_arguments(kept, faces, width, height, cull)
    native(positions).call(
        "studio_mesh_rasterize",
        _Rasterize(mesh, *pointers(face, weights, depth, made_slopes if slopes else None)),
    )
    return made


@_rasterize.register_fake
def _rasterize_like(
    positions: Tensor, faces: Tensor, width: int, height: int, slopes: bool, cull: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    views = positions.shape[0]
    return (
        positions.new_empty(views, 3, height, width),
        positions.new_empty(views, 1, height, width),
        positions.new_empty((views, 2, 3, height, width) if slopes else (0,)),
        positions.new_empty(views, height, width, dtype=torch.int32),
    )


@torch.library.custom_op(
    "studio::mesh_rasterize_backward",
    mutates_args=(),
    schema="(Tensor positions, Tensor faces, Tensor face, Tensor? v_weights, Tensor? v_depth, "
    "Tensor? v_slopes) -> Tensor",
)
def _rasterize_backward(
    positions: Tensor,
    faces: Tensor,
    face: Tensor,
    v_weights: Tensor | None,
    v_depth: Tensor | None,
    v_slopes: Tensor | None,
) -> Tensor:
    kept = contiguous(positions, face, v_weights, v_depth, v_slopes)
    assert kept[0] is not None
    v_positions = torch.empty_like(kept[0])
    mesh = mesh_arguments(kept[0], faces, face.shape[2], face.shape[1])
    native(positions).call(
        "studio_mesh_rasterize_backward", _Backward(mesh, *pointers(*kept[1:], v_positions))
    )
    return v_positions


@_rasterize_backward.register_fake
def _(
    positions: Tensor,
    faces: Tensor,
    face: Tensor,
    v_weights: Tensor | None,
    v_depth: Tensor | None,
    v_slopes: Tensor | None,
) -> Tensor:
    return torch.empty_like(positions, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    positions, faces, _, _, ctx.slopes, _ = inputs
    ctx.set_materialize_grads(False)  # filling zeros would wake torch's threads, to spin beside ours
    ctx.mark_non_differentiable(output[3])
    ctx.save_for_backward(positions, faces, output[3])


def _backward(
    ctx: Any, v_weights: Tensor | None, v_depth: Tensor | None, v_slopes: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    v_positions = _rasterize_backward(
        *ctx.saved_tensors, v_weights, v_depth, v_slopes if ctx.slopes else None
    )
    return v_positions, None, None, None, None, None


_rasterize.register_autograd(_backward, setup_context=_save)
