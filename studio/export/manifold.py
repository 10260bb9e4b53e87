"""Takes a surface apart where it touches itself, so that edges have two faces and vertices one fan.

Printers and sculpting tools ask for it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.types import Mesh

# How far, towards the middle of its own fan, a vertex moves off the place it shared.
_PULL = 0.01


def manifold(mesh: Mesh) -> Mesh:
    """A closed, oriented mesh with its touching parts a hair apart; edge collapse makes parts touch.

    Where more than two faces meet at an edge, those that enclose the same wedge of the solid stay together.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Corner 3 f + k of face f stands at its vertex k. Two corners at a vertex are the same new vertex if a
    # chain of faces, each joined to the next by an edge, leads from one to the other.
    corners = torch.arange(mesh.faces.numel()).reshape(-1, 3)
    forward, backward = _joined_halves(mesh)
    following = corners.roll(-1, dims=1).flatten()
    # The edge u -> v of one face is v -> u of the other: starts meet ends.
    joins = torch.cat(
        [torch.stack([forward, following[backward]]), torch.stack([following[forward], backward])], dim=1
    )
    graph = coo_array((torch.ones(joins.shape[1]).numpy(), joins.numpy()), shape=(corners.numel(),) * 2)
    count, labels = connected_components(graph, directed=False)
    faces = torch.from_numpy(labels).long().reshape(-1, 3)

    old = torch.empty(count, dtype=torch.long).scatter_(0, faces.flatten(), mesh.faces.flatten())
    vertices = mesh.vertices[old]
    shared = torch.bincount(old, minlength=len(mesh.vertices))[old] > 1
    centres = mesh.vertices[mesh.faces].mean(dim=1).repeat_interleave(3, dim=0)
    fans = torch.zeros_like(vertices).index_add_(0, faces.flatten(), centres)
    fans = fans / torch.bincount(faces.flatten(), minlength=count)[:, None]
    mesh = Mesh(torch.where(shared[:, None], vertices.lerp(fans, _PULL), vertices), faces)
    while (better := forked(mesh)) is not None:
        mesh = better
    return mesh


def forked(mesh: Mesh) -> Mesh | None:
    """The mesh without one edge that a fan passes twice, or None if there is no such edge.

    The two faces that meet at one of its passages are cut at its middle, which moves a hair into them. Where
    they lie back to back there is nothing between them, and both go.
    """
    forward, backward = _joined_halves(mesh)
    starts, ends = mesh.faces.flatten()[forward], mesh.faces.roll(-1, dims=1).flatten()[forward]
    keys = starts * len(mesh.vertices) + ends
    _, group, sizes = torch.unique(keys, return_inverse=True, return_counts=True)
    crowded = torch.nonzero(sizes[group] > 1)[:, 0]
    if not len(crowded):
        return None
    halves = torch.stack([forward[crowded[0]], backward[crowded[0]]])
    cut, corner = halves // 3, halves % 3
    u, v, w = (mesh.faces[cut, (corner + k) % 3] for k in range(3))
    kept = torch.ones(len(mesh.faces), dtype=torch.bool)
    kept[cut] = False
    if w[0] == w[1]:
        return Mesh(mesh.vertices, mesh.faces[kept])
    middle = (mesh.vertices[u[0]] + mesh.vertices[v[0]]) / 2
    middle = middle.lerp(mesh.vertices[w].mean(dim=0), _PULL)
    new = torch.full_like(u, len(mesh.vertices))
    faces = torch.cat([mesh.faces[kept], torch.stack([u, new, w], 1), torch.stack([new, v, w], 1)])
    return Mesh(torch.cat([mesh.vertices, middle[None]]), faces)


def is_closed(mesh: Mesh) -> bool:
    """Whether each edge is passed as often in one direction as in the other, and no face is a mere line."""
    starts, ends = mesh.faces.flatten(), mesh.faces.roll(-1, dims=1).flatten()
    forth, back = starts * len(mesh.vertices) + ends, ends * len(mesh.vertices) + starts
    return not bool((starts == ends).any()) and torch.equal(forth.sort().values, back.sort().values)


def _joined_halves(mesh: Mesh) -> tuple[Int[Tensor, "e"], Int[Tensor, "e"]]:
    """Pairs of half-edges, u -> v and v -> u, that belong together; 3 f + k starts at corner k of face f."""
    from scipy.optimize import linear_sum_assignment

    starts, ends = mesh.faces.flatten(), mesh.faces.roll(-1, dims=1).flatten()
    opposite = mesh.faces.roll(-2, dims=1).flatten()
    upwards = starts < ends
    keys = torch.where(upwards, starts, ends) * len(mesh.vertices) + torch.where(upwards, ends, starts)
    forward, backward = torch.nonzero(upwards)[:, 0], torch.nonzero(~upwards)[:, 0]
    forward, backward = forward[keys[forward].argsort()], backward[keys[backward].argsort()]
    if not torch.equal(keys[forward], keys[backward]):
        raise ValueError("the mesh is not closed and oriented")

    _, group, sizes = torch.unique_consecutive(keys[forward], return_inverse=True, return_counts=True)
    # Ordinary edges are paired by the sorting; the few others are sorted by their angle around the edge.
    for crowded in torch.nonzero(sizes > 1)[:, 0]:
        members = torch.nonzero(group == crowded)[:, 0]
        halves_up, halves_down = forward[members], backward[members]
        u, v = mesh.vertices[starts[halves_up[0]]], mesh.vertices[ends[halves_up[0]]]
        angles_up = _angles(mesh.vertices[opposite[halves_up]], u, v)
        angles_down = _angles(mesh.vertices[opposite[halves_down]], u, v)
        # Around u -> v the solid lies before a face that runs along it; the wedge ends at its partner.
        wedges = (angles_up[:, None] - angles_down[None, :]) % (2 * torch.pi)
        _, partners = linear_sum_assignment(wedges.numpy())
        backward[members] = halves_down[torch.from_numpy(partners)]
    return forward, backward


def _angles(points: Float[Tensor, "p 3"], u: Float[Tensor, "3"], v: Float[Tensor, "3"]) -> Float[Tensor, "p"]:
    """Angles around the axis from u to v, counter-clockwise seen against it, from an arbitrary zero."""
    axis = torch.nn.functional.normalize(v - u, dim=0)
    least = torch.nn.functional.one_hot(axis.abs().argmin(), 3).to(axis)
    x = torch.nn.functional.normalize(torch.linalg.cross(axis, least), dim=0)
    y = torch.linalg.cross(axis, x)
    return torch.atan2((points - u) @ y, (points - u) @ x)
