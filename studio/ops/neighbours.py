"""Which points of a cloud lie near a place, and which of them stand for all."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.errors import StudioError


def farthest_points(points: Float[Tensor, "n 3"], count: int) -> Int[Tensor, "m"]:
    """Indices of points spread evenly over a cloud: each next one is the farthest from those before it.

    The first is the farthest from the cloud's middle, so neither chance nor order decides.

    Raises:
        StudioError: there are fewer points, or some are not finite.
    """
    if not 1 <= count <= len(points):
        raise StudioError(f"{count} of {len(points)} points were asked for; expected 1 to {len(points)}.")
    if wrong := int((~points.isfinite().all(1)).sum()):
        raise StudioError(f"{wrong} of {len(points)} points are not finite; expected none.")
    cloud = points.detach().double()
    chosen = torch.empty(count, dtype=torch.long, device=points.device)
    distances = (cloud - cloud.mean(0)).square().sum(1)
    for place in range(count):
        chosen[place] = distances.argmax()
        from_it = (cloud - cloud[chosen[place]]).square().sum(1)
        distances = from_it if place == 0 else torch.minimum(distances, from_it)
    return chosen


def nearest(
    points: Float[Tensor, "n 3"], nodes: Float[Tensor, "m 3"], count: int
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The nodes nearest to each point, ``count`` or all of them, and their distances; the nearest first."""
    from scipy.spatial import cKDTree

    places = [tensor.detach().double().cpu().numpy() for tensor in (nodes, points)]
    near = list(range(1, min(count, len(nodes)) + 1))
    distances, indices = cKDTree(places[0]).query(places[1], k=near)
    found: Tensor = torch.from_numpy(indices).to(points.device)
    return found, torch.from_numpy(distances).to(points)
