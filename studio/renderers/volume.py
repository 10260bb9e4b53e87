"""Radiance fields to pictures: rays march through what is occupied, and its samples are composited."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.ops.compositing import composite
from studio.ops.field import Field
from studio.ops.marching import march
from studio.renderers import nerfacc_backend, tinycudann_backend
from studio.renderers.optional import NERFACC, TINYCUDANN
from studio.types import Cameras, RenderOutput

Backend = Literal["auto", "nerfacc"]
Network = Literal["auto", "tinycudann"]
_RAYS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class VolumeRenderer:
    """Draws fields: implements ``Renderer[Field]``.

    Each sample stands in the middle of its step. There is no jitter: steps are counted from where a ray
    enters the cube, which differs from ray to ray and camera to camera, so the samples of a run lie
    everywhere without it, and the same arguments give the same picture.

    Attributes:
        step: between two samples of a ray, in world units.
        normals: also draw normals, and how far they look away; they cost a second pass.
        backend: what marches and composites. ``auto`` takes the compiled kernels where they are, else plain
            torch. ``nerfacc`` needs a CUDA device and nerfacc installed.
        network: what evaluates the field at the samples, likewise. ``tinycudann`` needs a CUDA device and
            tiny-cuda-nn installed; it computes in half precision and has no normals.
    """

    step: float = 0.01
    normals: bool = False
    backend: Backend = "auto"
    network: Network = "auto"

    def __call__(self, primitives: Field, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """Pictures of the field over a background colour for each camera.

        Without gradients, a limited number of rays at a time.

        Raises:
            StudioError: the backend or the network asked for cannot run here, or cannot draw normals.
        """
        if self.backend == "nerfacc":
            NERFACC.insist(primitives.table.device)
        if self.network == "tinycudann":
            TINYCUDANN.insist(primitives.table.device)
            if self.normals:
                raise StudioError(tinycudann_backend.NO_NORMALS)
        origins, directions, depths = _rays(cameras)
        count = len(origins) if torch.is_grad_enabled() else _RAYS_AT_ONCE
        parts = [
            self._seen(primitives, origins[i : i + count], directions[i : i + count])
            for i in range(0, len(origins), count)
        ]
        colors, alpha, t = (torch.cat(part) for part in zip(*parts, strict=True))

        def picture(values: Float[Tensor, "r c"]) -> Float[Tensor, "b c h w"]:
            return values.reshape(len(cameras), cameras.height, cameras.width, -1).movedim(-1, 1)

        coverage = picture(alpha[:, None])
        channels = picture(colors)
        return RenderOutput(
            rgb=channels[:, :3] + (1 - coverage) * background[:, :, None, None],
            alpha=coverage,
            depth=picture((t * depths)[:, None]),
            normal=channels[:, 3:6] if self.normals else None,
            facing_away=channels[:, 6:] if self.normals else None,
        )

    def _seen(
        self, field: Field, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]
    ) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r"], Float[Tensor, "r"]]:
        """Composited channels, coverage, and distance times coverage along each ray, in world units."""
        side = 2 * field.radius
        origins, directions = (origins / side + 0.5).to(field.table), directions.to(field.table)
        step, by_nerfacc = self.step / side, self.backend == "nerfacc"
        if by_nerfacc:
            samples = nerfacc_backend.march(origins, directions, field.occupancy, step=step)
        else:
            most = math.ceil(math.sqrt(3) / step) + 1
            samples = march(origins, directions, field.occupancy, step=step, max_samples=most)
        if self.normals:
            densities, colors, normals = field.sampled_with_normals(samples.positions)
            along = (normals * directions.to(normals)[samples.ray_indices]).sum(-1, keepdim=True)
            colors = torch.cat([colors, normals, along.clamp_min(0).square()], dim=-1)
        elif self.network == "tinycudann":
            densities, colors = tinycudann_backend.sampled(field, samples.positions)
        else:
            densities, colors = field.sampled(samples.positions)
        if by_nerfacc:
            seen = nerfacc_backend.composite(densities, self.step, colors, samples)
        else:
            seen = composite(densities, self.step, colors, samples.t, samples.starts)
        return seen.rgb, seen.opacity, side * seen.depth


def _rays(cameras: Cameras) -> tuple[Float[Tensor, "r 3"], Float[Tensor, "r 3"], Float[Tensor, "r"]]:
    """Origins, unit directions, and camera-space z for each unit along them, of all pixels, row by row."""
    like = cameras.intrinsics
    column = torch.arange(cameras.width).to(like) + 0.5
    row = torch.arange(cameras.height).to(like) + 0.5
    y, x = torch.meshgrid(row, column, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
    through = pixels @ torch.linalg.inv(like).mT  # [b, h w, 3], at z = 1
    lengths = through.norm(dim=-1, keepdim=True)
    directions = through / lengths @ cameras.world_to_camera[:, :3, :3]
    origins = cameras.positions[:, None].expand_as(directions)
    return origins.reshape(-1, 3), directions.reshape(-1, 3), 1 / lengths.flatten()
