"""The operators on a GPU against gsplat, nerfacc, PyTorch3D and tiny-cuda-nn, forward and backward.

Milliseconds between CUDA events, the least of several rounds that ours and the peer's take in turn; ours also
replayed from a CUDA graph where nothing in the step waits for the device. Results are compared where both
sides start from the same numbers: tiny-cuda-nn has its own, in half precision, but for the field, whose
parameters are given to it. nvdiffrast, which draws meshes, is not for commercial use.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import mesh
import torch
from field import with_gradients
from splatting import SplatWorkload, splat_workload
from torch import Tensor

from studio.ops.compositing import composite
from studio.ops.hash_grid import HashGrid, hash_grid
from studio.ops.library import Backend
from studio.ops.marching import OccupancyGrid, march
from studio.ops.mlp import mlp
from studio.ops.splatting import SplatCapacity
from studio.recipes.config import FieldConfig
from studio.renderers import tinycudann_backend
from studio.scenes.field import RadianceField

Step = Callable[[], object]
WORK = {
    "splatting, 2k-100k splats, 1-16 views of 64-512^2": "gsplat",
    "mesh of 10k faces, 4 views of 64-512^2": "pytorch3d",
    "march + composite, a ball in 128^3 cells": "nerfacc",
    "hash grid, 262144 points": "tiny-cuda-nn",
    "perceptron, 262144 points": "tiny-cuda-nn",
    "field, 262144 points": "tiny-cuda-nn",
}


@dataclass(frozen=True)
class GpuContest:
    """One row; ``differ`` as in ``contest.Contest``, None where the numbers are not the same."""

    work: str
    ours: Step
    peer: str
    theirs: Step | None = None
    differ: Callable[[], float] | None = None
    waits: bool = False  # for the device: cannot be captured


def rows() -> Iterator[str]:
    """The table, row by row; one row a peer where there is no GPU."""
    if not torch.cuda.is_available():
        for work, peer in WORK.items():
            yield f"{work:52}{peer:22} not run: no GPU"
        return
    yield f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    yield f"{'on a GPU':52}{'peer':22}{'differ by':>10}{'ours':>12}{'in a graph':>12}{'peer':>12}{'ratio':>8}"
    with torch.device("cuda"):
        for contest in contests():
            yield row(contest)


def row(contest: GpuContest) -> str:
    """Times one contest."""
    difference = "-"
    if contest.differ is not None:
        error = contest.differ()
        if not error < 2e-2:
            return f"{contest.work:52}{contest.peer:22} not timed: the results differ by {error:.0e}"
        difference = f"{error:.0e}"
    sides: dict[str, Step] = {"ours": contest.ours}
    if not contest.waits:
        sides["graph"] = captured(contest.ours)
    if contest.theirs is not None:
        sides["peer"] = contest.theirs
    best = {name: math.inf for name in sides}
    for _, (name, step) in itertools.product(range(5), sides.items()):
        best[name] = min(best[name], milliseconds(step))
    shown = [f"{best[name]:9.3f} ms" if name in best else f"{'-':>12}" for name in ("ours", "graph", "peer")]
    ours = min(best["ours"], best.get("graph", math.inf))
    ratio = f"{best['peer'] / ours:7.1f}x" if "peer" in best else f"{'-':>8}"
    return f"{contest.work:52}{contest.peer:22}{difference:>10}{''.join(shown)}{ratio}"


def milliseconds(step: Step, repeats: int = 20) -> float:
    """Of one step, over several in a row."""
    step()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        step()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / repeats


def captured(step: Step) -> Step:
    """The step from a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # what is made at first use must not be in the graph
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def peer_named(distribution: str) -> tuple[str, bool]:
    """The peer with its version, and whether it is installed."""
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}", True
    except importlib.metadata.PackageNotFoundError:
        return f"{distribution}: not installed", False


def largest_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Of several results' norms, each to its size: single numbers may fall to the other side of a kink."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(((one - two).norm() / two.norm()).detach()) for one, two in pairs)


def contests() -> Iterator[GpuContest]:
    """Every row, on torch's default device."""
    for count, resolution, views in itertools.product(
        (2_000, 10_000, 100_000), (64, 128, 256, 512), (1, 4, 16)
    ):
        yield splats(count, resolution, views)
    for resolution in (64, 128, 256, 512):
        yield ball(resolution)
    yield rays()
    yield encoding()
    yield from perceptrons()
    yield radiance_field()


def splats(count: int, resolution: int, views: int) -> GpuContest:
    device = torch.get_default_device()
    with torch.device("cpu"):
        cloud = splat_workload(count, resolution, views)
    work = replace(
        cloud,
        parameters=tuple(parameter.detach().to(device).requires_grad_() for parameter in cloud.parameters),
        world_to_camera=cloud.world_to_camera.to(device),
        intrinsics=cloud.intrinsics.to(device),
        background=cloud.background.to(device),
        v_images=tuple(v_image.to(device) for v_image in cloud.v_images),
    )
    little = SplatCapacity.of(1, device)
    work.draw("native", capacity=little)
    capacity = SplatCapacity.of(2 * (1 + int(little.left_out)), device)

    def differ() -> float:
        one, two = work.draw("native").rgb, by_gsplat(work)[0]
        return float(((one - two).abs().max() / two.abs().max()).detach())

    def theirs() -> None:
        torch.autograd.grad(by_gsplat(work), work.parameters, work.v_images)

    name = f"splatting, {count} splats, {views} views of {resolution}^2"
    peer, here = peer_named("gsplat")
    step = functools.partial(work.step, "native", capacity)
    return GpuContest(name, step, peer, theirs if here else None, differ if here else None)


def by_gsplat(work: SplatWorkload) -> tuple[Tensor, Tensor]:
    """Colour [b 3 h w] and alpha [b 1 h w]; without the depths and normals that ours draws beside."""
    from gsplat import rasterization

    rgb, alpha, _ = rasterization(
        *work.parameters, work.world_to_camera, work.intrinsics, work.resolution, work.resolution,
        sh_degree=0, rasterize_mode="antialiased", backgrounds=work.background, packed=False,
    )  # fmt: skip
    return rgb.permute(0, 3, 1, 2), alpha.permute(0, 3, 1, 2)


def ball(resolution: int) -> GpuContest:
    with torch.device("cpu"):
        task = mesh.task_of(resolution)
    device = torch.get_default_device()
    task = mesh.Task(
        *(values.to(device) for values in (task.vertices, task.faces, task.colors)),
        task.cameras.to(device),
        task.v_images.to(device),
    )
    studio = mesh.Studio(task)
    name, (peer, here) = f"mesh of 10k faces, 4 views of {resolution}^2", peer_named("pytorch3d")
    if not here:
        return GpuContest(name, studio.step, peer)
    theirs = mesh.PyTorch3d(task)
    return GpuContest(
        name, studio.step, peer, theirs.step, functools.partial(mesh.differ_from_pytorch3d, task, theirs)
    )


def rays(count: int = 65536, side: int = 128) -> GpuContest:
    """Rays through a ball of occupied cells; gradients on the samples' densities and colours."""
    name = "march + composite, a ball in 128^3 cells"
    device = torch.get_default_device()
    rng = torch.Generator(device).manual_seed(0)
    axis = (torch.arange(side) + 0.5) / side - 0.5
    occupied = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 0.3**2
    grid = OccupancyGrid(occupied.float(), occupied)
    origins = 0.5 + 2 * torch.nn.functional.normalize(torch.randn(count, 3, generator=rng))
    targets = 0.3 + 0.4 * torch.rand(count, 3, generator=rng)
    directions = torch.nn.functional.normalize(targets - origins)
    step, most = math.sqrt(3) / 256, 256
    densities = (8 * torch.rand(count * 128, generator=rng)).requires_grad_()
    colors = torch.rand(count * 128, 3, generator=rng).requires_grad_()
    v = torch.randn(count, 3, generator=rng)

    def ours() -> int:
        samples = march(origins, directions, grid, step=step, max_samples=most)
        found = len(samples.t)
        seen = composite(densities[:found], step, colors[:found], samples.t, samples.starts)
        with_gradients(seen.rgb, [densities, colors], v)
        return found

    peer, here = peer_named("nerfacc")
    if not here:
        return GpuContest(name, ours, peer, waits=True)
    from nerfacc import OccGridEstimator, accumulate_along_rays, render_weight_from_density

    estimator = OccGridEstimator([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], side, 1).to(device)
    estimator.binaries = occupied[None]

    def theirs() -> int:
        ray, begin, end = estimator.sampling(origins, directions, render_step_size=step)
        found = len(ray)
        weights, _, _ = render_weight_from_density(
            begin, end, densities[:found], ray_indices=ray, n_rays=count
        )
        rgb = accumulate_along_rays(weights, colors[:found], ray_indices=ray, n_rays=count)
        with_gradients(rgb, [densities, colors], v)
        return found

    # The lattices of samples do not begin at the same place: their numbers alone can be compared.
    return GpuContest(name, ours, peer, theirs, lambda: abs(ours() / theirs() - 1), waits=True)


def encoding(points: int = 262144) -> GpuContest:
    grid = HashGrid(levels=16, features=2, log2_table_size=15, base_resolution=16, finest_resolution=2048)
    positions = torch.rand(points, 3)
    table = torch.randn(grid.entries, 2).requires_grad_()
    v = torch.randn(points, grid.width)

    def ours() -> object:
        return with_gradients(hash_grid(positions, table, grid), [table], v)

    name, (peer, here) = f"hash grid, {points} points", peer_named("tinycudann")
    if not here:
        return GpuContest(name, ours, peer)
    import tinycudann

    theirs = tinycudann.Encoding(
        3,
        {
            "otype": "HashGrid", "n_levels": 16, "n_features_per_level": 2, "log2_hashmap_size": 15,
            "base_resolution": 16, "per_level_scale": 2 ** (7 / 15),
        },
    )  # fmt: skip
    return GpuContest(name, ours, peer, lambda: with_gradients(theirs(positions), [theirs.params], v.half()))


def perceptrons(points: int = 262144) -> Iterator[GpuContest]:
    """Against torch's layers of the same numbers, and against tiny-cuda-nn's."""
    widths = (32, 64, 64, 4)
    inputs = torch.randn(points, widths[0]).requires_grad_()
    weights = [(torch.randn(o, i) / math.sqrt(i)).requires_grad_() for i, o in itertools.pairwise(widths)]
    biases = [torch.randn(o).requires_grad_() for o in widths[1:]]
    v = torch.randn(points, widths[-1])

    def by(backend: Backend) -> list[Tensor]:
        outputs = mlp(inputs, weights, biases, backend=backend)
        return list(with_gradients(outputs, [inputs, *weights, *biases], v))

    def differ() -> float:
        return largest_difference(by("native"), by("torch"))

    name, (peer, here) = f"perceptron, {points} points", peer_named("tinycudann")
    ours = functools.partial(by, "native")
    yield GpuContest(name, ours, f"torch {torch.__version__}", functools.partial(by, "torch"), differ)
    if not here:
        yield GpuContest(name, ours, peer)
        return
    import tinycudann

    theirs = tinycudann.Network(
        32,
        4,
        {
            "otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": "None",
            "n_neurons": 64, "n_hidden_layers": 2,
        },
    )  # fmt: skip
    yield GpuContest(
        name, ours, peer, lambda: with_gradients(theirs(inputs), [inputs, theirs.params], v.half())
    )


def radiance_field(points: int = 262144) -> GpuContest:
    """Hash grid and perceptron in one, of the same parameters: tiny-cuda-nn as a recipe chooses it."""
    config = FieldConfig(levels=16, features=2, log2_table_size=15, base_resolution=16, width=63, layers=2)
    scene = RadianceField.initial(config, torch.Generator(torch.get_default_device()).manual_seed(0))
    leaves = [group.parameter for group in scene.parameter_groups()]
    positions, v = torch.rand(points, 3), torch.randn(points, 3)
    with torch.no_grad():
        scene.table.normal_()

    def ours() -> list[Tensor]:
        return list(with_gradients(scene.at(None).sampled(positions)[1], leaves, v))

    def theirs() -> list[Tensor]:
        colors = tinycudann_backend.sampled(scene.at(None), positions)[1]
        return list(with_gradients(colors, leaves, v))

    def differ() -> float:
        return largest_difference(ours()[:1], theirs()[:1])  # in half precision slopes have other kinks

    name, (peer, here) = f"field, {points} points", peer_named("tinycudann")
    return GpuContest(name, ours, peer, theirs if here else None, differ if here else None)
