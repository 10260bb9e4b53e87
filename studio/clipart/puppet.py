"""A drawing cut out of its sheet and hung on strings: where its keypoints go, the rest of it follows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.clipart.drawing import CANVAS_PX, Drawing
from studio.clipart.layers import Group, Layer, Layers, LedSheet, whole
from studio.clipart.sheet import Sheet
from studio.errors import StudioError
from studio.ops.arap import Arap
from studio.types import Cutout, CutoutLayer

_ARAP = "arap/"


@dataclass(frozen=True)
class Puppet:
    """A drawing that can be posed.

    Attributes:
        keypoints: where they are at rest, in canvas pixels.
        bones: pairs of keypoints; they form a forest.
        sheets: what moves; most drawings have one.
        layers: what is printed on the sheets, the lowest first.
    """

    keypoints: Float[Tensor, "k 2"]
    bones: Int[Tensor, "b 2"]
    sheets: tuple[LedSheet, ...]
    layers: tuple[Layer, ...]

    @staticmethod
    def of(drawing: Drawing, sheet: Sheet, layers: Layers | None = None) -> Puppet:
        """A drawing on its sheet or, where it has several, on those of its layers; takes a second or two."""
        points, bones = sheet.vertices[sheet.keypoints], sheet.bones.clone()
        return Puppet(points, bones, *(whole(drawing, sheet) if layers is None else layers))

    @property
    def vertices(self) -> Float[Tensor, "v 2"]:
        """All sheets' vertices at rest, in canvas pixels."""
        return torch.cat([led.sheet.vertices for led in self.sheets])

    @property
    def faces(self) -> Int[Tensor, "f 3"]:
        """All sheets' faces, as numbers of ``vertices``."""
        starts = accumulate((len(led.sheet.vertices) for led in self.sheets[:-1]), initial=0)
        return torch.cat([led.sheet.faces + start for led, start in zip(self.sheets, starts, strict=True)])

    @property
    def groups(self) -> tuple[Group, ...]:
        """The paths and keypoints of each sheet."""
        paths = [
            [p for layer in self.layers if layer.sheet == n for p in layer.paths.tolist()]
            for n in range(len(self.sheets))
        ]
        return tuple(
            Group(f"part {number}", tuple(paths[number]), tuple(led.leads.tolist()))
            for number, led in enumerate(self.sheets)
        )

    def deform(self, keypoints: Float[Tensor, "t k 2"]) -> Float[Tensor, "t v 2"]:
        """Where ``vertices`` are when the keypoints are elsewhere, at each of some instants."""
        return torch.cat(self._deformed(keypoints), dim=1)

    def posed(self, keypoints: Float[Tensor, "t k 2"]) -> list[Cutout]:
        """The drawing with its keypoints elsewhere, in canvas pixels, at each of some instants."""
        deformed = self._deformed(keypoints)
        rows = []
        for layer in self.layers:
            sheet = self.sheets[layer.sheet].sheet
            u, v = (sheet.vertices / CANVAS_PX).unbind(-1)
            uvs = torch.stack([u, 1 - v], dim=1)
            rows.append(
                [CutoutLayer(to_world(x), sheet.faces, uvs, layer.levels) for x in deformed[layer.sheet]]
            )
        return [Cutout(layers) for layers in zip(*rows, strict=True)]

    def state(self) -> dict[str, Tensor]:
        """All tensors by name."""
        found = {"keypoints": self.keypoints, "bones": self.bones}
        for number, led in enumerate(self.sheets):
            own = {"leads": led.leads} | {
                field.name: getattr(led.sheet, field.name) for field in fields(Sheet)
            }
            own |= {_ARAP + field.name: getattr(led.deform, field.name) for field in fields(Arap)}
            found |= {f"sheet{number}/{name}": tensor for name, tensor in own.items()}
        for number, layer in enumerate(self.layers):
            printed = {"sheet": torch.tensor(layer.sheet), "paths": layer.paths, "picture": layer.picture}
            found |= {f"layer{number}/{name}": tensor for name, tensor in printed.items()}
        return found

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> Puppet:
        """The puppet that ``state`` was taken of.

        Raises:
            StudioError: tensors are missing.
        """
        try:
            sheets = tuple(_led_sheet(state, f"sheet{number}/") for number in range(_count(state, "sheet")))
            layers = tuple(_layer(state, f"layer{number}/") for number in range(_count(state, "layer")))
            return Puppet(state["keypoints"], state["bones"], sheets, layers)
        except KeyError as error:
            raise StudioError(f"The saved clipart lacks {error.args[0]}; it is damaged.") from error

    def _deformed(self, keypoints: Float[Tensor, "t k 2"]) -> list[Float[Tensor, "t _ 2"]]:
        """The vertices of each sheet: its own keypoints go as far as those that lead them."""
        return [
            led.deform(
                keypoints[:, led.leads]
                + (led.sheet.vertices[led.sheet.keypoints] - self.keypoints[led.leads])
            )
            for led in self.sheets
        ]


def _count(state: Mapping[str, Tensor], kind: str) -> int:
    """How many of a kind a state has; one at least, so that what is missing is named."""
    numbers = [int(found[1]) for name in state if (found := re.match(rf"{kind}(\d+)/", name))]
    return max(numbers, default=0) + 1


def _led_sheet(state: Mapping[str, Tensor], prefix: str) -> LedSheet:
    sheet: Any = Sheet(**{field.name: state[prefix + field.name] for field in fields(Sheet)})
    deform: Any = Arap(**{field.name: state[prefix + _ARAP + field.name] for field in fields(Arap)})
    return LedSheet(sheet, deform, state[prefix + "leads"])


def _layer(state: Mapping[str, Tensor], prefix: str) -> Layer:
    sheet, paths, picture = (state[prefix + name] for name in ("sheet", "paths", "picture"))
    return Layer.of(int(sheet), paths, picture)


def to_world(points_px: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
    """From canvas pixels, y down, to the world's x-y plane, y up, where the canvas is the unit square."""
    x, y = (points_px / CANVAS_PX - 0.5).unbind(-1)
    return torch.stack([x, -y], dim=-1)


def to_canvas(points: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
    """The inverse of ``to_world``."""
    x, y = points.unbind(-1)
    return (torch.stack([x, -y], dim=-1) + 0.5) * CANVAS_PX
