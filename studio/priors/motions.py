"""How a model may move while time goes from 0 to 1: motions that are known at every instant.

Each takes points in the asset's ball, where +y is up and +z the front, to where they are at a time. All begin
and end at rest, and keep an asset in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.recipes.config import MotionName
from studio.types import Mesh

Move = Callable[[Float[Tensor, "n 3"], float], Float[Tensor, "n 3"]]

_FLOOR = -0.5
"""The lowest point of the asset's ball."""


@dataclass(frozen=True)
class KnownMotion:
    """A motion and what it is called.

    Attributes:
        name: a verb.
        move: from points at rest and a time in 0-1 to where the points are: differentiable, each by itself.
    """

    name: str
    move: Move

    def of(self, mesh: Mesh, time: float) -> Mesh:
        """The mesh at an instant; its normals stay at right angles to the surface."""
        if mesh.vertex_normals is None:
            return replace(mesh, vertices=self.move(mesh.vertices, time))
        with torch.enable_grad():
            rest = mesh.vertices.detach().requires_grad_()
            vertices = self.move(rest, time)
            # Each point moves by itself, so these are the rows of each one's Jacobian matrix.
            x, y, z = (
                torch.autograd.grad(row.sum(), rest, retain_graph=True)[0] for row in vertices.unbind(1)
            )
        # A map that takes tangents to tangents takes normals to normals by its cofactors.
        cofactors = torch.stack([torch.linalg.cross(*pair) for pair in ((y, z), (z, x), (x, y))], dim=1)
        normals = (cofactors @ mesh.vertex_normals[:, :, None]).squeeze(2)
        turned = torch.nn.functional.normalize(normals, dim=1)
        return replace(mesh, vertices=vertices.detach(), vertex_normals=turned)


def motion_named(name: MotionName) -> KnownMotion:
    """The motion that a recipe names."""
    match name:
        case "bend":
            return KnownMotion(name, bend)
        case "bounce":
            return KnownMotion(name, bounce)
        case "sway":
            return KnownMotion(name, sway)
        case "turn":
            return KnownMotion(name, turn)
        case "twist":
            return KnownMotion(name, twist)
        case "wave":
            return KnownMotion(name, wave)
        case _:
            assert_never(name)


def bend(points: Float[Tensor, "n 3"], time: float, angle_deg: float = 70.0) -> Float[Tensor, "n 3"]:
    """Bows to its left and to its right: the y axis becomes an arc in the x-y plane (Barr 1984, sec. 2.3).

    Args:
        angle_deg: between the directions of the arc one apart in height, at times 1/4 and 3/4.
    """
    x, y, z = points.unbind(1)
    curvature = _to_and_fro(time) * math.radians(angle_deg)
    theta = curvature * y
    # The arc's point is ((1 - cos θ) / curvature, sin θ / curvature), written so that no curvature is 0 / 0.
    half = torch.sinc(theta / (2 * math.pi))
    across, along = y * theta / 2 * half.square(), y * torch.sinc(theta / math.pi)
    return torch.stack([x * theta.cos() + across, along - x * theta.sin(), z], dim=1)


def bounce(points: Float[Tensor, "n 3"], time: float, height: float = 0.12) -> Float[Tensor, "n 3"]:
    """Leaps up once and lands; long on the way up, wide on the way down, its volume as it was.

    Args:
        height: of the leap at time 1/2, in world units.
    """
    stretch = 1.0 + 0.15 * _to_and_fro(time)
    lift = height * math.sin(math.pi * time) ** 2
    x, y, z = points.unbind(1)
    return torch.stack(
        [x / math.sqrt(stretch), (y - _FLOOR) * stretch + _FLOOR + lift, z / math.sqrt(stretch)], dim=1
    )


def sway(points: Float[Tensor, "n 3"], time: float, reach: float = 0.2) -> Float[Tensor, "n 3"]:
    """Leans to its left and to its right like grass: the higher, the farther.

    Args:
        reach: of what is one above the floor, in world units, at times 1/4 and 3/4.
    """
    x, y, z = points.unbind(1)
    return torch.stack([x + reach * _to_and_fro(time) * (y - _FLOOR).square(), y, z], dim=1)


def turn(points: Float[Tensor, "n 3"], time: float, angle_deg: float = 60.0) -> Float[Tensor, "n 3"]:
    """Turns about the y axis, to its left and to its right.

    Args:
        angle_deg: at times 1/4 and 3/4.
    """
    angle = torch.full_like(points[:, 0], math.radians(angle_deg) * _to_and_fro(time))
    return _about_y(points, angle)


def twist(points: Float[Tensor, "n 3"], time: float, angle_deg: float = 90.0) -> Float[Tensor, "n 3"]:
    """Wrings itself about the y axis: what is above turns one way, what is below the other.

    Args:
        angle_deg: between heights one apart, at times 1/4 and 3/4.
    """
    return _about_y(points, points[:, 1] * math.radians(angle_deg) * _to_and_fro(time))


def wave(points: Float[Tensor, "n 3"], time: float, height: float = 0.08) -> Float[Tensor, "n 3"]:
    """A wave runs through it along x, and dies away.

    Args:
        height: of its crests at time 1/2, in world units.
    """
    x, y, z = points.unbind(1)
    crests = height * math.sin(math.pi * time) * torch.sin(2 * math.pi * (x - time))
    return torch.stack([x, y + crests, z], dim=1)


def _to_and_fro(time: float) -> float:
    """From 0 to 1, back, to -1 and back again."""
    return math.sin(2 * math.pi * time)


def _about_y(points: Float[Tensor, "n 3"], angle: Float[Tensor, "n"]) -> Float[Tensor, "n 3"]:
    """Points turned about the y axis, counter-clockwise seen from above."""
    x, y, z = points.unbind(1)
    return torch.stack([x * angle.cos() + z * angle.sin(), y, z * angle.cos() - x * angle.sin()], dim=1)
