"""A real U-Net of diffusers beside its tuned copy: the copy learns, the prior never changes by a bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from studio.cameras import orbit
from studio.errors import StudioError
from studio.guidance.critic import TrainedCritic, build_critic
from studio.guidance.methods import build_guidance
from studio.interfaces import TrainableNetwork, TunablePrior
from studio.priors.latent import LatentPrior, load_latent_prior
from studio.priors.lora import LearnedNull, LowRankCopy
from studio.recipes.guidance import (
    EsdConfig,
    GuidanceConfig,
    LodsConfig,
    SidConfig,
    TrainedCriticConfig,
    VsdConfig,
)
from studio.types import Condition, Conditioning
from tests.priors.test_latent import save

TIMES = torch.tensor([100.0, 700.0])
CAMERAS = orbit(torch.tensor([0.0, 120.0]), torch.tensor([0.0, 30.0]), 32, 32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=[False, True], ids=["no camera", "camera"])
def prior(request: pytest.FixtureRequest, tmp_path: Path) -> LatentPrior:
    return load_latent_prior(save(tmp_path / "model", camera=request.param))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(seed: int = 3) -> Tensor:
    return torch.randn(2, 48, 8, 8, generator=seeded(seed))


def conditioning(prior: LatentPrior) -> Conditioning:
    prompt, null, plain = (
        prior.encode_prompts([text]) for text in ("a red chair side view", "", "a red chair")
    )
    return Conditioning(Condition(prompt, CAMERAS), Condition(null, CAMERAS), plain=Condition(plain, CAMERAS))


def test_the_copy_begins_as_the_prior(prior: LatentPrior) -> None:
    assert isinstance(prior, TunablePrior)
    copy = prior.tunable(4, seeded())
    assert isinstance(copy, TrainableNetwork) and isinstance(copy, LowRankCopy)
    for condition in (conditioning(prior).positive, replace(conditioning(prior).null, cameras=None)):
        expected = prior.predict_noise(sample(), TIMES, condition)
        torch.testing.assert_close(copy.predict_noise(sample(), TIMES, condition).detach(), expected)


def test_every_projection_of_every_attention_is_changed(prior: LatentPrior) -> None:
    copy = prior.tunable(4, seeded())
    names = {name for name in copy.parameters() if not name.startswith("camera")}
    blocks = {name.rsplit(".attn", 1)[0] + ".attn" + name.rsplit(".attn", 1)[1][0] for name in names}
    assert len(names) == len(blocks) * 4 * 2 and len(blocks) == 2 * 4  # self and cross, in four transformers
    assert ("camera.first" in copy.parameters()) is not prior.uses_camera


def trained(
    prior: LatentPrior, config: TrainedCriticConfig, calls: int = 4
) -> tuple[TrainedCritic, list[float]]:
    critic = build_critic(config, prior)
    assert isinstance(critic, TrainedCritic)
    clean = 0.5 * sample(5)
    return critic, [
        critic.learn(clean, conditioning(prior), seeded(call))["critic_loss"] for call in range(calls)
    ]


def test_training_leaves_the_prior_as_it_was_bit_for_bit(prior: LatentPrior, tmp_path: Path) -> None:
    """Held against a second loading of the same files that no copy was ever made of."""
    critic, _ = trained(prior, TrainedCriticConfig(learning_rate=1e-2, updates=3))
    untouched = load_latent_prior(tmp_path / "model")
    condition = conditioning(prior).positive
    got = prior.predict_noise(sample(), TIMES, condition)
    assert torch.equal(got, untouched.predict_noise(sample(), TIMES, condition))
    assert not torch.allclose(critic.predict_noise(sample(), TIMES, condition), got, atol=1e-3)
    assert torch.equal(prior.predict_noise(sample(), TIMES, condition), got)
    weights = untouched.denoiser.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in prior.denoiser.state_dict().items())
    assert not any(parameter.requires_grad for parameter in prior.denoiser.parameters())


def test_two_copies_do_not_know_of_each_other(prior: LatentPrior) -> None:
    condition = conditioning(prior).positive
    first, _ = trained(prior, TrainedCriticConfig(learning_rate=1e-2))
    before = first.predict_noise(sample(), TIMES, condition)
    second, _ = trained(prior, TrainedCriticConfig(learning_rate=1e-2, seed=1))
    assert torch.equal(first.predict_noise(sample(), TIMES, condition), before)
    assert not torch.equal(second.predict_noise(sample(), TIMES, condition), before)


def test_the_copy_learns_the_renders_and_the_camera(prior: LatentPrior) -> None:
    config = TrainedCriticConfig(target="epsilon", learning_rate=1e-2, updates=15, rank=8)
    critic, _ = trained(prior, config, 5)
    clean, plain = (0.5 * sample(5)).repeat(8, 1, 1, 1), conditioning(prior).plain
    assert plain is not None
    timesteps, noise = torch.arange(16) * 62.0, torch.randn(clean.shape, generator=seeded(9))
    x_t = prior.schedule.add_noise(clean, noise, timesteps)
    told = replace(plain, cameras=CAMERAS[[0, 1] * 8])
    with torch.no_grad():
        before, after = (
            (each.predict_noise(x_t, timesteps, told) - noise).square().mean() for each in (prior, critic)
        )
        assert after < 0.97 * before
        here, there, nowhere = (
            critic.predict_noise(sample(), TIMES, replace(conditioning(prior).positive, cameras=cameras))
            for cameras in (CAMERAS, CAMERAS[[1, 0]], None)
        )
    assert not torch.allclose(here, there, atol=1e-4)
    assert not torch.allclose(here, nowhere, atol=1e-4)


def test_the_learned_null_is_an_embedding_and_nothing_else(prior: LatentPrior) -> None:
    copy = prior.tunable(0, seeded())
    assert isinstance(copy, LearnedNull) and list(copy.parameters()) == ["tokens"]
    null = conditioning(prior).null
    expected = prior.predict_noise(sample(), TIMES, null)
    torch.testing.assert_close(copy.predict_noise(sample(), TIMES, null).detach(), expected)
    config = TrainedCriticConfig(target="epsilon", learning_rate=5e-2, updates=10, rank=0)
    _, losses = trained(prior, config, 4)
    assert losses[-1] != losses[0]


def test_a_network_without_attention_is_refused(prior: LatentPrior) -> None:
    with pytest.raises(StudioError, match="the network Conv2d has no attention projections"):
        LowRankCopy(torch.nn.Conv2d(1, 1, 1), prior.predict_noise, 4, joins_camera=False, rng=seeded())


@pytest.mark.parametrize(
    "config", [VsdConfig(), EsdConfig(), LodsConfig(), SidConfig()], ids=lambda c: c.kind
)
def test_two_steps_beside_a_real_model_and_on_from_there(prior: LatentPrior, config: GuidanceConfig) -> None:
    """Pixels follow the guidance; a second guidance goes on from the first one's state bit for bit."""
    if config.kind == "sid":
        prior = replace(prior, differentiable=True)
    pixels = [torch.rand(2, 3, 32, 32, generator=seeded(1)) for _ in range(2)]
    guidances = [build_guidance(config, prior) for _ in range(2)]

    def step(which: int, number: int) -> float:
        x = pixels[which].requires_grad_()
        output = guidances[which](x, conditioning(prior), 0.1, seeded(number))
        output.loss.backward()
        assert x.grad is not None and bool(x.grad.isfinite().all()) and x.grad.abs().max() > 0
        pixels[which] = (x - 1e-3 * x.grad).detach()
        return output.terms["critic_loss"]

    for number in range(2):
        assert step(0, number) > 0
    step(1, 0)
    saved = {name: tensor.clone() for name, tensor in guidances[1].state().items()}
    guidances[1] = build_guidance(config, prior)
    guidances[1].load_state(saved)
    step(1, 1)
    assert torch.equal(pixels[0], pixels[1])
    states = [guidance.state() for guidance in guidances]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
