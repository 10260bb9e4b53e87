"""Pictures for ControlNets: coloured points, such as a face's landmarks, as each camera sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from studio.scenes.initialise import read_point_cloud
from studio.types import Cameras, Condition, Conditioning
from studio.view_prompts import from_front_deg

SIZE = 512
"""Width and height of the pictures in pixels; a ControlNet resizes them to its own."""


@dataclass(frozen=True)
class Landmarks:
    """Points in the world, drawn as discs over black; nearer ones hide others, the asset hides none.

    Attributes:
        points: in the scene's own coordinates.
        colors: rgb in 0-1.
        radius: of a disc, as a share of the picture's width.
        within_deg: views turned further from the front than this are shown nothing, as in HeadSculpt.
    """

    points: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    radius: float
    within_deg: float

    def __call__(self, cameras: Cameras) -> Float[Tensor, "b 3 s s"]:
        """One picture for each camera."""
        views = cameras.resized(SIZE, SIZE)
        shown = from_front_deg(views.azimuth_deg) <= self.within_deg
        rotations, offsets = views.world_to_camera[:, :3, :3], views.world_to_camera[:, :3, 3]
        points, colors = self.points.to(rotations), self.colors.to(rotations)
        pictures = [
            self._drawn(points @ rotation.T + offset, colors, matrix)
            if visible
            else rotation.new_zeros(3, SIZE, SIZE)
            for rotation, offset, matrix, visible in zip(
                rotations, offsets, views.intrinsics, shown.tolist(), strict=True
            )
        ]
        return torch.stack(pictures)

    def _drawn(
        self, points: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], intrinsics: Float[Tensor, "3 3"]
    ) -> Float[Tensor, "3 s s"]:
        order = points[:, 2].argsort()
        order = order[points[order, 2] > 0]
        projected = points[order] @ intrinsics.T
        pixels = projected[:, :2] / projected[:, 2:]
        reach = max(self.radius * SIZE, 0.5)
        steps = torch.arange(-int(reach + 1), int(reach + 2), device=points.device)
        disc = torch.cartesian_prod(steps, steps)
        # A pixel belongs to a disc if its centre does.
        cells = pixels[:, None].floor().long() + disc
        inside = (cells + 0.5 - pixels[:, None]).norm(dim=-1) <= reach
        inside &= ((cells >= 0) & (cells < SIZE)).all(dim=-1)
        places = cells[..., 1] * SIZE + cells[..., 0]
        nearest = torch.arange(len(order), device=points.device)[:, None].expand_as(places)
        owner = torch.full((SIZE * SIZE,), len(order), device=points.device)
        owner.scatter_reduce_(0, places[inside], nearest[inside], "amin")
        palette = torch.cat([colors[order], colors.new_zeros(1, 3)])
        return palette[owner].T.reshape(3, SIZE, SIZE)


def load_landmarks(path: Path, radius: float, within_deg: float) -> Landmarks:
    """Points and colours of a PLY file.

    Raises:
        StudioError: it is not there, or not readable.
    """
    points, colors = read_point_cloud(path)
    return Landmarks(points, colors, radius, within_deg)


def with_control(branches: Conditioning, control: Float[Tensor, "b 3 s s"]) -> Conditioning:
    """Every branch shown the same pictures: a ControlNet also answers for the unconditional one."""

    def shown(condition: Condition) -> Condition:
        return replace(condition, control=control)

    repulsion = branches.repulsion
    return replace(
        branches,
        positive=shown(branches.positive),
        null=shown(branches.null),
        negatives=tuple(shown(negative) for negative in branches.negatives),
        repulsion=None
        if repulsion is None
        else replace(repulsion, conditions=tuple(shown(wrong) for wrong in repulsion.conditions)),
        plain=None if branches.plain is None else shown(branches.plain),
    )
