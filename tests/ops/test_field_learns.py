"""All operators of a field together: from rays of a ball whose picture has a closed form to the ball."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from studio.ops.compositing import Composite, composite
from studio.ops.hash_grid import HashGrid, hash_grid
from studio.ops.marching import OccupancyGrid, cell_points, march
from studio.ops.mlp import mlp

STEP = math.sqrt(3) / 64
RADIUS = 0.3


def see_ball(origins: Tensor, directions: Tensor) -> Tensor:
    """Its normals as colours, over black."""
    from_center = origins - 0.5
    half = (from_center * directions).sum(-1)
    inside = half.square() - from_center.square().sum(-1) + RADIUS**2
    t = -half - inside.clamp(min=0).sqrt()
    normal = (from_center + t[:, None] * directions) / RADIUS
    return (0.5 + 0.5 * normal).where(inside[:, None] > 0, torch.zeros(3))


def test_a_field_learns_a_ball_from_rays() -> None:
    rng = torch.Generator().manual_seed(0)
    grid = HashGrid(levels=4, features=2, log2_table_size=13, base_resolution=8, finest_resolution=32)
    table = 1e-4 * (2 * torch.rand(grid.entries, 2, generator=rng) - 1)
    widths = (grid.width, 32, 32, 4)
    weights = [torch.randn(o, i, generator=rng) / math.sqrt(i) for i, o in itertools.pairwise(widths)]
    biases = [torch.zeros(o) for o in widths[1:]]
    leaves = [leaf.requires_grad_() for leaf in (table, *weights, *biases)]
    adam = torch.optim.Adam(leaves, lr=0.02)
    occupancy = OccupancyGrid.full(16)

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        outputs = mlp(hash_grid(points, table, grid), weights, biases)
        return outputs[:, 0].clamp(max=6).exp(), outputs[:, 1:].sigmoid()

    def some_rays(count: int) -> tuple[Tensor, Tensor]:
        origins = 0.5 + 2 * normalize(torch.randn(count, 3, generator=rng))
        return origins, normalize(0.5 + 0.8 * (torch.rand(count, 3, generator=rng) - 0.5) - origins)

    def see(origins: Tensor, directions: Tensor) -> Composite:
        jitter = torch.rand(len(origins), generator=rng)
        samples = march(origins, directions, occupancy, step=STEP, max_samples=64, jitter=jitter)
        densities, colors = field(samples.positions)
        return composite(densities, STEP, colors, samples.t, samples.starts)

    for step in range(120):
        origins, directions = some_rays(512)
        loss = (see(origins, directions).rgb - see_ball(origins, directions)).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 16 == 15:
            with torch.no_grad():
                densities, _ = field(cell_points(torch.rand(16, 16, 16, 3, generator=rng)))
            occupancy = occupancy.updated(densities.view(16, 16, 16), threshold=0.5)

    origins, directions = some_rays(2000)
    with torch.no_grad():
        seen = see(origins, directions)
    error = (seen.rgb - see_ball(origins, directions)).square().mean()
    assert -10 * math.log10(float(error)) > 20
    share = 4 / 3 * math.pi * RADIUS**3
    assert share < float(occupancy.occupied.float().mean()) < 4 * share
    # The ray through the middle meets the ball at 2 - 0.3.
    middle = see(torch.tensor([[0.5, 0.5, 2.5]]), torch.tensor([[0.0, 0.0, -1.0]]))
    assert abs(float((middle.depth / middle.opacity).detach()) - (2 - RADIUS)) < 0.06
