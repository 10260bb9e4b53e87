"""A shape in motion as an optimiser sees it: splats or a textured mesh at rest, and what moves them.

By default a few nodes, spread over the shape, turn and travel and carry the rest along; else planes or a
perceptron move each splat or vertex by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.interfaces import ParameterGroup
from studio.ops.neighbours import farthest_points, nearest
from studio.ops.rotations import aligned, quat_product, quats_to_rotations
from studio.ops.skinning import carried, skin_weights
from studio.recipes.config import DeformableConfig, GaussiansConfig, NodesConfig, TexturedMeshConfig
from studio.scenes.gaussians import Gaussians
from studio.scenes.mesh import TexturedMesh
from studio.scenes.motion import MotionConfig, initial_motion, motion_from_state
from studio.types import Animation, Mesh, Rig, Splats

POINTS_PER_NODE = 8
_WATCHED = 512
"""Nodes by which a motion without nodes of its own is judged."""
_NEIGHBOURS = 6
_FRAME = 1 / 16
"""Of the time, between two instants whose difference is a velocity."""
_SHAPE, _MOTION = "shape/", "motion/"


class Deformable:
    """The scene: implements ``Scene[Splats | Mesh]``.

    Args:
        state: where it starts, as ``state`` returns it; what is optimised is copied.
        config: sizes and learning rates.

    Raises:
        StudioError: tensors are missing, or not of the recipe's sizes.
    """

    def __init__(self, state: Mapping[str, Tensor], config: DeformableConfig) -> None:
        self.config = config
        self.shape = _shape_from_state(_part(state, _SHAPE), config)
        if config.shape_rate == 0.0:
            for group in self.shape.parameter_groups():
                group.parameter.requires_grad_(False)
        wanted = ("nodes", "carriers", "weights") if isinstance(config.motion, NodesConfig) else ("nodes",)
        if missing := [name for name in wanted if name not in state]:
            raise StudioError(
                f"The saved motion lacks {', '.join(missing)}; it is damaged or of another kind."
            )
        self._fixed = {name: state[name].detach() for name in wanted}
        self.nodes = self._fixed["nodes"]
        self.motion = motion_from_state(_part(state, _MOTION), _motion_config(config), len(self.nodes))
        self._neighbours, _ = nearest(self.nodes, self.nodes, 1 + _NEIGHBOURS)

    @staticmethod
    def of(shape: Gaussians | TexturedMesh, config: DeformableConfig, rng: torch.Generator) -> Deformable:
        """A shape that does not move yet.

        Args:
            shape: of the recipe's kind, at rest.
            rng: draws the first layers of perceptrons; on the CPU.

        Raises:
            StudioError: the shape has no points, or some that are not finite.
        """
        with torch.no_grad():
            rest = shape.at(None)
        points = _points(rest)
        if len(points) == 0:
            raise StudioError("The shape has no splats or vertices to move; expected at least one.")
        most = config.motion.count if isinstance(config.motion, NodesConfig) else _WATCHED
        seen = _seen(rest)
        nodes = seen[farthest_points(seen, max(1, min(most, len(seen) // POINTS_PER_NODE)))]
        state = shape_state(shape) | {"nodes": nodes}
        if isinstance(config.motion, NodesConfig):
            carriers, weights = skin_weights(points, nodes, config.motion.carriers)
            state |= {"carriers": carriers, "weights": weights}
        motion = initial_motion(_motion_config(config), len(nodes), rng)
        return Deformable(state | {_MOTION + name: x.to(points) for name, x in motion.items()}, config)

    def __len__(self) -> int:
        """Splats or triangles."""
        return len(self.shape)

    def at(self, time: Float[Tensor, ""] | None = None) -> Splats | Mesh:
        """The shape at an instant in 0-1, or at rest. Colours, opacities and scales do not change.

        Raises:
            StudioError: the time is outside 0-1.
        """
        rest = self.shape.at(None)
        if time is None:
            return rest
        if not 0.0 <= float(time) <= 1.0:
            raise StudioError(f"The time is {float(time):g}; expected 0 to 1.")
        return self._moved_splats(rest, time) if isinstance(rest, Splats) else self._moved_mesh(rest, time)

    def animation(
        self, frames: int, seconds: float, loops: bool = False
    ) -> Animation[Splats] | Animation[Mesh]:
        """The motion as a row of frames. The signs of a rig's quaternions follow on from frame to frame.

        Args:
            frames: how many.
            seconds: how long it takes from time 0 to time 1.
            loops: time 1 is time 0 again, so the last frame comes before it.
        """
        times = torch.arange(frames, dtype=torch.float32) / max(frames if loops else frames - 1, 1)
        rig = _steady(self._rig(times.to(self.nodes))) if self._has_nodes else None
        match self.shape.at(None):
            case Splats() as rest:
                splats = tuple(self._moved_splats(rest, time) for time in times)
                return Animation(rest, splats, times, seconds, loops, rig)
            case Mesh() as rest:
                meshes = tuple(self._moved_mesh(rest, time) for time in times)
                return Animation(rest, meshes, times, seconds, loops, rig)

    def rigidity(self, times: Float[Tensor, "t"]) -> Float[Tensor, ""]:
        """Mean squared distance of each node's neighbours from where its rotation would carry them.

        Sorkine and Alexa, "As-Rigid-As-Possible Surface Modeling" (2007), eq. 3, with the nodes' own
        rotations and all edges alike; 0 where all nodes move as one.
        """
        poses, around = self.motion.poses(self.nodes, times), self._neighbours[:, 1:]
        if around.numel() == 0:
            return poses.translations.sum() * 0.0
        rest = self.nodes[around] - self.nodes[:, None]
        places = self.nodes + poses.translations
        # index_select, as its backward adds up in a fixed order.
        beside = places.index_select(1, around.flatten()).reshape(len(times), *around.shape, 3)
        turned = (quats_to_rotations(poses.quats_wxyz)[:, :, None] @ rest[..., None]).squeeze(-1)
        away: Tensor = (beside - places[:, :, None] - turned).square().sum(-1)
        return away.mean()

    def acceleration(self, times: Float[Tensor, "t"]) -> Float[Tensor, ""]:
        """Mean squared second difference of the nodes' places, a sixteenth of the time apart."""
        return self._bends(times).square().sum(-1).mean()

    def largest_acceleration(self) -> float:
        """Of any node, in any sixteenth of the time: the length of the second difference of its places."""
        with torch.no_grad():
            inner = torch.arange(1, round(1 / _FRAME)).to(self.nodes) * _FRAME
            return float(self._bends(inner).norm(dim=-1).max())

    def _bends(self, times: Float[Tensor, "t"]) -> Float[Tensor, "t n 3"]:
        """Second differences of the nodes' places, a sixteenth of the time apart."""
        middle = times.clamp(_FRAME, 1 - _FRAME)
        rows = torch.cat([middle - _FRAME, middle, middle + _FRAME])
        before, now, after = self.motion.poses(self.nodes, rows).translations.chunk(3)
        return before - 2 * now + after

    def motion_at_rest(self) -> Float[Tensor, ""]:
        """Mean squared translation and vector part of the rotation of the nodes at time 0."""
        poses = self.motion.poses(self.nodes, self.nodes.new_zeros(1))
        return (poses.translations.square().sum(-1) + poses.quats_wxyz[..., 1:].square().sum(-1)).mean()

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """What moves the shape, then the shape itself if it goes on."""
        factor = self.config.shape_rate
        motion = (replace(group, name=_MOTION + group.name) for group in self.motion.parameter_groups())
        shape = (
            ParameterGroup(_SHAPE + group.name, group.parameter, factor * group.learning_rate)
            for group in self.shape.parameter_groups()
        )
        return (*motion, *(shape if factor > 0.0 else ()))

    def take_turns(self, stage_step: int) -> None:
        """Ask gradients of what the recipe changes in the step after ``stage_step``, and of nothing else.

        What has none is left by the optimiser as it is, bit for bit, moments and all.
        """
        every = self.config.alternate_every
        if every == 0:
            return
        shape_is_next = stage_step // every % 2 == 1
        for side, is_next in ((self.shape, shape_is_next), (self.motion, not shape_is_next)):
            for group in side.parameter_groups():
                group.parameter.requires_grad_(is_next)

    def state(self) -> dict[str, Tensor]:
        """Shape, nodes and motion by name, detached: all that ``from_state`` needs."""
        groups = self.motion.parameter_groups()
        motion = {_MOTION + group.name: group.parameter.detach() for group in groups}
        return shape_state(self.shape) | self._fixed | motion

    @staticmethod
    def from_state(state: Mapping[str, Tensor], config: DeformableConfig) -> Deformable:
        """The scene that ``state`` was taken of.

        Raises:
            StudioError: tensors are missing, or not of the recipe's sizes.
        """
        return Deformable(state, config)

    @property
    def _has_nodes(self) -> bool:
        return isinstance(self.config.motion, NodesConfig)

    def _moved_splats(self, rest: Splats, time: Float[Tensor, ""]) -> Splats:
        means, turns = self._moved(rest.means, time)
        return replace(rest, means=means, quats_wxyz=quat_product(turns, rest.quats_wxyz))

    def _moved_mesh(self, rest: Mesh, time: Float[Tensor, ""]) -> Mesh:
        vertices, _ = self._moved(rest.vertices, time)
        return replace(rest, vertices=vertices)

    def _moved(
        self, points: Float[Tensor, "n 3"], time: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"]]:
        """Where points at rest are, and how they are turned."""
        times = time.to(points)[None]
        if self._has_nodes:
            return carried(points, self._rig(times), 0)
        poses = self.motion.poses(points, times)
        return points + poses.translations[0], poses.quats_wxyz[0]

    def _rig(self, times: Float[Tensor, "t"]) -> Rig:
        poses = self.motion.poses(self.nodes, times)
        fixed = self._fixed
        return Rig(self.nodes, fixed["carriers"], fixed["weights"], poses.quats_wxyz, poses.translations)


def shape_state(shape: Gaussians | TexturedMesh) -> dict[str, Tensor]:
    """A shape's state, as it is a part of the state of what moves it."""
    return {_SHAPE + name: tensor for name, tensor in shape.state().items()}


def _motion_config(config: DeformableConfig) -> MotionConfig:
    return config.motion.track if isinstance(config.motion, NodesConfig) else config.motion


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _shape_from_state(state: Mapping[str, Tensor], config: DeformableConfig) -> Gaussians | TexturedMesh:
    match config.shape:
        case GaussiansConfig() as shape:
            return Gaussians.from_state(state, shape)
        case TexturedMeshConfig() as shape:
            return TexturedMesh.from_state(state, shape)
        case _:
            assert_never(config.shape)


def _steady(rig: Rig) -> Rig:
    """The rig with each quaternion's sign as near as may be to that of the instant before."""
    quats = [rig.quats_wxyz[0]]
    for following in rig.quats_wxyz[1:]:
        quats.append(aligned(following, quats[-1]))
    return replace(rig, quats_wxyz=torch.stack(quats))


def _seen(shape: Splats | Mesh) -> Float[Tensor, "n 3"]:
    """The points that nodes are spread over: without splats so faint that they only float around the rest."""
    return shape.means[shape.seen()] if isinstance(shape, Splats) else shape.vertices


def _points(shape: Splats | Mesh) -> Float[Tensor, "n 3"]:
    return shape.means if isinstance(shape, Splats) else shape.vertices
