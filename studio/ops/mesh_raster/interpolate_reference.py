"""Interpolation in plain torch: the oracle of the native kernel, and what runs without it."""

from __future__ import annotations

from jaxtyping import Float, Int32
from torch import Tensor

from studio.errors import StudioError
from studio.ops.mesh_raster.mesh import corner_rows


def interpolate_reference(
    attributes: Float[Tensor, "*own v c"],
    faces: Int32[Tensor, "*own_too f 3"],
    face: Int32[Tensor, "b h w"],
    weights: Float[Tensor, "b 3 h w"],
) -> Float[Tensor, "b c h w"]:
    """See ``studio.ops.mesh_raster.interpolate``."""
    vertices, channels = attributes.shape[-2:]
    if faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < vertices:
        raise StudioError("faces name vertices that are not there")
    if face.numel() and int(face.max()) >= faces.shape[-2]:
        raise StudioError("pixels show faces that are not there")
    if faces.numel() == 0:
        return weights.new_zeros(face.shape[0], channels, *face.shape[1:])
    rows = corner_rows(faces, face, vertices, attributes.dim() == 3)
    corners = attributes.reshape(-1, channels)[rows]  # [b h w 3 c]
    # Pixels without a face read a corner of another, whose numbers need not be finite.
    corners = corners.where((face >= 0)[..., None, None], 0)
    image = (corners * weights.permute(0, 2, 3, 1)[..., None]).sum(-2)
    return image.permute(0, 3, 1, 2)
