"""What can be exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from typing_extensions import assert_never

from studio.clipart.puppet import Puppet
from studio.ops.field import Field
from studio.recipes.project import Project
from studio.types import Animation, Cutout, Mesh, Splats

Asset = Splats | Mesh | Field
"""Splats, a textured mesh, a surface with colours at its vertices, a radiance field."""
Moving = Animation[Splats] | Animation[Mesh]
"""The same in motion, but for fields."""


@dataclass(frozen=True)
class Clip:
    """Clipart in motion.

    Attributes:
        film: its frames.
        puppet: the drawing at rest.
        source: the drawing's file, whose curves vector formats show.
        project: what it can be animated from again.
    """

    film: Animation[Cutout]
    puppet: Puppet
    source: Path
    project: Project


def at_rest(asset: Asset | Moving) -> Asset:
    """The asset, or the shape of one that moves."""
    return asset.rest if isinstance(asset, Animation) else asset


def device_of(asset: Asset | Moving) -> torch.device:
    """Where the numbers are."""
    shape = at_rest(asset)
    match shape:
        case Splats():
            return shape.means.device
        case Mesh():
            return shape.vertices.device
        case Field():
            return shape.table.device
        case _:
            assert_never(shape)
