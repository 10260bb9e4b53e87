"""Clipart in motion: its curves against de Casteljau and a spline of SciPy's, its terms in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.interpolate import BPoly
from torch import Tensor

from studio.clipart.drawing import CANVAS_PX
from studio.errors import StudioError
from studio.recipes.config import ClipartConfig, LayerConfig
from studio.recipes.load import load
from studio.recipes.project import project_json
from studio.run.asked import project_lines
from studio.scenes.clipart import Clipart, _puppet


@pytest.fixture(scope="module")
def crab() -> Clipart:
    return Clipart.initial(ClipartConfig(path="crab", texture_size=128))


def moving(scene: Clipart, loop: str = "there_and_back", size: float = 10.0) -> Clipart:
    curves = size * torch.randn(scene.curves.shape, generator=torch.Generator().manual_seed(0))
    return Clipart(scene.puppet, curves, ClipartConfig(path="crab", texture_size=128, loop=loop))  # type: ignore[arg-type]


def test_curves_are_bezier_curves_from_rest(crab: Clipart) -> None:
    scene, times = moving(crab), torch.linspace(0, 1, 7)
    rest = scene.puppet.keypoints
    points = torch.cat([rest[:, None], rest[:, None] + scene.curves.detach()], dim=1).double()
    truth = BPoly(points.movedim(1, 0)[:, None].numpy(), [0, 1])(times.double().numpy())
    torch.testing.assert_close(scene.keypoints(times).double(), torch.from_numpy(truth), atol=1e-4, rtol=0)


def test_cyclic_curves_pass_through_their_points_and_close_smoothly(crab: Clipart) -> None:
    scene = moving(crab, "cyclic")
    rest = scene.puppet.keypoints
    quarters = scene.keypoints(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    expected = torch.cat([rest[None], rest + scene.curves.detach().movedim(1, 0), rest[None]])
    torch.testing.assert_close(quarters, expected, atol=1e-4, rtol=0)

    def velocity(time: float) -> Tensor:
        at = torch.tensor(time, dtype=torch.float64, requires_grad=True)
        places = scene.keypoints(at[None])
        return torch.stack([torch.autograd.grad(x, at, retain_graph=True)[0] for x in places.flatten()])

    scene = Clipart(scene.puppet, scene.curves.double(), scene.config)
    ends = scene.keypoints(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.equal(ends[0], ends[1])
    torch.testing.assert_close(velocity(0.0), velocity(1.0 - 1e-12), atol=1e-6, rtol=0)


@pytest.mark.parametrize("loop", ["there_and_back", "cyclic", "once"])
def test_a_clip_ends_as_its_loop_says(crab: Clipart, loop: str) -> None:
    scene = moving(crab, loop)
    with torch.no_grad():
        clip = scene.animation(8, 2.0)
        first, last = clip.frames[0].vertices, clip.frames[-1].vertices
    assert len(clip.frames) == 8 and clip.loops == (loop != "once")
    torch.testing.assert_close(first, clip.rest.vertices, atol=1e-6, rtol=0)
    if loop == "there_and_back":
        for frame in range(1, 4):
            assert torch.equal(clip.frames[frame].vertices, clip.frames[8 - frame].vertices)
    if loop == "once":
        torch.testing.assert_close(last, scene.at(torch.tensor(1.0)).vertices.detach())


def test_bones_and_triangles_are_judged_by_their_change(crab: Clipart) -> None:
    times = torch.linspace(0, 1, 3)
    with torch.no_grad():
        assert float(crab.bone_stretch(times)) < 1e-12 and float(crab.flips(times)) == 0.0
    # Twice as large at time 1, one and an eighth half-way (B(1/2) puts 1/8 on the last point): by hand.
    grown = torch.zeros_like(crab.curves)
    center = crab.puppet.keypoints.mean(0)
    grown[:, 2] = crab.puppet.keypoints - center
    scene = Clipart(crab.puppet, grown, crab.config)
    ends = crab.puppet.keypoints[crab.puppet.bones] / 256
    lengths = (ends[:, 0] - ends[:, 1]).norm(dim=-1)
    expected = (lengths.square() * (0 + 1 / 64 + 1)).mean() / 3
    torch.testing.assert_close(scene.bone_stretch(times), expected, atol=1e-6, rtol=1e-4)


def test_flips_are_what_a_loop_over_triangles_finds(crab: Clipart) -> None:
    scene, time = moving(crab, size=60.0), torch.tensor([0.8])
    with torch.no_grad():
        (posed,), rest = scene.puppet.deform(scene.keypoints(time)), scene.puppet.vertices
    total, flipped = 0.0, 0
    for face in scene.puppet.faces:
        now, before = (
            float(torch.linalg.det(points[face[1:]] - points[face[0]])) for points in (posed, rest)
        )
        total += max(0.0, 0.2 - now / before) ** 2
        flipped += now / before < 0
    expected = total / len(scene.puppet.faces)
    assert expected > 0.01 and flipped > 0
    assert int((scene.area_shares(time) < 0).sum()) == flipped
    assert float(scene.flips(time).detach()) == pytest.approx(expected, rel=1e-3)


def test_triangles_do_not_flip_under_a_pull_that_would_mirror_the_drawing() -> None:
    """Five hundred steps, six times as fast as usual, towards keypoints that have changed sides."""
    crab = Clipart.initial(ClipartConfig(path="crab", texture_size=128, edge_px=18.0))
    times, rest = torch.linspace(0, 1, 3), crab.puppet.keypoints
    mirrored = torch.stack([CANVAS_PX - rest[:, 0], rest[:, 1]], dim=1)

    def flipped(weight: float) -> float:
        scene = Clipart(crab.puppet, torch.zeros_like(crab.curves), crab.config)
        adam = torch.optim.Adam([scene.curves], lr=6 * crab.config.curves_rate_px)
        for _ in range(500):
            pull = ((scene.keypoints(times[1:]) - mirrored) / CANVAS_PX).square().mean()
            adam.zero_grad()
            (pull + weight * scene.flips(times)).backward()  # type: ignore[no-untyped-call]
            adam.step()
        return float((scene.area_shares(times) < 0).float().mean())

    assert flipped(0.0) > 0.2
    assert flipped(10.0) <= 0.01


def test_no_curve_goes_beyond_its_reach(crab: Clipart) -> None:
    config = replace(crab.config, reach_px=5.0)
    scene = Clipart(crab.puppet, moving(crab, size=20.0).curves, config)
    near = Clipart(crab.puppet, moving(crab, size=0.5).curves, config)
    before = scene.curves.detach().clone()
    for each in (scene, near):
        each.upkeep(1, torch.Generator())
    with torch.no_grad():
        travel = scene.keypoints(torch.linspace(0, 1, 11)) - crab.puppet.keypoints
    assert float(travel.norm(dim=-1).max()) <= 5.0 + 1e-4
    held = scene.curves.detach()
    assert float(held.norm(dim=-1).max()) == pytest.approx(5.0)
    directions = torch.nn.functional.cosine_similarity(held, before, dim=-1)
    torch.testing.assert_close(directions, torch.ones_like(directions))
    assert torch.equal(near.curves, moving(crab, size=0.5).curves), "what is within stays as it is"


def test_the_same_drawing_gives_the_same_project(crab: Clipart) -> None:
    """Byte for byte, found anew; and keypoints that come back from it give the same sheet."""
    _puppet.cache_clear()
    with torch.no_grad():
        scenes = crab, Clipart.initial(crab.config)
        first, second = (scene.project("it jumps", 3, scene.animation(4, 2.0)) for scene in scenes)
    assert project_json(first) == project_json(second)
    config = ClipartConfig(path="crab", texture_size=128, keypoints=first.keypoints, bones=first.bones)
    again = Clipart.initial(config).puppet
    torch.testing.assert_close(again.vertices, crab.puppet.vertices, atol=1e-3, rtol=0)
    assert torch.equal(again.faces, crab.puppet.faces) and torch.equal(again.bones, crab.puppet.bones)


def test_a_scene_comes_back_from_its_state(crab: Clipart) -> None:
    scene = moving(crab)
    again = Clipart.from_state(scene.state(), scene.config)
    time = torch.tensor(0.6)
    assert torch.equal(again.at(time).vertices, scene.at(time).vertices)
    (ours,), (before,) = again.at(time).layers, scene.at(time).layers
    assert all(map(torch.equal, ours.levels, before.levels))
    with pytest.raises(StudioError, match="lacks sheet0/arap/edges; it is damaged"):
        Clipart.from_state({k: v for k, v in scene.state().items() if k != "sheet0/arap/edges"}, scene.config)


def test_layers_of_a_recipe_come_back_from_its_project() -> None:
    """Named ones as they were named; guessed ones with the paths and keypoints of the guess."""
    named = (LayerConfig(name="claw", paths=(0, 1, 10)), LayerConfig(name="other claw", paths=(2, 3, 11)))
    config = ClipartConfig(path="crab", texture_size=64, edge_px=24.0, layers=named)
    guess = replace(config, layers=(), propose_layers=True)
    for asked in (config, guess):
        scene = Clipart.initial(asked)
        assert len(scene.puppet.layers) > 2 and len(scene) == len(scene.puppet.faces)
        with torch.no_grad():
            assert float(scene.flips(torch.tensor([0.5]))) == 0.0
            project = scene.project("it waves", 0, scene.animation(2, 1.0))
        if asked is config:
            assert project.layers == named
        preset = load("aniclipart", "it waves", ("stages.0.scene.path='crab'", *project_lines(project)))
        again = preset.stages[0].scene
        assert isinstance(again, ClipartConfig) and again.layers == project.layers
        back = Clipart.initial(replace(again, curves=None))
        assert back.puppet.groups == scene.puppet.groups
        whole = Clipart.from_state(scene.state(), asked)
        assert torch.equal(whole.puppet.faces, scene.puppet.faces)


def test_a_known_motion_is_found_again(crab: Clipart) -> None:
    """Fitted to the places of some vertices: nothing but the deformation is in between."""
    truth = moving(crab, size=8.0)
    scene = Clipart(crab.puppet, torch.zeros_like(crab.curves), crab.config)
    times = torch.linspace(0, 1, 6)
    with torch.no_grad():
        wanted = truth.puppet.deform(truth.keypoints(times))
    adam = torch.optim.Adam([scene.curves], lr=0.5)
    for _ in range(200):
        loss = (scene.puppet.deform(scene.keypoints(times)) - wanted).square().mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    with torch.no_grad():
        error = (scene.keypoints(times) - truth.keypoints(times)).norm(dim=-1).mean()
        far = (truth.keypoints(times) - truth.puppet.keypoints).norm(dim=-1).mean()
    assert float(far) > 4.0 and float(error) < 0.2
