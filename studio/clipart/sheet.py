"""The sheet that a drawing is printed on: triangles around its silhouette, with keypoints and bones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.clipart.drawing import Drawing
from studio.clipart.raster import VISIBLE_ALPHA
from studio.clipart.skeleton import skeleton_of
from studio.clipart.vectors import CANVAS_PX
from studio.errors import StudioError

KEYPOINT_DIGITS = 4
"""Of a keypoint's coordinates, after the point: a project keeps as many, and so gives the same sheet."""
MOST_KEYPOINTS = 64
"""That may be given."""
NEAR_PX = 16.0
"""Keypoints that are this near to the sheet are moved onto it; those farther away are refused."""
BRIDGE_PX = 6.0
"""Width of the transparent strips that tie separate parts together."""
LINE_DRAWING = 0.5
"""A drawing of which less than this share of its outer outline's area is visible consists of lines."""
FLATTEST = 0.06
"""Triangles whose height is a smaller share of their longest side, along the outline, are left out."""
_GRID = 2
"""Cells of the silhouette's grid a canvas pixel."""
_SKELETON_GRID = 128
_NARROW_HOLE = 40
"""Holes of fewer cells of the skeleton's grid are closed by the sheet's margin."""

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sheet:
    """A triangle mesh in the plane that covers a drawing, with a transparent margin.

    Attributes:
        vertices: canvas pixels.
        faces: vertex numbers; all triangles are wound the same way: on the screen, y down, clockwise.
        keypoints: the vertex at each keypoint.
        bones: pairs of keypoints (not vertices); they form a forest.
    """

    vertices: Float[Tensor, "v 2"]
    faces: Int[Tensor, "f 3"]
    keypoints: Int[Tensor, "k"]
    bones: Int[Tensor, "b 2"]


def sheet_of(
    drawing: Drawing,
    keypoints: Float[Tensor, "k 2"] | None = None,
    bones: Int[Tensor, "b 2"] | None = None,
    edge_px: float = 9.0,
    margin_px: float = 4.0,
) -> Sheet:
    """Lays a sheet under a drawing.

    It covers the silhouette and a margin around it, whose transparent texels make the silhouette itself
    something that moves with the picture. Separate parts are tied by narrow transparent strips; wide holes
    stay, but for what the lines of a line drawing enclose. The same drawing gives the same sheet, byte for
    byte.

    Args:
        drawing: what to cover.
        keypoints: in canvas pixels; found from the silhouette's medial axis where None.
        bones: pairs of keypoints; where None the shortest tree over given keypoints.
        edge_px: about the length of the triangles' edges.
        margin_px: how far the sheet reaches beyond the silhouette.

    Raises:
        StudioError: nothing visible; keypoints far from the drawing, two at the same place, none or too many;
            bones that name no keypoint or form a loop.
    """
    silhouette = _silhouette(drawing)
    distance = _distance(silhouette, margin_px)
    if keypoints is None:
        if bones is not None:
            raise StudioError(
                "bones came without keypoints, expected both: give the keypoints that they join."
            )
        points, pairs = _skeleton(silhouette, distance)
    else:
        points = _given_keypoints(keypoints, distance)
        pairs = _tree_over(points) if bones is None else _forest(bones, len(points))
    vertices, faces = _triangulated(silhouette, distance, points.round(KEYPOINT_DIGITS), edge_px)
    return Sheet(
        torch.from_numpy(vertices).float(),
        torch.from_numpy(faces),
        torch.arange(len(points)),
        pairs,
    )


def off_sheet_px(drawing: Drawing, points: Float[Tensor, "k 2"], margin_px: float) -> Float[Tensor, "k"]:
    """How far points, in canvas pixels, are off a drawing's sheet; negative on it.

    Raises:
        StudioError: nothing is visible.
    """
    distance = _distance(_silhouette(drawing), margin_px)
    return torch.from_numpy(-_at(distance, points.detach().cpu().double().numpy())).float()


# ----------------------------------------------------------------------------------------------- silhouette


def _silhouette(drawing: Drawing) -> Mask:
    """What is visible and the strips between its parts, in cells of 1 / _GRID canvas pixels.

    Of a line drawing what the lines enclose belongs to it.
    """
    from scipy import ndimage

    alpha = drawing.rgba[None, None, ..., 3].float() / 255
    visible = torch.nn.functional.adaptive_max_pool2d(alpha, CANVAS_PX * _GRID)[0, 0] > VISIBLE_ALPHA
    if not bool(visible.any()):
        raise StudioError(f"{drawing.name} has no silhouette: every pixel is transparent; draw something.")
    mask = _bridged(visible.numpy())
    filled = ndimage.binary_fill_holes(mask)
    return np.asarray(filled) if mask.sum() < LINE_DRAWING * filled.sum() else mask


def _distance(silhouette: Mask, margin_px: float) -> Array:
    """Signed distance in canvas pixels to the outline of silhouette and margin, positive inside."""
    from scipy import ndimage

    mask = ndimage.distance_transform_edt(~silhouette) <= margin_px * _GRID
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return np.asarray((inside - ndimage.distance_transform_edt(~mask)) / _GRID)


def _bridged(mask: Mask) -> Mask:
    """The mask with strips between its parts: the shortest that make it one."""
    from scipy import ndimage
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count == 1:
        return mask
    away, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    nearest = nearest.reshape(2, -1).T
    owner = labels[nearest[:, 0], nearest[:, 1]] - 1
    # Parts are neighbours where cells side by side are nearest to one and to the other.
    cells = np.arange(mask.size).reshape(mask.shape)
    beside = np.concatenate(
        [
            np.stack([cells[:, :-1].ravel(), cells[:, 1:].ravel()], -1),
            np.stack([cells[:-1].ravel(), cells[1:].ravel()], -1),
        ]
    )
    border = beside[owner[beside[:, 0]] != owner[beside[:, 1]]]
    border = border[np.argsort(away.ravel()[border].sum(-1), kind="stable")]
    pairs = np.sort(owner[border], axis=-1)
    _, closest = np.unique(pairs, axis=0, return_index=True)
    rows, columns = pairs[closest].T
    tree = minimum_spanning_tree(coo_array((closest + 1.0, (rows, columns)), (count, count)).tocsr())
    bridged: Mask = mask.copy()
    for rank in np.sort(tree.data).astype(int):
        _add_strip(bridged, *nearest[border[rank - 1]].astype(float))
    return bridged


def _add_strip(mask: Mask, start: Array, end: Array) -> None:
    """Sets the cells around the line between two cells (row, column)."""
    half = BRIDGE_PX / 2 * _GRID
    low = np.maximum(np.minimum(start, end) - half, 0).astype(int)
    high = np.minimum(np.maximum(start, end) + half + 1, mask.shape).astype(int)
    window = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    offset = np.moveaxis(np.mgrid[window], 0, -1) - start
    step = end - start
    along = (offset @ step / max(float(step @ step), 1.0)).clip(0.0, 1.0)
    mask[window] |= np.linalg.norm(offset - along[..., None] * step, axis=-1) <= half


def _at(distance: Array, points: Array) -> Array:
    """The signed distance at points in canvas pixels, bilinearly."""
    from scipy import ndimage

    cells = (points * _GRID - 0.5).T[::-1]
    return np.asarray(ndimage.map_coordinates(distance, cells, order=1, mode="nearest"))


# ------------------------------------------------------------------------------------------------ keypoints


def _skeleton(silhouette: Mask, distance: Array) -> tuple[Array, Int[Tensor, "b 2"]]:
    from scipy import ndimage

    cells = len(silhouette) // _SKELETON_GRID
    mask = silhouette.reshape(_SKELETON_GRID, cells, _SKELETON_GRID, cells).any((1, 3))
    holes, _ = ndimage.label(~mask)
    narrow = np.bincount(holes.ravel()) < _NARROW_HOLE
    skeleton = skeleton_of(mask | (narrow[holes] & ~mask))
    points = _clamped(skeleton.keypoints * (CANVAS_PX / _SKELETON_GRID), distance)
    return points, torch.from_numpy(skeleton.bones)


def _given_keypoints(keypoints: Tensor, distance: Array) -> Array:
    points = keypoints.detach().cpu().double().numpy()
    if not 1 <= len(points) <= MOST_KEYPOINTS:
        raise StudioError(
            f"{len(points) or 'no'} keypoints came, expected 1 to {MOST_KEYPOINTS}: leave them out to have "
            "them found."
        )
    if not np.isfinite(points).all():
        raise StudioError("keypoints came that are not finite numbers, expected canvas pixels.")
    off = -_at(distance, points)
    for number, ((x, y), away) in enumerate(zip(points, off, strict=True)):
        if away > NEAR_PX or not (0 <= x <= CANVAS_PX and 0 <= y <= CANVAS_PX):
            raise StudioError(
                f"keypoint {number} is at ({x:.0f}, {y:.0f}), {max(away, 0):.0f} pixels off the drawing, "
                f"expected it on the drawing, in a canvas of {CANVAS_PX} pixels: move it there."
            )
    if moved := [str(number) for number in np.flatnonzero(off > 0)]:
        warnings.warn(
            f"off the drawing, and moved onto it: keypoint{'s' * (len(moved) > 1)} {', '.join(moved)}",
            stacklevel=1,
        )
    points = _clamped(points, distance)
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(len(points), np.inf))
    first, second = np.unravel_index(int(gaps.argmin()), gaps.shape)
    if len(points) > 1 and gaps[first, second] < 1.0:
        raise StudioError(
            f"keypoints {first} and {second} are at the same place, expected at least a pixel between them: "
            "take one away."
        )
    return points


def _clamped(points: Array, distance: Array, depth_px: float = 2.0) -> Array:
    """Points on the sheet: those outside, or at its very edge, go to the nearest cell well inside."""
    from scipy import ndimage

    well_inside = distance >= min(depth_px, float(distance.max()))
    _, nearest = ndimage.distance_transform_edt(~well_inside, return_indices=True)
    cells = np.clip(np.floor(points * _GRID).astype(int), 0, len(distance) - 1)
    moved = (nearest[::-1, cells[:, 1], cells[:, 0]].T + 0.5) / _GRID
    return np.where((_at(distance, points) < depth_px)[:, None], moved, points)


def _tree_over(points: Array) -> Int[Tensor, "b 2"]:
    """The shortest tree over all points."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    lengths = np.linalg.norm(points[:, None] - points[None], axis=-1)
    tree = minimum_spanning_tree(np.triu(lengths, 1)).tocoo()
    return torch.from_numpy(np.stack([tree.row, tree.col], -1).astype(np.int64)).reshape(-1, 2)


def _forest(bones: Tensor, keypoints: int) -> Int[Tensor, "b 2"]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = bones.cpu().long().reshape(-1, 2)
    if len(pairs) and not (0 <= int(pairs.min()) and int(pairs.max()) < keypoints):
        raise StudioError(
            f"bones name keypoint {int(pairs.max() if pairs.max() >= keypoints else pairs.min())}, expected "
            f"0-{keypoints - 1}: count the keypoints from 0."
        )
    graph = coo_array(
        (np.ones(len(pairs)), (pairs[:, 0].numpy(), pairs[:, 1].numpy())), (keypoints, keypoints)
    )
    parts, _ = connected_components(graph, directed=False)
    if parts != keypoints - len(pairs):
        raise StudioError("the bones form a loop, expected a tree: take one bone of the loop away.")
    return pairs


# ---------------------------------------------------------------------------------------------- triangles


def _triangulated(
    silhouette: Mask, distance: Array, keypoints: Array, edge_px: float
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Vertices, the keypoints first, and faces: a Delaunay triangulation of outline and hexagonal grid."""
    from scipy.spatial import Delaunay

    outline = _outline(distance, edge_px)
    rows = np.arange(edge_px / 2, CANVAS_PX, edge_px * np.sqrt(3) / 2)
    columns = np.arange(edge_px / 2, CANVAS_PX, edge_px)
    grid = np.stack(np.meshgrid(columns, rows), -1)
    grid[1::2, :, 0] += edge_px / 2
    grid = grid.reshape(-1, 2)
    grid = grid[_at(distance, grid) > 0.55 * edge_px]
    # The outline gives way to a keypoint less than the grid does: on a thin limb it is near.
    kept = [points[_gaps(points, keypoints) > gap * edge_px] for points, gap in ((outline, 0.3), (grid, 0.5))]
    vertices = np.concatenate([keypoints, *kept])
    delaunay = Delaunay(vertices)
    faces = delaunay.simplices.astype(np.int64)
    corners = vertices[faces]
    middles = (corners + np.roll(corners, 1, axis=1)).reshape(-1, 2) / 2
    depth = _at(distance, corners.mean(1))
    inside = depth > 0
    inside &= (_at(distance, middles).reshape(-1, 3) > -0.1 * edge_px).all(-1)
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(-1)
    inside &= np.abs(_areas(corners)) > FLATTEST * longest**2
    # Nothing that is drawn falls through the sheet.
    drawn = delaunay.find_simplex((np.argwhere(silhouette)[:, ::-1] + 0.5) / _GRID)
    inside[drawn[drawn >= 0]] = True
    # A keypoint keeps a triangle even where the sheet is too narrow for one.
    for number in np.setdiff1d(np.arange(len(keypoints)), faces[inside]):
        around = np.flatnonzero((faces == number).any(-1))
        inside[around[depth[around].argmax()]] = True
    faces = faces[_in_one_piece(inside, delaunay.neighbors, depth)]
    turned = _areas(vertices[faces]) < 0
    faces[turned] = faces[turned][:, ::-1]
    used = np.union1d(np.arange(len(keypoints)), faces)
    number = np.zeros(len(vertices), dtype=np.int64)
    number[used] = np.arange(len(used))
    order = np.lexsort(np.sort(faces, -1).T[::-1])
    return vertices[used], number[faces[order]]


def _gaps(points: Array, others: Array) -> Array:
    """The distance of each point to the nearest of the others."""
    return np.asarray(np.linalg.norm(points[:, None] - others[None], axis=-1).min(-1))


def _in_one_piece(inside: Mask, neighbors: npt.NDArray[np.int32], depth: Array) -> Mask:
    """The faces and as few more as it takes for all to hang together by their sides.

    A part that hung by a corner alone could turn freely.

    Args:
        inside: which of the faces are wanted.
        neighbors: [f, 3] the faces beyond each face's sides, -1 where there is none.
        depth: [f] of the faces in the sheet; negative outside, where they cost more.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, dijkstra

    here, side = np.nonzero(neighbors >= 0)
    there = neighbors[here, side]
    inside = inside.copy()
    while True:
        linked = inside[here] & inside[there]
        shape = (len(inside), len(inside))
        graph = coo_array((np.ones(linked.sum()), (here[linked], there[linked])), shape)
        _, part = connected_components(graph, directed=False)
        main = part == np.bincount(part[inside]).argmax()
        if main[inside].all():
            return inside
        price = np.where(inside, 1e-3, 1.0 + np.maximum(-depth, 0.0))
        ways = coo_array((price[here] + price[there], (here, there)), shape).tocsr()
        far, before, _ = dijkstra(ways, indices=np.flatnonzero(main), return_predecessors=True, min_only=True)
        face = int(np.where(inside & ~main, far, np.inf).argmin())
        while not main[face]:
            inside[face] = True
            face = int(before[face])


def _outline(distance: Array, edge_px: float) -> Array:
    """Points along all outlines of the sheet, about an edge apart; closer where it bends."""
    from skimage.measure import approximate_polygon, find_contours

    points = []
    for contour in find_contours(np.pad(distance, 1, constant_values=-1.0), 0.0):
        ring = (contour[:, ::-1] - 0.5) / _GRID
        ring = _without_close_corners(approximate_polygon(ring, tolerance=0.1 * edge_px), 0.4 * edge_px)
        for start, end in pairwise(ring):
            count = max(1, round(float(np.linalg.norm(end - start)) / edge_px))
            points.append(start + (end - start) * np.linspace(0, 1, count, endpoint=False)[:, None])
    return np.concatenate(points)


def _without_close_corners(ring: Array, nearest_px: float) -> Array:
    """A closed line, its first point last again, without corners too close for sound triangles."""
    kept = [ring[0]]
    for corner in ring[1:-1]:
        if min(np.linalg.norm(corner - kept[-1]), np.linalg.norm(corner - ring[0])) >= nearest_px:
            kept.append(corner)
    return np.array([*kept, ring[0]])


def _areas(corners: Array) -> Array:
    """Twice the signed areas of triangles [f, 3, 2]."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
