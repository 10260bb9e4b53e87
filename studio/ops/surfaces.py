"""What the rasterizer draws: a textured triangle surface, ready for it, and the light it stands in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32, Int64, UInt8
from torch import Tensor

from studio.errors import StudioError


@dataclass(frozen=True)
class Textures:
    """The textures of all materials with their mip-maps, in one buffer.

    Attributes:
        texels: straight rgba.
        levels: offset into ``texels``, height and width of each level.
        first_level: material m has the levels from first_level[m] to before first_level[m + 1].
        cut_out: 1 where some of the material's texture is transparent.
    """

    texels: UInt8[Tensor, "t 4"]
    levels: Int64[Tensor, "l 3"]
    first_level: Int32[Tensor, "m_plus_1"]
    cut_out: Int32[Tensor, "m"]


def pack_textures(textures: Sequence[Float[Tensor, "_h _w 4"] | None]) -> Textures:
    """Packs one texture, or none, for each material: rgba in 0-1 with row 0 at v = 1.

    Each level averages 2 x 2 texels of the last, colours weighted by alpha.
    """
    texels, levels, first_level, cut_out, offset = [], [], [0], [], 0
    for texture in textures:
        level = None if texture is None else texture.detach().float().cpu()
        cut_out.append(0 if level is None else int((level[..., 3] < 0.5).any()))
        while level is not None:
            height, width = level.shape[:2]
            texels.append((level.clamp(0, 1) * 255).round().to(torch.uint8).reshape(-1, 4))
            levels.append([offset, height, width])
            offset += height * width
            level = None if height == width == 1 else _halved(level)
        first_level.append(len(levels))
    return Textures(
        texels=torch.cat(texels) if texels else torch.zeros(0, 4, dtype=torch.uint8),
        levels=torch.tensor(levels, dtype=torch.int64).reshape(-1, 3),
        first_level=torch.tensor(first_level, dtype=torch.int32),
        cut_out=torch.tensor(cut_out, dtype=torch.int32),
    )


def _halved(level: Float[Tensor, "_h _w 4"]) -> Float[Tensor, "_h2 _w2 4"]:
    size = (max(1, level.shape[0] // 2), max(1, level.shape[1] // 2))
    color, alpha = level[..., :3].permute(2, 0, 1), level[..., 3:].permute(2, 0, 1)
    plain, weighted, mean_alpha = (F.adaptive_avg_pool2d(x, size) for x in (color, color * alpha, alpha))
    color = torch.where(mean_alpha > 0, weighted / mean_alpha.clamp(min=1e-12), plain)
    return torch.cat([color, mean_alpha]).permute(1, 2, 0)


@dataclass(frozen=True)
class Surface:
    """A textured triangle mesh.

    Attributes:
        vertices: positions in the world.
        faces: vertex indices; either winding, both sides are drawn.
        face_materials: index of each face's material.
        base_colors: rgba in 0-1 of each material; one with alpha below 1 is translucent, like glass.
        textures: of each material, multiplied in. What has alpha below 0.5 is cut out.
        uvs: texture coordinates of each face's corners, v up, repeating; needed if there are textures.
        vertex_colors: rgb in 0-1, multiplied in, or None.
        vertex_normals: for smooth shading, or None for flat.

    Raises:
        StudioError: indices out of range, not one texture for each material, or textures without uvs.
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    face_materials: Int[Tensor, "f"]
    base_colors: Float[Tensor, "m 4"]
    textures: Textures
    uvs: Float[Tensor, "f 3 2"] | None = None
    vertex_colors: Float[Tensor, "v 3"] | None = None
    vertex_normals: Float[Tensor, "v 3"] | None = None

    def __post_init__(self) -> None:
        _check_range("vertices", self.faces, len(self.vertices))
        _check_range("materials", self.face_materials, len(self.base_colors))
        if len(self.textures.cut_out) != len(self.base_colors):
            raise StudioError(
                f"{len(self.base_colors)} base colours came with {len(self.textures.cut_out)} textures: "
                "give each material one, or None."
            )
        if self.uvs is None and len(self.textures.levels):
            raise StudioError("A material has a texture but there are no uvs: give uvs or drop the texture.")


def _check_range(what: str, indices: Int[Tensor, "..."], count: int) -> None:
    if indices.numel() == 0:
        return
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= count:
        raise StudioError(
            f"Faces name {what} {low} to {high}, but there are {count}: indices must lie in 0 to {count - 1}."
        )


def _no_lights() -> Float[Tensor, "0 3"]:
    return torch.zeros(0, 3)


@dataclass(frozen=True)
class Light:
    """Light that stands still in the world: a surface shows its colour times

    ``ambient + hemisphere (1 + n_y) / 2 + Σ max(0, n · light)``

    with n the unit normal on the side that is seen. The default shows plain colours.

    Attributes:
        ambient: light from everywhere.
        hemisphere: light from above.
        lights: directions to lights times their strength.
    """

    ambient: float = 1.0
    hemisphere: float = 0.0
    lights: Float[Tensor, "l 3"] = field(default_factory=_no_lights)

    @property
    def is_plain(self) -> bool:
        """Whether surfaces show their own colours."""
        return self.ambient == 1.0 and self.hemisphere == 0.0 and len(self.lights) == 0

    def strength(self, normals: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
        """The factor of the colour where the surface has these unit normals."""
        lambert = (normals @ self.lights.to(normals).T).clamp(min=0).sum(-1)
        return self.ambient + self.hemisphere * (1 + normals[..., 1]) / 2 + lambert
