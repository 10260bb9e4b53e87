"""nerfacc as a renderer's backend against ours, where there is a GPU and nerfacc is installed."""

from __future__ import annotations

import pytest
import torch

from studio.ops.compositing import composite
from studio.ops.marching import OccupancyGrid, PackedSamples, march
from studio.renderers import nerfacc_backend

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
STEP = 0.01


def samples_of_both() -> tuple[PackedSamples, PackedSamples]:
    """nerfacc's and ours, of rays from outside a full cube to places within."""
    pytest.importorskip("nerfacc")
    rng = torch.Generator().manual_seed(0)
    origins = 0.5 + 2 * torch.nn.functional.normalize(torch.randn(64, 3, generator=rng))
    towards = 0.3 + 0.4 * torch.rand(64, 3, generator=rng)
    directions = torch.nn.functional.normalize(towards - origins)
    grid = OccupancyGrid.full(8, "cuda")
    theirs = nerfacc_backend.march(origins.cuda(), directions.cuda(), grid, step=STEP)
    return theirs, march(origins.cuda(), directions.cuda(), grid, step=STEP, max_samples=1000)


def test_lattices_differ_only_in_where_they_begin() -> None:
    """Both step through the same chord of the cube: by no more than a step at either end, and a sample."""
    theirs, ours = samples_of_both()
    for samples in (theirs, ours):
        along = samples.t.diff()[samples.ray_indices.diff() == 0]
        torch.testing.assert_close(along, torch.full_like(along, STEP), atol=1e-5, rtol=0)
    assert int((theirs.starts.diff() - ours.starts.diff()).abs().max()) <= 1
    first, last = (
        theirs.t[theirs.starts[:-1]] - ours.t[ours.starts[:-1]],
        theirs.t[theirs.starts[1:] - 1] - ours.t[ours.starts[1:] - 1],
    )
    assert float(first.abs().max()) < 1.001 * STEP and float(last.abs().max()) < 1.001 * STEP


def test_composites_the_same_samples_alike() -> None:
    """In nerfacc's sample positions, thin enough that no ray ends early, with gradients."""
    samples, _ = samples_of_both()
    rng = torch.Generator().manual_seed(1)
    count = len(samples.t)
    densities = (3 * torch.rand(count, generator=rng)).cuda().requires_grad_()
    colors = torch.rand(count, 3, generator=rng).cuda().requires_grad_()
    v_rgb = torch.randn(64, 3, generator=rng).cuda()
    theirs = nerfacc_backend.composite(densities, STEP, colors, samples)
    ours = composite(densities, STEP, colors, samples.t, samples.starts)
    for name in ("rgb", "opacity", "depth", "weights"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(seen.rgb, (densities, colors), v_rgb) for seen in (theirs, ours)]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5 * float(two.abs().max()), rtol=1e-4)
