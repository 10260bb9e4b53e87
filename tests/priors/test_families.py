"""Each family against diffusers: its own pipeline's text, a direct call of its network, noise by hand."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.cameras import camera_features, orbit
from studio.errors import StudioError
from studio.interfaces import LimitedPrior, Limits, Prior, TunablePrior
from studio.priors.codecs import Autoencoder
from studio.priors.families import camera_matrices, relative_pose
from studio.priors.latent import LatentPrior, Options, load_latent_prior
from studio.schedule import Prediction
from studio.types import Cameras, Condition
from tests.priors import models

PROMPTS = ["a red chair, side view", "a horse"]
STRICT: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def part(folder: Path, name: str) -> Any:
    """A part of a saved model, read by the library that wrote it."""
    config = json.loads((folder / name / "config.json").read_text())
    kind = config.get("_class_name") or config["architectures"][0]
    library = diffusers if hasattr(diffusers, kind) else transformers
    return getattr(library, kind).from_pretrained(folder / name).eval()


def tokenizer(folder: Path, suffix: str = "") -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder / f"tokenizer{suffix}")


def cameras(count: int) -> Cameras:
    return orbit(torch.linspace(-150, 170, count), torch.linspace(-10, 50, count), 32, 32)


def noisy(prior: LatentPrior, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Noise in the shape of what the prior denoises, and timesteps."""
    x = prior.encode_images(torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(2)))
    x_t = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    return x_t, torch.linspace(100, 700, batch)


@torch.no_grad()
def called(function: Callable[..., Any], *arguments: Any, **options: Any) -> Tensor:
    output = function(*arguments, **options, return_dict=False)[0]
    assert isinstance(output, Tensor)
    return output


@pytest.mark.parametrize("name", models.FAMILIES)
def test_every_family_is_a_prior(name: str, tmp_path: Path) -> None:
    prior = load_latent_prior(models.FAMILIES[name](tmp_path / "model"))
    assert isinstance(prior, Prior) and isinstance(prior, LimitedPrior) and isinstance(prior, TunablePrior)
    assert not any(parameter.requires_grad for parameter in prior.denoiser.parameters())
    assert not prior.denoiser.training


def test_v_prediction(tmp_path: Path) -> None:
    folder = models.save_sd_v(tmp_path / "model")
    prior = load_latent_prior(folder)
    x_t, timesteps = noisy(prior)
    encoder, words = part(folder, "text_encoder"), tokenizer(folder)
    ids = words(PROMPTS, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        text = encoder(ids)[0]
    v = called(part(folder, "unet"), x_t, timesteps, text)
    table = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler").alphas_cumprod
    alpha_squared = table[timesteps.long()][:, None, None, None]
    expected = alpha_squared.sqrt() * v + (1 - alpha_squared).sqrt() * x_t
    condition = Condition(prior.encode_prompts(PROMPTS))
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, condition), expected, **STRICT)


# ----------------------------------------------------------------------------------- Stable Diffusion XL


def test_sdxl(tmp_path: Path) -> None:
    folder = models.save_sdxl(tmp_path / "model")
    prior = load_latent_prior(folder)
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=part(folder, "vae"),
        text_encoder=part(folder, "text_encoder"),
        text_encoder_2=part(folder, "text_encoder_2"),
        tokenizer=tokenizer(folder),
        tokenizer_2=tokenizer(folder, "_2"),
        unet=part(folder, "unet"),
        scheduler=diffusers.DDIMScheduler.from_pretrained(folder / "scheduler"),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    tokens, zeros, pooled, pooled_zeros = pipeline.encode_prompt(PROMPTS)
    prompt = prior.encode_prompts([*PROMPTS, ""])
    torch.testing.assert_close(prompt.tokens, torch.cat([tokens, zeros[:1]]), **STRICT)
    torch.testing.assert_close(prompt.pooled, torch.cat([pooled, pooled_zeros[:1]]), **STRICT)
    assert not prompt.tokens[2].any() and prompt.tokens[:2].any()

    x_t, timesteps = noisy(prior)
    # The six numbers: original size, crop corner, wanted size; 8 cells, eight pixels each.
    time_ids = pipeline._get_add_time_ids((64, 64), (0, 0), (64, 64), torch.float32, models.POOLED)
    added = {"text_embeds": pooled, "time_ids": time_ids.repeat(2, 1)}
    expected = called(pipeline.unet, x_t, timesteps, tokens, added_cond_kwargs=added)
    condition = Condition(prior.encode_prompts(PROMPTS))
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, condition), expected, **STRICT)


def test_sdxl_autoencoder_stays_in_full_precision(tmp_path: Path) -> None:
    folder = models.save_sdxl(tmp_path / "model")
    prior = load_latent_prior(folder, options=Options(dtype=torch.bfloat16))
    assert isinstance(prior.codec, Autoencoder)
    assert next(prior.codec.vae.parameters()).dtype == torch.float32
    assert next(prior.denoiser.parameters()).dtype == torch.bfloat16
    models.save_vae(tmp_path, force_upcast=False, scaling_factor=0.2)  # the repaired one, on its own
    options = Options(dtype=torch.bfloat16, autoencoder=str(tmp_path / "vae"))
    fixed = load_latent_prior(folder, options=options).codec
    assert isinstance(fixed, Autoencoder)
    assert next(fixed.vae.parameters()).dtype == torch.bfloat16 and fixed.scaling_factor == 0.2


def test_sdxl_is_told_the_size_that_is_asked_for(tmp_path: Path) -> None:
    prior = load_latent_prior(models.save_sdxl(tmp_path / "model"), options=Options(image_size=32))
    assert prior.encode_images(torch.rand(1, 3, 20, 20)).shape == (1, 4, 16, 16)
    seen = []
    prior.denoiser.register_forward_pre_hook(
        lambda module, arguments, options: seen.append(options["added_cond_kwargs"]["time_ids"]),
        with_kwargs=True,
    )
    x_t, timesteps = noisy(prior)
    prior.predict_noise(x_t, timesteps, Condition(prior.encode_prompts([""])))
    assert seen[0].tolist() == [[32, 32, 0, 0, 32, 32]] * 2


def test_a_size_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"prior.image_size is 36, expected a multiple of 16; try 32"):
        load_latent_prior(models.save_sd(tmp_path / "model"), options=Options(image_size=36))


# -------------------------------------------------------------------------------------- T5: IF and PixArt


def test_if(tmp_path: Path) -> None:
    folder = models.save_if(tmp_path / "model")
    prior = load_latent_prior(folder)
    pipeline = diffusers.IFPipeline(
        tokenizer=tokenizer(folder),
        text_encoder=part(folder, "text_encoder"),
        unet=part(folder, "unet"),
        scheduler=diffusers.DDPMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    texts = ["A Red Chair, side view", "a horse"]
    with torch.no_grad():
        words = tokenizer(folder)(
            [text.lower() for text in texts], padding="max_length", max_length=16, return_tensors="pt"
        )
        text = pipeline.text_encoder(words.input_ids, attention_mask=words.attention_mask)[0]
    torch.testing.assert_close(prior.encode_prompts(texts).tokens, text, **STRICT)
    x_t, timesteps = noisy(prior)
    assert x_t.shape == (2, 3, 16, 16)
    output = called(pipeline.unet, x_t, timesteps, text)
    assert output.shape[1] == 6  # noise, and the variance that is dropped
    condition = Condition(prior.encode_prompts(texts))
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, condition), output[:, :3], **STRICT)


@pytest.mark.parametrize("told_size", [False, True])
def test_pixart(tmp_path: Path, told_size: bool) -> None:
    folder = models.save_pixart(tmp_path / "model", told_size=told_size)
    prior = load_latent_prior(folder)
    pipeline = diffusers.PixArtAlphaPipeline(
        tokenizer=tokenizer(folder),
        text_encoder=part(folder, "text_encoder"),
        vae=part(folder, "vae"),
        transformer=part(folder, "transformer"),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    tokens, mask, *_ = pipeline.encode_prompt(
        PROMPTS, do_classifier_free_guidance=False, max_sequence_length=16
    )
    prompt = prior.encode_prompts(PROMPTS)
    torch.testing.assert_close(prompt.tokens, tokens, **STRICT)
    assert prompt.pooled is not None and torch.equal(prompt.pooled, mask.float())
    assert mask[0].sum() != mask[1].sum()  # or nothing would be seen of the padding
    x_t, timesteps = noisy(prior)
    size: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    if told_size:
        size = {"resolution": torch.full((2, 2), 64.0), "aspect_ratio": torch.ones(2, 1)}
    output = called(
        pipeline.transformer,
        x_t,
        encoder_hidden_states=tokens,
        encoder_attention_mask=mask,
        timestep=timesteps,
        added_cond_kwargs=size,
    )
    answer = prior.predict_noise(x_t, timesteps, Condition(prompt))
    torch.testing.assert_close(answer, output[:, :4], **STRICT)


# ------------------------------------------------------------------------------------------ rectified flows


@pytest.mark.parametrize("t5", [False, True])
def test_sd3(tmp_path: Path, t5: bool) -> None:
    folder = models.save_sd3(tmp_path / "model", t5=t5)
    prior = load_latent_prior(folder)
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=part(folder, "transformer"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        vae=part(folder, "vae"),
        text_encoder=part(folder, "text_encoder"),
        tokenizer=tokenizer(folder),
        text_encoder_2=part(folder, "text_encoder_2"),
        tokenizer_2=tokenizer(folder, "_2"),
        text_encoder_3=part(folder, "text_encoder_3") if t5 else None,
        tokenizer_3=tokenizer(folder, "_3") if t5 else None,
    )
    length = 16 if t5 else 256
    tokens, _, pooled, _ = pipeline.encode_prompt(
        PROMPTS, None, None, do_classifier_free_guidance=False, max_sequence_length=length
    )
    prompt = prior.encode_prompts(PROMPTS)
    torch.testing.assert_close(prompt.tokens, tokens, **STRICT)
    torch.testing.assert_close(prompt.pooled, pooled, **STRICT)
    x_t, timesteps = noisy(prior)
    assert prior.prediction is Prediction.FLOW
    _, sigma = prior.schedule.alpha_sigma(timesteps)
    velocity = called(
        pipeline.transformer,
        x_t,
        encoder_hidden_states=tokens,
        pooled_projections=pooled,
        timestep=1000 * sigma.flatten(),
    )
    expected = x_t + (1 - sigma) * velocity
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, Condition(prompt)), expected, **STRICT)


def test_sd3_levels_are_the_schedulers(tmp_path: Path) -> None:
    folder = models.save_sd3(tmp_path / "model")
    theirs = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler").sigmas
    _, ours = load_latent_prior(folder).schedule.alpha_sigma(torch.arange(1000.0))
    # The studio's last level is a little short of pure noise, where there is nothing to divide by.
    torch.testing.assert_close(ours.flatten()[:900], theirs.flip(0)[:900], atol=2e-4, rtol=2e-3)


def test_flux(tmp_path: Path) -> None:
    folder = models.save_flux(tmp_path / "model")
    prior = load_latent_prior(folder, options=Options(image_size=16, embedded_guidance=2.5))
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        vae=part(folder, "vae"),
        text_encoder=part(folder, "text_encoder"),
        tokenizer=tokenizer(folder),
        text_encoder_2=part(folder, "text_encoder_2"),
        tokenizer_2=tokenizer(folder, "_2"),
        transformer=part(folder, "transformer"),
    )
    tokens, pooled, text_ids = pipeline.encode_prompt(PROMPTS, None, max_sequence_length=16)
    prompt = prior.encode_prompts(PROMPTS)
    torch.testing.assert_close(prompt.tokens, tokens, **STRICT)
    torch.testing.assert_close(prompt.pooled, pooled, **STRICT)
    x_t, timesteps = noisy(prior)
    _, sigma = prior.schedule.alpha_sigma(timesteps)
    packed = pipeline._pack_latents(x_t, 2, 4, 8, 8)
    velocity = called(
        pipeline.transformer,
        packed,
        timestep=sigma.flatten(),
        guidance=torch.full((2,), 2.5),
        pooled_projections=pooled,
        encoder_hidden_states=tokens,
        txt_ids=text_ids,
        img_ids=pipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32),
    )
    unpacked = pipeline._unpack_latents(velocity, 16, 16, pipeline.vae_scale_factor)
    expected = x_t + (1 - sigma) * unpacked
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, Condition(prompt)), expected, **STRICT)
    assert prior.limits == Limits(supports_null=False)


def test_flux_is_shifted_by_the_number_of_patches(tmp_path: Path) -> None:
    """At 1024² there are 4096 patches and mu is 1.15; at 256², 256 and 0.5."""
    folder = models.save_flux(tmp_path / "model")
    for cells, mu in ((128, 1.15), (32, 0.5)):
        schedule = load_latent_prior(folder, options=Options(image_size=2 * cells)).schedule
        _, sigma = schedule.alpha_sigma(torch.tensor([499.0]))
        plain = 1e-3 + (1 - 1.1e-3) * 499 / 999
        assert float(sigma) == pytest.approx(math.exp(mu) / (math.exp(mu) + 1 / plain - 1), abs=1e-4)


# --------------------------------------------------------------------------------- many views, and one image


def test_mvdream_is_told_the_cameras(tmp_path: Path) -> None:
    """Against diffusers' network with no attention joined: sets of one view."""
    folder = models.save_mvdream(tmp_path / "model")
    prior = load_latent_prior(folder)
    alone = replace(prior, denoiser=part(folder, "unet"), family=replace(prior.family, views=1))  # type: ignore[type-var]
    x_t, timesteps = noisy(prior, 3)
    prompt, views = prior.encode_prompts([PROMPTS[0]]), cameras(3)
    tokens = prompt.tokens.expand(3, -1, -1)
    expected = called(part(folder, "unet"), x_t, timesteps, tokens, class_labels=camera_matrices(views))
    torch.testing.assert_close(
        alone.predict_noise(x_t, timesteps, Condition(prompt, views)), expected, **STRICT
    )


def test_mvdream_cameras_are_mvdreams_own() -> None:
    """MVDream's matrices by its own recipe: a look-at in OpenGL's axes, turned from +y up to +z up."""
    azimuth, elevation = math.radians(70), math.radians(25)
    position = torch.tensor(
        [
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
            math.cos(elevation) * math.cos(azimuth),
        ]
    )
    forward = -position / position.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0]))
    right = right / right.norm()
    up = torch.linalg.cross(right, forward)
    matrix = torch.eye(4)
    matrix[:3] = torch.stack([right, up, -forward, position], dim=1)
    to_z_up = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    ours = camera_matrices(orbit(torch.tensor([70.0]), torch.tensor([25.0]), 32, 32)).view(4, 4)
    torch.testing.assert_close(ours, to_z_up @ matrix, atol=1e-5, rtol=0)


def test_views_of_a_set_attend_to_each_other_and_to_no_other_set(tmp_path: Path) -> None:
    prior = load_latent_prior(models.save_mvdream(tmp_path / "model"))
    x_t, _ = noisy(prior, 8)
    timesteps = torch.tensor([100.0] * 4 + [700.0] * 4)
    prompt = prior.encode_prompts([PROMPTS[0]])
    whole = prior.predict_noise(x_t, timesteps, Condition(prompt, cameras(8)))
    for index in (0, 1):
        rows = slice(4 * index, 4 * index + 4)
        alone = prior.predict_noise(x_t[rows], timesteps[rows], Condition(prompt, cameras(8)[rows]))
        torch.testing.assert_close(alone, whole[rows], **STRICT)
    changed = x_t.clone()
    changed[1] += 1
    other = prior.predict_noise(changed, timesteps, Condition(prompt, cameras(8)))
    assert float((other[0] - whole[0]).abs().max()) > 1e-4
    torch.testing.assert_close(other[4:], whole[4:], **STRICT)
    order = torch.tensor([2, 0, 3, 1])
    turned = prior.predict_noise(x_t[order], timesteps[:4], Condition(prompt, cameras(8)[order]))
    torch.testing.assert_close(turned, whole[order], **STRICT)


def test_joint_attention_is_one_softmax_over_all_views(tmp_path: Path) -> None:
    prior = load_latent_prior(models.save_mvdream(tmp_path / "model"))
    attention = prior.denoiser.mid_block.attentions[0].transformer_blocks[0].attn1  # type: ignore[union-attr, index]
    cells = torch.randn(4, 5, 16)
    joint = cells.view(1, 20, 16)
    with torch.no_grad():
        q, k, v = (
            getattr(attention, name)(joint).view(1, 20, attention.heads, -1).transpose(1, 2)
            for name in ("to_q", "to_k", "to_v")
        )
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        expected = attention.to_out[0]((weights @ v).transpose(1, 2).reshape(1, 20, 16)).view(4, 5, 16)
        torch.testing.assert_close(attention(cells), expected, **STRICT)


def in_latent_diffusions_names(name: str, layers: int = 1) -> str:
    """What latent diffusion calls a weight of diffusers' U-Net."""
    fixed = {
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "class_embedding.linear_1": "camera_embed.0", "class_embedding.linear_2": "camera_embed.2",
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }  # fmt: skip
    if place := re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)", name):
        way, level, part, index = place[1], int(place[2]), place[3], int(place[4])
        first = level * (layers + 1) + (way == "down")
        new = {
            "resnets": f"{first + index}.0",
            "attentions": f"{first + index}.1",
            "downsamplers": f"{first + layers}.0.op",
            "upsamplers": f"{first + layers}.{2 if level == 0 else 1}.conv",
        }[part]
        rest = name[place.end() :].replace(".conv.", ".") if "sampl" in part else name[place.end() :]
        name = f"{'input' if way == 'down' else 'output'}_blocks.{new}{rest}"
    for old, new in fixed.items():
        name = name.replace(f"{old}.", f"{new}.") if name.startswith(f"{old}.") else name
    inner = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    }  # fmt: skip
    if "transformer_blocks" not in name:
        for old, new in inner.items():
            name = name.replace(f".{old}.", f".{new}.")
    return name


def test_mvdream_as_it_is_published(tmp_path: Path) -> None:
    """The same network in latent diffusion's names gives the same answers."""
    ours = models.save_mvdream(tmp_path / "ours")
    network = models.make_unet(
        use_linear_projection=True,
        norm_num_groups=32,
        block_out_channels=(32, 64),
        attention_head_dim=(1, 2),
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
    )
    network.save_pretrained(ours / "unet")
    published = tmp_path / "published"
    shutil.copytree(ours, published, ignore=shutil.ignore_patterns("unet"))
    (published / "unet").mkdir()
    config = {
        "_class_name": "MultiViewUNetModel", "image_size": 8, "in_channels": 4, "out_channels": 4,
        "model_channels": 32, "channel_mult": [1, 2], "attention_resolutions": [2], "num_res_blocks": 1,
        "context_dim": models.TEXT, "num_head_channels": 32, "camera_dim": 16,
    }  # fmt: skip
    (published / "unet" / "config.json").write_text(json.dumps(config))
    state = {in_latent_diffusions_names(name): value for name, value in network.state_dict().items()}
    save_file(state, published / "unet" / "diffusion_pytorch_model.safetensors")
    first, second = load_latent_prior(ours), load_latent_prior(published)
    x_t, _ = noisy(first, 4)
    condition = Condition(first.encode_prompts([PROMPTS[0]]), cameras(4))
    timesteps = torch.full((4,), 300.0)
    expected = first.predict_noise(x_t, timesteps, condition)
    assert torch.equal(second.predict_noise(x_t, timesteps, condition), expected)
    assert second.limits == first.limits


def test_mvdream_refuses_what_it_cannot_answer(tmp_path: Path) -> None:
    prior = load_latent_prior(models.save_mvdream(tmp_path / "model"))
    prompt = prior.encode_prompts([""])
    x_t, timesteps = noisy(prior, 4)
    same = timesteps[:1].expand(4)
    assert prior.limits == Limits(views=4, needs_camera=True)
    with pytest.raises(StudioError, match="sees 4 views at once and was asked about 3"):
        prior.predict_noise(x_t[:3], same[:3], Condition(prompt, cameras(3)))
    with pytest.raises(StudioError, match="no camera-free branch"):
        prior.predict_noise(x_t, same, Condition(prompt))
    with pytest.raises(StudioError, match=r"one noise level for the views of a set; try times.shared = true"):
        prior.predict_noise(x_t, timesteps, Condition(prompt, cameras(4)))


def test_zero123(tmp_path: Path) -> None:
    folder = models.save_zero123(tmp_path / "model")
    options = Options(reference_elevation_deg=10.0, reference_distance=1.5)
    prior = load_latent_prior(folder, options=options)
    image = torch.rand(2, 3, 16, 16)  # two frames of a video, each told to the view at its instant
    views = cameras(2)
    x_t, timesteps = noisy(prior)
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (
            transformers.image_utils.OPENAI_CLIP_MEAN,
            transformers.image_utils.OPENAI_CLIP_STD,
        )
    )
    pose = torch.stack(
        [
            torch.deg2rad((90 - views.elevation_deg) - (90 - 10.0)),
            torch.deg2rad(views.azimuth_deg).sin(),
            torch.deg2rad(views.azimuth_deg).cos(),
            torch.full((2,), 2.0 - 1.5),
        ],
        dim=1,
    )
    projection = load_file(folder / "clip_camera_projection" / "diffusion_pytorch_model.safetensors")
    with torch.no_grad():
        embedding = part(folder, "image_encoder")((image - mean) / std).image_embeds
        told = torch.cat([embedding, pose], 1) @ projection["proj.weight"].T + projection["proj.bias"]
        latents = part(folder, "vae").encode(2 * image - 1).latent_dist.mode()  # not scaled
    unet = part(folder, "unet")
    expected = called(unet, torch.cat([x_t, latents], 1), timesteps, told[:, None])
    nothing = called(
        unet, torch.cat([x_t, torch.zeros_like(x_t)], 1), timesteps, torch.zeros(2, 1, models.TEXT)
    )
    prompt = prior.encode_prompts(["unread", ""])
    torch.testing.assert_close(relative_pose(views, 10.0, 1.5), pose, **STRICT)
    for _ in range(2):  # the second answer comes from what was remembered of the images
        answer = prior.predict_noise(x_t, timesteps, Condition(prompt, views, image=image))
        torch.testing.assert_close(answer, expected, **STRICT)
    alone = prior.predict_noise(x_t[1:], timesteps[1:], Condition(prompt, views[[1]], image=image[1:]))
    torch.testing.assert_close(alone, expected[1:], **STRICT)
    torch.testing.assert_close(
        prior.predict_noise(x_t, timesteps, Condition(prompt, views)), nothing, **STRICT
    )
    other = prior.predict_noise(x_t, timesteps, Condition(prompt, views, image=1 - image))
    assert float((other - answer).abs().max()) > 1e-4
    assert prior.limits == Limits(needs_image=True, reads_text=False)


# --------------------------------------------------------------------------------------- what may be added


def test_controlnets_add_their_residuals(tmp_path: Path) -> None:
    folder = models.save_sd(tmp_path / "model")
    controls = [models.save_controlnet(tmp_path / f"control{seed}", seed) for seed in (5, 6)]
    options = Options(controls=tuple(str(control) for control in controls), control_scale=0.7)
    prior = load_latent_prior(folder, options=options)
    assert prior.limits == Limits(needs_control=True)
    x_t, timesteps = noisy(prior)
    prompt, picture = prior.encode_prompts(PROMPTS), torch.rand(2, 3, 16, 16)
    network = diffusers.MultiControlNetModel([part(control, ".") for control in controls])
    with torch.no_grad():
        down, middle = network(x_t, timesteps, prompt.tokens, [picture] * 2, [0.7, 0.7], return_dict=False)
    expected = called(
        part(folder, "unet"),
        x_t,
        timesteps,
        prompt.tokens,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    )
    answer = prior.predict_noise(x_t, timesteps, Condition(prompt, control=picture))
    torch.testing.assert_close(answer, expected, **STRICT)
    with pytest.raises(StudioError, match="has ControlNets and was shown no picture"):
        prior.predict_noise(x_t, timesteps, Condition(prompt))


def test_a_controlnet_for_another_base(tmp_path: Path) -> None:
    folder = models.save_sdxl(tmp_path / "model")
    control = models.save_controlnet(tmp_path / "control")
    with pytest.raises(StudioError, match=r"has cross_attention_dim 12, expected the base model's 24"):
        load_latent_prior(folder, options=Options(controls=(str(control),)))


def test_an_image_as_prompt(tmp_path: Path) -> None:
    folder = models.save_sd(tmp_path / "model")
    adapter = models.save_ip_adapter(tmp_path / "adapter")
    prior = load_latent_prior(folder, options=Options(image_prompt=str(adapter)))
    pipeline = diffusers.StableDiffusionPipeline(
        vae=part(folder, "vae"),
        text_encoder=part(folder, "text_encoder"),
        tokenizer=tokenizer(folder),
        unet=part(folder, "unet"),
        scheduler=diffusers.DDIMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_ip_adapter(
        str(adapter), "models", "ip-adapter_tiny.safetensors", image_encoder_folder=None,
        low_cpu_mem_usage=False,
    )  # fmt: skip
    x_t, timesteps = noisy(prior)
    prompt, image = prior.encode_prompts(PROMPTS), torch.rand(2, 3, 16, 16)
    assert prior.family.adapters.image_prompt is not None  # type: ignore[attr-defined]
    vectors = prior.family.adapters.image_prompt(image)  # type: ignore[attr-defined]
    for shown, embedding in ((image, vectors), (None, torch.zeros(2, 6))):
        added = {"image_embeds": [embedding[:, None]]}
        expected = called(pipeline.unet, x_t, timesteps, prompt.tokens, added_cond_kwargs=added)
        answer = prior.predict_noise(x_t, timesteps, Condition(prompt, image=shown))
        torch.testing.assert_close(answer, expected, **STRICT)


def test_an_image_prompt_for_another_base(tmp_path: Path) -> None:
    folder = models.save_sd(tmp_path / "model")
    adapter = models.save_ip_adapter(tmp_path / "adapter", width=20)
    with pytest.raises(StudioError, match=r"does not fit the base model .*: it was made for another base"):
        load_latent_prior(folder, options=Options(image_prompt=str(adapter)))


def test_transformers_take_no_adapters(tmp_path: Path) -> None:
    folder = models.save_sd3(tmp_path / "model")
    with pytest.raises(StudioError, match="takes no ControlNet, no image prompt and no identity"):
        load_latent_prior(folder, options=Options(controls=("some/net",)))
    with pytest.raises(StudioError, match=r"leave out .* and prior.identity"):
        load_latent_prior(folder, options=Options(identity="face.safetensors"))


def test_an_image_as_prompt_for_views_that_show_the_face(tmp_path: Path) -> None:
    """Beyond the limit a view is asked as if there were no image; up to it, as if there were no limit."""
    folder = models.save_sd(tmp_path / "model")
    adapter = str(models.save_ip_adapter(tmp_path / "adapter"))
    prior = load_latent_prior(folder, options=Options(image_prompt=adapter))
    gated = load_latent_prior(folder, options=Options(image_prompt=adapter, image_within_deg=70.0))
    prompt, image = prior.encode_prompts([PROMPTS[0]]), torch.rand(1, 3, 16, 16).expand(5, -1, -1, -1)
    x_t, timesteps = torch.randn(5, 4, 8, 8), torch.full((5,), 400.0)
    views = orbit(torch.tensor([0.0, 69.0, 71.0, 180.0, 291.0]), torch.zeros(5), 16, 16)
    asked = Condition(prompt, views, image=image)
    shown, hidden = (prior.predict_noise(x_t, timesteps, replace(asked, image=i)) for i in (image, None))
    shows = torch.tensor([True, True, False, False, True])
    expected = torch.where(shows[:, None, None, None], shown, hidden)
    torch.testing.assert_close(gated.predict_noise(x_t, timesteps, asked), expected, **STRICT)
    assert (shown - hidden).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    with pytest.raises(StudioError, match="shows the image by view and the prior was given no cameras"):
        gated.predict_noise(x_t, timesteps, replace(asked, cameras=None))


# ---------------------------------------------------------------------------------------------- refusals


def test_a_transformer_of_another_kind(tmp_path: Path) -> None:
    """What used to end in an assertion."""
    folder = models.save_sd(tmp_path / "model")
    shutil.rmtree(folder / "unet")
    diffusers.DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=8, in_channels=4, num_layers=1, sample_size=8
    ).save_pretrained(folder / "transformer")
    with pytest.raises(StudioError, match=r"holds a DiTTransformer2DModel, expected one of UNet2D"):
        load_latent_prior(folder)


def test_a_prompt_too_long_says_what_was_cut(tmp_path: Path) -> None:
    long = "a red horse " * 6 + "blue cube"
    for name in ("sd", "pixart", "sd3", "flux", "sdxl"):
        prior = load_latent_prior(models.FAMILIES[name](tmp_path / name))
        with pytest.warns(UserWarning, match=r"reads 14 tokens .* has 20: .*blue cube' was cut") as said:
            prior.encode_prompts([long])
        assert len(said) == 1


def test_camera_of_the_learned_prior(tmp_path: Path) -> None:
    folder = models.save_small(tmp_path / "model")
    prior = load_latent_prior(folder)
    x_t, timesteps = noisy(prior)
    prompt, views = prior.encode_prompts(PROMPTS), cameras(2)
    clean = called(part(folder, "unet"), x_t, timesteps, prompt.tokens, class_labels=camera_features(views))
    alpha, sigma = prior.schedule.alpha_sigma(timesteps)
    answer = prior.predict_noise(x_t, timesteps, Condition(prompt, views))
    torch.testing.assert_close(answer, (x_t - alpha * clean) / sigma, **STRICT)
