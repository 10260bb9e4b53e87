"""Each picture shows its camera's own instant."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from studio.cameras import orbit
from studio.interfaces import ParameterGroup, Renderer, Scene
from studio.renderers.instants import render
from studio.types import Cameras, RenderOutput

AZIMUTH = torch.tensor([0.0, 90.0, 180.0, 270.0])
CAMERAS = orbit(AZIMUTH, torch.zeros(4), 2, 2)


class Clock:
    """A scene that is its own time; at rest it is -1."""

    def at(self, time: Tensor | None) -> Tensor:
        return torch.tensor(-1.0) if time is None else time

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        return ()

    def state(self) -> dict[str, Tensor]:
        return {}


class Dial:
    """Shows the time in red and the azimuth in green; counts how often it draws."""

    calls = 0

    def __call__(self, primitives: Tensor, cameras: Cameras, background: Tensor) -> RenderOutput:
        self.calls += 1
        red, green = primitives.expand(len(cameras)), cameras.azimuth_deg
        rgb = torch.stack([red, green, background[:, 2]], dim=1)[:, :, None, None].expand(-1, -1, 2, 2)
        return RenderOutput(rgb, rgb[:, :1], depth=rgb[:, 1:2], facing_away=rgb[:, 2:])


def shown(cameras: Cameras) -> tuple[Tensor, int]:
    scene, dial = Clock(), Dial()
    assert isinstance(scene, Scene) and isinstance(dial, Renderer)
    background = torch.arange(4.0)[:, None].expand(-1, 3)
    drawn = render(scene, dial, cameras, background)
    assert drawn.depth is not None and torch.equal(drawn.depth, drawn.rgb[:, 1:2])
    assert drawn.facing_away is not None and torch.equal(drawn.facing_away, drawn.rgb[:, 2:])
    assert drawn.normal is None
    return drawn.rgb[:, :, 0, 0], dial.calls


def test_views_of_one_instant_are_drawn_together() -> None:
    at_rest, calls = shown(CAMERAS)
    assert calls == 1 and bool((at_rest[:, 0] == -1).all())
    at_half, calls = shown(replace(CAMERAS, time=torch.full((4,), 0.5)))
    assert calls == 1 and bool((at_half[:, 0] == 0.5).all())


def test_each_view_has_its_own_instant_camera_and_background() -> None:
    times = torch.tensor([0.7, 0.1, 0.7, 0.4])
    pictures, calls = shown(replace(CAMERAS, time=times))
    assert calls == 3
    assert torch.equal(pictures, torch.stack([times, AZIMUTH, torch.arange(4.0)], dim=1))
