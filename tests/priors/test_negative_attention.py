"""Cross-attention that looks away from a negative prompt, on diffusers' own networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from studio.cameras import orbit
from studio.errors import StudioError
from studio.priors.latent import LatentPrior, Options, load_latent_prior
from studio.priors.negative_attention import cross_attention_of
from studio.types import Condition
from tests.priors import models

PROMPTS = ["a red cube", "a blue chair"]
STEERABLE = ["sd", "small", "sdxl", "if", "pixart", "mvdream"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def steered(name: str, folder: Path, scale: float, away: str = "horse") -> LatentPrior:
    if not folder.exists():
        models.FAMILIES[name](folder)
    options = Options(negative_attention=away, negative_attention_scale=scale)
    return load_latent_prior(folder, options=options)


def asked(prior: LatentPrior, prompts: list[str]) -> Tensor:
    """A batch of pictures, its two halves under two prompts."""
    batch = max(prior.limits.views, 2)
    rng = torch.Generator().manual_seed(1)
    config = prior.denoiser.config
    x_t = torch.randn(batch, int(config.in_channels), 8, 8, generator=rng)
    cameras = orbit(torch.arange(batch) * 90.0, torch.zeros(batch), 8, 8)
    prompt = prior.encode_prompts([prompts[2 * i // batch] for i in range(batch)])
    return prior.predict_noise(x_t, torch.full((batch,), 400.0), Condition(prompt, cameras))


@pytest.mark.parametrize("name", STEERABLE)
def test_no_scale_changes_no_bit_and_a_scale_does(name: str, tmp_path: Path) -> None:
    folder = models.FAMILIES[name](tmp_path / "model")
    plain = asked(load_latent_prior(folder), PROMPTS)
    assert torch.equal(asked(steered(name, folder, 0.0), PROMPTS), plain)
    away = asked(steered(name, folder, 0.5), PROMPTS)
    assert away.isfinite().all() and (away - plain).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["sd", "pixart"])
def test_looking_away_from_the_prompt_itself_scales_every_layer(name: str, tmp_path: Path) -> None:
    """attention(y) - a attention(y) = (1 - a) attention(y); a hook that came first sees attention(y)."""
    prior = steered(name, tmp_path / "model", 0.3, away=PROMPTS[0])
    layers = cross_attention_of(prior.denoiser)
    before: list[Tensor] = []
    after: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, inputs, output: before.append(output))
    blocks = [module for module in prior.denoiser.modules() if getattr(module, "attn2", None) in layers]
    assert len(blocks) == len(layers) > 0
    for block in blocks:
        attention = block.attn2
        inner = attention.__call__

        def spy(*inputs: Any, inner: Any = inner, **told: Any) -> Tensor:
            after.append(inner(*inputs, **told))
            return after[-1]

        block.__dict__["attn2"] = spy  # What the block itself receives of its layer.
    asked(prior, PROMPTS[:1] * 2)
    assert len(after) == len(before) == len(layers)
    for got, attention in zip(after, before, strict=True):
        torch.testing.assert_close(got, 0.7 * attention)


def test_a_layer_is_attention_to_the_prompt_less_attention_to_the_other(tmp_path: Path) -> None:
    """Against softmax(q k) v written out from the layer's own matrices."""
    prior = steered("sd", tmp_path / "model", 0.4)
    layer: Any = cross_attention_of(prior.denoiser)[0]
    wide = layer.to_out[0].weight.shape[0]

    def split(rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:2], layer.heads, -1).transpose(1, 2)

    def by_hand(hidden: Tensor, text: Tensor) -> Tensor:
        query, key, value = split(layer.to_q(hidden)), split(layer.to_k(text)), split(layer.to_v(text))
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
        return functional.linear(
            (weights @ value).transpose(1, 2).reshape(len(hidden), -1, wide),
            layer.to_out[0].weight,
            layer.to_out[0].bias,
        )

    attached = prior.family._attached  # type: ignore[attr-defined]
    with torch.no_grad(), attached(prior.denoiser, torch.tensor([True, False])):
        hidden = torch.randn(2, 16, layer.to_q.in_features)
        text = prior.encode_prompts(PROMPTS).tokens
        got = layer(hidden, encoder_hidden_states=text, attention_mask=None)
        horse = prior.encode_prompts(["horse"]).tokens.expand(2, -1, -1)
        expected = by_hand(hidden, text) - torch.tensor([0.4, 0.0])[:, None, None] * by_hand(hidden, horse)
    torch.testing.assert_close(got, expected)


def test_the_unconditional_branch_stays_as_it_is(tmp_path: Path) -> None:
    """Also where it shares a forward pass with the prompt."""
    prior = steered("sd", tmp_path / "model", 0.5)
    plain = load_latent_prior(tmp_path / "model")
    both, free = asked(prior, ["a red cube", ""]), asked(plain, ["a red cube", ""])
    assert torch.equal(asked(prior, ["", ""]), asked(plain, ["", ""]))
    torch.testing.assert_close(both[1], free[1])
    assert (both[0] - free[0]).abs().max() > 1e-4


def test_padding_of_the_negative_prompt_is_not_looked_at(tmp_path: Path) -> None:
    """PixArt masks it: what stands there does not matter."""
    prior = steered("pixart", tmp_path / "model", 0.5)
    family: Any = prior.family
    mask = family.negative.pooled[..., None]
    assert 0 < mask.sum() < mask.numel()
    noise = torch.randn_like(family.negative.tokens)
    for where, same in ((1 - mask, True), (mask, False)):
        negative = replace(family.negative, tokens=family.negative.tokens + where * noise)
        other = replace(prior, family=replace(family, negative=negative))
        change = (asked(other, PROMPTS) - asked(prior, PROMPTS)).abs().max()
        assert bool(change < 1e-6) is same


def test_it_costs_no_call_and_leaves_no_trace(tmp_path: Path) -> None:
    prior = steered("sd", tmp_path / "model", 0.5)
    calls = []
    prior.denoiser.register_forward_hook(lambda *_: calls.append(1))
    first = asked(prior, PROMPTS)
    assert len(calls) == 1
    assert not any(layer._forward_hooks for layer in cross_attention_of(prior.denoiser))
    assert torch.equal(asked(prior, PROMPTS), first)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sd3", "pictures and words attend to each other together"),
        ("flux", "pictures and words attend to each other together"),
        ("zero123", "reads no words"),
    ],
)
def test_what_has_no_cross_attention_is_refused(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=f"needs cross-attention to the text alone.*{why}") as error:
        steered(name, tmp_path / "model", 0.5)
    assert "\n" not in str(error.value)


def test_attention_to_words_and_picture_at_once_is_refused(tmp_path: Path) -> None:
    """As the published DeepFloyd IF has it: the text's keys stand beside the picture's."""
    folder = models.save_if(tmp_path / "model")
    models.make_unet(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        down_block_types=("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "UpBlock2D"),
        encoder_hid_dim=models.T5,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
    ).save_pretrained(folder / "unet")
    assert asked(load_latent_prior(folder), PROMPTS).isfinite().all()
    with pytest.raises(StudioError, match="pictures and words attend to each other together"):
        steered("if", folder, 0.5)


def test_an_image_prompt_besides_is_refused(tmp_path: Path) -> None:
    folder, adapter = models.save_sd(tmp_path / "model"), models.save_ip_adapter(tmp_path / "adapter")
    options = Options(negative_attention="horse", image_prompt=str(adapter))
    with pytest.raises(StudioError, match="share the cross-attention of a model, expected one of them"):
        load_latent_prior(folder, options=options)
