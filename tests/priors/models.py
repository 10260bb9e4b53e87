"""Every family of diffusion models at a tiny size: diffusers' and transformers' own classes with random
weights, saved as their pipelines save them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from studio.cameras import CAMERA_FEATURES
from studio.priors.training.model import word_tokenizer

WORDS = ("a", "red", "blue", "cube", "chair", "horse", "view", "front", "side", "back", "overhead")
TEXT, POOLED, T5 = 12, 10, 16
"""Widths of the text encoders."""


def save_text(folder: Path, suffix: str = "", *, projected: bool = False, width: int = TEXT) -> None:
    """A CLIP text encoder with its tokenizer, of 16 tokens."""
    torch.manual_seed(len(suffix) + 1)
    tokenizer = word_tokenizer(WORDS)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        projection_dim=POOLED,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=tokenizer.eos_token_id,
    )
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    kind(config).save_pretrained(folder / f"text_encoder{suffix}")
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")


def save_t5(folder: Path, suffix: str = "") -> None:
    """A T5 encoder with a tokenizer of 16 tokens."""
    torch.manual_seed(9)
    tokenizer = word_tokenizer(WORDS)
    config = T5Config(vocab_size=len(tokenizer), d_model=T5, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder / f"text_encoder{suffix}")
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")


def save_vae(folder: Path, channels: int = 4, **options: float) -> None:
    """An autoencoder that halves the size."""
    torch.manual_seed(1)
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        **({"scaling_factor": 0.18215} | options),
    ).save_pretrained(folder / "vae")
    if "force_upcast" not in options:
        path = folder / "vae" / "config.json"
        config = json.loads(path.read_text())
        del config["force_upcast"]  # as in the files of the models that do not need it
        path.write_text(json.dumps(config))


def save_vp(folder: Path, prediction: str = "epsilon") -> None:
    """Stable Diffusion's noise levels."""
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")


def make_unet(**options: Any) -> Any:
    """A U-Net of two levels on 8 x 8 cells."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": TEXT,
        "attention_head_dim": 2,
    }
    return UNet2DConditionModel(**(defaults | options))


def save_sd(folder: Path, prediction: str = "epsilon") -> Path:
    """Stable Diffusion 1 and 2."""
    make_unet().save_pretrained(folder / "unet")
    save_vae(folder)
    save_text(folder)
    save_vp(folder, prediction)
    return folder


def save_sd_v(folder: Path) -> Path:
    """Stable Diffusion 2.1 at 768²: v prediction."""
    return save_sd(folder, "v_prediction")


def save_small(folder: Path) -> Path:
    """The studio's own: un-shuffled pixels, x0 prediction, told the camera."""
    make_unet(
        in_channels=48,
        out_channels=48,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=CAMERA_FEATURES,
    ).save_pretrained(folder / "unet")
    (folder / "codec").mkdir(parents=True)
    (folder / "codec" / "config.json").write_text('{"kind": "pixel_unshuffle", "factor": 4}')
    save_text(folder)
    save_vp(folder, "sample")
    return folder


def save_sdxl(folder: Path) -> Path:
    """Stable Diffusion XL."""
    make_unet(
        cross_attention_dim=2 * TEXT,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=POOLED + 6 * 8,
    ).save_pretrained(folder / "unet")
    save_vae(folder, force_upcast=True, scaling_factor=0.13025)
    save_text(folder)
    save_text(folder, "_2", projected=True)
    save_vp(folder)
    write_index(folder, "StableDiffusionXLPipeline", force_zeros_for_empty_prompt=True)
    return folder


def save_if(folder: Path) -> Path:
    """DeepFloyd IF, stage I."""
    make_unet(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        encoder_hid_dim=T5,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
    ).save_pretrained(folder / "unet")
    save_t5(folder)
    DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range").save_pretrained(
        folder / "scheduler"
    )
    return folder


def save_pixart(folder: Path, *, told_size: bool = False) -> Path:
    """PixArt-α."""
    torch.manual_seed(0)
    PixArtTransformer2DModel(
        num_attention_heads=3,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=24,
        sample_size=8,
        caption_channels=T5,
        use_additional_conditions=told_size,
    ).save_pretrained(folder / "transformer")
    save_vae(folder)
    save_t5(folder)
    save_vp(folder)
    write_index(folder, "PixArtAlphaPipeline")
    return folder


def save_sd3(folder: Path, *, t5: bool = True) -> Path:
    """Stable Diffusion 3."""
    torch.manual_seed(0)
    SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * T5,
        caption_projection_dim=16,
        pooled_projection_dim=2 * POOLED,
        pos_embed_max_size=8,
    ).save_pretrained(folder / "transformer")
    save_vae(folder, shift_factor=0.06, scaling_factor=1.53)
    save_text(folder, projected=True)
    save_text(folder, "_2", projected=True)
    if t5:
        torch.manual_seed(9)
        tokenizer = word_tokenizer(WORDS)
        config = T5Config(
            vocab_size=len(tokenizer), d_model=2 * T5, d_kv=8, d_ff=16, num_layers=1, num_heads=2
        )
        T5EncoderModel(config).save_pretrained(folder / "text_encoder_3")
        tokenizer.save_pretrained(folder / "tokenizer_3")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    return folder


def save_flux(folder: Path) -> Path:
    """FLUX.1 dev."""
    torch.manual_seed(0)
    FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=T5,
        pooled_projection_dim=TEXT,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    ).save_pretrained(folder / "transformer")
    save_vae(folder, shift_factor=0.1, scaling_factor=0.36)
    save_text(folder)
    save_t5(folder, "_2")
    FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(folder / "scheduler")
    return folder


def save_mvdream(folder: Path) -> Path:
    """A multi-view U-Net."""
    make_unet(class_embed_type="projection", projection_class_embeddings_input_dim=16).save_pretrained(
        folder / "unet"
    )
    save_vae(folder)
    save_text(folder)
    save_vp(folder)
    return folder


def save_image_encoder(folder: Path, width: int) -> None:
    """CLIP for images of 16 x 16."""
    torch.manual_seed(4)
    config = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)


def save_zero123(folder: Path) -> Path:
    """Zero123."""
    make_unet(in_channels=8).save_pretrained(folder / "unet")
    save_vae(folder)
    save_vp(folder)
    save_image_encoder(folder / "image_encoder", TEXT)
    projection = torch.nn.Linear(TEXT + 4, TEXT)
    (folder / "clip_camera_projection").mkdir()
    (folder / "clip_camera_projection" / "config.json").write_text('{"_class_name": "CLIPCameraProjection"}')
    save_file(
        {f"proj.{name}": value for name, value in projection.state_dict().items()},
        folder / "clip_camera_projection" / "diffusion_pytorch_model.safetensors",
    )
    return folder


def save_controlnet(folder: Path, seed: int = 5) -> Path:
    """A ControlNet for the tiny Stable Diffusion; its last layers are not zero, as before training."""
    torch.manual_seed(seed)
    network = ControlNetModel(
        in_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        conditioning_embedding_out_channels=(4, 8),
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "controlnet" in name:
                parameter.normal_(std=0.1)
    network.save_pretrained(folder)
    return folder


def save_ip_adapter(folder: Path, width: int = TEXT) -> Path:
    """An IP-Adapter for the tiny Stable Diffusion, in the layout of h94/IP-Adapter."""
    save_image_encoder(folder / "models" / "image_encoder", 6)
    torch.manual_seed(6)
    state = {
        "image_proj.proj.weight": torch.randn(4 * width, 6),
        "image_proj.proj.bias": torch.randn(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    index = 1
    for name in make_unet().attn_processors:
        if "attn2" in name:
            for part in ("k", "v"):
                state[f"ip_adapter.{index}.to_{part}_ip.weight"] = torch.randn(16, width)
            index += 2
    save_file(state, folder / "models" / "ip-adapter_tiny.safetensors")
    return folder


def write_index(folder: Path, pipeline: str, **values: object) -> None:
    """``model_index.json``, as far as the studio reads it."""
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline} | values))


FAMILIES: Mapping[str, Callable[[Path], Path]] = {
    "sd": save_sd,
    "sd_v": save_sd_v,
    "small": save_small,
    "sdxl": save_sdxl,
    "if": save_if,
    "pixart": save_pixart,
    "sd3": save_sd3,
    "flux": save_flux,
    "mvdream": save_mvdream,
    "zero123": save_zero123,
}
"""How each family is saved, by a short name."""
