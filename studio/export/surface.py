"""A surface around splats: the solid that no view sees through.

From one view, a point is hidden as far as the splats in front of it cover its pixel. A point belongs to the
asset if it is hidden from every view: the least of the views' hiddenness is a smooth occupancy, and one of
its levels is the surface, as in the opacity fields of Yu et al., "Gaussian Opacity Fields" (2024). That is
visual hull and depth fusion in one, and thin parts survive it.

How much of a pixel's coverage lies in front of a depth is told by moments, as in Peters and Klein, "Moment
Shadow Mapping" (2015): one picture of the splats painted with z, z^2 and z^3 gives two depths and their
weights. That is exact where a pixel shows one or two layers, such as an edge and what is behind it or a leaky
front and the back. There the usual expected depth lies between the two, and would carve thin parts away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from studio.export.splat import SH_DEGREE_0
from studio.export.views import project
from studio.interfaces import Renderer
from studio.ops.rotations import quats_to_rotations
from studio.types import Cameras, Mesh, Splats

# How far before and behind a layer the occupancy rises, in voxels and in spreads of the pictures' depths,
# whichever is more. Pictures are blurred across just as depths are along, so outlines lie outside the layers;
# within this range the choice of the level brings both together.
_SOFTNESS_VOXELS, _SOFTNESS_SPREADS = 5.0, 2.5
# How many views may see past a point that still counts as hidden: 0 follows every flaw of every view.
_OUTVOTED = 2


@dataclass(frozen=True)
class OccupancyGrid:
    """Hiddenness sampled on a regular grid.

    Attributes:
        values: 0 (seen past) to 1 (hidden from everywhere); 0 on the outermost layer.
        origin: where ``values[0, 0, 0]`` lies in the world.
        voxel: the grid's spacing.
    """

    values: Float[Tensor, "nx ny nz"]
    origin: Float[Tensor, "3"]
    voxel: float


@dataclass(frozen=True)
class DepthMoments:
    """What one view knows of depth along its rays.

    Attributes:
        coverage: alpha and the sums over the splats of weight times u, u^2 and u^3, u their depth in 0-1.
        nearest, farthest: the depths where u is 0 and 1.
    """

    coverage: Float[Tensor, "4 h w"]
    nearest: float
    farthest: float


def depth_moments(splats: Splats, renderer: Renderer[Splats], camera: Cameras) -> DepthMoments:
    """One picture of the splats painted with the first three moments of their depths; on the CPU."""
    axis, offset = camera.world_to_camera[0, 2, :3], camera.world_to_camera[0, 2, 3]
    depth = splats.means @ axis + offset
    # Each splat's own standard deviation along the view: fog begins to hide before its splats' centres.
    rotations = quats_to_rotations(splats.quats_wxyz)
    spread = ((axis @ rotations) * splats.scales).norm(dim=-1)
    nearest, farthest = depth.min().item() - 1e-3, depth.max().item() + 1e-3
    u, sigma = (depth - nearest) / (farthest - nearest), spread / (farthest - nearest)
    powers = torch.stack([u, u**2 + sigma**2, u**3 + 3 * u * sigma**2], dim=-1)
    paint = (powers - 0.5) / SH_DEGREE_0
    output = renderer(replace(splats, sh=paint[:, None]), camera, splats.means.new_zeros(1, 3))
    return DepthMoments(torch.cat([output.alpha[0], output.rgb[0]]).cpu(), nearest, farthest)


def typical_spread(views: Sequence[DepthMoments]) -> float:
    """Median over covered pixels of their depths' standard deviation, in world units; 0 if none is."""
    spreads = []
    for view in views:
        alpha, first, second, _ = view.coverage[:, view.coverage[0] > 0.5]
        variance = second / alpha - (first / alpha) ** 2
        spreads.append((view.farthest - view.nearest) * variance.clamp_min(0).sqrt())
    covered = torch.cat(spreads)
    return covered.median().item() if len(covered) else 0.0


def occupancy_grid(
    views: Sequence[DepthMoments],
    cameras: Cameras,
    lowest: Float[Tensor, "3"],
    highest: Float[Tensor, "3"],
    resolution: int,
) -> OccupancyGrid:
    """How hidden each voxel is from all views together.

    Args:
        views: what is known of depth.
        cameras: where from, one for each view.
        lowest, highest: corners of the box that holds the asset.
        resolution: the cube root of the number of voxels, about.
    """
    extent = (highest - lowest).clamp_min(1e-3)
    # Flat boxes would get voxels finer than a pixel without the second bound.
    voxel = max(float(extent.double().prod() ** (1 / 3)) / resolution, float(extent.max()) / (2 * resolution))
    softness = max(_SOFTNESS_VOXELS * voxel, _SOFTNESS_SPREADS * typical_spread(views))
    # Every other voxel first: only where those are undecided are the others worth asking.
    half_counts = [int(n) // 2 + 5 for n in (extent / voxel).ceil()]
    counts = [2 * n - 1 for n in half_counts]
    origin = (lowest + highest) / 2 - voxel * (torch.tensor(counts).float() - 1) / 2

    corners = torch.cartesian_prod(*(torch.arange(n).float() for n in half_counts))
    coarse = hidden_from_all(origin + 2 * voxel * corners, views, cameras, softness).reshape(half_counts)
    undecided = ((coarse > 0.03) & (coarse < 0.6)).float()[None, None]
    near_surface = torch.nn.functional.interpolate(
        torch.nn.functional.max_pool3d(undecided, 3, stride=1, padding=1), size=counts, mode="nearest"
    )
    values = torch.nn.functional.interpolate(
        coarse[None, None], size=counts, mode="trilinear", align_corners=True
    )
    values, chosen = values[0, 0], near_surface[0, 0] > 0
    points = origin + voxel * torch.nonzero(chosen).float()
    values[chosen] = hidden_from_all(points, views, cameras, softness)

    closed = torch.zeros_like(values)
    closed[1:-1, 1:-1, 1:-1] = values[1:-1, 1:-1, 1:-1]
    return OccupancyGrid(closed, origin, voxel)


def hidden_from_all(
    points: Float[Tensor, "p 3"], views: Sequence[DepthMoments], cameras: Cameras, softness: float
) -> Float[Tensor, "p"]:
    """How hidden each point is, 0-1, from the view that sees past it best but for the few outvoted."""
    # The smallest values so far, ascending. Points that enough views see past are not asked again.
    smallest = torch.ones(_OUTVOTED + 1, len(points))
    alive = torch.arange(len(points))
    for index in _spread_order(len(cameras)):
        hidden = hiddenness(points[alive], views[index], cameras[[index]], softness)
        for row in smallest:
            row[alive], hidden = torch.minimum(row[alive], hidden), torch.maximum(row[alive], hidden)
        alive = alive[smallest[-1, alive] > 0.01]
    return smallest[-1]


def hiddenness(
    points: Float[Tensor, "p 3"], view: DepthMoments, camera: Cameras, softness: float
) -> Float[Tensor, "p"]:
    """Coverage in front of each point; a layer counts ever more from ``softness`` before it to behind it."""
    grid, z = project(points, camera)
    moments = torch.nn.functional.grid_sample(view.coverage[None], grid, align_corners=False)[0, :, 0]
    depth_range = view.farthest - view.nearest
    near, far, near_share = two_layers(moments)
    u, ramp = (z - view.nearest) / depth_range, 2 * softness / depth_range
    before_near, before_far = (((u - layer) / ramp + 0.5).clamp(0, 1) for layer in (near, far))
    return moments[0] * (near_share * before_near + (1 - near_share) * before_far)


def two_layers(
    moments: Float[Tensor, "4 p"],
) -> tuple[Float[Tensor, "p"], Float[Tensor, "p"], Float[Tensor, "p"]]:
    """The two depths, and the nearer one's share, that have the given moments 0 to 3 (Gauss quadrature).

    Where the depths hardly differ both are the mean.
    """
    weight, first, second, third = moments
    weight = weight.clamp_min(1e-6)
    mean = first / weight
    variance = second / weight - mean**2
    skew = third / weight - 3 * mean * second / weight + 2 * mean**3
    # Below this the third moment is rounding noise.
    spread = variance > 1e-5
    safe = torch.where(spread, variance, 1.0)
    root = (skew**2 + 4 * safe**3).sqrt()
    near, far = mean + (skew - root) / (2 * safe), mean + (skew + root) / (2 * safe)
    share = (far - mean) / (far - near).clamp_min(1e-6)
    return torch.where(spread, near, mean), torch.where(spread, far, mean), torch.where(spread, share, 1.0)


def _spread_order(count: int) -> list[int]:
    """All views, neighbours far apart in time: the first few then carve most of what can be carved."""
    stride = next(s for s in range(max(1, round(count * 0.382)), 2 * count + 2) if math.gcd(s, count) == 1)
    return [i * stride % count for i in range(count)]


def isosurface(grid: OccupancyGrid, level: float) -> Mesh:
    """The closed surface where the grid crosses ``level``, wound outwards; it may have no faces."""
    import skimage.measure

    values = grid.values.numpy()
    if not values.min() < level < values.max():
        return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    # "ascent": the object is where the values are high.
    vertices, faces, _, _ = skimage.measure.marching_cubes(values, level, gradient_direction="ascent")
    positions = grid.origin + grid.voxel * torch.from_numpy(np.ascontiguousarray(vertices)).float()
    return Mesh(positions, torch.from_numpy(np.ascontiguousarray(faces)).long())


def without_debris(mesh: Mesh, smallest_extent: float) -> Mesh:
    """The mesh without cavities and components whose bounding box has a diagonal below ``smallest_extent``.

    A cavity is a closed component turned inside out: a hollow that no view looks into.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    faces, count = mesh.faces.numpy(), len(mesh.vertices)
    edges = (np.ones(2 * len(faces), dtype=np.int8), (faces[:, [0, 0]].ravel(), faces[:, 1:].ravel()))
    components, labels = connected_components(coo_array(edges, shape=(count, count)), directed=False)
    label_of_vertex = torch.from_numpy(labels).long()
    label_of_face = label_of_vertex[mesh.faces[:, 0]]

    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    six_volumes = torch.zeros(components, dtype=torch.double)
    six_volumes.index_add_(0, label_of_face, (a * torch.linalg.cross(b, c)).sum(-1))
    index = label_of_vertex[:, None].expand(-1, 3)
    lowest = torch.zeros(components, 3).scatter_reduce_(0, index, mesh.vertices, "amin", include_self=False)
    highest = torch.zeros(components, 3).scatter_reduce_(0, index, mesh.vertices, "amax", include_self=False)
    kept = (six_volumes > 0) & ((highest - lowest).norm(dim=-1) >= smallest_extent)
    used, renumbered = torch.unique(mesh.faces[kept[label_of_face]], return_inverse=True)
    return Mesh(mesh.vertices[used], renumbered)


def smoothed(mesh: Mesh, iterations: int) -> Mesh:
    """The mesh without the grid's staircase, and hardly smaller.

    Taubin, "A signal processing approach to fair surface design" (1995): each Laplacian step inwards is
    followed by one outwards.
    """
    from scipy.sparse import coo_array, diags_array

    faces, count = mesh.faces.numpy(), len(mesh.vertices)
    starts, ends = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    # In a closed mesh each edge occurs in both directions.
    neighbours = coo_array((np.ones(len(starts)), (starts, ends)), shape=(count, count)).tocsr()
    average = diags_array(1 / np.maximum(neighbours.sum(axis=1), 1)) @ neighbours
    vertices = mesh.vertices.double().numpy()
    for _ in range(iterations):
        for step in (0.5, -0.53):
            vertices = vertices + step * (average @ vertices - vertices)
    return replace(mesh, vertices=torch.from_numpy(vertices).float())


def simplified(mesh: Mesh, most_faces: int) -> Mesh:
    """The mesh with about ``most_faces`` faces at most, by quadric edge collapse (Garland, Heckbert 1997)."""
    import fast_simplification

    if len(mesh.faces) <= most_faces:
        return mesh
    vertices, faces = fast_simplification.simplify(
        mesh.vertices.numpy(), mesh.faces.int().numpy(), target_count=most_faces
    )
    return Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces).long())
