"""Numbers about pictures and meshes that need no network.

Pure functions of tensors. This module imports nothing of the studio but its types, so that the loop, the
exporter and the comparisons may all use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from studio.types import Mesh

# ITU-R BT.601, the weights of sRGB-encoded luma.
_LUMA = (0.299, 0.587, 0.114)


def psnr(images: Float[Tensor, "b c h w"], truth: Float[Tensor, "b c h w"]) -> Float[Tensor, "b"]:
    """Peak signal-to-noise ratio of each image, in dB: ``-10 log10(mean squared error)`` for values in 0-1.

    Equal images give infinity; images that differ by 1 everywhere give 0.
    """
    return -10.0 * (images - truth).square().mean(dim=(1, 2, 3)).log10()


def silhouette_iou(
    alpha: Float[Tensor, "b 1 h w"], truth: Float[Tensor, "b 1 h w"], threshold: float = 0.5
) -> Float[Tensor, "b"]:
    """Intersection over union of the two coverages above ``threshold``, 0-1; 1 where both are empty."""
    mine, theirs = alpha > threshold, truth > threshold
    intersection = (mine & theirs).sum(dim=(1, 2, 3))
    union = (mine | theirs).sum(dim=(1, 2, 3))
    return torch.where(union > 0, intersection / union.clamp_min(1), 1.0)


def saturation(rgb: Float[Tensor, "b 3 h w"], weight: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b"]:
    """Weighted mean of the HSV saturation ``(max - min) / max``, 0 for greys to 1 for pure colours.

    ``weight`` is usually alpha, so that the background does not count; 0 where it vanishes.
    """
    brightest, darkest = rgb.amax(dim=1, keepdim=True), rgb.amin(dim=1, keepdim=True)
    return _weighted_mean((brightest - darkest) / brightest.clamp_min(1e-6), weight)


def clipped_fraction(
    rgb: Float[Tensor, "b 3 h w"], weight: Float[Tensor, "b 1 h w"], margin: float = 1 / 255
) -> Float[Tensor, "b"]:
    """Weighted share of pixels with a channel within ``margin`` of 0 or of 1, 0-1."""
    clipped = ((rgb <= margin) | (rgb >= 1 - margin)).any(dim=1, keepdim=True)
    return _weighted_mean(clipped.to(rgb.dtype), weight)


def sharpness(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b"]:
    """Variance of the luma's 4-neighbour Laplacian over the inner pixels: 0 (flat) to 16 (chequered)."""
    luma = torch.einsum("bchw,c->bhw", rgb, rgb.new_tensor(_LUMA))
    inner = luma[:, 1:-1, 1:-1]
    neighbours = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return (neighbours - 4 * inner).var(dim=(1, 2), correction=0)


@dataclass(frozen=True)
class AlphaStatistics:
    """How an asset covers its pictures.

    Attributes:
        mean: mean coverage, 0-1; near 0 the scene is empty, near 1 it fills the picture.
        undecided: share of covered pixels (alpha > 0.05) below 0.95: a fog has much of it.
        border: mean coverage of the outermost pixels: above 0 the asset leaves the picture.
    """

    mean: float
    undecided: float
    border: float


def alpha_statistics(alpha: Float[Tensor, "b 1 h w"]) -> AlphaStatistics:
    """Coverage statistics over a batch of views."""
    covered = alpha > 0.05
    undecided = covered & (alpha < 0.95)
    edge = torch.ones_like(alpha, dtype=torch.bool)
    edge[:, :, 1:-1, 1:-1] = False
    return AlphaStatistics(
        mean=alpha.mean().item(),
        undecided=undecided.sum().item() / max(1, int(covered.sum())),
        border=alpha[edge].mean().item(),
    )


def view_variance(rgb: Float[Tensor, "b 3 h w"]) -> float:
    """Variance of each pixel over the views, averaged: 0 when all views are alike, at most 0.25."""
    return rgb.var(dim=0, correction=0).mean().item()


def front_back_similarity(
    front: Float[Tensor, "b 3 h w"], back: Float[Tensor, "b 3 h w"], size: int = 16
) -> Float[Tensor, "b"]:
    """Janus alarm: how much the back of an asset looks like its front, -1 to 1.

    Correlation coefficient of the two pictures, pooled to ``size`` squared, with the back as it is or
    mirrored, whichever is more alike. A back always has the mirrored front's outline, so draw both over the
    same background, and compare with the figure of a sound asset rather than with 0. A picture of a single
    colour correlates with nothing: 0.
    """
    pooled_front, pooled_back = (
        torch.nn.functional.adaptive_avg_pool2d(images, size) for images in (front, back)
    )
    return torch.maximum(
        _correlation(pooled_front, pooled_back), _correlation(pooled_front, pooled_back.flip(-1))
    )


def resembles_front(
    back: Float[Tensor, "3 h w"],
    true_fronts: Float[Tensor, "k 3 h w"],
    true_backs: Float[Tensor, "k 3 h w"],
    size: int = 32,
) -> bool:
    """Janus verdict where the truth is known: whether a back is nearer to a true front than to any true back.

    Nearer is a smaller mean squared error, of pictures pooled to ``size`` squared. A tie is no second face.
    """
    pool = torch.nn.functional.adaptive_avg_pool2d
    to_front, to_back = (
        (pool(truths, size) - pool(back, size)).square().mean(dim=(1, 2, 3)).min()
        for truths in (true_fronts, true_backs)
    )
    return bool(to_front < to_back)


@dataclass(frozen=True)
class ModeCoverage:
    """How well several results spread over the modes of a known distribution.

    Attributes:
        found: share of the modes that at least one result belongs to, 0-1.
        distance: total variation distance between the results' shares and the known weights, 0-1. Few results
            of a fair sampler have one above 0, too.
    """

    found: float
    distance: float


def mode_coverage(modes: Sequence[int], weights: Float[Tensor, "k"]) -> ModeCoverage:
    """Coverage by results, each given as the index of its mode; ``weights`` sum to one."""
    counts = torch.bincount(torch.tensor(modes, dtype=torch.long), minlength=len(weights))
    distance = (counts / max(1, len(modes)) - weights).abs().sum() / 2
    return ModeCoverage(int((counts > 0).sum()) / len(weights), float(distance))


def temporal_flicker(frames: Float[Tensor, "t 3 h w"]) -> float:
    """Mean absolute difference of successive frames, 0 (still) to 1 (VBench reports 1 minus this)."""
    return (frames[1:] - frames[:-1]).abs().mean().item()


@dataclass(frozen=True)
class MeshChecks:
    """The health of a mesh.

    Attributes:
        watertight: every edge belongs to exactly two faces that run along it in opposite directions.
        degenerate_faces: faces that repeat a vertex or whose area is below 1e-12 units squared.
        components: parts connected by shared vertices; isolated vertices do not count.
    """

    watertight: bool
    degenerate_faces: int
    components: int


def check_mesh(mesh: Mesh) -> MeshChecks:
    """Topology of a mesh. Vertices at the very same place count as one: texture seams do not matter."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, welded = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    faces = welded[mesh.faces]
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])

    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2
    repeats = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])

    used, compact = torch.unique(faces, return_inverse=True)
    row, column = compact[:, 0].repeat(2).numpy(), torch.cat([compact[:, 1], compact[:, 2]]).numpy()
    graph = coo_array((torch.ones(len(row)).numpy(), (row, column)), shape=(len(used), len(used)))
    return MeshChecks(
        watertight=_closed(edges),
        degenerate_faces=int((repeats | (areas < 1e-12)).sum()),
        components=int(connected_components(graph, directed=False)[0]),
    )


def _closed(edges: Int[Tensor, "e 2"]) -> bool:
    """Whether each directed edge occurs once, and once in the other direction."""
    if len(edges) == 0:
        return False
    forward, forward_counts = torch.unique(edges, dim=0, return_counts=True)
    backward = torch.unique(edges.flip(-1), dim=0)
    return bool((forward_counts == 1).all()) and torch.equal(forward, backward)


def _weighted_mean(values: Float[Tensor, "b 1 h w"], weight: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b"]:
    return (values * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp_min(1e-6)


def _correlation(a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"]) -> Float[Tensor, "b"]:
    """Pearson's coefficient of two images; 0 where one of them is constant."""
    a, b = (image - image.mean(dim=(1, 2, 3), keepdim=True) for image in (a, b))
    scale = (a.square().sum(dim=(1, 2, 3)) * b.square().sum(dim=(1, 2, 3))).sqrt()
    return torch.where(scale > 1e-9, (a * b).sum(dim=(1, 2, 3)) / scale.clamp_min(1e-9), 0.0)
