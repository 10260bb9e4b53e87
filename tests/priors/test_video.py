"""Each family of video models against diffusers: its own pipeline's text, direct calls of its network and of
its autoencoder, noise by hand.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from studio.errors import StudioError
from studio.guidance.methods import build_guidance
from studio.guidance.refusals import limits_of
from studio.interfaces import LimitedPrior, Limits, Prior
from studio.priors.folders import channels_last, network_name
from studio.priors.latent import load_latent_prior
from studio.priors.video import VideoOptions, VideoPrior, load_video_prior
from studio.priors.video_codecs import FrameCodec, VideoAutoencoder, shown_order
from studio.recipes.guidance import SdsConfig, UniformTimes
from studio.types import Condition, Conditioning
from tests.priors import models
from tests.priors.test_families import STRICT, called, part, tokenizer
from tests.priors.video_models import VIDEO_FAMILIES, save_cogvideox, save_motion_adapter

PROMPTS = ["A red chair, side view", "a horse"]
PICTURES, SIZE = 5, 16


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family; saved once."""

    @functools.cache
    def folder(name: str) -> Path:
        return VIDEO_FAMILIES[name](tmp_path_factory.mktemp(name))

    return folder


def prior_of(folder: Path, **options: Any) -> VideoPrior:
    return load_video_prior(folder, VideoOptions(**({"pictures": PICTURES, "image_size": SIZE} | options)))


def clips(count: int, pictures: int = PICTURES) -> Tensor:
    return torch.rand(count * pictures, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


def noisy(prior: VideoPrior, count: int = 2) -> tuple[Tensor, Tensor]:
    """Noise in the shape of some clips' latents, and timesteps, one a clip."""
    x = prior.encode_images(clips(count, prior.pictures))
    x_t = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    return x_t, torch.linspace(100, 700, count).repeat_interleave(prior.latent_frames)


def in_clips(rows: Tensor, frames: int) -> Tensor:
    """Rows of a batch as ``[n, c, f, h, w]``."""
    return torch.stack([clip.movedim(0, 1) for clip in rows.split(frames)])


def in_rows(volumes: Tensor) -> Tensor:
    return torch.cat([volume.movedim(1, 0) for volume in volumes])


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_every_family_is_a_prior_of_clips(name: str, saved: Callable[[str], Path]) -> None:
    prior = prior_of(saved(name))
    assert isinstance(prior, Prior) and isinstance(prior, LimitedPrior)
    assert limits_of(prior) == Limits(frames=PICTURES)
    assert not any(parameter.requires_grad for parameter in prior.denoiser.parameters())
    # Each clip by itself, and its frames at one level.
    x_t, timesteps = noisy(prior)
    condition = Condition(prior.encode_prompts(PROMPTS[:1]))
    both = prior.predict_noise(x_t, timesteps, condition)
    frames = prior.latent_frames
    alone = prior.predict_noise(x_t[frames:], timesteps[frames:], condition)
    torch.testing.assert_close(both[frames:], alone, **STRICT)
    changed = x_t.clone()
    changed[-1] += 1
    other = prior.predict_noise(changed, timesteps, condition)
    torch.testing.assert_close(other[:frames], both[:frames], **STRICT)
    assert float((other[frames] - both[frames]).abs().max()) > 1e-5  # frames see one another
    uneven = timesteps.clone()
    uneven[-1] += 50
    with pytest.raises(
        StudioError, match=r"one noise level for the frames of a clip; try times.shared = true"
    ):
        prior.predict_noise(x_t, uneven, condition)
    with pytest.raises(StudioError, match=rf"latent frames came; the video prior expected clips of {frames}"):
        prior.predict_noise(x_t[1:], timesteps[1:], condition)
    with pytest.raises(StudioError, match=r"4 pictures came; the video prior expected clips of 5 frames"):
        prior.encode_images(clips(1)[:4])


def tokens_of(folder: Path, prior: VideoPrior) -> Tensor:
    """The prompts as the pipelines of CogVideoX and LTX read them, through the text encoder by hand."""
    ids = tokenizer(folder)(PROMPTS, padding="max_length", max_length=16, return_tensors="pt").input_ids
    return called(part(folder, "text_encoder"), ids)


def test_modelscope(saved: Callable[[str], Path]) -> None:
    folder = saved("modelscope")
    prior = prior_of(folder)
    x_t, timesteps = noisy(prior)
    prompt = prior.encode_prompts(PROMPTS)
    ids = tokenizer(folder)(PROMPTS, padding="max_length", return_tensors="pt").input_ids
    torch.testing.assert_close(prompt.tokens, called(part(folder, "text_encoder"), ids), **STRICT)
    expected = called(part(folder, "unet"), in_clips(x_t, PICTURES), timesteps[::PICTURES], prompt.tokens)
    told = replace(prompt, tokens=prompt.tokens.repeat_interleave(PICTURES, 0))
    answer = prior.predict_noise(x_t, timesteps, Condition(told))
    torch.testing.assert_close(answer, in_rows(expected), **STRICT)


def test_animatediff_saved_whole_and_put_together(saved: Callable[[str], Path], tmp_path: Path) -> None:
    whole = saved("animatediff")
    base, adapter = models.save_sd(tmp_path / "sd"), save_motion_adapter(tmp_path / "adapter")
    priors = [prior_of(whole), prior_of(base, motion_adapter=str(adapter))]
    x_t, timesteps = noisy(priors[0])
    prompt = priors[0].encode_prompts(PROMPTS)
    # Its pipeline repeats the text for each frame.
    text = prompt.tokens.repeat_interleave(PICTURES, 0)
    expected = called(part(whole, "unet"), in_clips(x_t, PICTURES), timesteps[::PICTURES], text)
    for prior in priors:
        answer = prior.predict_noise(x_t, timesteps, Condition(replace(prompt, tokens=text)))
        torch.testing.assert_close(answer, in_rows(expected), **STRICT)
        assert torch.equal(prior.schedule.log_snr, priors[0].schedule.log_snr)
    betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    alpha, _ = priors[0].schedule.alpha_sigma(torch.tensor([600.0]), torch.float64)
    assert float(alpha) == pytest.approx(float(torch.cumprod(1 - betas, 0)[600].sqrt()), rel=1e-5)


@pytest.mark.parametrize("rotary", [False, True])
def test_cogvideox(rotary: bool, tmp_path: Path) -> None:
    folder = save_cogvideox(tmp_path / "model", rotary=rotary)
    prior = prior_of(folder)
    x_t, timesteps = noisy(prior)
    frames = prior.latent_frames
    assert frames == 3  # 9 frames, of 5 pictures: 8k + 1
    tokens = tokens_of(folder, prior)
    torch.testing.assert_close(prior.encode_prompts(PROMPTS).tokens, tokens, **STRICT)
    pipeline = diffusers.CogVideoXPipeline(
        tokenizer(folder), part(folder, "text_encoder"), part(folder, "vae"), part(folder, "transformer"),
        diffusers.CogVideoXDDIMScheduler.from_pretrained(folder / "scheduler"),
    )  # fmt: skip
    places = None
    if rotary:
        places = pipeline._prepare_rotary_positional_embeddings(SIZE, SIZE, frames, torch.device("cpu"))
    v = called(
        pipeline.transformer,
        hidden_states=in_clips(x_t, frames).transpose(1, 2),
        encoder_hidden_states=tokens,
        timestep=timesteps[::frames],
        image_rotary_emb=places,
    ).flatten(0, 1)
    alpha_squared = pipeline.scheduler.alphas_cumprod.float()[timesteps.long()][:, None, None, None]
    expected = alpha_squared.sqrt() * v + (1 - alpha_squared).sqrt() * x_t
    prompt = prior.encode_prompts(PROMPTS)
    told = replace(prompt, tokens=tokens.repeat_interleave(frames, 0))
    answer = prior.predict_noise(x_t, timesteps, Condition(told))
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-4)
    # Noise up to the last level, where nothing of the clip is left.
    assert float(prior.schedule.alpha_sigma(torch.tensor([999.0]))[0]) < 1e-3


def test_wan(saved: Callable[[str], Path]) -> None:
    folder = saved("wan")
    prior = prior_of(folder)
    x_t, timesteps = noisy(prior)
    frames = prior.latent_frames
    transformer = diffusers.WanTransformer3DModel.from_config(
        diffusers.WanTransformer3DModel.load_config(folder / "transformer")
    ).eval()
    transformer.load_state_dict(load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors"))
    pipeline = diffusers.WanPipeline(
        tokenizer(folder), part(folder, "text_encoder"), part(folder, "vae"),
        diffusers.UniPCMultistepScheduler.from_pretrained(folder / "scheduler"), transformer,
    )  # fmt: skip
    with torch.no_grad():
        tokens = pipeline._get_t5_prompt_embeds(PROMPTS, max_sequence_length=16)
    prompt = prior.encode_prompts(PROMPTS)
    torch.testing.assert_close(prompt.tokens, tokens, **STRICT)
    _, sigma = prior.schedule.alpha_sigma(timesteps)
    flow = called(
        pipeline.transformer,
        hidden_states=in_clips(x_t, frames),
        timestep=1000 * sigma.flatten()[::frames],
        encoder_hidden_states=tokens,
    )
    told = replace(prompt, tokens=tokens.repeat_interleave(frames, 0))
    answer = prior.predict_noise(x_t, timesteps, Condition(told))
    # x_t = (1 - sigma) x0 + sigma noise, and the network says noise - x0.
    torch.testing.assert_close(answer, x_t + (1 - sigma) * in_rows(flow), **STRICT)
    clean = prior.schedule.clean_from_noise(x_t, answer, timesteps)
    torch.testing.assert_close(answer - clean, in_rows(flow), atol=1e-4, rtol=1e-4)
    # The levels that its own scheduler walks down: told as 1000 sigma.
    pipeline.scheduler.set_timesteps(10)
    walked = pipeline.scheduler.sigmas[1:-1].double()
    ours = prior.schedule.alpha_sigma(torch.arange(1000.0), torch.float64)[1].flatten()
    assert float((ours[:, None] - walked).abs().amin(0).max()) < 2e-3


def test_ltx(saved: Callable[[str], Path]) -> None:
    folder = saved("ltx")
    prior = prior_of(folder)
    x_t, timesteps = noisy(prior)
    frames, cells = prior.latent_frames, x_t.shape[-1]
    assert (frames, cells) == (2, 2)
    pipeline = diffusers.LTXPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"), part(folder, "vae"),
        part(folder, "text_encoder"), tokenizer(folder), part(folder, "transformer"),
    )  # fmt: skip
    with torch.no_grad():
        tokens, mask = pipeline._get_t5_prompt_embeds(PROMPTS, max_sequence_length=16)
    prompt = prior.encode_prompts(PROMPTS)
    torch.testing.assert_close(prompt.tokens, tokens, **STRICT)
    _, sigma = prior.schedule.alpha_sigma(timesteps)
    flow = called(
        pipeline.transformer,
        hidden_states=pipeline._pack_latents(in_clips(x_t, frames)),
        encoder_hidden_states=tokens,
        encoder_attention_mask=mask,
        timestep=1000 * sigma.flatten()[::frames],
        num_frames=frames,
        height=cells,
        width=cells,
        rope_interpolation_scale=(
            pipeline.vae_temporal_compression_ratio / 25,
            pipeline.vae_spatial_compression_ratio,
            pipeline.vae_spatial_compression_ratio,
        ),
    )
    told = replace(
        prompt,
        tokens=tokens.repeat_interleave(frames, 0),
        pooled=mask.float().repeat_interleave(frames, 0),
    )
    answer = prior.predict_noise(x_t, timesteps, Condition(told))
    unpacked = pipeline._unpack_latents(flow, frames, cells, cells)
    torch.testing.assert_close(answer, x_t + (1 - sigma) * in_rows(unpacked), **STRICT)
    # e^mu with mu linear in the cells: 8 of them, where 1024 have 0.95 and 4096 have 2.05.
    factor = torch.tensor(0.95 + (8 - 1024) * 1.1 / (4096 - 1024)).exp()
    middle = prior.schedule.alpha_sigma(torch.tensor([499.5]), torch.float64)[1]
    assert float(middle) == pytest.approx(float(factor / (1 + factor)), abs=2e-3)


# ------------------------------------------------------------------------------------------------ pictures


def test_a_picture_is_encoded_once_however_often_it_is_shown(saved: Callable[[str], Path]) -> None:
    folder = saved("modelscope")
    prior = prior_of(folder, pictures=3, there_and_back=2)
    assert prior.order == (0, 1, 2, 2, 1, 0) * 2 and prior.latent_frames == 12
    rgb = clips(2, 3)
    vae, seen = part(folder, "vae"), []
    with torch.no_grad():
        by_hand = 0.18215 * vae.encode(2 * rgb - 1).latent_dist.mode()
    assert isinstance(prior.codec, FrameCodec)
    prior.codec.images.vae.register_forward_pre_hook(lambda *_: None)  # type: ignore[attr-defined]
    x = prior.encode_images(rgb)
    assert not seen
    torch.testing.assert_close(
        x, torch.cat([by_hand[:3][list(prior.order)], by_hand[3:][list(prior.order)]]), **STRICT
    )
    looked_at = prior.decode_images(x)
    assert looked_at.shape == rgb.shape
    # Told the prompt of the camera that films the clip.
    assert prior.first_pictures(6).tolist() == [0] * 12 + [3] * 12
    # A few at a time, encoded again on the way back: the same latents, the same gradient, less memory.
    sparing = prior_of(folder, pictures=3, there_and_back=2, frames_at_once=2)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    slopes = []
    for each in (prior, sparing):
        leaf = rgb.clone().requires_grad_()
        latents = each.encode_images(leaf)
        torch.testing.assert_close(latents, x, **STRICT)
        slopes.append(torch.autograd.grad((weights * latents).sum(), leaf)[0])
    torch.testing.assert_close(*slopes, **STRICT)


@pytest.mark.parametrize("name", ["cogvideox", "wan", "ltx"])
def test_an_autoencoder_that_squeezes_time(name: str, saved: Callable[[str], Path]) -> None:
    folder = saved(name)
    prior = prior_of(folder, pictures=3, there_and_back=1)
    assert prior.order == (0, 1, 2, 2, 1, 0, 0, 0, 0)  # held until it fits
    rgb, vae = clips(2, 3), part(folder, "vae")
    shown = torch.stack([clip[list(prior.order)].movedim(0, 1) for clip in rgb.split(3)])
    with torch.no_grad():
        latents = vae.encode(2 * shown - 1).latent_dist.mode()
    match name:
        case "cogvideox":
            expected = latents * vae.config.scaling_factor
        case "wan":
            mean, std = (
                torch.tensor(v)[:, None, None, None]
                for v in (vae.config.latents_mean, vae.config.latents_std)
            )
            expected = (latents - mean) / std
        case _:
            expected = diffusers.LTXPipeline._normalize_latents(latents, vae.latents_mean, vae.latents_std)
    x = prior.encode_images(rgb)
    assert prior.latent_frames == 3 == expected.shape[2]
    torch.testing.assert_close(x, in_rows(expected), **STRICT)
    looked_at = prior.decode_images(x)
    assert looked_at.shape == rgb.shape and prior.first_pictures(6).tolist() == [0] * 3 + [3] * 3
    with torch.no_grad():
        frames = in_rows(vae.decode(latents, return_dict=False)[0]).split(9)
    torch.testing.assert_close(
        looked_at, torch.cat([(clip[:3] + 1) / 2 for clip in frames]).clamp(0, 1), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_gradients_of_the_pictures(name: str, saved: Callable[[str], Path]) -> None:
    """By autograd and by finite differences, in double precision, through guidance's loss."""
    prior = prior_of(saved(name), pictures=3, there_and_back=1, dtype=torch.float64)
    condition = Condition(prior.encode_prompts(PROMPTS[:1]))
    branches = Conditioning(condition, Condition(prior.encode_prompts([""])))
    sds = SdsConfig(cfg_scale=50.0, times=UniformTimes(shared=True))
    rgb = clips(1, 3).double().requires_grad_()
    output = build_guidance(sds, prior)(rgb, branches, 0.5, torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad(output.loss, rgb)
    # The gradient on the latents is fixed; what it makes of the pictures is the encoder's.
    step = torch.randn(rgb.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def along(scale: float) -> Tensor:
        x = prior.encode_images(rgb.detach() + scale * step)
        return (output.gradient.double() * x).sum() / len(x)

    # The norms of LTX's autoencoder round to float32 whatever the rest computes in.
    h, tolerance = (1e-4, 5e-4) if name == "ltx" else (1e-5, 1e-6)
    with torch.no_grad():
        difference = float(along(h) - along(-h)) / (2 * h)
    assert difference == pytest.approx(float((slope * step).sum()), rel=tolerance)
    assert all(float(picture.abs().max()) > 0 for picture in slope)


def assert_half_precision_answers_alike(name: str, folder: Path, device: str, dtype: torch.dtype) -> None:
    """The same noise and, through the autoencoder, much the same gradient as in float32 on the CPU."""
    rgb, told, slopes = clips(2, 3), [], []
    for each in (
        prior_of(folder, pictures=3),
        load_video_prior(folder, VideoOptions(3, image_size=SIZE, dtype=dtype), device),
    ):
        place = next(each.denoiser.parameters()).device
        pictures = rgb.to(place).requires_grad_()
        x = each.encode_images(pictures)
        x_t = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(place)
        timesteps = torch.full((len(x),), 400.0, device=place)
        told.append(each.predict_noise(x_t, timesteps, Condition(each.encode_prompts(PROMPTS[:1]))).cpu())
        slopes.append(torch.autograd.grad(x.square().sum(), pictures)[0].cpu())
        assert each.decode_images(x.detach()).shape == rgb.shape
    torch.testing.assert_close(told[1], told[0], atol=0.03, rtol=0.03)
    along = torch.nn.functional.cosine_similarity(slopes[0].flatten(), slopes[1].flatten(), dim=0)
    assert float(along) > 0.98, name


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_half_precision(name: str, saved: Callable[[str], Path]) -> None:
    assert_half_precision_answers_alike(name, saved(name), "cpu", torch.bfloat16)


def test_wan_keeps_in_float32_what_half_precision_breaks(saved: Callable[[str], Path]) -> None:
    half = prior_of(saved("wan"), dtype=torch.bfloat16)
    kinds = {name: value.dtype for name, value in half.denoiser.named_parameters()}
    assert kinds["scale_shift_table"] == torch.float32 and kinds["proj_out.weight"] == torch.bfloat16
    assert isinstance(half.codec, VideoAutoencoder)
    assert next(half.codec.vae.parameters()).dtype == torch.float32


def test_weights_are_laid_out_for_cuda(saved: Callable[[str], Path]) -> None:
    """What only CUDA asks for must not fail there: convolutions over clips have no such layout."""
    network = part(saved("modelscope"), "unet")
    x, text = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 16, models.TEXT)
    before = called(network, x, 300, text)
    channels_last(network)
    assert network.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(called(network, x, 300, text), before, **STRICT)


def test_the_order_in_which_a_clip_is_shown() -> None:
    assert shown_order(6, 2, 1) == (0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0) * 2  # AniClipart's 24 of 6
    assert shown_order(4, 0, 1) == (0, 1, 2, 3)
    for pictures in range(1, 12):
        for squeezed in (4, 8):
            order = shown_order(pictures, 0, squeezed)
            assert len(order) % squeezed == 1 and order[:pictures] == tuple(range(pictures))
            assert len(order) < pictures + squeezed and set(order[pictures:]) <= {pictures - 1}


# ------------------------------------------------------------------------------------------------ refusals


def renamed(folder: Path, name: str, kind: str) -> None:
    path = folder / name / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": kind}))


def test_what_is_no_video_model_is_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(
        StudioError, match=r"denoises clips \(UNet3DConditionModel\).* use prior.kind = 'video'"
    ):
        load_latent_prior(saved("modelscope"))
    pictures = models.save_sd(tmp_path / "sd")
    with pytest.raises(
        StudioError, match=r"is a UNet2DConditionModel and prior.motion_adapter is None; expected"
    ):
        prior_of(pictures)
    with pytest.raises(StudioError, match="and with nothing else"):
        prior_of(saved("modelscope"), motion_adapter=str(save_motion_adapter(tmp_path / "adapter")))
    with pytest.raises(StudioError, match=r"does not fit .*: it was made for another base"):
        prior_of(pictures, motion_adapter=str(save_motion_adapter(tmp_path / "deeper", layers=2)))
    with pytest.raises(StudioError, match="is a FluxTransformer2DModel, expected a video model: ModelScope"):
        prior_of(models.save_flux(tmp_path / "flux"))


def test_clips_that_a_model_does_not_take_are_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"clips of up to 8 frames and would be shown 12; expected fewer"):
        prior_of(saved("animatediff"), pictures=6, there_and_back=1)
    with pytest.raises(StudioError, match=r"prior.image_size is 20, expected a multiple of 8; try 16"):
        prior_of(saved("wan"), image_size=20)
    with pytest.raises(StudioError, match=r"sees clips as a whole; leave out prior.frames_at_once"):
        prior_of(saved("ltx"), frames_at_once=1)
    two = VIDEO_FAMILIES["wan"](tmp_path / "two")
    (two / "transformer_2").mkdir()
    with pytest.raises(StudioError, match=r"has two denoisers, for high and for low noise, expected one"):
        prior_of(two)
    other = VIDEO_FAMILIES["cogvideox"](tmp_path / "other")
    assert network_name(other / "vae") == "AutoencoderKLCogVideoX"
    renamed(other, "vae", "AutoencoderKLWan")
    with pytest.raises(StudioError, match=r"holds a AutoencoderKLWan, expected the AutoencoderKLCogVideoX"):
        prior_of(other)
