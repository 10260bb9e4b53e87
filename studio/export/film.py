"""What moves, filmed by cameras that stand still: a picture for each of its frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.cameras import front, turntable
from studio.export.images import to_pixels
from studio.export.shapes import Moving, device_of
from studio.export.views import pictures
from studio.interfaces import Renderer
from studio.types import Cameras

_COLUMNS, _ROWS = 4, 2


def front_film(animation: Moving, renderer: Renderer[Any], size: int) -> NDArray[np.uint8]:
    """Pictures ``[t, size, size, 3]`` from the front."""
    return _filmed(animation, renderer, front(size, size))[:, 0]


def film_of_views(animation: Moving, renderer: Renderer[Any], size: int) -> NDArray[np.uint8]:
    """Pictures ``[t, 2 size, 4 size, 3]`` of eight views at once, an eighth of a turn between them.

    The first row goes on in the second.
    """
    views = _filmed(animation, renderer, turntable(_COLUMNS * _ROWS, size, size))
    grid = views.reshape(len(views), _ROWS, _COLUMNS, size, size, 3)
    rows = grid.transpose(0, 1, 3, 2, 4, 5)
    return np.reshape(rows, (len(views), _ROWS * size, _COLUMNS * size, 3))


def _filmed(animation: Moving, renderer: Renderer[Any], cameras: Cameras) -> NDArray[np.uint8]:
    """Pictures ``[t, cameras, h, w, 3]``."""
    device = device_of(animation)
    return np.stack(
        [to_pixels(pictures(renderer, shape, cameras, 1.0, device).rgb) for shape in animation.frames]
    )
