"""Gaussian splatting in plain torch: slow, differentiable by autograd in any precision, the kernels' oracle.

Projection follows EWA splatting (Zwicker et al. 2001) as 3D Gaussian splatting uses it (Kerbl et al. 2023),
the opacity compensation follows Mip-Splatting (Yu et al. 2024, eq. 9). gsplat's constants are kept, so that a
scene looks the same in both.

With ``M = J R(q) S``, the two rows of the projected Gaussian's square root, the covariance on the screen is
``M M^T`` and its determinant is ``|M_0 x M_1|^2``: a sum of squares, which no rounding can make negative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.ops.rotations import quats_to_rotations

NEAR = 0.01
LOW_PASS_PX2 = 0.3
MAX_ALPHA = 0.999
MIN_ALPHA = 1.0 / 255.0
MIN_TRANSMITTANCE = 1e-4
FRUSTUM_MARGIN = 0.15
TILE = 16


class ProjectedSplats(NamedTuple):
    """Gaussians as one camera sees them, in no particular order."""

    means2d: Float[Tensor, "n 2"]
    conics: Float[Tensor, "n 3"]  # xx, xy, yy of the inverse covariance, 1/px²
    opacities: Float[Tensor, "n"]  # after compensation
    colors: Float[Tensor, "n 3"]
    depths: Float[Tensor, "n"]
    normals: Float[Tensor, "n 3"]
    half_extents: Float[Tensor, "n 2"]  # of the box outside which alpha < 1/255, px


def splat_reference(
    means: Float[Tensor, "n 3"],
    quats_wxyz: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, "n"],
    sh: Float[Tensor, "n k 3"],
    world_to_camera: Float[Tensor, "b 4 4"],
    intrinsics: Float[Tensor, "b 3 3"],
    background: Float[Tensor, "b 3"],
    width: int,
    height: int,
    means2d_probe: Float[Tensor, "b n 2"],
    antialias: bool,
) -> tuple[
    Float[Tensor, "b 3 h w"],
    Float[Tensor, "b 1 h w"],
    Float[Tensor, "b 1 h w"],
    Float[Tensor, "b 3 h w"],
    Float[Tensor, "b n"],
]:
    """Images (rgb, alpha, depth, normal) and screen radii; see ``studio.ops.splatting.splat``."""
    sound = _rows_are_finite(means, quats_wxyz, scales, opacities, sh)
    pictures, radii = [], []
    for view in range(world_to_camera.shape[0]):
        camera = (world_to_camera[view], intrinsics[view], width, height)
        with torch.no_grad():
            everything = project(
                means, quats_wxyz, scales, opacities, sh, means2d_probe[view], *camera, antialias
            )
            visible = sound & _is_visible(everything, width, height)
            radii.append(torch.where(visible, everything.half_extents.amax(-1), 0.0))
            drawn = visible.nonzero().squeeze(-1)
            drawn = drawn[everything.depths[drawn].argsort(stable=True)]
        # Projected again, so that autograd never meets a splat that is not drawn.
        projected = project(
            means[drawn],
            quats_wxyz[drawn],
            scales[drawn],
            opacities[drawn],
            sh[drawn],
            means2d_probe[view, drawn],
            *camera,
            antialias,
        )
        pictures.append(_blend(projected, background[view], width, height))
    rgb, alpha, depth, normal = torch.split(torch.stack(pictures), [3, 1, 1, 3], dim=1)
    return rgb, alpha, depth, normal, torch.stack(radii)


def project(
    means: Float[Tensor, "n 3"],
    quats_wxyz: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, "n"],
    sh: Float[Tensor, "n k 3"],
    means2d_probe: Float[Tensor, "n 2"],
    world_to_camera: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    width: int,
    height: int,
    antialias: bool,
) -> ProjectedSplats:
    """Gaussians on the screen of one camera. What is not drawn may come out non-finite."""
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    x, y, z = (means @ rotation.T + translation).unbind(-1)
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1) + means2d_probe

    # Far outside the picture the affine fit means nothing: the Jacobian is held at a margin around it.
    margin_x, margin_y = FRUSTUM_MARGIN * width / fx, FRUSTUM_MARGIN * height / fy
    slope_x = torch.minimum(torch.maximum(x / z, -cx / fx - margin_x), (width - cx) / fx + margin_x)
    slope_y = torch.minimum(torch.maximum(y / z, -cy / fy - margin_y), (height - cy) / fy + margin_y)
    axes = quats_to_rotations(quats_wxyz)
    root_camera = rotation @ (axes * scales[:, None, :])  # [n 3 3]: R(q) S in the camera's axes
    root_x = (fx / z)[:, None] * (root_camera[:, 0] - slope_x[:, None] * root_camera[:, 2])
    root_y = (fy / z)[:, None] * (root_camera[:, 1] - slope_y[:, None] * root_camera[:, 2])

    xx, xy, yy = (root_x * root_x).sum(-1), (root_x * root_y).sum(-1), (root_y * root_y).sum(-1)
    det_sharp = torch.linalg.cross(root_x, root_y).square().sum(-1)
    det = det_sharp + LOW_PASS_PX2 * (xx + yy) + LOW_PASS_PX2**2
    conics = torch.stack([yy + LOW_PASS_PX2, -xy, xx + LOW_PASS_PX2], -1) / det[:, None]
    if antialias:
        opacities = opacities * (det_sharp / det).sqrt()

    # alpha = 1/255 at Mahalanobis distance sqrt(2 ln(255 opacity)); the ellipse's box has these half sides.
    reach = (2.0 * (opacities / MIN_ALPHA).log()).clamp_min(0.0).sqrt()
    half_extents = reach[:, None] * (torch.stack([xx, yy], -1) + LOW_PASS_PX2).sqrt()

    camera_position = -rotation.T @ translation
    to_splat = means - camera_position
    colors = evaluate_sh(sh, torch.nn.functional.normalize(to_splat, dim=-1, eps=1e-20))
    shortest = scales.argmin(-1)[:, None, None].expand(-1, 3, 1)
    normals = axes.gather(2, shortest).squeeze(-1)
    facing = torch.where((normals * to_splat).sum(-1, keepdim=True) > 0, -1.0, 1.0).to(normals.dtype)
    return ProjectedSplats(means2d, conics, opacities, colors, z, normals * facing, half_extents)


def evaluate_sh(sh: Float[Tensor, "n k 3"], directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """``max(0, 0.5 + sum(Y_k sh_k))`` in unit ``directions``; the real basis in 3DGS's order and signs."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    basis = [
        torch.full_like(x, 0.28209479177387814),
        *(-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x),
        *(1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * zz - xx - yy)),
        *(-1.0925484305920792 * x * z, 0.5462742152960396 * (xx - yy)),
        *(-0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z),
        *(-0.4570457994644658 * y * (4 * zz - xx - yy), 0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy)),
        *(-0.4570457994644658 * x * (4 * zz - xx - yy), 1.445305721320277 * z * (xx - yy)),
        -0.5900435899266435 * x * (xx - 3 * yy),
    ]
    weights = torch.stack(basis[: sh.shape[1]], -1)
    return (0.5 + (weights[:, :, None] * sh).sum(1)).clamp_min(0.0)


def _rows_are_finite(*values: Float[Tensor, "n ..."]) -> Bool[Tensor, "n"]:
    return torch.cat([value[:, None].flatten(1).isfinite() for value in values], -1).all(-1)


def _is_visible(projected: ProjectedSplats, width: int, height: int) -> Bool[Tensor, "n"]:
    """Finite, in front of the near plane, opaque enough, with a box that holds the centre of some pixel."""
    finite = _rows_are_finite(*projected)
    low = (projected.means2d - projected.half_extents - 0.5).ceil().clamp_min(0.0)
    size = torch.tensor([width, height], dtype=low.dtype, device=low.device)
    high = torch.minimum((projected.means2d + projected.half_extents - 0.5).floor(), size - 1.0)
    opaque = projected.opacities >= MIN_ALPHA
    return finite & (projected.depths > NEAR) & opaque & (low <= high).all(-1)


def _blend(
    splats: ProjectedSplats, background: Float[Tensor, "3"], width: int, height: int
) -> Float[Tensor, "8 h w"]:
    """Composites depth-sorted splats to rgb, alpha, depth and normal, tile by tile to bound the memory."""
    features = torch.cat([splats.colors, splats.depths[:, None], splats.normals], -1)
    low = (splats.means2d - splats.half_extents).detach()
    high = (splats.means2d + splats.half_extents).detach()
    rows = []
    for top in range(0, height, TILE):
        row = []
        for left in range(0, width, TILE):
            right, bottom = min(left + TILE, width), min(top + TILE, height)
            touches = (
                (high[:, 0] >= left) & (low[:, 0] <= right) & (high[:, 1] >= top) & (low[:, 1] <= bottom)
            )
            inside = touches.nonzero().squeeze(-1)
            ys = torch.arange(top, bottom, dtype=low.dtype, device=low.device) + 0.5
            xs = torch.arange(left, right, dtype=low.dtype, device=low.device) + 0.5
            pixels = torch.cartesian_prod(ys, xs).flip(-1)  # [p 2] as x, y
            dx, dy = (pixels[:, None] - splats.means2d[inside]).unbind(-1)
            xx, xy, yy = splats.conics[inside].unbind(-1)
            power = -0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy
            alpha = (splats.opacities[inside] * power.exp()).clamp_max(MAX_ALPHA)
            alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0.0)
            behind = (1.0 - alpha).cumprod(-1)
            # The splat that would take the light below the floor is itself not drawn.
            alpha = torch.where(behind > MIN_TRANSMITTANCE, alpha, 0.0)
            behind = torch.cat([alpha.new_ones(len(alpha), 1), (1.0 - alpha).cumprod(-1)], -1)
            light = behind[:, -1:]
            rgb, depth, normal = torch.split((alpha * behind[:, :-1]) @ features[inside], [3, 1, 3], -1)
            picture = torch.cat([rgb + light * background, 1.0 - light, depth, normal], -1)
            row.append(picture.T.reshape(-1, bottom - top, right - left))
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)
