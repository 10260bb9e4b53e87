"""The points at which a surface's signed distances are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.errors import StudioError
from studio.types import Mesh


@dataclass(frozen=True)
class Grid:
    """Cubes that fill a cube around the origin.

    Its points are the (n + 1)^3 corners of n^3 cubes, z fastest; of a body-centred grid, their n^3 centres
    follow.

    Attributes:
        resolution: n, cubes along a side.
        side: of the whole grid, in world units.
        body_centred: whether the cubes' centres are points too.
    """

    resolution: int
    side: float
    body_centred: bool = False

    def __post_init__(self) -> None:
        if self.resolution < 2 or not self.side > 0:
            raise StudioError(
                f"The surface's grid has {self.resolution} cubes along a side of {self.side}, expected at "
                "least 2 and a positive length."
            )

    @property
    def spacing(self) -> float:
        """Side of a small cube."""
        return self.side / self.resolution

    @property
    def lattices(self) -> tuple[int, ...]:
        """Points along a side of the corners and, of a body-centred grid, of the centres."""
        return (self.resolution + 1, self.resolution)[: 1 + self.body_centred]

    @property
    def count(self) -> int:
        """Points of the grid."""
        return sum(side**3 for side in self.lattices)

    def lines(self) -> list[Float[Tensor, "_m"]]:
        """Coordinates along each axis of the corners and, of a body-centred grid, of the centres."""
        return [self.spacing / 2 * (2 * torch.arange(side) - (side - 1)) for side in self.lattices]

    def points(self) -> Float[Tensor, "n 3"]:
        """Where the points are."""
        return torch.cat([torch.cartesian_prod(line, line, line) for line in self.lines()])

    def cubes(self, values: Float[Tensor, "n"]) -> list[Float[Tensor, "_m _m _m"]]:
        """Values of the corners and, of a body-centred grid, of the centres, each as a cube."""
        parts = torch.split(values, [side**3 for side in self.lattices])
        return [part.reshape(side, side, side) for part, side in zip(parts, self.lattices, strict=True)]


def empty_surface(is_inside: bool) -> StudioError:
    """What to say of distances whose signs cut nothing."""
    where = "inside" if is_inside else "outside"
    return StudioError(
        f"The isosurface is empty: the grid's points are {where}, but for single ones at most, expected "
        "some on either side. Try a lower learning rate for the distances, or a finer grid."
    )


def inside_closed(mesh: Mesh, line: Float[Tensor, "m"]) -> Bool[Tensor, "m m m"]:
    """Which points of a cube are inside a closed mesh: those that it winds around.

    Each column of points along z counts the faces below it: those that face down open the solid, those that
    face up close it.

    Args:
        mesh: wound outwards; its vertices on the CPU.
        line: the points' coordinates along each axis, ascending.
    """
    # Columns a hair off the points, in double: they meet no edge.
    hair = 1e-4 * float(line[1] - line[0])
    x_line, y_line, z_line = line.double() + hair, line.double() + 0.7 * hair, line.double()
    corners = mesh.vertices.double()[mesh.faces.long()]
    lowest, highest = corners.amin(1).T.contiguous(), corners.amax(1).T.contiguous()
    first_x, last_x = torch.searchsorted(x_line, lowest[0]), torch.searchsorted(x_line, highest[0])
    first_y, last_y = torch.searchsorted(y_line, lowest[1]), torch.searchsorted(y_line, highest[1])
    wide, deep = last_x - first_x, last_y - first_y

    face = torch.arange(len(corners)).repeat_interleave(wide * deep)
    before = (wide * deep).cumsum(0) - wide * deep
    rest = torch.arange(len(face)) - before[face]
    column = torch.stack([first_x[face] + rest // deep[face], first_y[face] + rest % deep[face]], dim=1)
    place = torch.stack([x_line[column[:, 0]], y_line[column[:, 1]]], dim=1)

    towards = corners[face][..., :2] - place[:, None]
    following = towards.roll(-1, dims=1)
    areas = towards[..., 0] * following[..., 1] - towards[..., 1] * following[..., 0]
    hit = (areas > 0).all(1) | (areas < 0).all(1)
    face, column, areas = face[hit], column[hit], areas[hit].roll(-1, dims=1)
    height = (areas * corners[face][..., 2]).sum(1) / areas.sum(1)

    count = len(line)
    windings = torch.zeros(count, count, count + 1, dtype=torch.long)
    windings.index_put_(
        (column[:, 0], column[:, 1], torch.searchsorted(z_line, height)),
        -areas.sum(1).sign().long(),
        accumulate=True,
    )
    return windings.cumsum(2)[..., :count] > 0
