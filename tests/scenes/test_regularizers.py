"""The regularisers against their formulas."""

from __future__ import annotations

import math

import torch

from studio.recipes.config import GaussiansConfig, RegularizersConfig
from studio.recipes.ramps import Linear
from studio.scenes.gaussians import Gaussians, GaussianTensors
from studio.scenes.regularizers import binary_entropy, regularization
from studio.types import RenderOutput


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
    terms = regularization(config, scene, render, progress=0.5)
    assert {name: round(term.item(), 6) for name, term in terms.items()} == {
        "opacity": 1.0,
        "scale": 0.4,
        "sparsity": 2.0,
    }
    assert regularization(RegularizersConfig(), scene, render, 0.5) == {}


def test_entropy() -> None:
    def entropy(alpha: float) -> float:
        return float(binary_entropy(torch.full((1, 1, 2, 2), alpha)))

    assert math.isclose(entropy(0.5), math.log(2), rel_tol=1e-6)
    assert entropy(0.0) < 2e-4
    assert math.isclose(entropy(0.2), -(0.2 * math.log(0.2) + 0.8 * math.log(0.8)), rel_tol=1e-5)
