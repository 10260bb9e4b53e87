"""The splat renderer: what it hands to the operator, and what it says when a backend is missing."""

from __future__ import annotations

import pytest
import torch

from studio.cameras import orbit
from studio.errors import StudioError
from studio.interfaces import Renderer
from studio.ops.splatting import splat
from studio.renderers.splatting import SplatRenderer
from studio.types import Splats


def splats() -> Splats:
    return Splats(
        means=torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.3, 0.0]], requires_grad=True),
        quats_wxyz=torch.tensor([[1.0, 0, 0, 0]] * 2),
        scales=torch.full((2, 3), 0.05),
        opacities=torch.tensor([0.9, 0.9]),
        sh=torch.tensor([[[1.5, -1.5, -1.5]], [[-1.5, 1.5, -1.5]]]),
    )


CAMERAS = orbit(torch.tensor([0.0, 180.0]), torch.zeros(2), 32, 32)


def test_it_draws_what_the_operator_draws() -> None:
    renderer = SplatRenderer(backend="torch")
    assert isinstance(renderer, Renderer)
    primitives, background = splats(), torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    drawn = renderer(primitives, CAMERAS, background)
    expected = splat(
        primitives.means,
        primitives.quats_wxyz,
        primitives.scales,
        primitives.opacities,
        primitives.sh,
        CAMERAS.world_to_camera,
        CAMERAS.intrinsics,
        background,
        32,
        32,
        backend="torch",
    )
    assert torch.equal(drawn.rgb, expected.rgb)
    assert drawn.footprints is None
    red_from_the_front = drawn.rgb[0, :, 16, 24]
    assert red_from_the_front[0] > 0.8 and red_from_the_front[1] < 0.6  # +x is on the right.
    assert drawn.rgb[1, 0, 16, 8] > 0.5  # From behind it is on the left.
    assert drawn.rgb[0, 1, 8, 16] > 0.5  # +y is up.


def test_footprints_hold_the_gradient_on_the_screen() -> None:
    drawn = SplatRenderer(footprints=True)(splats(), CAMERAS, torch.zeros(2, 3))
    assert drawn.footprints is not None
    assert drawn.footprints.radii_px.shape == (2, 2)
    (
        drawn.rgb[0, 0] * torch.arange(32.0)
    ).sum().backward()  # Pulls the red splat of the first view to the left.
    gradient = drawn.footprints.means2d_probe.grad
    assert gradient is not None
    assert float(gradient[0, 0, 0]) > 0
    assert not gradient[1].any()


def test_gsplat_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(StudioError, match=r"gsplat backend needs a CUDA device .*renderer.backend = 'auto'"):
        SplatRenderer(backend="gsplat")(splats(), CAMERAS, torch.zeros(2, 3))
