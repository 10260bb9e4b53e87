"""A cloud of 3D Gaussians as an optimiser sees it.

Stored are numbers that may take any value; ``at`` turns them into splats: scales through ``exp``, opacities
through the sigmoid, rotations as they are (the renderer normalises quaternions). Surfels are Gaussians of two
scales: the third is 0, and the third axis is their normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.interfaces import ParameterGroup
from studio.ops.rotations import quat_product
from studio.recipes.config import GaussiansConfig
from studio.types import Splats

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic, 1 / (2 sqrt(pi))."""


@dataclass(frozen=True)
class GaussianTensors:
    """The optimised numbers of ``n`` Gaussians. Row i of each tensor is splat i.

    Attributes:
        means: centres in the world.
        log_scales: natural logarithms of the standard deviations: three of ellipsoids, two of surfels.
        quats_wxyz: rotations of any length.
        opacity_logits: opacities before the sigmoid.
        sh_dc: the first spherical-harmonic colour coefficient; see ``Splats.sh``.
        sh_rest: the others, k - 1 of them.
    """

    means: Float[Tensor, "n 3"]
    log_scales: Float[Tensor, "n s"]
    quats_wxyz: Float[Tensor, "n 4"]
    opacity_logits: Float[Tensor, "n"]
    sh_dc: Float[Tensor, "n 1 3"]
    sh_rest: Float[Tensor, "n r 3"]

    def named(self) -> dict[str, Tensor]:
        """The tensors by name, in a fixed order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def rows(self, index: Tensor) -> GaussianTensors:
        """The splats at an index or a mask, as new tensors."""
        return GaussianTensors(**{name: tensor.detach()[index] for name, tensor in self.named().items()})

    def __len__(self) -> int:
        return self.means.shape[0]


class Gaussians:
    """The scene: implements ``Scene[Splats]``.

    Args:
        tensors: where it starts; they are copied.
        config: learning rates.
    """

    def __init__(self, tensors: GaussianTensors, config: GaussiansConfig) -> None:
        self.config = config
        self.tensors = _as_parameters(tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def opacities(self) -> Float[Tensor, "n"]:
        """Opacities in 0-1."""
        return self.tensors.opacity_logits.sigmoid()

    @property
    def scales(self) -> Float[Tensor, "n 3"]:
        """Standard deviations in world units; the third of surfels is 0."""
        scales = self.tensors.log_scales.exp()
        return torch.nn.functional.pad(scales, (0, 3 - scales.shape[1]))

    def at(self, time: Float[Tensor, ""] | None = None) -> Splats:
        """The splats; they do not move with time."""
        tensors = self.tensors
        return Splats(
            means=tensors.means,
            quats_wxyz=tensors.quats_wxyz,
            scales=self.scales,
            opacities=self.opacities,
            sh=torch.cat([tensors.sh_dc, tensors.sh_rest], dim=1)
            if tensors.sh_rest.numel()
            else tensors.sh_dc,
        )

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """One group a tensor, in the order of ``GaussianTensors``."""
        config = self.config
        rates = {
            "means": config.means_rate,
            "log_scales": config.scales_rate,
            "quats_wxyz": config.quats_rate,
            "opacity_logits": config.opacities_rate,
            "sh_dc": config.colors_rate,
            "sh_rest": config.colors_rate / 20,
        }
        return tuple(
            ParameterGroup(name, tensor, rates[name])
            for name, tensor in self.tensors.named().items()
            if isinstance(tensor, torch.nn.Parameter)
        )

    def set_tensors(self, tensors: GaussianTensors) -> None:
        """Take other splats in the place of the present ones."""
        self.tensors = _as_parameters(tensors)

    def match_shape(self) -> None:
        """Flatten ellipsoids along their shortest axes, or give surfels a thickness, as the recipe asks."""
        if self.config.shape == "surfels":
            self.set_tensors(as_surfels(self.tensors))
        else:
            self.set_tensors(as_ellipsoids(self.tensors))

    def match_sh_degree(self) -> None:
        """Cut or extend (by zeros) the spherical harmonics to the degree that the recipe asks for."""
        wanted = rest_coefficients(self.config.sh_degree)
        rest = self.tensors.sh_rest.detach()[:, :wanted]
        missing = rest.new_zeros(len(rest), wanted - rest.shape[1], 3)
        self.set_tensors(replace(self.tensors, sh_rest=torch.cat([rest, missing], dim=1)))

    def state(self) -> dict[str, Tensor]:
        """The tensors by name, detached: all that ``from_state`` needs."""
        return {name: tensor.detach() for name, tensor in self.tensors.named().items()}

    @staticmethod
    def from_state(state: Mapping[str, Tensor], config: GaussiansConfig) -> Gaussians:
        """The scene that ``state`` was taken of.

        Raises:
            StudioError: tensors are missing or their lengths differ.
        """
        names = [field.name for field in fields(GaussianTensors)]
        missing = [name for name in names if name not in state]
        if missing:
            raise StudioError(
                f"The saved scene lacks {', '.join(missing)}; it is damaged or of another kind."
            )
        lengths = {len(state[name]) for name in names}
        if len(lengths) != 1:
            raise StudioError(f"The saved scene's tensors have different lengths {sorted(lengths)}.")
        return Gaussians(GaussianTensors(**{name: state[name] for name in names}), config)


def _as_parameters(tensors: GaussianTensors) -> GaussianTensors:
    copies = {name: torch.nn.Parameter(tensor.detach().clone()) for name, tensor in tensors.named().items()}
    return GaussianTensors(**copies)


def as_surfels(tensors: GaussianTensors) -> GaussianTensors:
    """Ellipsoids without their shortest axis; the axes turn cyclically, so that it is the third."""
    log_scales = tensors.log_scales.detach()
    if log_scales.shape[1] == 2:
        return tensors
    shortest = log_scales.argmin(1)
    order = (shortest[:, None] + torch.tensor([1, 2], device=shortest.device)) % 3
    # By 120 degrees about (1, 1, 1), there, back, or not at all.
    turns = tensors.quats_wxyz.new_tensor(
        [[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, -0.5, -0.5], [1.0, 0.0, 0.0, 0.0]]
    )
    quats_wxyz = quat_product(tensors.quats_wxyz.detach(), turns[shortest])
    return replace(tensors, log_scales=log_scales.gather(1, order), quats_wxyz=quats_wxyz)


def as_ellipsoids(tensors: GaussianTensors) -> GaussianTensors:
    """Surfels a tenth as thick as they are wide in their narrower direction."""
    log_scales = tensors.log_scales.detach()
    if log_scales.shape[1] == 3:
        return tensors
    thickness = log_scales.amin(1, keepdim=True) - math.log(10.0)
    return replace(tensors, log_scales=torch.cat([log_scales, thickness], 1))


def rest_coefficients(sh_degree: int) -> int:
    """How many spherical-harmonic coefficients follow the first."""
    return (sh_degree + 1) ** 2 - 1


def color_to_sh(rgb: Float[Tensor, "n 3"]) -> Float[Tensor, "n 1 3"]:
    """The coefficient that shows ``rgb`` from all sides."""
    return ((rgb - 0.5) / SH_C0)[:, None]
