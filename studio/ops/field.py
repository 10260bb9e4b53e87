"""A radiance field: what there is at a point, from a hash grid and a small perceptron behind it.

Müller et al., Instant Neural Graphics Primitives with a Multiresolution Hash Encoding, 2022
(arXiv:2201.05989), without view dependence. Points are those of the unit cube around the field's ball; the
cube's middle is the world's origin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from studio.ops.hash_grid import HashGrid, hash_grid
from studio.ops.marching import OccupancyGrid
from studio.ops.mlp import mlp

OUTPUTS = 4
"""Of the perceptron: the logarithm of the density, and the colour before the sigmoid."""
_MAX_LOG_DENSITY = 12.0  # far beyond opaque
_LEAST_SLOPE = 1e-4  # of the logarithm of the density; flatter places have hardly a normal


@dataclass(frozen=True)
class Field:
    """A radiance field ready to sample.

    The density is that of a Gaussian blob around the origin times what has been learned: a beginning that
    cameras see something of (DreamFusion, arXiv:2209.14988, appendix A.2, has such a blob in the logarithm).

    Attributes:
        grid, table: the encoding.
        weights, biases: of the perceptron behind it, with ``OUTPUTS`` outputs.
        occupancy: where in the cube there may be matter.
        radius: of the ball that holds everything, half the cube's side, in world units.
        blob_density: of the blob's middle, in 1 / world units.
        blob_radius: of the blob, its standard deviation in world units.
    """

    grid: HashGrid
    table: Float[Tensor, "entries features"]
    weights: tuple[Float[Tensor, "_ _"], ...]
    biases: tuple[Float[Tensor, "_"], ...]
    occupancy: OccupancyGrid
    radius: float
    blob_density: float
    blob_radius: float

    def sampled(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Densities, in 1 / world units, and colours, 0-1, at points of the cube."""
        log_densities, colors = self.read(self._outputs(points), points)
        return log_densities.exp(), colors

    def sampled_with_normals(
        self, points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Also the unit normals, down the density's slope. They have gradients wherever those are on."""
        is_followed = torch.is_grad_enabled()
        with torch.enable_grad():
            moving = points.detach().requires_grad_()
            log_densities, colors = self.read(self._outputs(moving), moving)
            (slopes,) = torch.autograd.grad(log_densities.sum(), moving, create_graph=is_followed)
        results = (log_densities.exp(), colors, -normalize(slopes, dim=-1, eps=_LEAST_SLOPE))
        return results if is_followed else (results[0].detach(), results[1].detach(), results[2])

    def read(
        self, outputs: Float[Tensor, "n outputs"], points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """What the perceptron's outputs at points of the cube mean: logarithms of densities, and colours."""
        distance = (2 * self.radius / self.blob_radius) * (points - 0.5)
        blob = math.log(self.blob_density) - distance.square().sum(-1) / 2
        return (outputs[:, 0] + blob).clamp(max=_MAX_LOG_DENSITY), outputs[:, 1:].sigmoid()

    def _outputs(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n outputs"]:
        return mlp(hash_grid(points, self.table, self.grid), self.weights, self.biases)
