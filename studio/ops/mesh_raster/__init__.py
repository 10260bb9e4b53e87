"""The parts of a differentiable mesh renderer, after Laine et al., "Modular Primitives for High-Performance
Differentiable Rendering" (2020):

``rasterize`` says which face each pixel shows and where, ``interpolate`` brings vertex attributes there,
``sample`` reads textures, and ``antialias`` softens outlines so that they have gradients. Positions are in
clip space: on the screen x / w runs from -1 on the left to 1, y / w from -1 at the bottom to 1, and z / w
from -1 at the near plane to 1 at the far plane. Images are [b c h w] with row 0 on top.

The kernels are in ``kernels/mesh_raster``; the ``*_reference.py`` modules are the same in plain torch.

On CUDA nothing waits for the device, so that a step can be captured in a CUDA graph. Hence nobody looks
through indices: what names a vertex or face that is not there shows nothing, where a CPU refuses it.
Gradients on positions, attributes and texels are summed there in no fixed order.
"""

from studio.ops.mesh_raster.antialias import antialias, face_neighbours
from studio.ops.mesh_raster.baking import dilate, rasterize_uv, repair_seams, seams
from studio.ops.mesh_raster.interpolate import interpolate, interpolate_slopes
from studio.ops.mesh_raster.rasterize import NEAR, Fragments, clip_matrices, rasterize
from studio.ops.mesh_raster.texture import Wrap, level_of, sample, texture_levels

__all__ = [
    "NEAR",
    "Fragments",
    "Wrap",
    "antialias",
    "clip_matrices",
    "dilate",
    "face_neighbours",
    "interpolate",
    "interpolate_slopes",
    "level_of",
    "rasterize",
    "rasterize_uv",
    "repair_seams",
    "sample",
    "seams",
    "texture_levels",
]
