from __future__ import annotations

import math

import pytest
import torch

from studio.guidance.gradient import clip_pixels, inject, rescale_std, with_clipped_gradient
from studio.guidance.methods import method_of
from studio.guidance.score_distillation import ScoreDistillation
from studio.recipes.guidance import GradientConfig, SdsConfig
from studio.recipes.ramps import Linear
from tests.guidance.bench import conditioning_of, images, mixtures, run, two_gaussians


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_injected_gradient_is_exact(dtype: torch.dtype) -> None:
    """Also where the gradient is far smaller than what the image could resolve."""
    x = (1e3 * images(3)).to(dtype).requires_grad_()
    gradient = (1e-4 * images(3, 1)).to(dtype)
    loss = inject(x, gradient)
    loss.backward()
    torch.testing.assert_close(x.grad, gradient / 3, atol=0, rtol=1e-6)
    assert loss.item() == pytest.approx(0.5 * gradient.square().sum().item() / 3, rel=1e-5)


def test_the_injected_gradient_scales_with_what_comes_from_above() -> None:
    """As a loss scaler or a weight of the loss needs it."""
    x, gradient = images(2).requires_grad_(), images(2, 1)
    (8.0 * inject(x, gradient)).backward()
    torch.testing.assert_close(x.grad, 4.0 * gradient)


def test_pixel_clipping_bounds_and_keeps_directions() -> None:
    gradient = 0.2 * images(3)
    clipped = clip_pixels(gradient, 0.1)
    assert clipped.abs().max().item() <= 0.1 + 1e-12
    cosine = torch.nn.functional.cosine_similarity(gradient, clipped, dim=1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    small = gradient.abs().amax(dim=1, keepdim=True) <= 0.1
    assert small.any() and not small.all()
    torch.testing.assert_close(clipped * small, gradient * small)


def test_pixel_clipping_by_hand() -> None:
    """max |g| = 0.4 becomes 0.1, so every channel shrinks four times; zero stays zero."""
    pixels = torch.tensor([[0.2, -0.4, 0.1], [0.0, 0.0, 0.0], [0.05, -0.1, 0.02]]).T.view(1, 3, 1, 3)
    expected = torch.tensor([[0.05, -0.1, 0.025], [0.0, 0.0, 0.0], [0.05, -0.1, 0.02]]).T.view(1, 3, 1, 3)
    torch.testing.assert_close(clip_pixels(pixels, 0.1), expected)


def test_pixel_clipping_spares_other_losses() -> None:
    rgb = images(2).requires_grad_()
    gradient = images(2, 1)
    (inject(with_clipped_gradient(rgb, 0.01), gradient) + 5.0 * rgb.sum()).backward()
    torch.testing.assert_close(rgb.grad, clip_pixels(gradient / 2, 0.01) + 5.0)


def test_the_driver_clips_pixels_when_told() -> None:
    prior = two_gaussians()
    config = SdsConfig(gradient=GradientConfig(pixel_clip=0.02))
    rgb = images(2).requires_grad_()
    output = run(method_of(config), prior, conditioning_of(prior), rgb, 400.0, images(2, 1))
    output.loss.backward()
    torch.testing.assert_close(rgb.grad, clip_pixels(output.gradient / 2, 0.02))


@pytest.mark.parametrize(("progress", "bound"), [(0.0, 2.0), (0.5, 5.0), (1.0, 8.0)])
def test_the_clamp_is_annealed(progress: float, bound: float) -> None:
    """Debiased SDS: 2 rising to 8."""
    prior = two_gaussians()
    config = SdsConfig(gradient=GradientConfig(clamp=Linear(start=2.0, end=8.0)))
    arguments = (prior, conditioning_of(prior), images(2), 600.0, images(2, 1), progress)
    clamped = run(method_of(config), *arguments).gradient
    free = run(method_of(SdsConfig()), *arguments).gradient
    assert free.abs().max().item() > 8.0
    torch.testing.assert_close(clamped, free.clamp(-bound, bound))


def rescaled(cfg_scale: float, strength: float) -> torch.Tensor:
    prior = mixtures()
    config = SdsConfig(cfg_scale=cfg_scale, weight="uniform", gradient=GradientConfig(rescale_std=strength))
    timesteps = torch.tensor([100.0, 500.0, 900.0])
    return run(method_of(config), prior, conditioning_of(prior), images(3), timesteps, images(3, 1)).gradient


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_rescaling_does_nothing_without_guidance(strength: float) -> None:
    torch.testing.assert_close(rescaled(1.0, strength), rescaled(1.0, 0.0))
    assert not torch.allclose(rescaled(7.5, strength), rescaled(7.5, 0.0))


def test_full_rescaling_gives_the_unguided_spread() -> None:
    clean, ratio = images(3), torch.rand(3, 1, 1, 1, dtype=torch.float64)
    direction, unguided = images(3, 1), 3.0 * images(3, 2)
    full = clean - ratio * rescale_std(direction, unguided, clean, ratio, 1.0)
    assert full.std().item() == pytest.approx(unguided.std().item())
    half = clean - ratio * rescale_std(direction, unguided, clean, ratio, 0.5)
    guided = clean - ratio * direction
    torch.testing.assert_close(half, 0.5 * guided + 0.5 * full)
    torch.testing.assert_close(rescale_std(direction, unguided, clean, ratio, 0.0), direction)


def test_values_that_are_not_finite_are_reported_and_kept() -> None:
    prior = two_gaussians()
    rgb = images(2)
    rgb[0, 0, 0, 0] = math.nan
    rgb[1, 2, 3, 3] = math.inf
    rgb.requires_grad_()
    output = run(method_of(SdsConfig()), prior, conditioning_of(prior), rgb, 400.0, images(2, 1))
    assert output.terms["nonfinite_encoded"] == pytest.approx(2 / rgb.numel())
    assert output.terms["nonfinite_gradient"] >= 2 / rgb.numel()
    assert not math.isfinite(output.loss.item())


def test_finite_values_are_reported_as_such() -> None:
    prior = two_gaussians()
    output = ScoreDistillation(prior, method_of(SdsConfig()))(
        images(2), conditioning_of(prior), 0.0, torch.Generator().manual_seed(0)
    )
    assert output.terms["nonfinite_encoded"] == output.terms["nonfinite_gradient"] == 0.0
    assert output.terms["gradient_rms"] == pytest.approx(output.gradient.square().mean().sqrt().item())
