"""Real diffusers and transformers classes at a tiny size, saved to a folder and loaded back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from studio.cameras import CAMERA_FEATURES, camera_features, orbit
from studio.errors import StudioError
from studio.interfaces import Prior
from studio.priors.codecs import Autoencoder, PixelUnshuffle
from studio.priors.latent import Options, load_latent_prior
from studio.priors.text import CachedTextEmbedder, ClipTextEmbedder
from studio.priors.training.model import word_tokenizer
from studio.types import Condition, PromptEmbedding

WORDS = ("a", "red", "chair", "horse", "view", "side")


def make_unet(channels: int, camera: bool) -> Any:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=2,
        class_embed_type="projection" if camera else None,
        projection_class_embeddings_input_dim=CAMERA_FEATURES if camera else None,
    )


def save(folder: Path, *, vae: bool = False, camera: bool = False, prediction: str = "epsilon") -> Path:
    """A model of random weights; the same ones each time."""
    make_unet(4 if vae else 48, camera).save_pretrained(folder / "unet")
    torch.manual_seed(1)
    if vae:
        AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            scaling_factor=0.18215,
        ).save_pretrained(folder / "vae")
    else:
        (folder / "codec").mkdir(parents=True)
        (folder / "codec" / "config.json").write_text('{"kind": "pixel_unshuffle", "factor": 4}')
    tokenizer = word_tokenizer(WORDS)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=tokenizer.eos_token_id,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction
    ).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


def sample(channels: int, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    return torch.randn(2, channels, size, size, generator=rng), torch.tensor([100.0, 700.0])


def test_prediction_is_diffusers_own(tmp_path: Path) -> None:
    prior = load_latent_prior(save(tmp_path / "model"))
    x_t, timesteps = sample(48)
    prompt = prior.encode_prompts(["a red chair", "a horse"])
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
    with torch.no_grad():
        expected = unet(x_t, timesteps, prompt.tokens).sample
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, Condition(prompt)), expected)
    assert isinstance(prior, Prior)


def test_v_and_epsilon_models_say_the_same_of_one_clean_image(tmp_path: Path) -> None:
    """diffusers' own conversion: the x0 that its scheduler reads from a v model is ours."""
    prior = load_latent_prior(save(tmp_path / "model", prediction="v_prediction"))
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "model" / "scheduler", clip_sample=False)
    scheduler.set_timesteps(1000)
    x_t, _ = sample(48)
    prompt = prior.encode_prompts(["a red chair"])
    timesteps = torch.tensor([400.0, 400.0])
    noise = prior.predict_noise(x_t, timesteps, Condition(prompt))
    with torch.no_grad():
        v = prior.denoiser(x_t, timesteps, prompt.expanded(2).tokens, return_dict=False)[0]
    expected = scheduler.step(v, 400, x_t).pred_original_sample
    torch.testing.assert_close(
        prior.schedule.clean_from_noise(x_t, noise, timesteps), expected, atol=1e-4, rtol=1e-4
    )


def test_levels_are_the_schedulers(tmp_path: Path) -> None:
    prior = load_latent_prior(save(tmp_path / "model"))
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "model" / "scheduler")
    alpha, sigma = prior.schedule.alpha_sigma(torch.arange(1000.0))
    torch.testing.assert_close(alpha.flatten() ** 2, scheduler.alphas_cumprod, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))


def test_pixel_codec_is_exact_and_keeps_distances(tmp_path: Path) -> None:
    prior = load_latent_prior(save(tmp_path / "model"))
    rgb = torch.rand(2, 3, 32, 32)
    x = prior.encode_images(rgb)
    assert x.shape == (2, 48, 8, 8)
    torch.testing.assert_close(prior.decode_images(x), rgb)
    torch.testing.assert_close((x[0] - x[1]).norm(), 2 * (rgb[0] - rgb[1]).norm())


def test_images_of_another_size_are_averaged_over_area() -> None:
    fine = torch.rand(1, 3, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    encoded = PixelUnshuffle(1, 8).encode(fine)
    # The triangle filter mixes neighbours, so the truth is exact in the mean and on a constant image.
    torch.testing.assert_close(encoded.mean((2, 3)), 2 * fine.mean((2, 3)) - 1, atol=0.05, rtol=0)
    torch.testing.assert_close(
        PixelUnshuffle(1, 8).encode(torch.full((1, 3, 50, 50), 0.25)), torch.full((1, 3, 8, 8), -0.5)
    )


@pytest.mark.parametrize("vae", [False, True])
def test_encoding_is_differentiable(tmp_path: Path, vae: bool) -> None:
    prior = load_latent_prior(save(tmp_path / "model", vae=vae))
    rgb = torch.rand(1, 3, 20, 20, requires_grad=True)
    prior.encode_images(rgb).square().sum().backward()
    assert rgb.grad is not None and bool((rgb.grad != 0).any())
    assert all(parameter.grad is None for parameter in prior.denoiser.parameters())


def test_autoencoder_is_diffusers_own_scaled(tmp_path: Path) -> None:
    prior = load_latent_prior(save(tmp_path / "model", vae=True))
    assert isinstance(prior.codec, Autoencoder)
    vae = AutoencoderKL.from_pretrained(tmp_path / "model" / "vae")
    rgb = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        latents = vae.encode(2 * rgb - 1).latent_dist.mode()
        decoded = vae.decode(latents).sample
    x = prior.encode_images(rgb)
    torch.testing.assert_close(x, 0.18215 * latents)
    torch.testing.assert_close(prior.decode_images(x), ((decoded + 1) / 2).clamp(0, 1))


def test_camera_goes_to_the_class_embedding(tmp_path: Path) -> None:
    prior = load_latent_prior(save(tmp_path / "model", camera=True))
    x_t, timesteps = sample(48)
    prompt = prior.encode_prompts(["a horse"])
    cameras = orbit(torch.tensor([0.0, 120.0]), torch.tensor([10.0, 30.0]), 32, 32)
    seen = prior.predict_noise(x_t, timesteps, Condition(prompt, cameras))
    free = prior.predict_noise(x_t, timesteps, Condition(prompt))
    with torch.no_grad():
        text = prompt.expanded(2).tokens
        expected = prior.denoiser(x_t, timesteps, text, class_labels=camera_features(cameras)).sample
        expected_free = prior.denoiser(
            x_t, timesteps, text, class_labels=torch.zeros(2, CAMERA_FEATURES)
        ).sample
    torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(free, expected_free)
    assert prior.uses_camera and not torch.allclose(seen, free)


def test_camera_features_turn_with_the_circle() -> None:
    angles = torch.tensor([-170.0, 0.0, 90.0])
    one = camera_features(orbit(angles, torch.tensor([0.0, 20.0, 50.0]), 8, 8))
    turned = camera_features(orbit(angles + 360, torch.tensor([0.0, 20.0, 50.0]), 8, 8))
    torch.testing.assert_close(one, turned, atol=1e-5, rtol=0)
    assert one.shape == (3, CAMERA_FEATURES) and bool((one[:, 0] == 1).all())
    torch.testing.assert_close(one[2, 1:9], torch.tensor([1.0, 0, -1, 0, 0, -1, 0, 1]), atol=1e-6, rtol=0)


def test_no_gradient_through_the_denoiser_unless_asked(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    for wanted in (False, True):
        prior = load_latent_prior(folder, options=Options(differentiable=wanted))
        x_t, timesteps = sample(48)
        x_t.requires_grad_()
        # An epsilon model's output alone: nothing else links the answer to x_t.
        noise = prior.predict_noise(x_t, timesteps, Condition(prior.encode_prompts([""])))
        assert noise.requires_grad == wanted


class CountingEmbedder:
    """Counts the prompts that it is asked to encode."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompts: list[str]) -> PromptEmbedding:
        self.prompts += prompts
        rows = [torch.full((3, 2), float(len(prompt))) for prompt in prompts]
        return PromptEmbedding(torch.stack(rows), torch.ones(len(prompts), 4))


def test_a_prompt_is_encoded_once(tmp_path: Path) -> None:
    counting = CountingEmbedder()
    embedder = CachedTextEmbedder(lambda: counting, ("model", "0"), tmp_path / "text", torch.device("cpu"))
    first = embedder(["a horse", "", "a horse"])
    again = embedder(["", "a horse", "a red chair"])
    assert counting.prompts == ["a horse", "", "a red chair"]
    assert first.pooled is not None and again.pooled is not None
    assert torch.equal(first.tokens[0], again.tokens[1]) and torch.equal(first.tokens[0], first.tokens[2])
    other = CachedTextEmbedder(lambda: counting, ("model", "1"), tmp_path / "text", torch.device("cpu"))
    other(["a horse"])
    assert counting.prompts[3:] == ["a horse"]


def test_a_cached_prompt_needs_no_text_encoder_weights(tmp_path: Path, cache: Path) -> None:
    folder = save(tmp_path / "model")
    prior = load_latent_prior(folder)
    before = prior.encode_prompts(["a red chair"])
    assert len(list(cache.glob("*.safetensors"))) == 1
    (folder / "text_encoder" / "model.safetensors").unlink()
    assert torch.equal(prior.encode_prompts(["a red chair"]).tokens, before.tokens)


def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    prior = load_latent_prior(save(tmp_path / "model"))
    before = prior.encode_prompts(["a red chair"])
    next(cache.glob("*.safetensors")).write_bytes(b"torn")
    assert torch.equal(prior.encode_prompts(["a red chair"]).tokens, before.tokens)


def test_layer_and_pooling_are_transformers_own(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    tokenizer = word_tokenizer(WORDS)
    ids = tokenizer(["a horse"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        output = encoder(input_ids=ids, output_hidden_states=True)
    last = ClipTextEmbedder(tokenizer, encoder, pooling="end")(["a horse"])
    torch.testing.assert_close(last.tokens, output.last_hidden_state)
    torch.testing.assert_close(last.pooled, output.pooler_output)
    skipped = ClipTextEmbedder(tokenizer, encoder, layer=1)(["a horse"]).tokens
    norm = torch.nn.LayerNorm(12)
    norm.load_state_dict(
        {
            name.rpartition(".")[2]: value
            for name, value in encoder.state_dict().items()
            if "final_layer_norm" in name
        }
    )
    torch.testing.assert_close(skipped, norm(output.hidden_states[1]).detach())


def test_missing_folder() -> None:
    with pytest.raises(
        StudioError, match=r"There is no folder /nowhere/model; expected a model in diffusers' layout"
    ):
        load_latent_prior("/nowhere/model")


def test_folder_without_a_denoiser(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    shutil.rmtree(folder / "unet")
    with pytest.raises(
        StudioError, match=r"holds codec, scheduler, text_encoder, tokenizer, expected unet/ or"
    ):
        load_latent_prior(folder)


def test_damaged_weights(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(
        StudioError, match=r"unet is missing or damaged \(.+\), expected a part of a diffusers model"
    ):
        load_latent_prior(folder)


def test_weights_of_another_shape(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 20}))
    with pytest.raises(StudioError, match="unet"):
        load_latent_prior(folder)


def test_missing_tensors_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(StudioError, match=r"conv_in.weight"):
        load_latent_prior(folder)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(StudioError, match="pickled weights are not read"):
        load_latent_prior(folder)


def test_damaged_scheduler(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(StudioError, match=r"scheduler_config.json is missing or damaged"):
        load_latent_prior(folder)


def test_codec_that_does_not_fit(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    (folder / "codec" / "config.json").write_text('{"kind": "pixel_unshuffle", "factor": 2}')
    with pytest.raises(StudioError, match="takes 48 channels, expected the 12 that its codec makes"):
        load_latent_prior(folder)
    (folder / "codec" / "config.json").unlink()
    with pytest.raises(StudioError, match="has neither vae/ nor codec"):
        load_latent_prior(folder)


def test_hub_errors_name_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    # Made without their constructors, which want the HTTP library's own response.
    cases = (
        (GatedRepoError.__new__(GatedRepoError, "gated"), "gated; accept its licence"),
        (RepositoryNotFoundError.__new__(RepositoryNotFoundError, "gone"), "The hub has no model some/model"),
        (OSError("no route"), r"cannot be downloaded \(no route\); check the network"),
    )
    for error, message in cases:

        def download(*_: object, error: Exception = error, **__: object) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        with pytest.raises(StudioError, match=message):
            load_latent_prior("some/model")
