"""Cameras: axes, orbits, and the samplers of a step."""

from __future__ import annotations

import math

import pytest
import torch

from studio.cameras import (
    FixedSet,
    MultiView,
    Orbit,
    at_instants,
    build_cameras,
    fibonacci_sphere,
    frame_times,
    look_at,
    orbit,
    turntable,
)
from studio.interfaces import CameraSampler
from studio.recipes.config import (
    ClipConfig,
    FixedSetConfig,
    FramesConfig,
    MultiViewConfig,
    OrbitConfig,
    RandomInstantsConfig,
)
from studio.recipes.ramps import Linear
from studio.types import Cameras


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def project(cameras: Cameras, point: list[float]) -> torch.Tensor:
    """Pixel (column, row) of a world point in each view."""
    homogeneous = torch.tensor([*point, 1.0])
    in_camera = (cameras.world_to_camera @ homogeneous)[:, :3]
    on_screen = (cameras.intrinsics @ in_camera[..., None]).squeeze(-1)
    return on_screen[:, :2] / on_screen[:, 2:]


def one(azimuth: float, elevation: float) -> Cameras:
    return orbit(torch.tensor([azimuth]), torch.tensor([elevation]), 64, 48)


@pytest.mark.parametrize(
    ("azimuth", "right"),
    [(0.0, [1.0, 0, 0]), (90.0, [0, 0, -1.0]), (180.0, [-1.0, 0, 0]), (270.0, [0, 0, 1.0])],
)
def test_what_stands_to_the_right_appears_on_the_right(azimuth: float, right: list[float]) -> None:
    (pixel,) = project(one(azimuth, 0.0), [0.3 * value for value in right])
    assert float(pixel[0]) > 32 and float(pixel[1]) == pytest.approx(24, abs=1e-3)


def test_up_is_up_and_the_origin_is_in_the_middle() -> None:
    cameras = one(30.0, 20.0)
    torch.testing.assert_close(project(cameras, [0.0, 0.0, 0.0]), torch.tensor([[32.0, 24.0]]))
    assert float(project(cameras, [0.0, 0.3, 0.0])[0, 1]) < 24


def test_positions_are_on_the_orbit() -> None:
    torch.testing.assert_close(one(90.0, 0.0).positions, torch.tensor([[2.0, 0.0, 0.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(one(0.0, 90.0).positions, torch.tensor([[0.0, 2.0, 0.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(one(77.0, 33.0).positions.norm(dim=-1), torch.tensor([2.0]))


def test_rotations_are_rigid_even_straight_down() -> None:
    positions = torch.cat([torch.randn(20, 3, generator=rng()), torch.tensor([[0.0, 2, 0], [0, -2, 0]])])
    rotations = look_at(positions, torch.zeros_like(positions))[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(22, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(22))


def test_the_field_of_view_spans_the_height() -> None:
    cameras = orbit(torch.zeros(1), torch.zeros(1), 64, 48, radius=2.0, field_of_view_deg=60.0)
    top = 2.0 * torch.tan(torch.deg2rad(torch.tensor(30.0)))
    assert float(project(cameras, [0.0, float(top), 0.0])[0, 1]) == pytest.approx(0.0, abs=1e-4)


def test_a_resized_camera_sees_the_same() -> None:
    cameras = one(40.0, 10.0)
    point = [0.1, 0.2, -0.1]
    torch.testing.assert_close(project(cameras.resized(128, 96), point), 2 * project(cameras, point))


def test_turntable_starts_at_the_front_and_goes_around() -> None:
    cameras = turntable(8, 16, 16)
    assert cameras.azimuth_deg.tolist() == [0, 45, 90, 135, 180, 225, 270, 315]


def test_fibonacci_views_are_even_over_the_band() -> None:
    cameras = fibonacci_sphere(400, 8, 8, (-30.0, 60.0))
    heights = torch.sin(torch.deg2rad(cameras.elevation_deg))
    low, high = -0.5, 3**0.5 / 2
    counts = torch.histc(heights, bins=8, min=low, max=high)
    assert bool(((counts - 50).abs() <= 1).all())
    quarters = torch.histc(cameras.azimuth_deg, bins=4, min=0, max=360)
    assert bool(((quarters - 100).abs() <= 4).all())


def test_a_fixed_set_hands_out_its_own_cameras() -> None:
    sampler = build_cameras(FixedSetConfig(count=12, views_per_step=5), 16)
    assert isinstance(sampler, FixedSet) and isinstance(sampler, CameraSampler)
    known = {tuple(pose.flatten().tolist()) for pose in sampler.cameras.world_to_camera}
    seen = set()
    for seed in range(30):
        drawn = {tuple(pose.flatten().tolist()) for pose in sampler(0.0, rng(seed)).world_to_camera}
        assert len(drawn) == 5
        seen |= drawn
    assert seen == known


def test_an_orbit_keeps_its_ranges_and_shares_out_the_circle() -> None:
    config = OrbitConfig(views_per_step=4, elevation_deg=(-10.0, 50.0), radius=(1.5, 2.5))
    sampler = build_cameras(config, 16)
    assert isinstance(sampler, Orbit) and isinstance(sampler, CameraSampler)
    azimuths = []
    for seed in range(50):
        cameras = sampler(0.5, rng(seed))
        ordered = cameras.azimuth_deg.sort().values
        gaps = torch.cat([ordered.diff(), ordered[:1] + 360 - ordered[-1:]])
        assert (
            float(gaps.max()) <= 180.0
        )  # No two views less than a sector apart leave more than two sectors.
        assert bool((cameras.elevation_deg >= -10).all() and (cameras.elevation_deg <= 50).all())
        radii = cameras.positions.norm(dim=-1)
        assert bool((radii > 1.5 - 1e-4).all() and (radii < 2.5 + 1e-4).all())
        azimuths.append(cameras.azimuth_deg)
    counts = torch.histc(torch.cat(azimuths), bins=4, min=0, max=360)
    assert bool(((counts - 50).abs() <= 10).all())


def test_views_and_ranges_follow_their_ramps() -> None:
    """From one close view at the horizon to four distant ones from above; a fixed set and view sets too."""
    config = OrbitConfig(
        views_per_step=Linear(start=1.0, end=4.0),
        elevation_deg=(Linear(start=0.0, end=40.0), Linear(start=0.0, end=50.0)),
        radius=(Linear(start=1.0, end=2.0), Linear(start=1.0, end=3.0)),
        field_of_view_deg=(Linear(start=60.0, end=30.0), 60.0),
    )
    sampler = build_cameras(config, 16)
    first, last = sampler(0.0, rng()), sampler(1.0, rng())
    assert (len(first), len(sampler(0.5, rng())), len(last)) == (1, 2, 4)
    torch.testing.assert_close(first.positions.norm(dim=1), torch.ones(1))
    assert first.elevation_deg.item() == 0.0
    assert float(first.intrinsics[0, 0, 0]) == pytest.approx(8 / math.tan(math.radians(30)), rel=1e-6)
    assert bool(((last.elevation_deg >= 40) & (last.elevation_deg <= 50)).all())
    assert bool(((last.positions.norm(dim=1) >= 2) & (last.positions.norm(dim=1) <= 3)).all())
    assert bool((last.intrinsics[:, 0, 0] > first.intrinsics[0, 0, 0]).all())

    fixed = build_cameras(FixedSetConfig(count=6, views_per_step=Linear(start=2.0, end=6.0)), 16)
    assert [len(fixed(progress, rng())) for progress in (0.0, 1.0)] == [2, 6]
    sets = MultiViewConfig(sets_per_step=Linear(start=1.0, end=2.0), elevation_deg=(0.0, 0.0))
    assert [len(build_cameras(sets, 16)(progress, rng())) for progress in (0.0, 1.0)] == [4, 8]


def test_a_progressive_orbit_opens_from_the_front() -> None:
    config = OrbitConfig(azimuth_deg=Linear(start=10.0, end=180.0), views_per_step=8)
    sampler = Orbit(config, 16)
    early = sampler(0.0, rng()).azimuth_deg
    assert bool((((early + 180) % 360 - 180).abs() <= 10.0).all())
    late = sampler(1.0, rng()).azimuth_deg
    assert float(((late + 180) % 360 - 180).abs().max()) > 130.0


def test_multi_view_sets_are_evenly_spaced_at_one_elevation() -> None:
    sampler = build_cameras(MultiViewConfig(sets_per_step=2, views=4, elevation_deg=(0.0, 30.0)), 16)
    assert isinstance(sampler, MultiView) and isinstance(sampler, CameraSampler)
    cameras = sampler(0.0, rng())
    assert len(cameras) == 8
    for start in (0, 4):
        azimuth = cameras.azimuth_deg[start : start + 4]
        torch.testing.assert_close((azimuth.diff() + 360) % 360, torch.full((3,), 90.0), atol=1e-3, rtol=0)
        assert len(set(cameras.elevation_deg[start : start + 4].tolist())) == 1
    assert cameras.elevation_deg[0] != cameras.elevation_deg[4]
    assert bool((cameras.azimuth_deg < 360).all() and (cameras.azimuth_deg >= 0).all())


def test_samplers_are_the_generators_alone() -> None:
    for config in (FixedSetConfig(), OrbitConfig(), MultiViewConfig()):
        sampler = build_cameras(config, 16)
        torch.manual_seed(1)
        first = sampler(0.3, rng())
        torch.manual_seed(2)
        assert torch.equal(first.world_to_camera, sampler(0.3, rng()).world_to_camera)


def test_views_share_out_instants_each_drawn_in_its_own_sector() -> None:
    sampler = build_cameras(MultiViewConfig(sets_per_step=2, views=4), 16)
    drawn = [
        at_instants(sampler(0.0, rng(seed)), RandomInstantsConfig(per_step=2), rng(seed)).time
        for seed in range(40)
    ]
    times = torch.stack([time for time in drawn if time is not None])
    assert times.shape == (40, 8)
    assert bool((times[:, :4] == times[:, :1]).all() and (times[:, 4:] == times[:, 4:5]).all())
    assert bool((times[:, 0] < 0.5).all() and (times[:, 4] >= 0.5).all() and (times < 1).all())
    assert float(times[:, 0].std()) > 0.1
    alone = at_instants(one(10.0, 0.0), RandomInstantsConfig(per_step=3), rng()).time
    assert alone is not None and len(alone) == 1


def test_frames_are_drawn_from_a_clip_none_twice() -> None:
    cameras = build_cameras(OrbitConfig(views_per_step=6), 16)(0.0, rng())
    config = FramesConfig(count=5, per_step=3)
    seen = set()
    for seed in range(20):
        time = at_instants(cameras, config, rng(seed)).time
        assert time is not None
        assert time.unique().tolist() == time[::2].tolist() == time[1::2].tolist()
        seen |= set(time.tolist())
    assert seen == set(frame_times(5).tolist()) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_a_clip_is_every_frame_from_each_camera() -> None:
    cameras = build_cameras(OrbitConfig(views_per_step=2), 16)(0.0, rng())
    clips = at_instants(cameras, ClipConfig(count=3), rng())
    assert clips.time is not None and clips.time.tolist() == [0.0, 0.5, 1.0] * 2
    assert torch.equal(clips.world_to_camera[:3], cameras.world_to_camera[[0, 0, 0]])
    assert torch.equal(clips.world_to_camera[3:], cameras.world_to_camera[[1, 1, 1]])
