"""A surface of any shape as an optimiser sees it: signed distances, offsets and colours on a grid's points.

The surface is cut out anew whenever a distance changes its sign (``studio.scenes.isosurface``); its vertices
move, and have gradients, with every step. Distances are those that are stored, blurred over neighbours: what
pulls on a vertex then also moves the points ahead of it, and the surface travels many cells in few steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.interfaces import ParameterGroup
from studio.recipes.config import SurfaceConfig
from studio.scenes.isosurface import Crossings, TetrahedralGrid, between, crossings
from studio.types import Mesh

_FARTHEST_OFFSET = 0.25
"""Of a grid point, in spacings: less than half the way to the nearest other point, 0.43."""


@dataclass(frozen=True)
class SurfaceTensors:
    """The optimised numbers of a grid's ``n`` points, in the order of ``TetrahedralGrid.points``.

    Attributes:
        distances: to the surface, in world units, before they are blurred; negative inside.
        offsets: of the points, before the tanh that bounds them.
        color_logits: colours before the sigmoid.
    """

    distances: Float[Tensor, "n"]
    offsets: Float[Tensor, "n 3"]
    color_logits: Float[Tensor, "n 3"]

    def named(self) -> dict[str, Tensor]:
        """The tensors by name, in a fixed order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Surface:
    """The scene: implements ``Scene[Mesh]``.

    Args:
        tensors: where it starts; they are copied.
        config: the grid and learning rates.

    Raises:
        StudioError: the tensors are of another grid.
    """

    def __init__(self, tensors: SurfaceTensors, config: SurfaceConfig) -> None:
        self.config = config
        self.grid = TetrahedralGrid(config.resolution, config.side)
        if len(tensors.distances) != self.grid.count:
            raise StudioError(
                f"The surface has {len(tensors.distances)} distances and a grid of resolution "
                f"{config.resolution} has {self.grid.count} points; keep scene.resolution as it was."
            )
        self.tensors = SurfaceTensors(
            **{name: torch.nn.Parameter(tensor.detach().clone()) for name, tensor in tensors.named().items()}
        )
        self._points = self.grid.points().to(tensors.distances)
        self._cut: tuple[Tensor, Crossings] | None = None

    def __len__(self) -> int:
        """Triangles."""
        return len(self.crossings().faces)

    def crossings(self) -> Crossings:
        """How the surface cuts the grid now; kept until a sign changes.

        Raises:
            StudioError: there is no surface.
        """
        return self._crossings(self.distances().detach())

    def _crossings(self, distances: Float[Tensor, "n"]) -> Crossings:
        inside = distances < 0
        if self._cut is None or not torch.equal(inside, self._cut[0]):
            self._cut = inside, crossings(self.grid, distances)
        return self._cut[1]

    def distances(self) -> Float[Tensor, "n"]:
        """Signed distances at the grid's points, in world units: means over cubes of 3 x 3 x 3, twice."""
        sides = (self.grid.resolution + 1, self.grid.resolution)
        parts = torch.split(self.tensors.distances, [side**3 for side in sides])
        blurred = []
        for part, side in zip(parts, sides, strict=True):
            cube = part.reshape(1, 1, side, side, side)
            for _ in range(2):
                cube = F.avg_pool3d(cube, 3, stride=1, padding=1, count_include_pad=False)
            blurred.append(cube.flatten())
        return torch.cat(blurred)

    def at(self, time: Float[Tensor, ""] | None = None) -> Mesh:
        """The surface with a colour at each vertex; it does not move with time.

        Raises:
            StudioError: there is no surface.
        """
        tensors, distances = self.tensors, self.distances()
        cut = self._crossings(distances.detach())
        places = self._points + _FARTHEST_OFFSET * self.grid.spacing * tensors.offsets.tanh()
        return Mesh(
            vertices=between(places, distances, cut),
            faces=cut.faces,
            vertex_colors=between(tensors.color_logits, distances, cut).sigmoid(),
        )

    def sign_entropy(self) -> Float[Tensor, ""]:
        """Mean cross entropy of each cut edge's ends with the other end's side, in nats.

        Munkberg et al., "Extracting Triangular 3D Models, Materials, and Lighting From Images" (2022), eq. 2.
        Distances count in spacings.
        """
        distances = self.distances()
        edges = self._crossings(distances.detach()).edges
        # index_select, as its backward adds up in a fixed order.
        inner, outer = distances.index_select(0, edges.flatten()).reshape(-1, 2).unbind(1)
        # cross entropy of sigmoid(d) with 1 where the other end is outside: softplus(-d), else softplus(d)
        return (F.softplus(-inner / self.grid.spacing) + F.softplus(outer / self.grid.spacing)).mean()

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """One group a tensor, in the order of ``SurfaceTensors``."""
        rates = (self.config.distances_rate, self.config.offsets_rate, self.config.colors_rate)
        return tuple(
            ParameterGroup(name, tensor, rate)
            for (name, tensor), rate in zip(self.tensors.named().items(), rates, strict=True)
            if isinstance(tensor, torch.nn.Parameter)
        )

    def state(self) -> dict[str, Tensor]:
        """The tensors by name, detached: all that ``from_state`` needs."""
        return {name: tensor.detach() for name, tensor in self.tensors.named().items()}

    @staticmethod
    def from_state(state: Mapping[str, Tensor], config: SurfaceConfig) -> Surface:
        """The scene that ``state`` was taken of.

        Raises:
            StudioError: tensors are missing, or of another grid.
        """
        names = [field.name for field in fields(SurfaceTensors)]
        missing = [name for name in names if name not in state]
        if missing:
            raise StudioError(
                f"The saved surface lacks {', '.join(missing)}; it is damaged or of another kind."
            )
        return Surface(SurfaceTensors(**{name: state[name] for name in names}), config)

    @staticmethod
    def ball(config: SurfaceConfig) -> Surface:
        """A grey ball around the origin."""
        points = TetrahedralGrid(config.resolution, config.side).points()
        return Surface.of_distances(points.norm(dim=1) - config.radius, config)

    @staticmethod
    def of_distances(distances: Float[Tensor, "n"], config: SurfaceConfig) -> Surface:
        """A grey surface of given signed distances at the grid's points."""
        zeros = distances.new_zeros(len(distances), 3)
        return Surface(SurfaceTensors(distances, zeros, zeros), config)
