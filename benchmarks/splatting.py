"""Splatting against its plain-torch reference and OpenSplat.

Splats are uniform in the ball of radius 0.5, with scales of about 0.7 times their spacing: what text-to-3D
looks like early on. A gradient on rgb and alpha is given; everything from parameters to parameters'
gradients counts, but for OpenSplat, of which only the rasterizer does (``peers/opensplat.py``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from contest import Contest, NotRun
from peers import opensplat
from peers.opensplat import OpenSplat
from torch import Tensor

from studio.cameras import orbit
from studio.ops.library import Backend
from studio.ops.splatting import SplatCapacity, SplatImages, splat

VIEWS = 4
FIELD_OF_VIEW_DEG = 49.0


@dataclass(frozen=True)
class SplatWorkload:
    """A cloud of Gaussians and cameras around it."""

    parameters: tuple[Tensor, ...]  # means, quaternions, scales, opacities, sh
    world_to_camera: Tensor
    intrinsics: Tensor
    background: Tensor
    resolution: int
    v_images: tuple[Tensor, ...]  # the loss's gradient on rgb and alpha

    def draw(
        self, backend: Backend, antialias: bool = True, capacity: SplatCapacity | None = None
    ) -> SplatImages:
        return splat(
            *self.parameters,
            self.world_to_camera,
            self.intrinsics,
            self.background,
            self.resolution,
            self.resolution,
            antialias=antialias,
            capacity=capacity,
            backend=backend,
        )

    def step(self, backend: Backend, capacity: SplatCapacity | None = None) -> None:
        """Forward and backward."""
        images = self.draw(backend, capacity=capacity)
        torch.autograd.grad((images.rgb, images.alpha), self.parameters, self.v_images)

    def by_opensplat(self) -> OpenSplat:
        size = (self.resolution, self.resolution)
        return OpenSplat(self.parameters, self.world_to_camera, self.intrinsics, self.background, *size)


def splat_workload(count: int, resolution: int, views: int = VIEWS) -> SplatWorkload:
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
    cameras = orbit(torch.arange(views) * (360.0 / views), torch.full((views,), 15.0), resolution, resolution)
    focal = 0.5 * resolution / math.tan(math.radians(0.5 * FIELD_OF_VIEW_DEG))
    center = 0.5 * resolution
    intrinsics = torch.tensor([[focal, 0.0, center], [0.0, focal, center], [0.0, 0.0, 1.0]])
    return SplatWorkload(
        tuple(parameter.requires_grad_() for parameter in parameters),
        cameras.world_to_camera,
        intrinsics.expand(views, 3, 3),
        torch.ones(views, 3),
        resolution,
        (torch.ones(views, 3, resolution, resolution), torch.ones(views, 1, resolution, resolution)),
    )


@functools.cache
def differ_from_torch() -> float:
    """Image and gradients of a small scene by both backends, in float32."""
    work = splat_workload(1000, 48)
    results = []
    for backend in ("native", "torch"):
        images = work.draw(backend)
        results.append([images.rgb, *torch.autograd.grad(images.rgb.square().sum(), work.parameters)])
    errors = [
        float(((native - torch_).abs().max() / torch_.abs().max()).detach())
        for native, torch_ in zip(*results, strict=True)
    ]
    if errors[0] > 1e-4 or max(errors) > 1e-3:
        raise SystemExit(f"Splatting's backends disagree: relative errors {errors}; it was not timed.")
    return max(errors)


@functools.cache
def differ_from_opensplat() -> float:
    """Pictures and gradients on opacities of a small scene."""
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
    return max(apart, error)


def contests() -> Iterator[Contest | NotRun]:
    """Against torch where it takes seconds, not minutes; against OpenSplat everywhere."""
    missing = opensplat.missing()
    for count, resolution, opensplat_aim in (
        (2_000, 128, None),
        (10_000, 64, None),
        (10_000, 128, 5),
        (10_000, 256, 5),
        (50_000, 64, 2),
        (50_000, 128, None),
    ):
        work = splat_workload(count, resolution)
        name = f"splatting, {count} splats, {VIEWS} views of {resolution}^2"
        ours = functools.partial(work.step, "native")
        if count * resolution <= 10_000 * 128:
            torch_ = functools.partial(work.step, "torch")
            yield Contest(name, ours, f"torch {torch.__version__}", torch_, differ_from_torch, 100)
        if missing:
            yield NotRun(name, "OpenSplat", missing)
        else:
            theirs = functools.partial(work.by_opensplat().draw, *work.v_images)
            yield Contest(name, ours, "OpenSplat", theirs, differ_from_opensplat, opensplat_aim)
