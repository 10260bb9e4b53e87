"""The operators of fields against plain torch.

- Hash grid: 16 levels of 2 features, 2^15 entries a level, 65536 points.
- Volume: 16384 rays through a grid of 64^3 corners with density and colour, four fifths of whose cells are
  empty. Torch takes 64 trilinear samples of each ray; the studio marches and samples what is occupied.
- Planes: 6 planes of 64^2 texels with 16 channels, 50000 points of space and time, against ``grid_sample``.
- Perceptron: 32 inputs, two hidden layers of 64, 4 outputs, all gradients; against torch's own layers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from contest import Contest
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool3d, normalize

from studio.ops.compositing import composite
from studio.ops.hash_grid import HashGrid, hash_grid
from studio.ops.library import Backend
from studio.ops.marching import OccupancyGrid, march
from studio.ops.marching_reference import cross_cube
from studio.ops.mlp import mlp
from studio.ops.planes import PlaneGrid, sample_planes

Result = Sequence[Tensor]


def against_torch(
    work: str,
    ours: Callable[[], Result],
    torch_: Callable[[], Result],
    aim: float,
    comparable: Callable[[Result], Result] = list,
) -> Contest:
    """A contest over what ``comparable`` keeps of both results."""

    def differ() -> float:
        pairs = zip(comparable(ours()), comparable(torch_()), strict=True)
        error = max(float(((one - two).abs().max() / two.abs().max()).detach()) for one, two in pairs)
        if not error < 2e-3:
            raise SystemExit(f"{work}: the backends differ by {error:.0e}; not timed.")
        return error

    return Contest(work, ours, f"torch {torch.__version__}", torch_, differ, aim)


def with_gradients(result: Tensor, leaves: Sequence[Tensor], v: Tensor) -> Result:
    return [result, *torch.autograd.grad(result, leaves, v)]


def hash_grids(rng: torch.Generator) -> list[Contest]:
    grid = HashGrid(levels=16, features=2, log2_table_size=15, base_resolution=16, finest_resolution=2048)
    still = torch.rand(65536, 3, generator=rng)
    moving = still.clone().requires_grad_()
    table = torch.randn(grid.entries, 2, generator=rng).requires_grad_()
    v = torch.randn(65536, grid.width, generator=rng)

    def encode(positions: Tensor, leaves: Sequence[Tensor], backend: Backend) -> Callable[[], Result]:
        return lambda: with_gradients(hash_grid(positions, table, grid, backend=backend), leaves, v)

    def normals(backend: Backend) -> Callable[[], Result]:
        def run() -> Result:
            features = hash_grid(moving, table, grid, backend=backend)
            (slopes,) = torch.autograd.grad(features, moving, v, create_graph=True)
            return with_gradients(slopes, [table], moving.detach())

        return run

    return [
        against_torch("hash grid", encode(still, [table], "native"), encode(still, [table], "torch"), 20),
        against_torch(
            "hash grid, positions too",
            encode(moving, [table, moving], "native"),
            encode(moving, [table, moving], "torch"),
            20,
        ),
        against_torch("hash grid, normals", normals("native"), normals("torch"), 20),
    ]


def volume(rng: torch.Generator) -> Contest:
    side, rays, steps = 64, 16384, 64
    grid = HashGrid(1, 4, 18, side - 1, side - 1)  # one dense level: a trilinear grid
    axis = torch.linspace(-0.5, 0.5, side)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    inside = (x * x + y * y + z * z).sqrt() < 0.345
    corners = torch.rand(side, side, side, 4, generator=rng)
    corners[..., 0] *= 20 * inside
    occupied = max_pool3d(corners[None, None, ..., 0], 2, 1)[0, 0].permute(2, 1, 0) > 0
    occupancy = OccupancyGrid(occupied.float(), occupied)

    azimuth = 2 * math.pi * torch.rand(rays, generator=rng)
    origins = 0.5 + 2 * torch.stack(
        [azimuth.cos(), 0.3 * torch.randn(rays, generator=rng), azimuth.sin()], -1
    )
    directions = normalize(0.2 + 0.6 * torch.rand(rays, 3, generator=rng) - origins)
    step = math.sqrt(3) / steps
    v = torch.randn(rays, 3, generator=rng)
    table = corners.reshape(-1, 4).clone().requires_grad_()
    picture = corners.permute(3, 0, 1, 2)[None].clone().requires_grad_()

    def packed() -> Result:
        samples = march(origins, directions, occupancy, step=step, max_samples=steps)
        density, colors = hash_grid(samples.positions, table, grid).split([1, 3], -1)
        seen = composite(density[:, 0], step, colors, samples.t, samples.starts)
        return with_gradients(seen.rgb, [table], v)

    def dense() -> Result:
        enter, leave = cross_cube(origins, directions, 0.0)
        t = enter[:, None] + (torch.arange(steps) + 0.5) * step
        points = origins[:, None] + t[..., None] * directions[:, None]
        sampled = grid_sample(picture, 2 * points[None, None] - 1, align_corners=True)[0, :, 0]
        alpha = 1 - torch.exp(-sampled[0] * step * (t < leave[:, None]))
        light = torch.cat([torch.ones(rays, 1), (1 - alpha + 1e-10).cumprod(1)[:, :-1]], dim=1)
        rgb = ((alpha * light) * sampled[1:]).sum(-1).T
        result, gradient = with_gradients(rgb, [picture], v)
        return [result, gradient[0].permute(1, 2, 3, 0).reshape(-1, 4)]

    # Empty cells give their corners no gradient where nothing is sampled there.
    filled = inside.flatten()
    return against_torch(
        "march + composite, a grid one fifth full",
        packed,
        dense,
        10,
        lambda result: [result[0], result[1][filled]],
    )


def perceptron(rng: torch.Generator, points: int) -> Contest:
    widths = (32, 64, 64, 4)
    inputs = torch.randn(points, widths[0], generator=rng).requires_grad_()
    weights = [torch.randn(o, i, generator=rng) / math.sqrt(i) for i, o in itertools.pairwise(widths)]
    biases = [torch.randn(o, generator=rng) for o in widths[1:]]
    leaves = [inputs, *(layer.requires_grad_() for layer in (*weights, *biases))]
    v = torch.rand(points, widths[-1], generator=rng)

    def run(backend: Backend) -> Callable[[], Result]:
        return lambda: with_gradients(mlp(inputs, weights, biases, backend=backend), leaves, v)

    # Where rounding decides whether a neuron is on, single rows of the inputs' gradient differ.
    return against_torch(
        f"perceptron, {points} points", run("native"), run("torch"), 1,
        lambda result: [result[0], *result[2:]],
    )  # fmt: skip


def planes(rng: torch.Generator) -> list[Contest]:
    grid = PlaneGrid(((64, 64, 64, 64),), channels=16)
    still = torch.rand(50000, 4, generator=rng)
    moving = still.clone().requires_grad_()
    texels = torch.rand(grid.texels, 16, generator=rng).requires_grad_()
    pictures = [p.detach().permute(2, 0, 1)[None].clone().requires_grad_() for p in grid.views(texels)[0]]
    v = torch.randn(50000, 16, generator=rng)

    def native(positions: Tensor, leaves: Sequence[Tensor]) -> Callable[[], Result]:
        return lambda: with_gradients(sample_planes(positions, texels, grid), leaves, v)

    def torch_(positions: Tensor, leaves: Sequence[Tensor]) -> Callable[[], Result]:
        def run() -> Result:
            product = torch.ones(())
            for picture, axes in zip(pictures, itertools.combinations(range(4), 2), strict=True):
                at = (2 * positions[:, axes] - 1)[None, None]
                product = product * grid_sample(picture, at, align_corners=True)[0, :, 0]
            result, *gradients = with_gradients(product.T, [*leaves, *pictures], v)
            flat = torch.cat([g[0].permute(1, 2, 0).reshape(-1, 16) for g in gradients[len(leaves) :]])
            return [result, *gradients[: len(leaves)], flat]

        return run

    return [
        against_torch("planes", native(still, [texels]), torch_(still, []), 3),
        against_torch("planes, positions too", native(moving, [moving, texels]), torch_(moving, [moving]), 3),
    ]


def contests() -> Iterator[Contest]:
    """Every operator of fields, forward and backward."""
    rng = torch.Generator().manual_seed(0)
    yield from hash_grids(rng)
    yield volume(rng)
    yield from planes(rng)
    yield from (perceptron(rng, points) for points in (16384, 65536, 262144))
