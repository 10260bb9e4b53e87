"""Keypoints and bones of a silhouette: its medial axis, made into a tree of about sixteen joints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

KEYPOINTS = 18
"""Long bones are split until there are so many, or all are short."""
SHORTEST_BONE = 0.05
"""As a share of the mask's side; bones are not split below twice this."""
BUMP = 0.25
"""A side branch whose tip sticks out of the disc around its root by less of the disc's radius is no limb."""
SHORTEST_LIMB = 0.03
"""Nor is one that sticks out by less of the mask's side: the corner of a foot."""
LIMBS = 12
"""The shortest branches beyond these are dropped."""


@dataclass(frozen=True)
class Skeleton:
    """A tree in a mask.

    Attributes:
        keypoints: [k, 2] x, y in units of the mask's cells; cell (row, column) covers the unit square from
            (column, row).
        bones: [k - 1, 2] pairs of keypoints.
    """

    keypoints: npt.NDArray[np.float64]
    bones: npt.NDArray[np.int64]


def skeleton_of(mask: npt.NDArray[np.bool_]) -> Skeleton:
    """The keypoints and bones of a connected mask.

    Loops of the medial axis are opened where the mask is thinnest, so that a tree is left; its twigs are
    pruned, junctions that nearly touch become one, and long bones are split evenly. A round shape, which has
    no axis, gets a cross. The same mask gives the same skeleton, bit for bit.

    Args:
        mask: [h, w], at least one cell.
    """
    from skimage.morphology import medial_axis

    on_axis, distance = medial_axis(mask, return_distance=True, rng=0)
    axis = _Axis.of(np.argwhere(on_axis), distance[on_axis])
    axis.prune(SHORTEST_LIMB * max(mask.shape))
    skeleton = _jointed(axis, SHORTEST_BONE * max(mask.shape))
    return skeleton if len(skeleton.keypoints) > 2 else _cross(mask)


@dataclass
class _Axis:
    """The medial axis as a tree of cells.

    Attributes:
        places: [n, 2] x, y of the cells' middles.
        radius: [n] distance to the mask's edge.
        neighbours: for each cell those that it is tied to; none once it is pruned.
    """

    places: npt.NDArray[np.float64]
    radius: npt.NDArray[np.float64]
    neighbours: list[set[int]]

    @classmethod
    def of(cls, cells: npt.NDArray[np.int64], radius: npt.NDArray[np.float64]) -> _Axis:
        """The 8-connected cells, tied such that the thickest way between any two of them is kept."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import minimum_spanning_tree
        from scipy.spatial import cKDTree

        pairs = cKDTree(cells).query_pairs(1.5, output_type="ndarray").reshape(-1, 2)
        diagonal = np.abs(cells[pairs[:, 0]] - cells[pairs[:, 1]]).sum(-1) == 2
        thin = radius[pairs].min(-1)
        # Ranks, as machines break ties differently. Diagonals come last, or they would cut corners.
        order = np.lexsort((pairs[:, 1], pairs[:, 0], diagonal, -thin))
        ranks = np.empty(len(pairs))
        ranks[order] = np.arange(1, len(pairs) + 1)
        graph = coo_array((ranks, (pairs[:, 0], pairs[:, 1])), shape=(len(cells), len(cells)))
        tree = minimum_spanning_tree(graph.tocsr()).tocoo()
        neighbours: list[set[int]] = [set() for _ in cells]
        for a, b in zip(tree.row.tolist(), tree.col.tolist(), strict=True):
            neighbours[a].add(b)
            neighbours[b].add(a)
        return cls(cells[:, ::-1].astype(np.float64) + 0.5, radius, neighbours)

    def chains(self) -> Iterator[list[int]]:
        """The cells from each end or junction to the next, both included, each chain once."""
        for start, around in enumerate(self.neighbours):
            if len(around) in (0, 2):
                continue
            for following in sorted(around):
                chain = [start, following]
                while len(self.neighbours[chain[-1]]) == 2:
                    (after,) = self.neighbours[chain[-1]] - {chain[-2]}
                    chain.append(after)
                if start < chain[-1]:
                    yield chain

    def length(self, chain: list[int]) -> float:
        return float(np.linalg.norm(np.diff(self.places[chain], axis=0), axis=-1).sum())

    def is_junction(self, cell: int) -> bool:
        return len(self.neighbours[cell]) > 2

    def prune(self, shortest: float) -> None:
        """Takes the twigs away, the shortest first, as each makes others longer."""
        while (twig := self._weakest_twig(shortest)) is not None:
            for cell, following in pairwise(twig):
                self.neighbours[cell].discard(following)
                self.neighbours[following].discard(cell)

    def _weakest_twig(self, shortest: float) -> list[int] | None:
        twigs = []
        for chain in self.chains():
            if self.is_junction(chain[0]) != self.is_junction(chain[-1]):
                twigs.append(chain if self.is_junction(chain[-1]) else chain[::-1])
        if len(twigs) > LIMBS:
            return min(twigs, key=self._reach)
        bumps = [twig for twig in twigs if self._reach(twig) < max(BUMP * self.radius[twig[-1]], shortest)]
        return min(bumps, key=self._reach, default=None)

    def _reach(self, twig: list[int]) -> float:
        """How far the mask around a twig's tip sticks out of the disc around its root."""
        tip, root = twig[0], twig[-1]
        between = float(np.linalg.norm(self.places[tip] - self.places[root]))
        return between + float(self.radius[tip] - self.radius[root])


def _jointed(axis: _Axis, shortest: float) -> Skeleton:
    """Ends and junctions as keypoints, and more of them along what is between."""
    chains = sorted(axis.chains(), key=axis.length)
    joint = {end: end for chain in chains for end in (chain[0], chain[-1])}
    for chain in list(chains):
        a, b = joint[chain[0]], joint[chain[-1]]
        both = axis.is_junction(chain[0]) and axis.is_junction(chain[-1])
        if both and axis.length(chain) < max(shortest, 0.5 * max(axis.radius[a], axis.radius[b])):
            kept, gone = (a, b) if axis.radius[a] >= axis.radius[b] else (b, a)
            joint = {end: kept if where == gone else where for end, where in joint.items()}
            chains.remove(chain)
    lengths = np.array([axis.length(chain) for chain in chains])
    pieces = np.ones(len(chains), dtype=np.int64)
    nodes = sorted(set(joint.values()))
    while len(chains) and len(nodes) + (pieces - 1).sum() < KEYPOINTS:
        longest = int(np.argmax(lengths / pieces))
        if lengths[longest] / pieces[longest] < 2 * shortest:
            break
        pieces[longest] += 1
    keypoints = [axis.places[node] for node in nodes]
    bones = []
    for chain, count in zip(chains, pieces.tolist(), strict=True):
        line = axis.places[chain].copy()
        line[0], line[-1] = axis.places[joint[chain[0]]], axis.places[joint[chain[-1]]]
        along = np.concatenate([[0.0], np.linalg.norm(np.diff(line, axis=0), axis=-1).cumsum()])
        before = nodes.index(joint[chain[0]])
        for step in range(1, count):
            at = along[-1] * step / count
            keypoints.append(np.array([np.interp(at, along, line[:, 0]), np.interp(at, along, line[:, 1])]))
            bones.append((before, len(keypoints) - 1))
            before = len(keypoints) - 1
        bones.append((before, nodes.index(joint[chain[-1]])))
    return Skeleton(np.array(keypoints).reshape(-1, 2), np.array(bones, dtype=np.int64).reshape(-1, 2))


def _cross(mask: npt.NDArray[np.bool_]) -> Skeleton:
    """The middle of a mask and a point towards each of its four sides."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    middle = np.array(np.unravel_index(int(depth.argmax()), mask.shape))[::-1] + 0.5
    ends = 0.6 * depth.max() * np.array([(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)])
    return Skeleton(middle + ends, np.array([(0, 1), (0, 2), (0, 3), (0, 4)], dtype=np.int64))
