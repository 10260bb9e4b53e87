"""What moves: it begins at rest, goes where its numbers say, and comes back from its state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from studio.cameras import orbit
from studio.errors import StudioError
from studio.evaluate.metrics import psnr
from studio.interfaces import Scene
from studio.ops.rotations import quats_to_rotations
from studio.ops.skinning import carried
from studio.recipes.config import (
    DeformableConfig,
    GaussiansConfig,
    HexPlaneConfig,
    KeyframesConfig,
    NodesConfig,
    PerceptronConfig,
    TexturedMeshConfig,
)
from studio.renderers.instants import render
from studio.renderers.splatting import SplatRenderer
from studio.scenes.deformation import Deformable
from studio.scenes.gaussians import Gaussians, GaussianTensors
from studio.scenes.mesh import MeshTensors, TexturedMesh
from studio.scenes.motion import motion_from_state
from studio.types import Mesh, Splats

SMALL = PerceptronConfig(width=8, layers=2, frequencies=2, time_frequencies=2)
MOTIONS = {
    "keyframes": NodesConfig(track=KeyframesConfig(count=5)),
    "perceptron of nodes": NodesConfig(track=SMALL),
    "perceptron": SMALL,
    "hexplane": HexPlaneConfig(resolution=6, instants=4, channels=4, width=8),
}
each_motion = pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)


def splats(count: int = 90, dtype: torch.dtype = torch.float32) -> Gaussians:
    rng = torch.Generator().manual_seed(count)

    def draw(*size: int) -> torch.Tensor:
        return torch.rand(size, generator=rng, dtype=torch.float64).to(dtype)

    tensors = GaussianTensors(
        means=0.8 * draw(count, 3) - 0.4,
        log_scales=-3.0 + draw(count, 3),
        quats_wxyz=draw(count, 4) - 0.5,
        opacity_logits=4.0 * draw(count) - 2.0,
        sh_dc=draw(count, 1, 3),
        sh_rest=draw(count, 0, 3),
    )
    return Gaussians(tensors, GaussiansConfig())


def mesh(rate: float = 0.0) -> TexturedMesh:
    """A strip of squares."""
    rows = torch.stack([torch.linspace(-0.4, 0.4, 20), torch.zeros(20), torch.zeros(20)], 1)
    vertices = torch.cat([rows, rows + torch.tensor([0.0, 0.1, 0.0])])
    i = torch.arange(19)
    faces = torch.cat([torch.stack([i, i + 1, i + 21], 1), torch.stack([i, i + 21, i + 20], 1)])
    uvs = vertices[faces][..., :2] + 0.5
    config = TexturedMeshConfig(texture_size=16, vertices_rate=rate)
    return TexturedMesh(MeshTensors(vertices, faces, uvs, torch.zeros(16, 16, 3)), config)


def moving(
    motion: object = None, shape: Gaussians | TexturedMesh | None = None, rate: float = 0.0
) -> Deformable:
    shape = splats() if shape is None else shape
    config = DeformableConfig(shape=shape.config, motion=motion or NodesConfig(), shape_rate=rate)
    return Deformable.of(shape, config, torch.Generator().manual_seed(1))


def stirred(scene: Deformable, amount: float = 0.1) -> Deformable:
    """The scene with noise on all that moves it."""
    rng = torch.Generator().manual_seed(2)
    state = dict(scene.state())
    for name in state:
        if name.startswith("motion/"):
            state[name] = state[name] + amount * torch.randn(state[name].shape, generator=rng).to(state[name])
    return Deformable.from_state(state, scene.config)


def points(shape: Splats | Mesh) -> torch.Tensor:
    return shape.means if isinstance(shape, Splats) else shape.vertices


def covariances(shape: Splats) -> torch.Tensor:
    roots = quats_to_rotations(shape.quats_wxyz) * shape.scales[:, None]
    return roots @ roots.mT


TIMES = [torch.tensor(time) for time in (0.0, 0.3, 0.5, 1.0)]


@each_motion
@pytest.mark.parametrize("shape", [splats(), mesh()], ids=["splats", "mesh"])
def test_it_begins_at_rest(motion: object, shape: Gaussians | TexturedMesh) -> None:
    scene = moving(motion, shape)
    assert isinstance(scene, Scene) and len(scene) == len(shape)
    rest = shape.at(None)
    assert torch.equal(points(scene.at(None)), points(rest))
    for time in TIMES:
        assert (points(scene.at(time)) - points(rest)).abs().max() <= 1e-6
    moved = stirred(scene).at(torch.tensor(0.4))
    assert (points(moved) - points(rest)).norm(dim=1).max() > 0.01


@each_motion
def test_its_first_pictures_are_those_of_the_shape(motion: object) -> None:
    shape = splats()
    cameras = orbit(torch.tensor([0.0, 120.0, 200.0, 300.0]), torch.full((4,), 15.0), 32, 32)
    white = torch.ones(4, 3)
    still = SplatRenderer()(shape.at(None), cameras, white).rgb
    with_times = replace(cameras, time=torch.stack(TIMES))
    shown = render(moving(motion, shape), SplatRenderer(), with_times, white).rgb
    assert (psnr(shown, still) > 50.0).all()
    shown = render(stirred(moving(motion, shape)), SplatRenderer(), with_times, white).rgb
    assert (psnr(shown, still) < 50.0).any()


@each_motion
def test_state_builds_the_scene_again_bit_for_bit(motion: object) -> None:
    scene = stirred(moving(motion))
    again = Deformable.from_state(scene.state(), scene.config)
    assert again.state().keys() == scene.state().keys()
    assert all(torch.equal(again.state()[name], tensor) for name, tensor in scene.state().items())
    assert torch.equal(again.at(torch.tensor(0.7)).means, scene.at(torch.tensor(0.7)).means)
    damaged = {name: tensor for name, tensor in scene.state().items() if name != "nodes"}
    with pytest.raises(StudioError, match="lacks nodes"):
        Deformable.from_state(damaged, scene.config)
    name = scene.motion.parameter_groups()[0].name
    damaged = {key: tensor for key, tensor in scene.state().items() if key != f"motion/{name}"}
    with pytest.raises(StudioError, match=f"lacks {name}"):
        Deformable.from_state(damaged, scene.config)
    damaged = scene.state() | {f"motion/{name}": torch.zeros(3)}
    with pytest.raises(StudioError, match="keep them as they were"):
        Deformable.from_state(damaged, scene.config)


def test_the_shape_goes_on_where_it_is_asked_to() -> None:
    still, going_on = moving(), moving(rate=0.5)
    assert {group.name.split("/")[0] for group in still.parameter_groups()} == {"motion"}
    rates = {group.name: group.learning_rate for group in going_on.parameter_groups()}
    assert rates["shape/means"] == pytest.approx(0.5 * GaussiansConfig().means_rate)
    assert len(rates) == 2 + 6
    for scene, expected in ((still, False), (going_on, True)):
        scene.at(torch.tensor(0.2)).means.square().sum().backward()
        assert (scene.shape.tensors.means.grad is not None) == expected
        assert scene.parameter_groups()[0].parameter.grad is not None


@pytest.mark.parametrize("shape", [splats(), mesh()], ids=["splats", "mesh"])
def test_nodes_that_turn_and_travel_as_one_move_the_shape_rigidly(shape: Gaussians | TexturedMesh) -> None:
    scene = moving(NodesConfig(track=KeyframesConfig(count=2)), shape)
    quat = torch.nn.functional.normalize(torch.tensor([0.8, 0.1, -0.5, 0.2]), dim=0)
    rotation, shift = quats_to_rotations(quat), torch.tensor([0.1, 0.2, -0.3])
    state = dict(scene.state())
    state["motion/quats_wxyz"][1] = 3.0 * quat  # of any length
    state["motion/translations"][1] = scene.nodes @ rotation.T + shift - scene.nodes
    scene = Deformable.from_state(state, scene.config)
    rest, moved = scene.at(None), scene.at(torch.tensor(1.0))
    assert (points(moved) - points(rest) @ rotation.T - shift).abs().max() <= 1e-5
    if isinstance(rest, Splats):
        assert (covariances(moved) - rotation @ covariances(rest) @ rotation.T).abs().max() <= 1e-5
        for name in ("scales", "opacities", "sh"):
            assert torch.equal(getattr(moved, name), getattr(rest, name))
    times = torch.tensor([1.0])
    assert scene.rigidity(times).item() < 1e-12
    assert scene.rigidity(torch.tensor([0.5])).item() > 1e-5  # Half of it is no turn: it goes along chords.


def test_keyframes_are_met_and_lines_lie_between() -> None:
    config = KeyframesConfig(count=4)
    rng = torch.Generator().manual_seed(0)
    state = {
        "translations": torch.randn(4, 6, 3, generator=rng),
        "quats_wxyz": torch.randn(4, 6, 4, generator=rng),
    }
    track, nodes = motion_from_state(state, config, 6), torch.zeros(6, 3)
    frames = track.poses(nodes, torch.linspace(0, 1, 4))
    torch.testing.assert_close(frames.translations, state["translations"])
    units = torch.nn.functional.normalize(state["quats_wxyz"], dim=-1)
    torch.testing.assert_close(quats_to_rotations(frames.quats_wxyz), quats_to_rotations(units))
    between = track.poses(nodes, torch.tensor([1.25 / 3, 1.5 / 3]))
    expected = 0.75 * state["translations"][1] + 0.25 * state["translations"][2]
    torch.testing.assert_close(between.translations[0], expected)
    # Halfway lies the rotation that both ends are equally far from, on the short way round.
    ends, halfway = frames.quats_wxyz[1:3], between.quats_wxyz[1]
    from_ends = (ends * halfway).sum(-1).abs()
    torch.testing.assert_close(from_ends[0], from_ends[1])
    way = (ends[0] * ends[1]).sum(-1).abs().acos()
    torch.testing.assert_close(from_ends[0].acos(), way / 2, atol=1e-3, rtol=0)


def test_time_reaches_from_the_first_texel_of_the_planes_to_the_last() -> None:
    config = MOTIONS["hexplane"]
    scene = stirred(moving(config))
    for time, texel in ((0.0, 0), (1.0, config.instants - 1)):
        planes = scene.motion.parameters["planes"]
        planes.grad = None
        scene.at(torch.tensor(time)).means.square().sum().backward()
        first, used = 0, []
        for rows, columns in ((6, 6), (6, 6), (4, 6), (6, 6), (4, 6), (4, 6)):  # xy xz xt yz yt zt; t down
            plane = planes.grad[first : first + rows * columns].reshape(rows, columns, -1)
            first += rows * columns
            if rows == config.instants:
                used.append(plane.abs().sum((1, 2)).nonzero().flatten().tolist())
        assert used == [[texel]] * 3


@each_motion
def test_gradients_are_those_of_finite_differences(motion: object) -> None:
    scene = stirred(moving(motion, splats(24, torch.float64), rate=1.0))
    rng = torch.Generator().manual_seed(5)
    pull = torch.randn(24, 3, generator=rng, dtype=torch.float64)
    twist = torch.randn(24, 4, generator=rng, dtype=torch.float64)
    times = torch.tensor([0.37, 0.81], dtype=torch.float64)

    def value(state: dict[str, torch.Tensor]) -> tuple[Deformable, torch.Tensor]:
        here = Deformable.from_state(state, scene.config)
        shape = here.at(times[0])
        wishes = here.rigidity(times) + here.acceleration(times) + here.motion_at_rest()
        return here, (pull * shape.means).sum() + (twist * shape.quats_wxyz).sum() + wishes

    here, total = value(scene.state())
    total.backward()
    for group in here.parameter_groups():
        if group.parameter.grad is None or group.parameter.numel() == 0:
            assert group.name.split("/")[1] in ("opacity_logits", "log_scales", "sh_dc", "sh_rest")
            continue
        way = torch.randn(group.parameter.shape, generator=rng, dtype=torch.float64)
        low, high = (
            value(scene.state() | {group.name: group.parameter.detach() + sign * 1e-6 * way})[1].item()
            for sign in (-1, 1)
        )
        slope = float((way * group.parameter.grad).sum())
        assert (high - low) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-6), group.name


def test_rigidity_is_the_mean_over_nodes_and_neighbours() -> None:
    scene = stirred(moving())
    times = torch.tensor([0.2, 0.9])
    poses = scene.motion.poses(scene.nodes, times)
    places, rotations = scene.nodes + poses.translations, quats_to_rotations(poses.quats_wxyz)
    around = torch.cdist(scene.nodes, scene.nodes).topk(7, largest=False).indices[:, 1:]
    terms = [
        (places[t, j] - places[t, k] - rotations[t, k] @ (scene.nodes[j] - scene.nodes[k])).square().sum()
        for t in range(2)
        for k in range(len(scene.nodes))
        for j in around[k].tolist()
    ]
    torch.testing.assert_close(scene.rigidity(times), torch.stack(terms).mean())


def test_acceleration_and_rest_of_known_paths() -> None:
    scene = moving(NodesConfig(track=KeyframesConfig(count=17)))
    frames = torch.arange(17.0)
    path = torch.stack([0.5 * 0.01 * frames.square(), 0.1 * frames + 0.2, torch.zeros(17)], dim=1)
    state = scene.state() | {"motion/translations": path[:, None].expand(-1, len(scene.nodes), -1)}
    scene = Deformable.from_state(state, scene.config)
    assert scene.acceleration(torch.tensor([0.0, 0.5, 1.0])).item() == pytest.approx(0.01**2, rel=1e-3)
    assert scene.motion_at_rest().item() == pytest.approx(0.2**2)
    assert scene.largest_acceleration() == pytest.approx(0.01, rel=1e-3)
    assert moving().acceleration(torch.rand(3)).item() == moving().largest_acceleration() == 0.0


def test_nodes_are_spread_over_what_is_seen() -> None:
    """Splats that are all but transparent float anywhere; what they are does not matter."""
    shape = splats()
    with torch.no_grad():
        shape.tensors.opacity_logits[::2] = -6.0
        shape.tensors.opacity_logits[1::2] = 0.0
    nodes = moving(shape=shape).nodes
    assert len(nodes) == 45 // 8
    assert torch.cdist(nodes, shape.tensors.means[1::2]).amin(1).max() == 0.0
    with torch.no_grad():
        shape.tensors.opacity_logits[:] = -6.0
    assert len(moving(shape=shape).nodes) == 90 // 8, "where nothing is seen, over all"


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("shape", [splats(), mesh()], ids=["splats", "mesh"])
def test_an_animation_is_the_scene_at_its_times(shape: Gaussians | TexturedMesh, loops: bool) -> None:
    scene = stirred(moving(shape=shape), 0.8)
    animation = scene.animation(6, seconds=2.0, loops=loops)
    assert animation.times.tolist() == pytest.approx([i / (6 if loops else 5) for i in range(6)])
    assert (animation.seconds, animation.loops, len(animation.frames)) == (2.0, loops, 6)
    rig = animation.rig
    assert rig is not None and rig.quats_wxyz.shape == (6, len(scene.nodes), 4)
    for frame, (time, shown) in enumerate(zip(animation.times, animation.frames, strict=True)):
        torch.testing.assert_close(points(shown), points(scene.at(time)))
        moved, _ = carried(points(animation.rest), rig, frame)
        torch.testing.assert_close(points(shown), moved)
    assert ((rig.quats_wxyz[1:] * rig.quats_wxyz[:-1]).sum(-1) >= 0).all()
    torch.testing.assert_close(rig.quats_wxyz.norm(dim=-1), torch.ones(rig.quats_wxyz.shape[:2]))
    assert moving(MOTIONS["hexplane"], shape).animation(1, 1.0).rig is None


def test_small_shapes_move_too() -> None:
    lone = stirred(moving(shape=splats(1)))
    assert len(lone.nodes) == 1
    assert lone.at(torch.tensor(0.5)).means.isfinite().all()
    for wish in (lone.rigidity, lone.acceleration):
        assert wish(torch.tensor([0.5])).isfinite()
    assert len(moving(NodesConfig(count=500)).nodes) == 90 // 8


@pytest.mark.parametrize("time", [-0.01, 1.2, float("nan")])
def test_times_outside_0_to_1_are_refused(time: float) -> None:
    with pytest.raises(StudioError, match=r"The time is .*; expected 0 to 1"):
        moving().at(torch.tensor(time))


def test_shapes_that_cannot_move_are_refused() -> None:
    with pytest.raises(StudioError, match="no splats or vertices to move"):
        moving(shape=splats(0))
    broken = splats()
    with torch.no_grad():
        broken.tensors.means[3, 0] = torch.nan
    with pytest.raises(StudioError, match="1 of 90 points are not finite"):
        moving(shape=broken)
