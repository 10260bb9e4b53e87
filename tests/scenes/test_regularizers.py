"""The regularisers against their formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from studio.cameras import orbit
from studio.recipes.config import GaussiansConfig, RegularizersConfig
from studio.recipes.ramps import Linear
from studio.scenes.gaussians import Gaussians, GaussianTensors
from studio.scenes.regularizers import (
    binary_entropy,
    normal_inconsistency,
    normals_of_depth,
    regularization,
)
from studio.types import RenderOutput

CAMERAS = orbit(torch.tensor([0.0, 130.0]), torch.tensor([10.0, -20.0]), 17, 12)


def test_terms_and_weights() -> None:
    count = 4
    tensors = GaussianTensors(
        means=torch.zeros(count, 3),
        log_scales=torch.full((count, 3), math.log(0.2)),
        quats_wxyz=torch.ones(count, 4),
        opacity_logits=torch.tensor([-40.0, 0.0, 0.0, 40.0]),
        sh_dc=torch.zeros(count, 1, 3),
        sh_rest=torch.zeros(count, 0, 3),
    )
    scene = Gaussians(tensors, GaussiansConfig())
    render = RenderOutput(rgb=torch.zeros(1, 3, 2, 2), alpha=torch.full((1, 1, 2, 2), 0.25))
    config = RegularizersConfig(opacity=2.0, scale=Linear(start=0.0, end=4.0), sparsity=8.0)
    terms = regularization(config, scene, render, CAMERAS, progress=0.5)
    assert {name: round(term.item(), 6) for name, term in terms.items()} == {
        "opacity": 1.0,
        "scale": 0.4,
        "sparsity": 2.0,
    }
    assert regularization(RegularizersConfig(), scene, render, CAMERAS, 0.5) == {}


def test_entropy() -> None:
    def entropy(alpha: float) -> float:
        return float(binary_entropy(torch.full((1, 1, 2, 2), alpha)))

    assert math.isclose(entropy(0.5), math.log(2), rel_tol=1e-6)
    assert entropy(0.0) < 2e-4
    assert math.isclose(entropy(0.2), -(0.2 * math.log(0.2) + 0.8 * math.log(0.8)), rel_tol=1e-5)


def plane(normal: torch.Tensor) -> torch.Tensor:
    """Depth at which each pixel of ``CAMERAS`` meets the plane through the origin."""
    columns, rows = torch.meshgrid(torch.arange(17) + 0.5, torch.arange(12) + 0.5, indexing="xy")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)]).double()
    rays = torch.einsum("bij,jhw->bihw", CAMERAS.intrinsics.double().inverse(), pixels)
    rotation = CAMERAS.world_to_camera[:, :3, :3].double()
    across = (rotation @ normal.double())[:, :, None, None]
    offset = CAMERAS.world_to_camera[:, :3, 3].double()[:, :, None, None]
    return ((across * offset).sum(1, keepdim=True) / (across * rays).sum(1, keepdim=True)).float()


def test_the_depth_of_a_plane_has_its_normal() -> None:
    """Seen by each camera from the side on which it stands."""
    for camera in range(2):
        towards = torch.nn.functional.normalize(
            CAMERAS.positions[camera] + torch.tensor([0.3, 0.5, -0.2]), dim=0
        )
        found, known = normals_of_depth(plane(towards)[camera : camera + 1], CAMERAS[[camera]])
        inside = found[0, :, 1:-1, 1:-1].flatten(1)
        torch.testing.assert_close(inside, towards[:, None].expand_as(inside), atol=1e-4, rtol=0)
        assert int(known.sum()) == 15 * 10


def test_normal_consistency_is_one_minus_the_cosine() -> None:
    camera = CAMERAS[[0]]
    towards = torch.nn.functional.normalize(camera.positions[0], dim=0)
    depth = plane(towards)[:1]
    alpha = torch.full_like(depth, 0.8)
    tilted = torch.nn.functional.normalize(
        towards + 0.5 * torch.linalg.cross(towards, torch.tensor([0.0, 1, 0])), dim=0
    )
    for normal in (towards, tilted):
        picture = 0.8 * normal[:, None, None].expand(1, 3, 12, 17)
        term = float(normal_inconsistency(alpha, 0.8 * depth, picture, camera))
        share = 15 * 10 / (17 * 12)  # of the pixels with four neighbours
        assert math.isclose(term, share * 0.8 * float(1 - normal @ towards), abs_tol=1e-4)


def test_normal_consistency_has_the_gradient_of_finite_differences() -> None:
    rng = torch.Generator().manual_seed(0)
    camera = orbit(torch.tensor([20.0]), torch.tensor([10.0]), 5, 5)
    depth = (2 + 0.05 * torch.rand(1, 1, 5, 5, generator=rng)).double().requires_grad_()
    normal = torch.randn(1, 3, 5, 5, generator=rng).double().requires_grad_()
    alpha = torch.full((1, 1, 5, 5), 0.9, dtype=torch.double)
    camera = replace(
        camera, intrinsics=camera.intrinsics.double(), world_to_camera=camera.world_to_camera.double()
    )
    assert torch.autograd.gradcheck(
        lambda depth, normal: normal_inconsistency(alpha, depth, normal, camera), (depth, normal), atol=1e-6
    )
