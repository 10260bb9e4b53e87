"""As-rigid-as-possible deformation of a planar mesh by handles: Igarashi et al., "As-Rigid-As-Possible Shape
Manipulation" (2005), with everything that does not depend on where the handles go computed once.

Both of its steps are linear least squares whose matrices depend on the mesh at rest alone. The first lets
every edge's surroundings turn and grow; what they turned by, (a, b), is linear in the handles. The second
keeps the turns, forgets the growth, and is linear in the turned edges and the handles. So a deformation is
three products with dense matrices and one normalisation, differentiable in the handles.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from studio.errors import StudioError

HANDLE_WEIGHT = 1000.0
"""Of a handle's place, beside 1 of an edge's: handles are hit to within a millionth of how far they go."""
_STILL = 1e-12


@dataclass(frozen=True)
class Arap:
    """A mesh at rest, ready to be deformed.

    Attributes:
        edges: vectors along the ``e`` edges at rest.
        turns: from the ``k`` handles' places to 2x2 rotations with growth, as pairs (a, b), of the edges.
        turns_at_rest: what is added to the pairs: (1, 0) where a part of the mesh has one handle only and
            goes with it without turning, else 0.
        by_edges, by_handles: from the turned edges and the handles' places to the vertices.
    """

    edges: Float[Tensor, "e 2"]
    turns: Float[Tensor, "e 2 k 2"]
    turns_at_rest: Float[Tensor, "e 2"]
    by_edges: Float[Tensor, "v e"]
    by_handles: Float[Tensor, "v k"]

    def __call__(self, handles: Float[Tensor, "t k 2"]) -> Float[Tensor, "t v 2"]:
        """The vertices for handles at ``t`` instants, in the units of the mesh."""
        a, b = (torch.einsum("eckd,tkd->tec", self.turns, handles) + self.turns_at_rest).unbind(-1)
        length = (a * a + b * b + _STILL).sqrt()
        a, b = a / length, b / length
        x, y = self.edges.unbind(-1)
        turned = torch.stack([a * x + b * y, a * y - b * x], dim=-1)
        return self.by_edges @ turned + self.by_handles @ handles

    def to(self, like: Tensor) -> Arap:
        """The same with the device and the precision of a tensor."""
        return Arap(*(getattr(self, field.name).to(like) for field in fields(self)))


def arap(vertices: Float[Tensor, "v 2"], faces: Int[Tensor, "f 3"], handles: Int[Tensor, "k"]) -> Arap:
    """Prepares a mesh: seconds for a thousand vertices. Computed and returned in double precision.

    Args:
        vertices: at rest, in units of which an edge has about ten.
        faces: indices of vertices.
        handles: indices of the vertices that are led; every connected part of the mesh needs one.

    Raises:
        StudioError: a part of the mesh has no handle, or a vertex no face; two handles are one vertex; a face
            has no area.
    """
    points = vertices.detach().double().cpu().numpy()
    triangles, led = faces.cpu().numpy().astype(np.int64), handles.cpu().numpy().astype(np.int64)
    part = _parts(points, triangles, led)
    corners = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    pairs, edge_of = np.unique(corners, axis=0, return_inverse=True)
    opposite = triangles[:, [2, 0, 1]].reshape(-1)
    edges = points[pairs[:, 1]] - points[pairs[:, 0]]

    pseudo_inverses = _turns_of_vertices(points, pairs, edge_of.reshape(-1), opposite)
    alone = np.isin(part, np.flatnonzero(np.bincount(part[led], minlength=part.max() + 1) == 1))
    first = _first_step(len(points), pairs, edges, pseudo_inverses, led, alone)
    turns = np.einsum("ecvd,vdkf->eckf", pseudo_inverses, first)
    fixed = alone[pairs[:, 0]]
    turns[fixed] = 0.0
    by_edges, by_handles = _second_step(len(points), pairs, led)
    at_rest = np.stack([fixed, np.zeros_like(fixed)], axis=1).astype(np.float64)
    return Arap(*(torch.from_numpy(x) for x in (edges, turns, at_rest, by_edges, by_handles)))


def _parts(
    points: NDArray[np.float64], triangles: NDArray[np.int64], led: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The connected part that each vertex belongs to, once all is found to be well."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(points)
    if len(np.unique(led)) < len(led):
        raise StudioError("Two handles are the same vertex; expected different ones.")
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    areas = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    if not (areas > 0).all():
        raise StudioError(f"Face {int(np.argmin(areas))} of the mesh has no area; leave such faces out.")
    if len(np.unique(triangles)) < count:
        raise StudioError("Some vertices of the mesh belong to no face; leave them out.")
    ones = np.ones(2 * len(triangles))
    starts, ends = triangles[:, [0, 1]].reshape(-1), triangles[:, [1, 2]].reshape(-1)
    parts, part = connected_components(
        coo_array((ones, (starts, ends)), shape=(count, count)), directed=False
    )
    if missing := set(range(parts)) - set(part[led].tolist()):
        raise StudioError(
            f"{len(missing)} of the {parts} parts of the mesh have no handle; expected one in each at least."
        )
    numbers: NDArray[np.int64] = part.astype(np.int64)
    return numbers


def _turns_of_vertices(
    points: NDArray[np.float64],
    pairs: NDArray[np.int64],
    edge_of: NDArray[np.int64],
    opposite: NDArray[np.int64],
) -> NDArray[np.float64]:
    """For each edge, the map from all vertices' places to the (a, b) that fits its surroundings best."""
    around = [list(pair) for pair in pairs]
    for edge, vertex in zip(edge_of, opposite, strict=True):
        around[edge].append(vertex)
    maps = np.zeros((len(pairs), 2, len(points), 2))
    for edge, vertices in enumerate(around):
        x, y = points[vertices].T
        one, zero = np.ones_like(x), np.zeros_like(x)
        rows = np.stack([np.stack([x, y, one, zero], -1), np.stack([y, -x, zero, one], -1)], axis=1)
        # [vertices, (x, y)] -> (a, b); the translation is not needed.
        inverse = np.linalg.pinv(rows.reshape(-1, 4))[:2].reshape(2, len(vertices), 2)
        maps[edge][:, vertices] = inverse
    return maps


def _first_step(
    count: int,
    pairs: NDArray[np.int64],
    edges: NDArray[np.float64],
    turns: NDArray[np.float64],
    led: NDArray[np.int64],
    alone: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Vertices that let their surroundings turn and grow, as a linear map of the handles [v 2 k 2]."""
    x, y = edges.T
    turned = np.stack([np.stack([x, y], -1), np.stack([y, -x], -1)], axis=1)  # (a, b) -> the edge
    residuals = -np.einsum("eic,ecvd->eivd", turned, turns)
    index = np.arange(len(pairs))
    for axis in range(2):
        residuals[index, axis, pairs[:, 1], axis] += 1
        residuals[index, axis, pairs[:, 0], axis] -= 1
    system = residuals.reshape(-1, 2 * count)
    normal = system.T @ system
    wanted = np.zeros((2 * count, 2 * len(led)))
    for axis in range(2):
        normal[2 * led + axis, 2 * led + axis] += HANDLE_WEIGHT**2
        wanted[2 * led + axis, 2 * np.arange(len(led)) + axis] = HANDLE_WEIGHT**2
    # Parts with one handle may turn as they like in this step: anything makes them unique; it is not used.
    loose = np.repeat(alone, 2)
    normal[loose, loose] += 1.0
    return np.linalg.solve(normal, wanted).reshape(count, 2, len(led), 2)


def _second_step(
    count: int, pairs: NDArray[np.int64], led: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vertices whose edges are as they are told, as linear maps of the edges [v e] and handles [v k]."""
    difference = np.zeros((len(pairs), count))
    index = np.arange(len(pairs))
    difference[index, pairs[:, 1]], difference[index, pairs[:, 0]] = 1.0, -1.0
    normal = difference.T @ difference
    normal[led, led] += HANDLE_WEIGHT**2
    held = np.zeros((count, len(led)))
    held[led, np.arange(len(led))] = HANDLE_WEIGHT**2
    return np.linalg.solve(normal, difference.T), np.linalg.solve(normal, held)
