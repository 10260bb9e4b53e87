"""The cameras from which a run looks at its own scene."""

from __future__ import annotations

import torch

from studio.cameras import fibonacci_sphere, orbit
from studio.interfaces import Renderer
from studio.types import Cameras, RenderOutput, Splats

HELD_OUT = 16


def four_sides(splats: Splats, renderer: Renderer[Splats], size: int) -> RenderOutput:
    """Front, right, back and left over white, from a little above."""
    return drawn(splats, renderer, side_cameras(size))


def side_cameras(size: int) -> Cameras:
    """Front, right, back and left, from a little above."""
    azimuth = torch.tensor([0.0, 90.0, 180.0, 270.0])
    return orbit(azimuth, torch.full_like(azimuth, 15.0), size, size)


def held_out_cameras(size: int) -> Cameras:
    """Sixteen views spread over the usual band, none of which a run has optimised."""
    return fibonacci_sphere(HELD_OUT, size, size, (-20.0, 60.0), offset=0.25)


def drawn(splats: Splats, renderer: Renderer[Splats], cameras: Cameras, grey: float = 1.0) -> RenderOutput:
    """The splats over a grey (white unless said otherwise), without gradients."""
    device = splats.means.device
    with torch.no_grad():
        return renderer(splats, cameras.to(device), torch.full((len(cameras), 3), grey, device=device))
