"""A surface of any shape as an optimiser sees it: signed distances, offsets and colours on a grid's points.

The surface is cut out anew whenever a distance changes its sign (``studio.scenes.tetrahedra``); its vertices
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
from studio.ops.neighbours import nearest
from studio.recipes.config import SurfaceConfig
from studio.scenes.flexicubes import (
    WEIGHTS_A_CUBE,
    CubeWeights,
    DualCrossings,
    crossing_values,
    deviation,
    dual_crossings,
    dual_values,
)
from studio.scenes.grid import Grid, inside_closed
from studio.scenes.initialise import surface_samples
from studio.scenes.tetrahedra import Crossings, between, crossings
from studio.types import Mesh

_FARTHEST_OFFSET = {"tetrahedra": 0.25, "flexicubes": 0.45}
"""Of a grid point, in spacings: less than half the way to the nearest other point, 0.43 and 0.5."""

_BLURS = 3
"""How often each distance becomes the mean of the 27 around it."""
_SHARPENINGS = 10
"""How often the distances that are stored are corrected until their blur is as wished (Van Cittert 1931)."""
_SAMPLES = 200_000
"""Points of a mesh that stand for it."""
COLOR_MARGIN = 1 / 512
"""Colours start at least this far from 0 and 1: half a step of eight bits, so that they can move."""


@dataclass(frozen=True)
class SurfaceTensors:
    """The optimised numbers of a grid's ``n`` points, in the order of ``Grid.points``, and ``c`` cubes.

    Attributes:
        distances: to the surface, in world units, before they are blurred; negative inside.
        offsets: of the points, before the tanh that bounds them.
        color_logits: colours before the sigmoid.
        cube_weights: of FlexiCubes, see ``CubeWeights.of``; none of tetrahedra.
    """

    distances: Float[Tensor, "n"]
    offsets: Float[Tensor, "n 3"]
    color_logits: Float[Tensor, "n 3"]
    cube_weights: Float[Tensor, "c 21"] | None = None

    def named(self) -> dict[str, Tensor]:
        """The tensors by name, in a fixed order."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in every.items() if tensor is not None}


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
        self.grid = grid_of(config)
        if len(tensors.distances) != self.grid.count:
            raise StudioError(
                f"The surface has {len(tensors.distances)} distances and a grid of resolution "
                f"{config.resolution} has {self.grid.count} points; keep scene.resolution as it was."
            )
        self.tensors = SurfaceTensors(
            **{name: torch.nn.Parameter(tensor.detach().clone()) for name, tensor in tensors.named().items()}
        )
        self._points = self.grid.points().to(tensors.distances)
        self._cut: tuple[Tensor, Crossings | DualCrossings] | None = None

    def __len__(self) -> int:
        """Triangles."""
        return len(self.crossings().faces)

    def crossings(self) -> Crossings | DualCrossings:
        """How the surface cuts the grid now; kept until a sign changes.

        Raises:
            StudioError: there is no surface.
        """
        return self._crossings(self.distances().detach())

    def _crossings(self, distances: Float[Tensor, "n"]) -> Crossings | DualCrossings:
        inside = distances < 0
        if self._cut is None or not torch.equal(inside, self._cut[0]):
            find = crossings if self.grid.body_centred else dual_crossings
            self._cut = inside, find(self.grid, distances)
        return self._cut[1]

    def distances(self) -> Float[Tensor, "n"]:
        """Signed distances at the grid's points, in world units: those that are stored, blurred."""
        return torch.cat([self._blurred(cube).flatten() for cube in self.grid.cubes(self.tensors.distances)])

    def _blurred(self, cube: Float[Tensor, "m m m"]) -> Float[Tensor, "m m m"]:
        """Each value the mean of those around, a few times; on the border, outside."""
        for _ in range(_BLURS):
            cube = F.avg_pool3d(cube[None], 3, stride=1, padding=1, count_include_pad=False)[0]
        within = F.pad(torch.ones_like(cube[1:-1, 1:-1, 1:-1], dtype=torch.bool), (1,) * 6)
        return torch.where(within, cube, cube.clamp_min(self.grid.spacing))

    def at(self, time: Float[Tensor, ""] | None = None) -> Mesh:
        """The surface with a colour at each vertex; it does not move with time.

        Raises:
            StudioError: there is no surface.
        """
        distances = self.distances()
        cut = self._crossings(distances.detach())
        values = torch.cat([self._places(), self.tensors.color_logits], dim=1)
        match cut:
            case Crossings():
                found = between(values, distances, cut)
            case DualCrossings():
                weights = self._cube_weights(cut)
                found = dual_values(crossing_values(values, distances, weights, cut), weights, cut)
        return Mesh(vertices=found[:, :3], faces=cut.faces, vertex_colors=found[:, 3:].sigmoid())

    def _places(self) -> Float[Tensor, "n 3"]:
        farthest = _FARTHEST_OFFSET[self.config.extraction] * self.grid.spacing
        return self._points + farthest * self.tensors.offsets.tanh()

    def _cube_weights(self, cut: DualCrossings) -> CubeWeights:
        assert self.tensors.cube_weights is not None
        return CubeWeights.of(self.tensors.cube_weights.index_select(0, cut.cubes))

    def deviation(self) -> Float[Tensor, ""]:
        """How unequal the vertices' distances to their crossings are, in spacings, see ``deviation``."""
        distances = self.distances()
        cut = self._crossings(distances.detach())
        assert isinstance(cut, DualCrossings)
        weights = self._cube_weights(cut)
        crossed = crossing_values(self._places(), distances, weights, cut)
        return deviation(crossed, dual_values(crossed, weights, cut), cut) / self.grid.spacing

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
        config = self.config
        rates = (config.distances_rate, config.offsets_rate, config.colors_rate, config.weights_rate)
        return tuple(
            ParameterGroup(name, tensor, rate)
            for (name, tensor), rate in zip(self.tensors.named().items(), rates, strict=False)
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
        if config.extraction == "tetrahedra":
            names.remove("cube_weights")
        missing = [name for name in names if name not in state]
        if missing:
            raise StudioError(
                f"The saved surface lacks {', '.join(missing)}; it is damaged or of another kind."
            )
        return Surface(SurfaceTensors(**{name: state[name] for name in names}), config)

    @staticmethod
    def ball(config: SurfaceConfig) -> Surface:
        """A grey ball around the origin."""
        distances = grid_of(config).points().norm(dim=1) - config.radius
        return Surface.of_distances(distances, torch.zeros(len(distances), 3), config)

    @staticmethod
    def of_distances(
        distances: Float[Tensor, "n"], color_logits: Float[Tensor, "n 3"], config: SurfaceConfig
    ) -> Surface:
        """A surface of given signed distances and colours at the grid's points."""
        weights = None
        if config.extraction == "flexicubes":
            weights = distances.new_zeros(config.resolution**3, WEIGHTS_A_CUBE)
        tensors = SurfaceTensors(distances, torch.zeros_like(color_logits), color_logits, weights)
        scene = Surface(tensors, config)
        with torch.no_grad():
            for _ in range(_SHARPENINGS):
                scene.tensors.distances.add_(distances - scene.distances())
        return scene

    @staticmethod
    def of_mesh(mesh: Mesh, config: SurfaceConfig, rng: torch.Generator) -> Surface:
        """A closed mesh's shape, with its colours.

        Args:
            mesh: on the CPU, wound outwards.
            config: the grid, which holds the mesh.
            rng: draws the points that stand for the mesh; on the CPU.

        Raises:
            StudioError: the mesh has no area, or lies between the grid's points.
        """
        grid = grid_of(config)
        samples, colors = surface_samples(mesh, _SAMPLES, rng)
        sample, distances = nearest(grid.points(), samples, 1)
        is_inside = torch.cat([inside_closed(mesh, line).flatten() for line in grid.lines()])
        signed = distances[:, 0] * torch.where(is_inside, -1.0, 1.0)
        color_logits = torch.logit(colors[sample[:, 0]], COLOR_MARGIN)
        return Surface.of_distances(signed, color_logits, config)


def grid_of(config: SurfaceConfig) -> Grid:
    """The grid that a recipe describes."""
    return Grid(config.resolution, config.side, body_centred=config.extraction == "tetrahedra")
