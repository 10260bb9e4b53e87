"""Flat pictures on planar meshes to pictures with gradients: by what their texture shows where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studio.ops.mesh_raster import (
    Fragments,
    clip_matrices,
    interpolate,
    interpolate_slopes,
    level_of,
    rasterize,
    sample,
)
from studio.types import Cameras, Cutout, CutoutLayer, RenderOutput

_THICKNESS = 1e-3
"""Of the pile of faces in world units: enough to tell what is in front, too little to be seen."""


@dataclass(frozen=True)
class CutoutRenderer:
    """Draws clipart: implements ``Renderer[Cutout]``.

    Where a layer's mesh overlaps itself, the vertices that come later are in front, and what is behind shows
    through what is transparent: two sheets of it, a third is not seen.
    """

    def __call__(
        self, primitives: Cutout, cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> RenderOutput:
        """Pictures over a background colour for each camera. Gradients reach the vertices."""
        rgba = self._layer(primitives.layers[0], cameras)
        for layer in primitives.layers[1:]:
            above = self._layer(layer, cameras)
            rgba = above + rgba * (1 - above[:, 3:]).clamp(min=0.0)
        alpha = rgba[:, 3:]
        behind_all = background.to(rgba)[:, :, None, None]
        return RenderOutput(rgba[:, :3] + (1 - alpha) * behind_all, alpha)

    def _layer(self, layer: CutoutLayer, cameras: Cameras) -> Float[Tensor, "b 4 h w"]:
        """A layer alone, premultiplied."""
        vertices = layer.vertices
        matrices = clip_matrices(
            cameras.world_to_camera.to(vertices),
            cameras.intrinsics.to(vertices),
            cameras.width,
            cameras.height,
        )
        pile = torch.linspace(-0.5, 0.5, len(vertices)).to(vertices)[:, None] * _THICKNESS
        front, face = self._nearest(layer, matrices, pile, cameras)
        back, behind = self._nearest(layer, matrices, -pile, cameras)
        hidden = front[:, 3:] + (face == behind)[:, None].to(front)
        return front + back * (1 - hidden).clamp(min=0.0)

    def _nearest(
        self, layer: CutoutLayer, matrices: Float[Tensor, "b 4 4"], z: Float[Tensor, "v 1"], cameras: Cameras
    ) -> tuple[Float[Tensor, "b 4 h w"], Tensor]:
        """What is nearest, premultiplied, and its faces."""
        points = F.pad(torch.cat([layer.vertices, z], dim=1), (0, 1), value=1.0)
        fragments: Fragments = rasterize(
            points @ matrices.mT, layer.faces, cameras.width, cameras.height, slopes=True
        )
        uv = interpolate(layer.uvs, layer.faces, fragments)
        size = layer.levels[0].shape[1:3]
        level = level_of(interpolate_slopes(layer.uvs, layer.faces, fragments).detach(), *size)
        rgba = sample(layer.levels, uv, level, wrap="clamp")
        return rgba * fragments.alpha, fragments.face
