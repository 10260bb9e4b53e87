"""3D Gaussians to pictures, by ``studio.ops.splatting`` or by gsplat where that is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from studio.ops.splatting import splat
from studio.renderers.optional import GSPLAT
from studio.types import Cameras, RenderOutput, SplatFootprints, Splats

Backend = Literal["auto", "native", "torch", "gsplat"]


@dataclass(frozen=True)
class SplatRenderer:
    """Draws splats: implements ``Renderer[Splats]``.

    Attributes:
        backend: ``auto`` takes the compiled kernels where they are, else plain torch. ``gsplat`` needs a CUDA
            device and gsplat installed; it draws no normals.
        antialias: thin splats fade instead of fattening (Mip-Splatting).
        footprints: also collect what topology needs; costs a gradient on each splat's screen position.
    """

    backend: Backend = "auto"
    antialias: bool = True
    footprints: bool = False

    def __call__(
        self, primitives: Splats, cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> RenderOutput:
        """Pictures of the splats over a background colour for each camera.

        Raises:
            StudioError: the backend asked for cannot run here.
        """
        if self.backend == "gsplat":
            return _draw_with_gsplat(primitives, cameras, background, self.antialias)
        probe = None
        if self.footprints:
            shape = (len(cameras), len(primitives.means), 2)
            probe = primitives.means.new_zeros(shape).requires_grad_()
        images = splat(
            primitives.means,
            primitives.quats_wxyz,
            primitives.scales,
            primitives.opacities,
            primitives.sh,
            cameras.world_to_camera,
            cameras.intrinsics,
            background,
            cameras.width,
            cameras.height,
            probe,
            antialias=self.antialias,
            backend=self.backend,
        )
        return RenderOutput(
            rgb=images.rgb,
            alpha=images.alpha,
            depth=images.depth,
            normal=images.normal,
            footprints=None if probe is None else SplatFootprints(images.radii_px, probe),
        )


def _draw_with_gsplat(
    splats: Splats, cameras: Cameras, background: Float[Tensor, "b 3"], antialias: bool
) -> RenderOutput:
    GSPLAT.insist(splats.means.device)
    from gsplat import rasterization

    degree = round(splats.sh.shape[1] ** 0.5) - 1
    pictures, alpha, found = rasterization(
        splats.means,
        splats.quats_wxyz,
        splats.scales,
        splats.opacities,
        splats.sh,
        cameras.world_to_camera,
        cameras.intrinsics,
        cameras.width,
        cameras.height,
        sh_degree=degree,
        render_mode="RGB+D",
        rasterize_mode="antialiased" if antialias else "classic",
        backgrounds=torch.cat([background, torch.zeros_like(background[:, :1])], dim=-1),
        packed=False,
    )
    pictures, alpha = pictures.permute(0, 3, 1, 2), alpha.permute(0, 3, 1, 2)
    footprints = None
    if found["means2d"].requires_grad:
        found["means2d"].retain_grad()
        footprints = SplatFootprints(found["radii"].amax(-1).float(), found["means2d"])
    return RenderOutput(rgb=pictures[:, :3], alpha=alpha, depth=pictures[:, 3:], footprints=footprints)
