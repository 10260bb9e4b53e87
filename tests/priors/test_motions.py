"""Known motions: rest at both ends, and what each of them keeps."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from studio.priors.motions import KnownMotion, bend, bounce, motion_named, sway, turn, twist, wave
from studio.recipes.config import MotionName
from studio.types import Mesh
from tests.truth.meshes import ball

EACH = [motion_named(name) for name in get_args(MotionName)]
each_motion = pytest.mark.parametrize("motion", EACH, ids=lambda motion: motion.name)
RNG = torch.Generator().manual_seed(0)
POINTS = 0.5 * torch.nn.functional.normalize(torch.randn(200, 3, generator=RNG, dtype=torch.float64), dim=1)


def axis(count: int = 401) -> torch.Tensor:
    """Points up the y axis, from the floor to one above it."""
    heights = torch.linspace(-0.5, 0.5, count, dtype=torch.float64)
    return torch.stack([torch.zeros_like(heights), heights, torch.zeros_like(heights)], dim=1)


@each_motion
def test_it_begins_and_ends_at_rest_and_moves_in_between(motion: KnownMotion) -> None:
    for time in (0.0, 1.0):
        torch.testing.assert_close(motion.move(POINTS, time), POINTS, atol=1e-12, rtol=0)
    for time in (0.2, 0.3, 0.7):
        moved = motion.move(POINTS, time)
        assert (moved - POINTS).norm(dim=1).max() > 0.04
        assert moved.norm(dim=1).max() < 0.75  # still in the picture


@each_motion
def test_normals_stay_at_right_angles_to_the_surface(motion: KnownMotion) -> None:
    """Along either tangent, by finite differences."""
    vertices, faces = (tensor.double() if tensor.is_floating_point() else tensor for tensor in ball())
    normals = torch.nn.functional.normalize(vertices, dim=1)
    moved = motion.of(Mesh(vertices, faces, vertex_normals=normals), 0.3)
    assert moved.vertex_normals is not None
    torch.testing.assert_close(moved.vertices, motion.move(vertices, 0.3))
    torch.testing.assert_close(
        moved.vertex_normals.norm(dim=1), torch.ones(len(vertices), dtype=torch.float64)
    )
    side = torch.linalg.cross(normals, torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64).expand_as(normals))
    for tangent in (side, torch.linalg.cross(normals, side)):
        ahead, behind = (motion.move(vertices + sign * 1e-6 * tangent, 0.3) for sign in (1, -1))
        slope = (ahead - behind) / 2e-6
        assert ((slope * moved.vertex_normals).sum(1).abs() < 1e-8).all()
    outwards = (motion.move(vertices + 1e-6 * normals, 0.3) - moved.vertices) / 1e-6
    assert ((outwards * moved.vertex_normals).sum(1) > 0.5).all()
    assert motion.of(Mesh(vertices, faces), 0.3).vertex_normals is None


def test_bend_makes_an_arc_of_the_axis_and_keeps_slices() -> None:
    arc = bend(axis(), 0.25, angle_deg=70.0)
    steps = arc[1:] - arc[:-1]
    torch.testing.assert_close(
        steps.norm(dim=1), torch.full((400,), 1 / 400, dtype=torch.float64), atol=1e-7, rtol=0
    )
    directions = torch.atan2(steps[:, 0], steps[:, 1])
    assert math.degrees(directions[-1] - directions[0]) == pytest.approx(70.0, abs=0.2)
    slice_ = torch.tensor([[0.1, 0.3, 0.2], [-0.2, 0.3, -0.1], [0.0, 0.3, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(torch.pdist(bend(slice_, 0.25)), torch.pdist(slice_))
    assert bend(axis(), 0.25)[-1, 0] > 0 > bend(axis(), 0.75)[-1, 0]


def test_bounce_leaps_and_keeps_the_volume() -> None:
    floor = torch.tensor([[0.1, -0.5, 0.2]], dtype=torch.float64)
    assert float(bounce(floor, 0.5, height=0.12)[0, 1]) == pytest.approx(-0.5 + 0.12)
    for time in (0.2, 0.6):
        (change,) = torch.func.vmap(torch.func.jacrev(lambda p, t=time: bounce(p[None], t)[0]))(POINTS[:1])
        assert float(torch.linalg.det(change)) == pytest.approx(1.0)
    taller, wider = (bounce(axis(), time)[-1, 1] - bounce(axis(), time)[0, 1] for time in (0.25, 0.75))
    assert taller > 1 > wider


def test_sway_leaves_the_floor_where_it_is() -> None:
    leaning = sway(axis(), 0.25, reach=0.2)
    assert float(leaning[0, 0]) == 0.0 and float(leaning[-1, 0]) == pytest.approx(0.2)
    assert torch.equal(leaning[:, 1:], axis()[:, 1:])


def test_turn_is_a_rotation_counter_clockwise_from_above() -> None:
    front = torch.tensor([[0.0, 0.2, 0.4]], dtype=torch.float64)
    expected = [0.4 * math.sin(math.radians(60)), 0.2, 0.4 * math.cos(math.radians(60))]
    assert turn(front, 0.25, angle_deg=60.0)[0].tolist() == pytest.approx(expected)
    torch.testing.assert_close(torch.pdist(turn(POINTS, 0.1)), torch.pdist(POINTS))


def test_twist_turns_each_height_by_its_own_angle() -> None:
    moved = twist(POINTS, 0.25, angle_deg=90.0)
    assert torch.equal(moved[:, 1], POINTS[:, 1])
    angle = torch.deg2rad(90.0 * POINTS[:, 1])
    torch.testing.assert_close(moved[:, 0], POINTS[:, 0] * angle.cos() + POINTS[:, 2] * angle.sin())


def test_a_wave_lifts_along_x() -> None:
    moved = wave(POINTS, 0.5, height=0.08)
    assert torch.equal(moved[:, [0, 2]], POINTS[:, [0, 2]])
    torch.testing.assert_close(moved[:, 1] - POINTS[:, 1], -0.08 * torch.sin(2 * torch.pi * POINTS[:, 0]))
