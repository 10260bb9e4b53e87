"""3D Gaussians to pictures, by ``studio.ops.splatting`` or by gsplat where that is chosen."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.ops.splatting import MAX_PAIRS, SplatCapacity, SplatImages, splat
from studio.renderers.optional import GSPLAT
from studio.types import Cameras, RenderOutput, SplatFootprints, Splats

Backend = Literal["auto", "native", "torch", "gsplat"]

_HEADROOM = 1.5


class MeasuredCapacity:
    """Room for splats on CUDA that drawings measure for those to come: half as much again as one took.

    What finds no room is drawn again, in more, so pictures are always whole. Whether they are is looked up
    behind each drawing; while a CUDA graph is captured nobody can look. So take a step, capture it, and
    ``check`` after its replays.

    Attributes:
        capacity: what the next drawing has.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.capacity = SplatCapacity.of(1, device)

    def drawn(self, draw: Callable[[SplatCapacity], SplatImages]) -> SplatImages:
        """What ``draw`` makes with enough room, or with what there is while a graph is captured."""
        images = draw(self.capacity)
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return images
        while self._grown():
            images = draw(self.capacity)
        return images

    def check(self) -> None:
        """Waits for the device; where a graph lacked room, makes it for the next capture.

        Raises:
            StudioError: the last replays left splats out.
        """
        if self._grown():
            raise StudioError(
                "Splats found no room in a CUDA graph and were left out. There is room for "
                f"{self.capacity.pairs} pairs of splats and tiles now: capture the step again, and repeat it."
            )

    def _grown(self) -> bool:
        """Whether there was too little, which there no longer is."""
        left_out = int(self.capacity.left_out)
        if left_out:
            pairs = min(math.ceil(_HEADROOM * (self.capacity.pairs + left_out)), MAX_PAIRS)
            self.capacity.left_out.zero_()  # the tensor stays: a graph writes into it
            self.capacity = replace(self.capacity, pairs=pairs)
        return left_out > 0


@dataclass(frozen=True)
class SplatRenderer:
    """Draws splats: implements ``Renderer[Splats]``.

    Attributes:
        backend: ``auto`` takes the compiled kernels where they are, else plain torch. ``gsplat`` needs a CUDA
            device and gsplat installed; it draws no normals.
        antialias: thin splats fade instead of fattening (Mip-Splatting).
        footprints: also collect what topology needs; costs a gradient on each splat's screen position.
        capacity: room that drawings leave for each other, for steps in CUDA graphs. None asks CUDA in the
            middle of each drawing, which waits for the device and which a graph cannot hold.
    """

    backend: Backend = "auto"
    antialias: bool = True
    footprints: bool = False
    capacity: MeasuredCapacity | None = None

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
        draw = functools.partial(
            splat,
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
        images = draw() if self.capacity is None else self.capacity.drawn(lambda room: draw(capacity=room))
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
