"""A scene from all around on one sheet, and in motion at several instants."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from studio.cameras import orbit
from studio.export.animation import spread
from studio.export.images import to_pixels
from studio.export.shapes import Asset, Moving, at_rest, device_of
from studio.export.views import pictures
from studio.interfaces import Renderer
from studio.ops.field import Field
from studio.ops.surfaces import Light
from studio.renderers.raster import MeshRenderer
from studio.types import Animation, Mesh, Splats

_VIEWS, _SIZE, _ELEVATION_DEG, _INSTANTS = 8, 256, 15.0, 6
_NAMES = {Splats: "splats", Mesh: "surface", Field: "field"}


def contact_sheet(
    asset: Asset | Moving, renderer: Renderer[Any], mesh: Mesh | Animation[Mesh] | None
) -> tuple[NDArray[np.uint8], list[str], int]:
    """Pictures ``[n, h, w, 3]``, their labels, and how many make a row.

    A mesh that was made of the scene has rows of its own below; what moves has a row an instant.

    Args:
        asset: the scene.
        renderer: draws it.
        mesh: made of it, if one was.
    """
    azimuth = torch.arange(_VIEWS) * (360.0 / _VIEWS)
    cameras = orbit(azimuth, torch.full_like(azimuth, _ELEVATION_DEG), _SIZE, _SIZE)
    angles = [f"{angle:.0f}°" for angle in azimuth.tolist()]
    shown = spread(len(asset.frames), _INSTANTS) if isinstance(asset, Animation) else [0]
    layers: list[tuple[str, Asset | Moving, Renderer[Any]]] = [
        (_NAMES[type(at_rest(asset))], asset, renderer)
    ]
    if mesh is not None:
        layers.append(("mesh", mesh, MeshRenderer(supersample=3, light=Light())))

    rows, labels = [], []
    for name, drawn, draws in layers:
        for index in shown:
            instant = drawn.frames[index] if isinstance(drawn, Animation) else drawn
            rows.append(to_pixels(pictures(draws, instant, cameras, 1.0, device_of(drawn)).rgb))
            words = [name] if mesh is not None else []
            if isinstance(asset, Animation):
                words.append(f"{float(asset.times[index]) * asset.seconds:.2f} s")
            labels += [" ".join([*words, angle]) for angle in angles]
    columns = _VIEWS // 2 if len(rows) == 1 else _VIEWS
    return np.concatenate(rows), labels, columns
