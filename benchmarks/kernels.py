"""Times splatting against its plain-torch reference and OpenSplat, after checking that all agree.

Run with ``python benchmarks/kernels.py``. Times are the least of several runs: process CPU time, which a busy
machine disturbs less, and wall time. Splat scenes are uniform in the ball of radius 0.5, with scales of about
0.7 times their spacing: what text-to-3D looks like early on. The loss has a gradient on rgb and alpha;
everything from parameters to parameters' gradients counts, but for OpenSplat, of which only the rasterizer
does (``peers/opensplat.py``).
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from peers import opensplat
from peers.opensplat import OpenSplat
from torch import Tensor

from studio.cameras import orbit
from studio.ops import library
from studio.ops.library import Backend
from studio.ops.splatting import SplatImages, splat

VIEWS = 4
FIELD_OF_VIEW_DEG = 49.0


@dataclass(frozen=True)
class Seconds:
    """CPU and wall time of one run, each the least of several."""

    cpu: float
    wall: float


def least(run: Callable[[], None], repeats: int) -> Seconds:
    """Times ``run`` after one run to warm up."""
    if repeats > 1:
        run()
    cpu, wall = [], []
    for _ in range(repeats):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        run()
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - wall_start)
    return Seconds(min(cpu), min(wall))


def least_with_one_and_all(run: Callable[[], None], all_threads: int) -> tuple[Seconds, Seconds]:
    """``least`` with one thread and with all, in turn, since a machine changes by the second."""
    rounds = []
    for _ in range(3):
        for threads in (1, all_threads):
            torch.set_num_threads(threads)
            rounds.append(least(run, 8))
    torch.set_num_threads(1)
    return tuple(
        Seconds(min(times.cpu for times in same), min(times.wall for times in same))
        for same in (rounds[::2], rounds[1::2])
    )


@dataclass(frozen=True)
class SplatWorkload:
    """A cloud of Gaussians and four cameras around it."""

    parameters: tuple[Tensor, ...]  # means, quaternions, scales, opacities, sh
    world_to_camera: Tensor
    intrinsics: Tensor
    background: Tensor
    resolution: int

    def draw(self, backend: Backend, antialias: bool = True) -> SplatImages:
        return splat(
            *self.parameters,
            self.world_to_camera,
            self.intrinsics,
            self.background,
            self.resolution,
            self.resolution,
            antialias=antialias,
            backend=backend,
        )

    def step(self, backend: Backend) -> None:
        """Forward and backward."""
        images = self.draw(backend)
        torch.autograd.grad(images.rgb.sum() + (images.rgb * images.alpha).sum(), self.parameters)

    def by_opensplat(self) -> OpenSplat:
        size = (self.resolution, self.resolution)
        return OpenSplat(self.parameters, self.world_to_camera, self.intrinsics, self.background, *size)


def splat_workload(count: int, resolution: int) -> SplatWorkload:
    rng = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=rng))
    means = 0.5 * torch.rand(count, 1, generator=rng) ** (1 / 3) * direction
    spacing = (4 / 3 * math.pi * 0.5**3 / count) ** (1 / 3)
    parameters = (
        means,
        torch.randn(count, 4, generator=rng),
        0.7 * spacing * torch.exp(0.3 * torch.randn(count, 3, generator=rng)),
        torch.sigmoid(1.5 * torch.randn(count, generator=rng) - 0.5),
        torch.randn(count, 1, 3, generator=rng),
    )
    cameras = orbit(torch.arange(VIEWS) * (360.0 / VIEWS), torch.full((VIEWS,), 15.0), resolution, resolution)
    focal = 0.5 * resolution / math.tan(math.radians(0.5 * FIELD_OF_VIEW_DEG))
    center = 0.5 * resolution
    intrinsics = torch.tensor([[focal, 0.0, center], [0.0, focal, center], [0.0, 0.0, 1.0]])
    return SplatWorkload(
        tuple(parameter.requires_grad_() for parameter in parameters),
        cameras.world_to_camera,
        intrinsics.expand(VIEWS, 3, 3),
        torch.ones(VIEWS, 3),
        resolution,
    )


def check_splatting() -> str:
    """The native image and gradients against the reference, both in float32; raises where they disagree."""
    work = splat_workload(1000, 48)
    results = []
    for backend in ("native", "torch"):
        images = work.draw(backend)
        results.append([images.rgb, *torch.autograd.grad(images.rgb.square().sum(), work.parameters)])
    errors = [
        float(((native - torch_).abs().max() / torch_.abs().max()).detach())
        for native, torch_ in zip(*results, strict=True)
    ]
    if errors[0] > 1e-4 or max(errors[1:]) > 1e-3:
        raise SystemExit(f"The backends disagree: relative errors {errors}; nothing was timed.")
    return f"image within {errors[0]:.0e}, gradients within {max(errors[1:]):.0e} of the reference"


def check_opensplat() -> str:
    """OpenSplat's pictures and gradients against ours; raises where they disagree."""
    work = splat_workload(1000, 48)
    images = work.draw("native", antialias=False)
    v_rgb, v_alpha = torch.ones_like(images.rgb), torch.full_like(images.alpha, 0.5)
    rgb, gradients = work.by_opensplat().draw(v_rgb, v_alpha)
    apart = float((images.rgb - rgb).detach().abs().max())
    loss = (images.rgb * v_rgb).sum() + (images.alpha * v_alpha).sum()
    ours = torch.autograd.grad(loss, work.parameters)[3]
    theirs = sum(v_opacities[:, 0] for *_, v_opacities in gradients)
    error = float((ours - theirs).abs().max() / ours.abs().max())
    if apart > 1e-4 or error > 1e-3:
        raise SystemExit(f"OpenSplat draws something else: {apart} in the image, {error} in the gradient.")
    return f"image within {apart:.0e}, gradient on opacities within {error:.0e} of ours"


def splatting_rows(all_threads: int, opensplat_is_here: bool) -> list[str]:
    widths = {
        "splats": 8,
        "pixels": 7,
        "1 thread cpu": 13,
        "wall": 9,
        "all wall": 9,
        "gain": 5,
        "torch cpu": 10,
        "ratio": 6,
        "OpenSplat cpu": 13,
        "ratio ": 6,
    }
    rows = [" ".join(f"{name:>{width}}" for name, width in widths.items())]
    for count, resolution, compare in (
        (2_000, 128, True),
        (10_000, 64, True),
        (10_000, 128, True),
        (10_000, 256, False),
        (50_000, 64, False),
        (50_000, 128, False),
    ):
        work = splat_workload(count, resolution)
        one, all_ = least_with_one_and_all(lambda work=work: work.step("native"), all_threads)
        reference = least(lambda work=work: work.step("torch"), 1) if compare else None
        peer = None
        if opensplat_is_here:
            theirs, v = work.by_opensplat(), torch.ones(VIEWS, 3, resolution, resolution)
            peer = least(lambda theirs=theirs, v=v: theirs.draw(v, v[:, :1]), 5)
        row = (
            f"{count:8d} {resolution:5d}^2 {1e3 * one.cpu:10.2f} ms {1e3 * one.wall:6.2f} ms"
            f" {1e3 * all_.wall:6.2f} ms {one.wall / all_.wall:4.1f}x"
        )
        row += (
            f" {reference.cpu:8.2f} s {reference.cpu / one.cpu:5.0f}x"
            if reference
            else f" {'-':>10} {'-':>6}"
        )
        row += f" {1e3 * peer.cpu:10.1f} ms {peer.cpu / one.cpu:5.1f}x" if peer else f" {'-':>13} {'-':>6}"
        rows.append(row)
    return rows


def cuda_peers() -> list[str]:
    if not torch.cuda.is_available():
        return ["studio on CUDA: not run: no CUDA device", "gsplat: not run: no CUDA device"]
    return ["studio on CUDA and gsplat: not timed by this script yet"]


def main() -> None:
    all_threads = torch.get_num_threads()
    print(f"python {platform.python_version()}, torch {torch.__version__}, {all_threads} threads")
    print(*library.report(), sep="\n")
    print(f"\nSplatting, forward and backward, {VIEWS} views: {check_splatting()}")
    missing = opensplat.missing()
    print(f"OpenSplat: {missing or check_opensplat()}")
    print(*splatting_rows(all_threads, missing is None), *cuda_peers(), sep="\n")


if __name__ == "__main__":
    main()
