"""A drawing cut out of its sheet and hung on strings: where its keypoints go, the rest of it follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from studio.clipart.drawing import CANVAS_PX, Drawing
from studio.clipart.sheet import Sheet
from studio.errors import StudioError
from studio.ops.arap import Arap, arap
from studio.ops.mesh_raster import texture_levels
from studio.types import Cutout

_ARAP = "arap/"


@dataclass(frozen=True)
class Puppet:
    """A drawing that can be posed.

    Attributes:
        sheet: its mesh, keypoints and bones.
        deform: the sheet, ready to follow its keypoints; in canvas pixels.
        picture: straight rgba.
        levels: the picture as ``Cutout`` has it.
    """

    sheet: Sheet
    deform: Arap
    picture: UInt8[Tensor, "h w 4"]
    levels: tuple[Float[Tensor, "1 _h _w 4"], ...]

    @staticmethod
    def of(drawing: Drawing, sheet: Sheet) -> Puppet:
        """A drawing on its sheet; takes a second or two."""
        deform = arap(sheet.vertices, sheet.faces, sheet.keypoints).to(sheet.vertices.new_zeros(0))
        return Puppet(sheet, deform, drawing.rgba, _levels(drawing.rgba))

    @property
    def keypoints(self) -> Float[Tensor, "k 2"]:
        """Where the keypoints are at rest, in canvas pixels."""
        return self.sheet.vertices[self.sheet.keypoints]

    def posed(self, keypoints: Float[Tensor, "t k 2"]) -> list[Cutout]:
        """The drawing with its keypoints elsewhere, in canvas pixels, at each of some instants."""
        uvs = self.sheet.vertices / CANVAS_PX
        uvs = torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=1)
        return [
            Cutout(to_world(vertices), self.sheet.faces, uvs, self.levels)
            for vertices in self.deform(keypoints)
        ]

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        own = {field.name: getattr(self.sheet, field.name) for field in fields(Sheet)}
        prepared = {_ARAP + field.name: getattr(self.deform, field.name) for field in fields(Arap)}
        return own | prepared | {"picture": self.picture}

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> Puppet:
        """The puppet that ``state`` was taken of.

        Raises:
            StudioError: tensors are missing.
        """
        try:
            sheet: Any = Sheet(**{field.name: state[field.name] for field in fields(Sheet)})
            deform: Any = Arap(**{field.name: state[_ARAP + field.name] for field in fields(Arap)})
            return Puppet(sheet, deform, state["picture"], _levels(state["picture"]))
        except KeyError as error:
            raise StudioError(f"The saved clipart lacks {error.args[0]}; it is damaged.") from error


def to_world(points_px: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
    """From canvas pixels, y down, to the world's x-y plane, y up, where the canvas is the unit square."""
    x, y = (points_px / CANVAS_PX - 0.5).unbind(-1)
    return torch.stack([x, -y], dim=-1)


def to_canvas(points: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
    """The inverse of ``to_world``."""
    x, y = points.unbind(-1)
    return (torch.stack([x, -y], dim=-1) + 0.5) * CANVAS_PX


def _levels(picture: UInt8[Tensor, "h w 4"]) -> tuple[Float[Tensor, "1 _h _w 4"], ...]:
    rgba = picture.float() / 255
    premultiplied = torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], dim=-1)
    return tuple(texture_levels(premultiplied[None]))
