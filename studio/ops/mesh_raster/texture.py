"""Reading textures at the pixels of a batch of views."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arguments import Launch, contiguous, launch, must_be_alike, native, pointers
from studio.ops.library import Backend, select
from studio.ops.mesh_raster.mesh import pixel_arguments
from studio.ops.mesh_raster.texture_reference import texture_reference

Wrap = Literal["repeat", "clamp", "mirror"]
MAX_LEVELS = 16
MAX_SIDE = 2 ** (MAX_LEVELS - 1)


def texture_levels(texture: Float[Tensor, "t h w c"]) -> list[Float[Tensor, "t _h _w c"]]:
    """The texture and its mip-maps down to 1 x 1: each level averages 2 x 2 texels of the last, or 3.

    Level 0 is ``texture`` itself, so the others take a third of its memory. Gradients reach it.

    Raises:
        StudioError: a texture without texels or beyond 32768 texels a side.
    """
    _check_texture(texture)
    levels = [texture]
    while (size := levels[-1].shape[1:3]) != (1, 1):
        half = (max(1, size[0] // 2), max(1, size[1] // 2))
        levels.append(F.adaptive_avg_pool2d(levels[-1].permute(0, 3, 1, 2), half).permute(0, 2, 3, 1))
    return levels


def level_of(uv_slopes: Float[Tensor, "b 2 2 h w"], height: int, width: int) -> Float[Tensor, "b 1 h w"]:
    """The level where a pixel spans about one texel along its longer side; 0 or less where texels are larger.

    Gradients reach the slopes.

    Args:
        uv_slopes: from ``interpolate_slopes``.
        height, width: of the texture, in texels.
    """
    along_u, along_v = uv_slopes.unbind(2)
    longest = ((width * along_u).square() + (height * along_v).square()).amax(1, keepdim=True)
    # Pixels without a face have no slopes; far below level 0 is as good as minus infinity.
    return 0.5 * longest.clamp(min=1e-12).log2()


def sample(
    levels: Sequence[Float[Tensor, "t _h _w c"]],
    uv: Float[Tensor, "b 2 h w"],
    level: Float[Tensor, "b 1 h w"] | None = None,
    *,
    wrap: Wrap = "repeat",
    backend: Backend = "auto",
) -> Float[Tensor, "b c h w"]:
    """Reads a texture: bilinear in a level, and trilinear between levels where ``level`` says which.

    Gradients reach the texels of all levels, uv and ``level``; where the level is cut off it gets none.

    Args:
        levels: ``texture_levels(texture)``, or ``[texture]``; t is 1 or b. Row 0 is at v = 1.
        uv: texture coordinates, v up; (0, 0) to (1, 1) is the texture. One that is not finite reads as 0.
        level: 0 is the finest, cut off at what there is. None reads the finest.
        wrap: what lies beyond the texture: the same again, its border, or its mirror image.
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    Raises:
        StudioError: no levels or more than 16, levels of different kinds, neither one texture nor one for
            each view, or native code that cannot run.
    """
    if not 1 <= len(levels) <= MAX_LEVELS:
        raise StudioError(f"A texture came with {len(levels)} levels, expected 1 to {MAX_LEVELS}.")
    textures, _, _, channels = levels[0].shape
    if textures not in (1, uv.shape[0]):
        raise StudioError(
            f"There are {textures} textures for {uv.shape[0]} views: give one, or one for each."
        )
    for texels in levels:
        _check_texture(texels)
        if (texels.shape[0], texels.shape[3]) != (textures, channels):
            raise StudioError(
                f"Levels of {list(levels[0].shape)} and {list(texels.shape)} do not belong to one texture: "
                "make them with texture_levels."
            )
        must_be_alike(uv=uv, texture=texels)
    if level is not None:
        must_be_alike(uv=uv, level=level)
    mode = get_args(Wrap).index(wrap)
    if select(uv.device, uv.dtype, backend) is None:
        return texture_reference(levels, uv, level, wrap)
    image: Tensor = _sample(list(levels), uv, level, mode)
    return image


def _check_texture(texture: Tensor) -> None:
    height, width = texture.shape[1:3]
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise StudioError(f"The texture has {height} x {width} texels, expected 1 to {MAX_SIDE} a side.")


class _Arguments(ctypes.Structure):
    """StudioTexture of kernels/mesh_raster/mesh_raster.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("views", "textures", "channels", "pixels")),
        *((name, ctypes.c_int64 * MAX_LEVELS) for name in ("heights", "widths")),
        *((name, ctypes.c_int32) for name in ("levels", "wrap")),
        ("launch", Launch),
        ("texels", ctypes.c_void_p * MAX_LEVELS),
        *((name, ctypes.c_void_p) for name in ("uv", "level")),
    )


class _Backward(ctypes.Structure):
    """StudioTextureBackward."""

    _fields_ = (
        *(("head", _Arguments), ("v_out", ctypes.c_void_p), ("v_texels", ctypes.c_void_p * MAX_LEVELS)),
        *((name, ctypes.c_void_p) for name in ("v_uv", "v_level")),
    )


_Forward = pixel_arguments("StudioTextureForward", _Arguments, "out")


def _filled(values: Sequence[int | None]) -> list[int | None]:
    return [*values, *([None] * (MAX_LEVELS - len(values)))]


def _arguments(
    levels: list[Tensor], uv: Tensor, level: Tensor | None, wrap: int
) -> tuple[_Arguments, list[Tensor | None]]:
    """What the kernels read, and the tensors that must outlive it."""
    kept = contiguous(*levels, uv, level)
    views, _, height, width = uv.shape
    sizes = ctypes.c_int64 * MAX_LEVELS
    arguments = _Arguments(
        views, levels[0].shape[0], levels[0].shape[3], height * width,
        sizes(*(texels.shape[1] for texels in levels)), sizes(*(texels.shape[2] for texels in levels)),
        len(levels), wrap, launch(uv),
        (ctypes.c_void_p * MAX_LEVELS)(*_filled(pointers(*kept[: len(levels)]))), *pointers(*kept[-2:]),
    )  # fmt: skip
    return arguments, kept


@torch.library.custom_op(
    "studio::texture",
    mutates_args=(),
    schema="(Tensor[] levels, Tensor uv, Tensor? level, int wrap) -> Tensor",
)
def _sample(levels: list[Tensor], uv: Tensor, level: Tensor | None, wrap: int) -> Tensor:
    arguments, kept = _arguments(levels, uv, level, wrap)
    out: Tensor = _sample_like(levels, uv, level, wrap)
    native(uv).call("studio_texture", _Forward(arguments, *pointers(out)))
    del kept
    return out


@_sample.register_fake
def _sample_like(levels: list[Tensor], uv: Tensor, level: Tensor | None, wrap: int) -> Tensor:
    views, _, height, width = uv.shape
    return uv.new_empty(views, levels[0].shape[3], height, width)


@torch.library.custom_op(
    "studio::texture_backward",
    mutates_args=(),
    schema="(Tensor[] levels, Tensor uv, Tensor? level, int wrap, Tensor v_out, bool to_texels, bool to_uv, "
    "bool to_level) -> (Tensor[], Tensor, Tensor)",
)
def _sample_backward(
    levels: list[Tensor],
    uv: Tensor,
    level: Tensor | None,
    wrap: int,
    v_out: Tensor,
    to_texels: bool,
    to_uv: bool,
    to_level: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Gradients on levels, uv and level, empty where they are not asked for."""
    arguments, kept = _arguments(levels, uv, level, wrap)
    made: tuple[list[Tensor], Tensor, Tensor] = _sample_backward_like(
        levels, uv, level, wrap, v_out, to_texels, to_uv, to_level
    )
    v_levels, v_uv, v_level = made
    (incoming,) = contiguous(v_out)
    native(uv).call(
        "studio_texture_backward",
        _Backward(
            arguments, *pointers(incoming), (ctypes.c_void_p * MAX_LEVELS)(*_filled(pointers(*v_levels))),
            *pointers(v_uv if to_uv else None, v_level if to_level else None),
        ),
    )  # fmt: skip
    del kept
    return made


@_sample_backward.register_fake
def _sample_backward_like(
    levels: list[Tensor],
    uv: Tensor,
    level: Tensor | None,
    wrap: int,
    v_out: Tensor,
    to_texels: bool,
    to_uv: bool,
    to_level: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:
    return (
        [texels.new_empty(texels.shape) for texels in levels] if to_texels else [],
        uv.new_empty(uv.shape if to_uv else (0,)),
        uv.new_empty(level.shape if to_level and level is not None else (0,)),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    levels, uv, level, ctx.wrap = inputs
    ctx.save_for_backward(*levels, uv, level)


def _backward(ctx: Any, v_out: Tensor) -> tuple[Any, ...]:
    *levels, uv, level = ctx.saved_tensors
    to_levels, to_uv, to_level, _ = ctx.needs_input_grad
    to_texels = any(to_levels) if isinstance(to_levels, (list, tuple)) else bool(to_levels)
    v_levels, v_uv, v_level = _sample_backward(
        levels, uv, level, ctx.wrap, v_out, to_texels, to_uv, to_level and level is not None
    )
    return (
        v_levels if to_texels else [None] * len(levels),
        v_uv if to_uv else None,
        v_level if to_level else None,
        None,
    )


_sample.register_autograd(_backward, setup_context=_save)
