"""Rotations as quaternions, wxyz."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def quats_to_rotations(quats_wxyz: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 3 3"]:
    """Rotation matrices of quaternions of any length but zero."""
    w, x, y, z = (quats_wxyz / quats_wxyz.square().sum(-1, keepdim=True).sqrt()).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).reshape(*quats_wxyz.shape[:-1], 3, 3)


def quat_product(second: Float[Tensor, "*n 4"], first: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """The rotation ``first``, then ``second``: Hamilton's product."""
    a, b, c, d = second.unbind(-1)
    w, x, y, z = first.unbind(-1)
    parts = [
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    ]
    return torch.stack(parts, -1)


def aligned(quats_wxyz: Float[Tensor, "*n 4"], to: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """The same rotations, each with the sign that is nearer to ``to``: so that sums of them make sense."""
    return torch.where((quats_wxyz * to).sum(-1, keepdim=True) < 0, -quats_wxyz, quats_wxyz)
