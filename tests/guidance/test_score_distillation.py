"""What every method promises, whatever its paper: one test body, all methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from studio.guidance.methods import build_guidance, method_of
from studio.guidance.score_distillation import ScoreDistillation
from studio.interfaces import Guidance
from studio.recipes.guidance import (
    BridgeConfig,
    CsdConfig,
    FixedNoise,
    GuidanceConfig,
    HifaConfig,
    NfsdConfig,
    ScoresConfig,
    SdsConfig,
    SjcConfig,
    SweepTimes,
)
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Condition, Conditioning
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    CountingPrior,
    conditioning_of,
    images,
    mixtures,
    run,
    with_wrong_views,
)

CONFIGS: list[GuidanceConfig] = [
    SdsConfig(),
    SjcConfig(),
    CsdConfig(),
    NfsdConfig(),
    BridgeConfig(),
    HifaConfig(),
]
WEIGHTS = torch.tensor([[-0.2, -1.1, -0.7], [-1.6, 0.0, -0.4]])
PROGRESS = [0.0, 0.25, 0.75]

each_method = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)


def conditioning_for(prior: CountingPrior, weights: Tensor = WEIGHTS) -> Conditioning:
    return with_wrong_views(conditioning_of(prior.inner, negatives=["neg"]), prior.inner, weights)


def call(
    config: GuidanceConfig, x: Tensor, progress: float = 0.25, dtype: torch.dtype = torch.float64
) -> Tensor:
    prior = CountingPrior(mixtures(dtype=dtype))
    guidance = build_guidance(config, prior)
    return guidance(x, conditioning_for(prior), progress, torch.Generator().manual_seed(3)).gradient


@each_method
def test_it_is_a_guidance(config: GuidanceConfig) -> None:
    assert isinstance(build_guidance(config, mixtures()), Guidance)


@each_method
def test_a_half_precision_denoiser_gives_a_full_precision_gradient(config: GuidanceConfig) -> None:
    x = images(3).float()
    exact = call(config, x)
    coarse = call(config, x, dtype=torch.float16)
    assert exact.dtype == coarse.dtype == torch.float32
    error = (coarse - exact).norm() / exact.norm()
    assert error.item() < 0.02


@each_method
def test_half_precision_images_get_half_precision_gradients_of_full_precision_sums(
    config: GuidanceConfig,
) -> None:
    x = images(3).half().requires_grad_()
    prior = CountingPrior(mixtures(dtype=torch.float16))
    guidance = build_guidance(config, prior)
    output = guidance(x, conditioning_for(prior), 0.25, torch.Generator().manual_seed(3))
    assert output.gradient.dtype == torch.float32
    assert bool(torch.isfinite(output.gradient).all())
    output.loss.backward()
    assert x.grad is not None and x.grad.dtype == torch.float16


@pytest.mark.parametrize("perp_neg", [0.0, 1.0])
@pytest.mark.parametrize("progress", PROGRESS)
@each_method
def test_a_batch_is_its_images_one_by_one(config: GuidanceConfig, progress: float, perp_neg: float) -> None:
    method = method_of(replace(config, scores=ScoresConfig(perp_neg=perp_neg)))
    prior = CountingPrior(mixtures())
    x, noise, timesteps = images(3), images(3, 1), torch.tensor([150.0, 400.0, 900.0])
    together = run(method, prior, conditioning_for(prior), x, timesteps, noise, progress).gradient
    for row in range(3):
        one = slice(row, row + 1)
        alone = run(
            method,
            prior,
            conditioning_for(prior, WEIGHTS[:, one]),
            x[one],
            timesteps[one],
            noise[one],
            progress,
        )
        torch.testing.assert_close(together[one], alone.gradient)


@each_method
def test_the_gradient_on_the_image_is_the_direction_over_the_batch(config: GuidanceConfig) -> None:
    prior = CountingPrior(mixtures())
    x = images(3).requires_grad_()
    output = build_guidance(config, prior)(x, conditioning_for(prior), 0.25, torch.Generator().manual_seed(3))
    output.loss.backward()
    torch.testing.assert_close(x.grad, output.gradient / 3, atol=0, rtol=1e-14)


@pytest.mark.parametrize("prediction", [Prediction.X0, Prediction.V, Prediction.FLOW])
@each_method
def test_what_the_network_outputs_does_not_matter(config: GuidanceConfig, prediction: Prediction) -> None:
    for schedule in (STABLE_DIFFUSION, NoiseSchedule.rectified_flow()):
        timesteps = torch.tensor([150.0, 400.0, 900.0])
        expected, got = (
            run(
                method_of(config),
                prior,
                conditioning_for(CountingPrior(prior)),
                images(3),
                timesteps,
                images(3, 1),
                0.25,
            ).gradient
            for prior in (mixtures(schedule), mixtures(schedule, prediction))
        )
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


@each_method
def test_the_generator_decides_everything(config: GuidanceConfig) -> None:
    assert torch.equal(call(config, images(3)), call(config, images(3)))


@each_method
def test_fixed_noise_and_a_sweep_leave_nothing_to_chance(config: GuidanceConfig) -> None:
    certain = replace(config, times=SweepTimes(), noise=FixedNoise())
    prior = CountingPrior(mixtures())
    first, second = (
        build_guidance(certain, prior)(
            images(3), conditioning_for(prior), 0.25, torch.Generator().manual_seed(seed)
        ).gradient
        for seed in (0, 1)
    )
    assert torch.equal(first, second)


@each_method
def test_nothing_flows_back_through_the_denoiser(config: GuidanceConfig) -> None:
    class Trainable(CountingPrior):
        gain = torch.nn.Parameter(torch.ones(()))

        def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
            assert not x_t.requires_grad
            return self.gain * super().predict_noise(x_t, timesteps, condition)

    prior = Trainable(mixtures())
    x = images(3).requires_grad_()
    output = build_guidance(config, prior)(x, conditioning_for(prior), 0.25, torch.Generator().manual_seed(3))
    output.loss.backward()
    assert not output.gradient.requires_grad
    assert prior.gain.grad is None
    assert x.grad is not None


CALLS: list[tuple[GuidanceConfig, tuple[int, int, int]]] = [
    (SdsConfig(), (2, 2, 2)),
    (SdsConfig(cfg_scale=1.0), (1, 1, 1)),
    (SdsConfig(cfg_scale=0.0), (1, 1, 1)),
    (SjcConfig(), (2, 2, 2)),
    (CsdConfig(), (2, 3, 2)),
    (NfsdConfig(), (3, 3, 3)),
    (BridgeConfig(), (2, 2, 2)),
    (HifaConfig(), (2, 2, 2)),
]
"""Denoiser calls per image at each of ``PROGRESS``."""


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("config", "calls"), CALLS)
def test_denoiser_calls_are_what_the_prior_counts(
    config: GuidanceConfig, calls: tuple[int, int, int], batch: int
) -> None:
    for progress, per_image in zip(PROGRESS, calls, strict=True):
        prior = CountingPrior(mixtures())
        guidance = build_guidance(config, prior)
        output = guidance(images(batch), conditioning_for(prior), progress, torch.Generator().manual_seed(3))
        assert prior.forward_sizes == [per_image * batch]
        assert output.denoiser_calls == guidance.denoiser_calls(batch, progress) == per_image * batch


@each_method
def test_perp_neg_adds_its_wrong_views_to_the_count(config: GuidanceConfig) -> None:
    """The two wrong views, and the unconditional branch where the method had no use for it."""
    needs_null = config.kind == "bridge"
    prior = CountingPrior(mixtures())
    guidance = build_guidance(replace(config, scores=ScoresConfig(perp_neg=1.0)), prior)
    output = guidance(images(3), conditioning_for(prior), 0.75, torch.Generator().manual_seed(3))
    plain = build_guidance(config, prior).denoiser_calls(3, 0.75)
    csd_lost_its_null = config.kind == "csd"
    assert sum(prior.forward_sizes) == output.denoiser_calls == guidance.denoiser_calls(3, 0.75)
    assert output.denoiser_calls == plain + 3 * (2 + (needs_null or csd_lost_its_null))


def test_chunks_change_the_passes_and_nothing_else() -> None:
    prior = CountingPrior(mixtures())
    config = SdsConfig(scores=ScoresConfig(perp_neg=1.0, terms_per_forward=1))
    guidance = build_guidance(config, prior)
    output = guidance(images(3), conditioning_for(prior), 0.0, torch.Generator().manual_seed(3))
    assert prior.forward_sizes == [3, 3, 3, 3]
    expected = call(SdsConfig(scores=ScoresConfig(perp_neg=1.0)), images(3), 0.0)
    torch.testing.assert_close(output.gradient, expected)


def test_the_output_names_its_timesteps() -> None:
    prior = CountingPrior(mixtures())
    method = method_of(SdsConfig(times=SweepTimes(start=0.5, end=0.5)))
    make: Callable[[], ScoreDistillation] = lambda: ScoreDistillation(prior, method)  # noqa: E731
    output = make()(images(3), conditioning_for(prior), 0.0, torch.Generator())
    assert output.timesteps.tolist() == [500.0] * 3
