"""Linear blend skinning: a few nodes in motion carry the points of a shape along.

Sumner et al., Embedded Deformation for Shape Manipulation, 2007, sec. 3; with nodes for splats: Huang et al.,
SC-GS, 2024 (arXiv:2312.14937), sec. 4.1. ``studio.types.Rig`` has the formula.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.ops.neighbours import nearest
from studio.ops.rotations import aligned, quat_product, quats_to_rotations
from studio.types import Rig, Splats


def skin_weights(
    points: Float[Tensor, "n 3"], nodes: Float[Tensor, "m 3"], count: int
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The nodes that carry each point, the ``count`` nearest, and how much each of them counts.

    Weights are ``exp(-d² / 2 r²)``, made to sum to 1. r is as far as the nodes are from each other: the root
    mean square distance to the nearest.
    """
    carriers, distances = nearest(points, nodes, count)
    _, gaps = nearest(nodes, nodes, 2)
    spacing = gaps[:, -1].square().mean().clamp_min(torch.finfo(points.dtype).tiny)
    return carriers, (-distances.square() / (2 * spacing)).softmax(1)


def carried(
    points: Float[Tensor, "n 3"], rig: Rig, instant: int
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"]]:
    """Where a rig has carried the points at one of its instants, and the unit rotations (wxyz) they took on.

    Differentiable in the points, the weights and the nodes' motion.
    """
    quats, nodes = rig.quats_wxyz[instant], rig.nodes
    rotations = quats_to_rotations(quats)
    # R (x - node) + node + translation = R x + offset, so that what is blended does not depend on the point.
    offsets = nodes + rig.translations[instant] - (rotations @ nodes[:, :, None]).squeeze(2)
    rows = torch.cat([rotations.flatten(1), offsets, quats], dim=1)
    # index_select, as its backward adds up in a fixed order.
    each = rows.index_select(0, rig.carriers.flatten()).reshape(*rig.carriers.shape, 16)
    blended = (rig.weights[..., None] * each[..., :12]).sum(1)
    moved = (blended[:, :9].reshape(-1, 3, 3) @ points[:, :, None]).squeeze(2) + blended[:, 9:]
    heaviest = rig.weights.argmax(1)[:, None, None].expand(-1, 1, 4)
    turns = aligned(each[..., 12:], each[..., 12:].gather(1, heaviest).expand(-1, each.shape[1], -1))
    return moved, torch.nn.functional.normalize((rig.weights[..., None] * turns).sum(1), dim=1)


def carried_splats(rest: Splats, rig: Rig, instant: int) -> Splats:
    """Splats as ``carried`` leaves them: elsewhere and turned, their scales and colours as they were."""
    means, turns = carried(rest.means, rig, instant)
    return replace(rest, means=means, quats_wxyz=quat_product(turns, rest.quats_wxyz))
