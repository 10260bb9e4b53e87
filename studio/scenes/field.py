"""A radiance field as an optimiser sees it: the table of a hash grid and the layers behind it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool3d

from studio.errors import StudioError
from studio.interfaces import ParameterGroup
from studio.ops.field import OUTPUTS, Field
from studio.ops.hash_grid import HashGrid
from studio.ops.marching import OccupancyGrid, cell_points
from studio.recipes.config import FieldConfig

_EMPTY_DENSITY = 0.5
"""In 1 / world units: matter this thin hides less than half of what is behind it, all through the ball."""
_OCCUPANCY_DECAY = 0.7
"""Of what is remembered of a cell, at each look: its points are drawn anew each time."""
_FIRST_FEATURES = 1e-4


class RadianceField:
    """The scene: implements ``Scene[Field]`` and ``TendedScene``.

    Args:
        state: where it starts, as ``state`` returns it; tensors are copied.
        config: sizes and learning rates.

    Raises:
        StudioError: tensors are missing, or not of the recipe's sizes.
    """

    def __init__(self, state: Mapping[str, Tensor], config: FieldConfig) -> None:
        self.config = config
        self._grid = hash_grid_of(config)
        sizes = _sizes(config)
        if missing := [name for name in sizes if name not in state]:
            raise StudioError(
                f"The saved scene lacks {', '.join(missing)}; it is damaged or of another kind."
            )
        for name, size in sizes.items():
            if tuple(state[name].shape) != size:
                raise StudioError(
                    f"The scene's {name} is {list(state[name].shape)}, expected {list(size)} for a field of "
                    "these sizes; the sizes of stages that follow one another must be the same."
                )
        layers = range(config.layers + 1)

        def parameter(name: str) -> torch.nn.Parameter:
            return torch.nn.Parameter(state[name].detach().clone())

        self.table = parameter("table")
        self.weights = tuple(parameter(f"weight_{layer}") for layer in layers)
        self.biases = tuple(parameter(f"bias_{layer}") for layer in layers)
        self.occupancy = OccupancyGrid(state["occupancy_densities"].clone(), state["occupied"].clone())

    @staticmethod
    def initial(config: FieldConfig, rng: torch.Generator) -> RadianceField:
        """The blob, grey all over; its hidden layers are drawn at random (He et al. 2015)."""

        def uniform(bound: float, *size: int) -> Tensor:
            return bound * (2 * torch.rand(*size, generator=rng) - 1)

        sizes = _sizes(config)
        state = {"table": uniform(_FIRST_FEATURES, *sizes["table"])}
        for layer in range(config.layers + 1):
            weight, bias = f"weight_{layer}", f"bias_{layer}"
            state[weight] = uniform(math.sqrt(6 / sizes[weight][1]), *sizes[weight])
            state[bias] = torch.zeros(sizes[bias])
        full = OccupancyGrid.full(config.occupancy_resolution)
        scene = RadianceField(
            state | {"occupancy_densities": full.densities, "occupied": full.occupied}, config
        )
        scene._look_around(torch.full((*full.densities.shape, 3), 0.5))
        return scene

    @staticmethod
    def from_state(state: Mapping[str, Tensor], config: FieldConfig) -> RadianceField:
        """The scene that ``state`` was taken of.

        Raises:
            StudioError: tensors are missing, or not of the recipe's sizes.
        """
        return RadianceField(state, config)

    def __len__(self) -> int:
        """Entries of the table."""
        return len(self.table)

    def at(self, time: Float[Tensor, ""] | None = None) -> Field:
        """The field; it does not change with time."""
        config = self.config
        return Field(
            grid=self._grid,
            table=self.table,
            weights=self.weights,
            biases=self.biases,
            occupancy=self.occupancy,
            radius=config.radius,
            blob_density=config.blob_density,
            blob_radius=config.blob_radius,
        )

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The table, then each layer's weights and biases."""
        layers = itertools.chain.from_iterable(
            ((f"weight_{i}", weight), (f"bias_{i}", bias))
            for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True))
        )
        return (
            ParameterGroup("table", self.table, self.config.table_rate),
            *(ParameterGroup(name, parameter, self.config.layers_rate) for name, parameter in layers),
        )

    def state(self) -> dict[str, Tensor]:
        """The parameters and the occupancy by name, detached: all that ``from_state`` needs."""
        parameters = {group.name: group.parameter.detach() for group in self.parameter_groups()}
        occupancy = {
            "occupancy_densities": self.occupancy.densities,
            "occupied": self.occupancy.occupied,
        }
        return parameters | occupancy

    def upkeep(self, step: int, rng: torch.Generator) -> None:
        """Every few steps, look again where there is matter: at a point drawn in each cell."""
        if step % self.config.occupancy_every == 0:
            shape = (*self.occupancy.densities.shape, 3)
            self._look_around(torch.rand(shape, generator=rng, device=rng.device))

    @torch.no_grad()
    def _look_around(self, jitter: Float[Tensor, "x x x 3"]) -> None:
        points = cell_points(jitter).to(self.table)
        densities, _ = self.at(None).sampled(points)
        seen = self.occupancy.updated(
            densities.reshape(self.occupancy.densities.shape),
            decay=_OCCUPANCY_DECAY,
            threshold=_EMPTY_DENSITY,
        )
        # The cells around too: matter grows into its neighbourhood, where it must be seen to be told.
        around = max_pool3d(seen.occupied[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
        inside = _ball(len(around), around.device)
        self.occupancy = OccupancyGrid(seen.densities, around & inside)


def hash_grid_of(config: FieldConfig) -> HashGrid:
    """The encoding that a recipe describes.

    Raises:
        StudioError: a number out of range.
    """
    return HashGrid(
        levels=config.levels,
        features=config.features,
        log2_table_size=config.log2_table_size,
        base_resolution=config.base_resolution,
        finest_resolution=config.finest_resolution,
    )


def _sizes(config: FieldConfig) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a scene's state."""
    grid, cells = hash_grid_of(config), config.occupancy_resolution
    widths = [grid.width, *[config.width] * config.layers, OUTPUTS]
    sizes: dict[str, tuple[int, ...]] = {"table": (grid.entries, grid.features)}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        sizes |= {f"weight_{layer}": (outputs, inputs), f"bias_{layer}": (outputs,)}
    return sizes | {"occupancy_densities": (cells,) * 3, "occupied": (cells,) * 3}


def _ball(cells: int, device: torch.device) -> Bool[Tensor, "x x x"]:
    """The cells whose middle lies in the ball that the cube holds."""
    middles = torch.full((cells, cells, cells, 3), 0.5, device=device)
    distance: Tensor = (cell_points(middles) - 0.5).norm(dim=-1)
    return (distance <= 0.5).reshape(cells, cells, cells)
