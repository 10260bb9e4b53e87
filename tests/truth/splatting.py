"""Splat scenes, and the assertions that every backend must pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from studio.cameras import orbit
from studio.ops.library import Backend
from studio.ops.splatting import SplatCapacity, SplatImages, splat


@dataclass(frozen=True)
class SplatScene:
    """Arguments of ``splat``; the first seven collect gradients."""

    means: Tensor
    quats_wxyz: Tensor
    scales: Tensor
    opacities: Tensor
    sh: Tensor
    background: Tensor
    means2d_probe: Tensor
    world_to_camera: Tensor
    intrinsics: Tensor
    width: int
    height: int
    antialias: bool
    capacity: SplatCapacity | None = None

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return (
            *(self.means, self.quats_wxyz, self.scales, self.opacities, self.sh),
            *(self.background, self.means2d_probe),
        )

    def to(self, device: str, dtype: torch.dtype) -> SplatScene:
        """The same numbers elsewhere, as new leaves."""
        leaves = [leaf.detach().to(device, dtype).requires_grad_() for leaf in self.leaves]
        cameras = [camera.to(device, dtype) for camera in (self.world_to_camera, self.intrinsics)]
        return SplatScene(*leaves, *cameras, self.width, self.height, self.antialias)

    def draw(self, backend: Backend) -> SplatImages:
        return splat(
            *self.leaves[:5],
            self.world_to_camera,
            self.intrinsics,
            self.background,
            self.width,
            self.height,
            self.means2d_probe,
            antialias=self.antialias,
            capacity=self.capacity,
            backend=backend,
        )


def random_scene(
    splats: int = 200,
    terms: int = 4,
    width: int = 40,
    height: int = 29,
    views: int = 3,
    size: float = 0.04,
    antialias: bool = True,
    seed: int = 0,
) -> SplatScene:
    """Splats scattered around the origin, seen from an orbit."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    cameras = orbit(100.0 * torch.arange(views), torch.linspace(-30, 50, views), width, height)
    leaves = (
        0.2 * normal(splats, 3),
        normal(splats, 4),
        size * torch.exp(0.5 * normal(splats, 3)),
        torch.sigmoid(normal(splats)),
        0.4 * normal(splats, terms, 3),
        torch.rand(views, 3, generator=rng),
        0.3 * normal(views, splats, 2),
    )
    return SplatScene(
        *(leaf.requires_grad_() for leaf in leaves),
        *(cameras.world_to_camera, cameras.intrinsics, width, height, antialias),
    )


def gradients(scene: SplatScene, images: SplatImages, seed: int = 7) -> list[Tensor]:
    """Of a random weighting of all four images, on all leaves."""
    rng = torch.Generator().manual_seed(seed)
    loss = sum((image * torch.randn(image.shape, generator=rng).to(image)).sum() for image in images[:4])
    return list(torch.autograd.grad(loss, scene.leaves))


def assert_agrees(scene: SplatScene, truth: SplatScene, backend: Backend) -> None:
    """``scene`` drawn by ``backend`` is the reference's ``truth``: pixels to 1e-4, gradients to 1e-3."""
    images, expected = scene.draw(backend), truth.draw("torch")
    for image, target in zip(images[:4], expected[:4], strict=True):
        torch.testing.assert_close(image.cpu().double(), target.double(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        images.radii_px.cpu().double(), expected.radii_px.double(), atol=1e-3, rtol=1e-3
    )
    expected_gradients = gradients(truth, expected)
    for got, target in zip(gradients(scene, images), expected_gradients, strict=True):
        size = float(target.abs().max())
        assert float((got.cpu().double() - target).abs().max()) <= 1e-3 * size
