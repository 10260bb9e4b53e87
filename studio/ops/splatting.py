"""Splatting of 3D Gaussians: a batch of cameras at once, forward and backward.

The kernels are in ``kernels/splatting``; ``splatting_reference.py`` is the same in plain torch.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, contiguous, launch, must_be_alike, native, pointers
from studio.ops.library import Backend, select
from studio.ops.splatting_reference import splat_reference

SH_TERMS = (1, 4, 9, 16)
MAX_PAIRS = 2**31 - 1
"""Of splats and tiles, over all views of a drawing on CUDA."""


class SplatImages(NamedTuple):
    """What ``splat`` draws."""

    rgb: Float[Tensor, "b 3 h w"]
    alpha: Float[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"]  # Σ w z
    normal: Float[Tensor, "b 3 h w"]  # Σ w n, n the world-space shortest axis turned towards the camera
    radii_px: Float[Tensor, "b n"]  # of the ellipse where alpha reaches 1/255, 0 where not drawn; no gradient


@dataclass(frozen=True)
class SplatCapacity:
    """Room for splats on CUDA that is fixed beforehand: so nothing waits for the device, and a step can be
    captured in a CUDA graph. A CPU makes room as it is needed.

    Attributes:
        pairs: of a splat and a tile of 16 x 16 pixels that it touches, over all views.
        left_out: how many pairs found no room in the drawing that lacked most. They were not drawn; they are
            those of the last splats in the last views.
    """

    pairs: int
    left_out: Int64[Tensor, "1"]

    @classmethod
    def of(cls, pairs: int, device: torch.device | str) -> SplatCapacity:
        """Room for that many pairs, of which none was left out so far.

        Raises:
            StudioError: not 1 to 2147483647 pairs.
        """
        if not 1 <= pairs <= MAX_PAIRS:
            raise StudioError(
                f"The capacity is {pairs} pairs of splats and tiles, expected 1 to {MAX_PAIRS}."
            )
        return cls(pairs, torch.zeros(1, dtype=torch.int64, device=device))

    def check(self) -> None:
        """Waits for the device and looks whether all splats were drawn.

        Raises:
            StudioError: some found no room.
        """
        if left_out := int(self.left_out):
            raise StudioError(
                f"{left_out} pairs of splats and tiles found no room beside {self.pairs}: give a capacity of "
                f"{self.pairs + left_out} or more, or make the splats fewer or smaller."
            )


def splat(
    means: Float[Tensor, "n 3"],
    quats_wxyz: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, "n"],
    sh: Float[Tensor, "n k 3"],
    world_to_camera: Float[Tensor, "b 4 4"],
    intrinsics: Float[Tensor, "b 3 3"],
    background: Float[Tensor, "b 3"],
    width: int,
    height: int,
    means2d_probe: Float[Tensor, "b n 2"] | None = None,
    *,
    antialias: bool = True,
    capacity: SplatCapacity | None = None,
    backend: Backend = "auto",
) -> SplatImages:
    """Draws Gaussians front to back by camera depth.

    Gradients reach means, quaternions, scales, opacities, sh, background and the probe through all four
    images; cameras get none.

    Args:
        means: centres in the world.
        quats_wxyz: rotations; need not be unit.
        scales: standard deviations along the rotated axes.
        opacities: 0-1.
        sh: colour coefficients, k = 1, 4, 9 or 16.
        world_to_camera: rigid transforms to the cameras' OpenCV axes.
        intrinsics: pinhole matrices in pixels.
        background: rgb behind everything.
        width, height: image size in pixels.
        means2d_probe: an offset of the projected means in pixels; usually zeros that collect a gradient.
        antialias: lower the opacity of splats thinner than a pixel (Mip-Splatting) instead of fattening them.
        capacity: room that is fixed beforehand. Without it CUDA is asked, once a drawing, how much it takes.
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    A splat with a non-finite parameter or a zero quaternion is not drawn and gets zero gradient.

    Raises:
        StudioError: an impossible size, or native kernels that are insisted on and cannot run.
    """
    if sh.shape[1] not in SH_TERMS:
        raise StudioError(f"sh has {sh.shape[1]} coefficients a splat; degrees 0-3 have 1, 4, 9 or 16")
    if width < 1 or height < 1:
        raise StudioError(f"The image would be {width} x {height} pixels; both sides must be at least 1")
    must_be_alike(
        means=means, quats_wxyz=quats_wxyz, scales=scales, opacities=opacities, sh=sh,
        world_to_camera=world_to_camera, intrinsics=intrinsics, background=background,
        means2d_probe=means if means2d_probe is None else means2d_probe,
    )  # fmt: skip
    if select(means.device, means.dtype, backend) is None:
        if means2d_probe is None:
            means2d_probe = means.new_zeros(world_to_camera.shape[0], means.shape[0], 2)
        return SplatImages(
            *splat_reference(
                means, quats_wxyz, scales, opacities, sh, world_to_camera, intrinsics, background,
                width, height, means2d_probe, antialias,
            )
        )  # fmt: skip
    rgb, alpha, depth, normal, radii_px, left_out, *_ = _draw(
        means, quats_wxyz, scales, opacities, sh, world_to_camera, intrinsics, background,
        means2d_probe, width, height, antialias, 0 if capacity is None else capacity.pairs,
    )  # fmt: skip
    if capacity is not None:
        capacity.left_out.copy_(torch.maximum(capacity.left_out, left_out))
    return SplatImages(rgb, alpha, depth, normal, radii_px)


class _Scene(ctypes.Structure):
    """StudioSplatScene of kernels/splatting/splatting.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("cameras", "splats")),
        *((name, ctypes.c_int32) for name in ("sh_terms", "width", "height", "antialias")),
        *(("launch", Launch), ("capacity", ctypes.c_int64)),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("means", "quats_wxyz", "scales", "opacities", "sh"),
                *("world_to_camera", "intrinsics", "background", "means2d_probe"),
            )
        ),
    )


def _arguments(name: str, *pointers: str) -> type[ctypes.Structure]:
    fields = (("scene", _Scene), *((pointer, ctypes.c_void_p) for pointer in pointers))
    return type(name, (ctypes.Structure,), {"_fields_": fields})


_Project = _arguments("StudioSplatProject", "records", "radii_px", "order", "counts", "workspace_bytes")
_Draw = _arguments(
    "StudioSplatDraw",
    *("records", "order", "counts", "workspace", "left_out", "rgb", "alpha", "depth", "normal"),
)
_Backward = _arguments(
    "StudioSplatBackward",
    *("records", "counts", "workspace", "rgb", "alpha", "depth", "normal"),
    *("v_rgb", "v_alpha", "v_depth", "v_normal"),
    *("v_means", "v_quats_wxyz", "v_scales", "v_opacities", "v_sh", "v_background", "v_means2d_probe"),
)


def _scene(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    background: Tensor,
    means2d_probe: Tensor | None,
    width: int,
    height: int,
    antialias: bool,
    capacity: int,
) -> tuple[_Scene, list[Tensor | None]]:
    """The scene as the kernels read it, and the contiguous tensors that must outlive it."""
    inputs = (
        *(means, quats_wxyz, scales, opacities, sh, world_to_camera, intrinsics, background),
        means2d_probe,
    )
    kept = contiguous(*inputs)
    cameras, splats = world_to_camera.shape[0], means.shape[0]
    sizes = (cameras, splats, sh.shape[1], width, height, antialias)
    return _Scene(*sizes, launch(means), capacity, *pointers(*kept)), kept


# Spelt out, since torch cannot infer schemas through the hook that executes annotations in the tests.
_INPUTS = (
    "Tensor means, Tensor quats_wxyz, Tensor scales, Tensor opacities, Tensor sh, Tensor world_to_camera, "
    "Tensor intrinsics, Tensor background, Tensor? means2d_probe, SymInt width, SymInt height, "
    "bool antialias, int capacity"
)
_NINE, _SEVEN = (", ".join(["Tensor"] * count) for count in (9, 7))


@torch.library.custom_op("studio::splat", mutates_args=(), schema=f"({_INPUTS}) -> ({_NINE})")
def _draw(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    background: Tensor,
    means2d_probe: Tensor | None,
    width: int,
    height: int,
    antialias: bool,
    capacity: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images, radii, pairs left out, then what the backward pass reads: records, counts and the workspace."""
    found = native(means)
    scene, kept = _scene(
        means, quats_wxyz, scales, opacities, sh, world_to_camera, intrinsics, background,
        means2d_probe, width, height, antialias, capacity,
    )  # fmt: skip
    cameras, splats = scene.cameras, scene.splats
    records = means.new_empty(cameras, splats, 16)
    radii_px = means.new_empty(cameras, splats)
    order = means.new_empty(cameras, splats, 3, dtype=torch.int32)
    counts = torch.empty(cameras, 2, dtype=torch.int64)
    left_out = means.new_empty(1, dtype=torch.int64)
    workspace_bytes = ctypes.c_int64()
    found.call(
        "studio_splat_project",
        _Project(scene, *pointers(records, radii_px, order, counts), ctypes.addressof(workspace_bytes)),
    )
    # Zeros, since an operator's outputs must be the same each time, the gaps between the tables included.
    workspace = means.new_zeros(workspace_bytes.value, dtype=torch.uint8)
    rgb = means.new_empty(cameras, 3, height, width)
    alpha = means.new_empty(cameras, 1, height, width)
    depth = means.new_empty(cameras, 1, height, width)
    normal = means.new_empty(cameras, 3, height, width)
    found.call(
        "studio_splat_draw",
        _Draw(scene, *pointers(records, order, counts, workspace, left_out, rgb, alpha, depth, normal)),
    )
    del kept
    return rgb, alpha, depth, normal, radii_px, left_out, records, counts, workspace


@_draw.register_fake
def _(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    background: Tensor,
    means2d_probe: Tensor | None,
    width: int,
    height: int,
    antialias: bool,
    capacity: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    cameras, splats = world_to_camera.shape[0], means.shape[0]
    workspace_bytes = torch.library.get_ctx().new_dynamic_size()
    return (
        means.new_empty(cameras, 3, height, width),
        means.new_empty(cameras, 1, height, width),
        means.new_empty(cameras, 1, height, width),
        means.new_empty(cameras, 3, height, width),
        means.new_empty(cameras, splats),
        means.new_empty(1, dtype=torch.int64),
        means.new_empty(cameras, splats, 16),
        torch.empty(cameras, 2, dtype=torch.int64),
        means.new_empty(workspace_bytes, dtype=torch.uint8),
    )


@torch.library.custom_op(
    "studio::splat_backward",
    mutates_args=(),
    schema=f"({_INPUTS}, Tensor[] saved, Tensor? v_rgb, Tensor? v_alpha, "
    f"Tensor? v_depth, Tensor? v_normal) -> ({_SEVEN})",
)
def _draw_backward(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    background: Tensor,
    means2d_probe: Tensor | None,
    width: int,
    height: int,
    antialias: bool,
    capacity: int,
    saved: list[Tensor],
    v_rgb: Tensor | None,
    v_alpha: Tensor | None,
    v_depth: Tensor | None,
    v_normal: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients on means, quats, scales, opacities, sh, background and probe (empty without one).

    Args:
        saved: rgb, alpha, depth, normal, records, counts, workspace.
        v_rgb, v_alpha, v_depth, v_normal: the loss's gradient on the images; None is zero.
    """
    scene, kept = _scene(
        means, quats_wxyz, scales, opacities, sh, world_to_camera, intrinsics, background,
        means2d_probe, width, height, antialias, capacity,
    )  # fmt: skip
    rgb, alpha, depth, normal, records, counts, workspace = saved
    incoming = [None if v is None else v.contiguous() for v in (v_rgb, v_alpha, v_depth, v_normal)]
    results = (
        torch.empty_like(means, memory_format=torch.contiguous_format),
        torch.empty_like(quats_wxyz, memory_format=torch.contiguous_format),
        torch.empty_like(scales, memory_format=torch.contiguous_format),
        torch.empty_like(opacities, memory_format=torch.contiguous_format),
        torch.empty_like(sh, memory_format=torch.contiguous_format),
        torch.empty_like(background, memory_format=torch.contiguous_format),
        means.new_empty(0 if means2d_probe is None else means2d_probe.shape),
    )
    probe = None if means2d_probe is None else results[6]
    native(means).call(
        "studio_splat_backward",
        _Backward(
            scene,
            *pointers(records, counts, workspace, rgb, alpha, depth, normal),
            *pointers(*incoming, *results[:6], probe),
        ),
    )
    del kept
    return results


@_draw_backward.register_fake
def _(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    background: Tensor,
    means2d_probe: Tensor | None,
    width: int,
    height: int,
    antialias: bool,
    capacity: int,
    saved: list[Tensor],
    v_rgb: Tensor | None,
    v_alpha: Tensor | None,
    v_depth: Tensor | None,
    v_normal: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = (means, quats_wxyz, scales, opacities, sh, background)
    made = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs]
    probe = means.new_empty(0 if means2d_probe is None else means2d_probe.shape)
    return (made[0], made[1], made[2], made[3], made[4], made[5], probe)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.width, ctx.height, ctx.antialias, ctx.capacity = inputs
    rgb, alpha, depth, normal, radii_px, left_out, records, counts, workspace = output
    ctx.set_materialize_grads(False)  # filling zeros would wake torch's threads, to spin beside ours
    ctx.mark_non_differentiable(radii_px, left_out, records, counts, workspace)
    ctx.save_for_backward(*tensors, rgb, alpha, depth, normal, records, counts, workspace)


def _backward(
    ctx: Any,
    v_rgb: Tensor | None,
    v_alpha: Tensor | None,
    v_depth: Tensor | None,
    v_normal: Tensor | None,
    *_: Tensor | None,
) -> tuple[Tensor | None, ...]:
    inputs, saved = ctx.saved_tensors[:9], ctx.saved_tensors[9:]
    v = _draw_backward(
        *inputs, ctx.width, ctx.height, ctx.antialias, ctx.capacity, list(saved),
        v_rgb, v_alpha, v_depth, v_normal,
    )  # fmt: skip
    means, quats, scales, opacities, sh, background, probe = v
    v_probe = None if inputs[8] is None else probe
    return means, quats, scales, opacities, sh, None, None, background, v_probe, None, None, None, None


_draw.register_autograd(_backward, setup_context=_save)
