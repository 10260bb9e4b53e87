"""Splatting of 3D Gaussians: a batch of cameras at once, forward and backward."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from studio.ops import splatting_reference


class SplatImages(NamedTuple):
    """What ``splat`` draws."""

    rgb: Float[Tensor, "b 3 h w"]
    alpha: Float[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"]  # Σ w z
    normal: Float[Tensor, "b 3 h w"]  # Σ w n, n the world-space shortest axis turned towards the camera
    radii_px: Float[Tensor, "b n"]  # of the ellipse where alpha reaches 1/255, 0 where not drawn; no gradient


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
    backend: Literal["auto", "native", "torch"] = "auto",
) -> SplatImages:
    """Draws Gaussians front to back by camera depth.

    Gradients reach means, quaternions, scales, opacities, sh, background and the probe through all four images;
    cameras get none.

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
        backend: ``"native"`` insists on the compiled kernels, ``"torch"`` on the reference.

    A splat with a non-finite parameter or a zero quaternion is not drawn and gets zero gradient.
    """
    if means2d_probe is None:
        means2d_probe = means.new_zeros(world_to_camera.shape[0], means.shape[0], 2)
    images = splatting_reference.splat_reference(
        means, quats_wxyz, scales, opacities, sh, world_to_camera, intrinsics, background,
        width, height, means2d_probe, antialias,
    )  # fmt: skip
    return SplatImages(*images)
