"""Drawing textured triangle meshes: a batch of cameras at once, forward only."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, launch
from studio.ops.library import Backend, Library, select
from studio.ops.rasterize_reference import rasterize_reference
from studio.ops.surfaces import Light, Surface

NEAR_DEPTH = 1e-3
MAX_SAMPLES = 32767


class MeshImages(NamedTuple):
    """What ``rasterize`` draws. ``depth`` and ``normal`` are multiplied by ``alpha``, sample by sample."""

    rgb: Float[Tensor, "b 3 h w"]
    alpha: Float[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"]
    normal: Float[Tensor, "b 3 h w"]


def rasterize(
    surface: Surface,
    world_to_camera: Float[Tensor, "b 4 4"],
    intrinsics: Float[Tensor, "b 3 3"],
    background: Float[Tensor, "b 3"],
    width: int,
    height: int,
    *,
    light: Light | None = None,
    supersample: int = 1,
    backend: Backend = "auto",
) -> MeshImages:
    """Draws the nearest surface at each sample, with perspective-correct interpolation.

    A translucent surface is blended over the nearest opaque one; of several, the nearest alone is seen.
    Triangles with a common edge cover each sample of it once. Degenerate and non-finite triangles, and what
    is nearer than 0.001, are not drawn. Textures are filtered trilinearly. No gradients.

    Args:
        surface: what to draw.
        world_to_camera: rigid transforms to the cameras' OpenCV axes.
        intrinsics: pinhole matrices in pixels.
        background: rgb behind everything.
        width, height: image size in pixels.
        light: what it stands in; None shows plain colours.
        supersample: samples along each side of a pixel, which the pixel averages.
        backend: ``"native"`` insists on the compiled kernel, ``"torch"`` on the reference.

    Raises:
        StudioError: an image beyond 32767 samples a side, or native code that cannot run.
    """
    columns, rows = width * supersample, height * supersample
    if not (0 < columns <= MAX_SAMPLES and 0 < rows <= MAX_SAMPLES):
        raise StudioError(
            f"{width} x {height} pixels with supersample {supersample} is {columns} x {rows} samples, "
            f"expected 1 to {MAX_SAMPLES} a side: choose another size or supersample."
        )
    light = Light() if light is None else light
    library = select(surface.vertices.device, surface.vertices.dtype, backend)
    if library is not None:
        return _native(
            library,
            surface,
            intrinsics @ world_to_camera[:, :3],
            background,
            width,
            height,
            light,
            supersample,
        )
    return MeshImages(
        *rasterize_reference(
            surface, world_to_camera, intrinsics, background, width, height, light, supersample,
            NEAR_DEPTH,
        )
    )  # fmt: skip


def _pointers(*names: str) -> list[tuple[str, type[ctypes.c_void_p]]]:
    return [(name, ctypes.c_void_p) for name in names]


class _Arguments(ctypes.Structure):
    """StudioRasterize in kernels/rasterize/rasterize.h."""

    _fields_ = (
        ("camera_count", ctypes.c_int32),
        ("vertex_count", ctypes.c_int32),
        ("face_count", ctypes.c_int32),
        ("light_count", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("supersample", ctypes.c_int32),
        ("launch", Launch),
        *_pointers("vertices", "faces", "face_materials", "uvs", "vertex_colors", "vertex_normals"),
        *_pointers("base_colors", "first_level", "cut_out", "levels", "texels"),
        *_pointers("world_to_pixels", "background"),
        ("near_depth", ctypes.c_float),
        ("ambient", ctypes.c_float),
        ("hemisphere", ctypes.c_float),
        *_pointers("lights", "rgb", "alpha", "depth", "normal"),
    )


def _native(
    library: Library,
    surface: Surface,
    world_to_pixels: Float[Tensor, "b 3 4"],
    background: Float[Tensor, "b 3"],
    width: int,
    height: int,
    light: Light,
    supersample: int,
) -> MeshImages:
    batch, textures = len(world_to_pixels), surface.textures
    device = surface.vertices.device
    images = MeshImages(*(surface.vertices.new_empty(batch, c, height, width) for c in (3, 1, 1, 3)))
    kept: list[Tensor] = []  # what the pointers point into

    def pointer(values: Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
        if values is None:
            return None
        kept.append(values.detach().to(device, dtype).contiguous())
        return kept[-1].data_ptr()

    arguments = _Arguments(
        camera_count=batch,
        vertex_count=len(surface.vertices),
        face_count=len(surface.faces),
        light_count=len(light.lights),
        width=width,
        height=height,
        supersample=supersample,
        launch=launch(surface.vertices),
        vertices=pointer(surface.vertices),
        faces=pointer(surface.faces, torch.int32),
        face_materials=pointer(surface.face_materials, torch.int32),
        uvs=pointer(surface.uvs),
        vertex_colors=pointer(surface.vertex_colors),
        vertex_normals=pointer(surface.vertex_normals),
        base_colors=pointer(surface.base_colors),
        first_level=pointer(textures.first_level, torch.int32),
        cut_out=pointer(textures.cut_out, torch.int32),
        levels=pointer(textures.levels, torch.int64),
        texels=pointer(textures.texels, torch.uint8),
        world_to_pixels=pointer(world_to_pixels),
        background=pointer(background),
        near_depth=NEAR_DEPTH,
        ambient=light.ambient,
        hemisphere=light.hemisphere,
        lights=pointer(light.lights),
        rgb=images.rgb.data_ptr(),
        alpha=images.alpha.data_ptr(),
        depth=images.depth.data_ptr(),
        normal=images.normal.data_ptr(),
    )
    library.call("studio_rasterize", arguments)
    return images
