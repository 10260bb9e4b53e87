"""A textured mesh that moves as the scene does that it was made from."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from studio.export.shapes import Moving
from studio.meshes import smooth_normals
from studio.ops.neighbours import nearest
from studio.ops.rotations import quat_product
from studio.ops.skinning import carried
from studio.types import Animation, Mesh, Rig, Splats

_CARRIERS = 4
_NEIGHBOURS = 8


def redressed(mesh: Mesh, animation: Moving) -> Animation[Mesh]:
    """The same shapes with the texture coordinates and materials of ``mesh``, smoothly shaded, on the CPU.

    Args:
        mesh: the animation's shape at rest, dressed anew.
        animation: of meshes.
    """
    places = [_points(frame) for frame in animation.frames]
    return _through(places, mesh, animation, None if animation.rig is None else _on_cpu(animation.rig))


def moving(mesh: Mesh, animation: Moving) -> Animation[Mesh]:
    """A mesh of an animation's shape at rest, carried by the animation's rig or by the points around it.

    Args:
        mesh: lies along the shape at rest, on the CPU.
        animation: on any device.
    """
    if animation.rig is None:
        rig, carrier = None, _carried_by_points(mesh.vertices, animation)
    else:
        rig = carrier = _on_vertices(mesh.vertices, animation.rest, _on_cpu(animation.rig))
    places = [carried(mesh.vertices, carrier, instant)[0] for instant in range(len(animation.frames))]
    return _through(places, mesh, animation, rig)


def _through(
    places: list[Float[Tensor, "v 3"]], mesh: Mesh, animation: Moving, rig: Rig | None
) -> Animation[Mesh]:
    """The mesh with its vertices at these places at the animation's instants."""
    frames = tuple(
        replace(mesh, vertices=vertices, vertex_normals=smooth_normals(vertices, mesh.faces))
        for vertices in places
    )
    return Animation(mesh, frames, animation.times.cpu(), animation.seconds, animation.loops, rig)


def _on_vertices(vertices: Float[Tensor, "v 3"], shape: Mesh | Splats, rig: Rig) -> Rig:
    """The rig of a shape's points as the rig of vertices among them.

    A vertex is carried as the points around it are on average; of their carriers the heaviest stay.
    """
    neighbours, shares = _around(vertices, shape)
    weights = shares[..., None] * rig.weights[neighbours]
    dense = torch.zeros(len(vertices), len(rig.nodes))
    dense.scatter_add_(1, rig.carriers[neighbours].flatten(1), weights.flatten(1))
    heaviest = dense.topk(min(_CARRIERS, len(rig.nodes)), dim=1)
    kept = heaviest.values / heaviest.values.sum(1, keepdim=True)
    return replace(rig, carriers=heaviest.indices, weights=kept)


def _carried_by_points(vertices: Float[Tensor, "v 3"], animation: Moving) -> Rig:
    """Every point of the shape as a node that carries the vertices around it."""
    points = _points(animation.rest)
    neighbours, shares = _around(vertices, animation.rest)
    shifts = torch.stack([_points(frame) - points for frame in animation.frames])
    turns = torch.stack([_turns(animation.rest, frame) for frame in animation.frames])
    return Rig(points, neighbours, shares, turns, shifts)


def _turns(rest: Mesh | Splats, frame: Mesh | Splats) -> Float[Tensor, "n 4"]:
    """How each splat has turned, wxyz; vertices say nothing of that."""
    if not isinstance(rest, Splats) or not isinstance(frame, Splats):
        return torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(_points(rest)), 4)
    back = rest.quats_wxyz * rest.quats_wxyz.new_tensor([1.0, -1.0, -1.0, -1.0])
    return F.normalize(quat_product(frame.quats_wxyz, back), dim=-1).detach().cpu()


def _around(
    vertices: Float[Tensor, "v 3"], shape: Mesh | Splats
) -> tuple[Int[Tensor, "v k"], Float[Tensor, "v k"]]:
    """The points nearest to each vertex, and shares that sum to 1 and fall with the squared distance.

    Splats that are hardly seen count for nothing: they float around the shape and go where they will.
    """
    points = _points(shape)
    solid = shape.seen().cpu() if isinstance(shape, Splats) else torch.arange(len(points))
    places, distances = nearest(vertices, points[solid], _NEIGHBOURS)
    neighbours = solid[places]
    squared = distances.square()
    shares = 1 / (squared + squared.mean() + 1e-12)
    return neighbours, shares / shares.sum(1, keepdim=True)


def _points(shape: Mesh | Splats) -> Float[Tensor, "n 3"]:
    points = shape.vertices if isinstance(shape, Mesh) else shape.means
    return points.detach().cpu()


def _on_cpu(rig: Rig) -> Rig:
    return Rig(*(value.detach().cpu() for value in vars(rig).values()))
