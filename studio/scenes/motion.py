"""What moves points: tables of keyframes, perceptrons, planes. All begin at rest, exactly.

Times are 0-1. Each motion says of points at rest how they have turned, and how far they have gone, at some
instants.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.interfaces import ParameterGroup
from studio.ops.mlp import mlp
from studio.ops.planes import PlaneGrid, sample_planes
from studio.ops.rotations import aligned
from studio.recipes.config import HexPlaneConfig, KeyframesConfig, PerceptronConfig

MotionConfig = KeyframesConfig | PerceptronConfig | HexPlaneConfig

_OUTPUTS = 7
"""Of a perceptron: what is added to the quaternion of no rotation, and the translation."""
_ASSET_RADIUS = 0.5
_REACH = 0.6
"""Half the side of the cube that planes span: points at rest are in the asset's ball, or hardly beyond."""


@dataclass(frozen=True)
class Poses:
    """How ``n`` points have moved at ``t`` instants.

    Attributes:
        quats_wxyz: unit rotations about each point itself.
        translations: of the points, in the world.
    """

    quats_wxyz: Float[Tensor, "t n 4"]
    translations: Float[Tensor, "t n 3"]


@runtime_checkable
class Motion(Protocol):
    """What moves points, with parameters of its own."""

    def poses(self, points: Float[Tensor, "n 3"], times: Float[Tensor, "t"]) -> Poses:
        """The poses of points, given at rest, at instants in 0-1."""

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The tensors to optimise; together they are the motion's state."""


def initial_motion(config: MotionConfig, nodes: int, rng: torch.Generator) -> dict[str, Tensor]:
    """The state of a motion that has not begun: of ``nodes`` nodes, where each has numbers of its own."""
    sizes = _sizes(config, nodes)
    state = {name: torch.zeros(size) for name, size in sizes.items()}
    match config:
        case KeyframesConfig():
            state["quats_wxyz"][..., 0] = 1.0
        case PerceptronConfig() | HexPlaneConfig():
            layers = sum(name.startswith("weight_") for name in sizes)
            for layer in range(layers - 1):  # He et al. 2015; the last layer stays zero.
                size = sizes[f"weight_{layer}"]
                state[f"weight_{layer}"] = math.sqrt(6 / size[1]) * (2 * torch.rand(size, generator=rng) - 1)
        case _:
            assert_never(config)
    if isinstance(config, HexPlaneConfig):
        # Around 1, as a sample is a product of six: in that of K-planes' uniform(0.1, 0.5) over space, and so
        # in its gradients, next to nothing is left.
        state["planes"] = torch.ones(sizes["planes"])
        (planes,) = _grid(config).views(state["planes"])
        for plane, axes in zip(planes, itertools.combinations("xyzt", 2), strict=True):
            if "t" not in axes:
                plane.copy_(0.5 + torch.rand(plane.shape, generator=rng))
    return state


def motion_from_state(state: Mapping[str, Tensor], config: MotionConfig, nodes: int) -> Motion:
    """The motion that ``state`` was taken of.

    Raises:
        StudioError: tensors are missing, or not of the recipe's sizes.
    """
    parameters = {}
    for name, size in _sizes(config, nodes).items():
        if name not in state:
            raise StudioError(f"The saved motion lacks {name}; it is damaged or of another kind.")
        if tuple(state[name].shape) != size:
            raise StudioError(
                f"The motion's {name} is {list(state[name].shape)}, expected {list(size)} for a scene.motion "
                "of these sizes; keep them as they were."
            )
        parameters[name] = torch.nn.Parameter(state[name].detach().clone())
    match config:
        case KeyframesConfig():
            return Keyframes(config, parameters)
        case PerceptronConfig():
            return PerceptronMotion(config, parameters)
        case HexPlaneConfig():
            return HexPlaneMotion(config, parameters)
        case _:
            assert_never(config)


def _sizes(config: MotionConfig, nodes: int) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a motion's state."""
    match config:
        case KeyframesConfig(count=count):
            return {"translations": (count, nodes, 3), "quats_wxyz": (count, nodes, 4)}
        case PerceptronConfig():
            inputs = 3 * (1 + 2 * config.frequencies) + 1 + 2 * config.time_frequencies
            return _layer_sizes([inputs, *[config.width] * config.layers, _OUTPUTS])
        case HexPlaneConfig():
            grid = _grid(config)
            layers = _layer_sizes([grid.width, config.width, _OUTPUTS])
            return {"planes": (grid.texels, grid.channels), **layers}
        case _:
            assert_never(config)


def _layer_sizes(widths: list[int]) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, tuple[int, ...]] = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        sizes |= {f"weight_{layer}": (outputs, inputs), f"bias_{layer}": (outputs,)}
    return sizes


def _grid(config: HexPlaneConfig) -> PlaneGrid:
    return PlaneGrid(((*[config.resolution] * 3, config.instants),), config.channels)


@dataclass(frozen=True)
class Keyframes:
    """Each node's pose at evenly spaced instants, linear in between: implements ``Motion``.

    The points are the nodes, whose places do not matter here.
    """

    config: KeyframesConfig
    parameters: Mapping[str, torch.nn.Parameter]

    def poses(self, points: Float[Tensor, "n 3"], times: Float[Tensor, "t"]) -> Poses:
        """Blends the two keyframes around each instant."""
        place = times * (self.config.count - 1)
        before = place.detach().floor().long().clamp(0, self.config.count - 2)
        share = (place - before)[:, None, None]
        # index_select, as its backward adds up in a fixed order.
        (q, next_q), (x, next_x) = (
            [self.parameters[name].index_select(0, frame) for frame in (before, before + 1)]
            for name in ("quats_wxyz", "translations")
        )
        q, next_q = normalize(q, dim=-1), normalize(next_q, dim=-1)
        turned = normalize(torch.lerp(q, aligned(next_q, q), share), dim=-1)
        return Poses(turned, torch.lerp(x, next_x, share))

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The tables of places and of rotations."""
        rates = {"translations": self.config.translations_rate, "quats_wxyz": self.config.quats_rate}
        return tuple(ParameterGroup(name, self.parameters[name], rate) for name, rate in rates.items())


@dataclass(frozen=True)
class PerceptronMotion:
    """A perceptron told place and time: implements ``Motion``.

    Yang et al., Deformable 3D Gaussians, 2024 (arXiv:2309.13101), smaller, and with a last layer that begins
    at zero.
    """

    config: PerceptronConfig
    parameters: Mapping[str, torch.nn.Parameter]

    def poses(self, points: Float[Tensor, "n 3"], times: Float[Tensor, "t"]) -> Poses:
        """Asks the perceptron of each point at each instant."""
        place = _octaves(points / _ASSET_RADIUS, self.config.frequencies)
        time = _octaves(times[:, None], self.config.time_frequencies)
        size = (len(times), len(points), -1)
        inputs = torch.cat([place.expand(size), time[:, None].expand(size)], dim=2)
        return _asked(self.parameters, inputs)

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Each layer's weights and biases."""
        return tuple(ParameterGroup(name, layer, self.config.rate) for name, layer in self.parameters.items())


@dataclass(frozen=True)
class HexPlaneMotion:
    """Planes over space and time with a perceptron behind them: implements ``Motion``.

    Wu et al., 4D Gaussian Splatting, 2024 (arXiv:2310.08528), at one scale.
    """

    config: HexPlaneConfig
    parameters: Mapping[str, torch.nn.Parameter]

    def poses(self, points: Float[Tensor, "n 3"], times: Float[Tensor, "t"]) -> Poses:
        """Samples the planes at each point and instant: time 0 is their first texel, time 1 the last."""
        size = (len(times), len(points), -1)
        place = (points / (2 * _REACH) + 0.5).expand(size)
        samples = torch.cat([place, times[:, None, None].expand(*size[:2], 1)], dim=2)
        features = sample_planes(samples.flatten(0, 1), self.parameters["planes"], _grid(self.config))
        return _asked(self.parameters, features.reshape(size))

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The planes, then each layer's weights and biases."""
        rates = {"planes": self.config.planes_rate}
        return tuple(
            ParameterGroup(name, parameter, rates.get(name, self.config.layers_rate))
            for name, parameter in self.parameters.items()
        )


def _octaves(values: Float[Tensor, "n d"], count: int) -> Float[Tensor, "n e"]:
    """The values, and sines and cosines of π, 2π, 4π ... times them (NeRF, arXiv:2003.08934, eq. 4)."""
    angles = torch.cat([math.pi * 2**octave * values for octave in range(count)], dim=1) if count else None
    return values if angles is None else torch.cat([values, angles.sin(), angles.cos()], dim=1)


def _asked(layers: Mapping[str, Tensor], inputs: Float[Tensor, "t n i"]) -> Poses:
    """What a perceptron makes of its inputs."""
    weights = [tensor for name, tensor in layers.items() if name.startswith("weight_")]
    biases = [tensor for name, tensor in layers.items() if name.startswith("bias_")]
    outputs = mlp(inputs.flatten(0, 1), weights, biases).reshape(*inputs.shape[:2], _OUTPUTS)
    quats = outputs[..., :4] + outputs.new_tensor([1.0, 0.0, 0.0, 0.0])
    return Poses(normalize(quats, dim=-1), outputs[..., 4:])
