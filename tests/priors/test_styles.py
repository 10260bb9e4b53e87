"""LoRA styles: written by diffusers, merged by the studio, held against the algebra."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from studio.errors import StudioError
from studio.priors.latent import Options, load_latent_prior
from studio.types import Condition
from tests.priors import models

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT_LAYER = "text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def factors(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(3, columns, generator=rng), torch.randn(rows, 3, generator=rng)


def save(folder: Path, down_name: str, up_name: str) -> Path:
    """A style on one layer of the U-Net and one of the text encoder."""
    down, up = factors(16, models.TEXT)
    text_down, text_up = factors(models.TEXT, models.TEXT)
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers={f"{LAYER}.{down_name}.weight": down, f"{LAYER}.{up_name}.weight": up},
        text_encoder_lora_layers={
            f"{TEXT_LAYER}.{down_name}.weight": text_down,
            f"{TEXT_LAYER}.{up_name}.weight": text_up,
        },
    )
    return folder


@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
def test_a_style_changes_the_weights_by_its_product(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = models.save_sd(tmp_path / "model")
    style = save(tmp_path / "style", *names)
    plain = load_latent_prior(folder)
    styled = load_latent_prior(folder, options=Options(style=str(style), style_scale=0.5))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    down, up = factors(16, models.TEXT)
    with torch.no_grad():
        unet.get_submodule(LAYER).weight += 0.5 * up @ down
    for name, weight in unet.state_dict().items():
        torch.testing.assert_close(styled.denoiser.state_dict()[name], weight)
    # The text is embedded anew, not taken from what the plain model left in the cache.
    before, after = (prior.encode_prompts(["a red chair"]) for prior in (plain, styled))
    assert not torch.allclose(before.tokens, after.tokens)
    x_t, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([100.0, 700.0])
    with torch.no_grad():
        expected = unet(x_t, timesteps, after.expanded(2).tokens).sample
    torch.testing.assert_close(styled.predict_noise(x_t, timesteps, Condition(after)), expected)


def test_alpha_scales_by_the_rank(tmp_path: Path) -> None:
    folder = models.save_sd(tmp_path / "model")
    down, up = factors(16, models.TEXT)
    file = tmp_path / "style.safetensors"
    save_file(
        {
            f"unet.{LAYER}.lora_A.weight": down,
            f"unet.{LAYER}.lora_B.weight": up,
            f"unet.{LAYER}.alpha": torch.tensor(6.0),
        },
        file,
    )
    plain = UNet2DConditionModel.from_pretrained(folder / "unet").get_submodule(LAYER).weight
    styled = load_latent_prior(folder, options=Options(style=str(file))).denoiser.get_submodule(LAYER)
    assert isinstance(styled.weight, Tensor)
    torch.testing.assert_close(styled.weight, plain.detach() + 2.0 * up @ down)


def test_a_style_for_another_base(tmp_path: Path) -> None:
    style = str(save(tmp_path / "style", "lora_A", "lora_B"))
    sdxl = models.save_sdxl(tmp_path / "sdxl")
    with pytest.raises(StudioError, match=r"was made for another base: it changes .*to_k by 16 x 12"):
        load_latent_prior(sdxl, options=Options(style=style))
    sd3 = models.save_sd3(tmp_path / "sd3")
    with pytest.raises(StudioError, match=r"for another base: .* has no such layer"):
        load_latent_prior(sd3, options=Options(style=style))


def test_what_is_no_style(tmp_path: Path) -> None:
    folder = models.save_sd(tmp_path / "model")
    other = tmp_path / "other.safetensors"
    save_file({"lora_unet_down_blocks_0.lora_down.weight": torch.zeros(1)}, other)
    with pytest.raises(StudioError, match="is no LoRA in diffusers' format"):
        load_latent_prior(folder, options=Options(style=str(other)))
    other.write_bytes(b"torn")
    with pytest.raises(StudioError, match=r"other.safetensors is missing or damaged"):
        load_latent_prior(folder, options=Options(style=str(other)))
    with pytest.raises(StudioError, match=r"holds none, expected one .safetensors file"):
        load_latent_prior(folder, options=Options(style=str(folder)))
