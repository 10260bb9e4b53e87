"""Every family of video diffusion models at a tiny size: diffusers' own classes with random weights, saved as
their pipelines save them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXVideoTransformer3DModel,
    MotionAdapter,
    UNet3DConditionModel,
    UNetMotionModel,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from transformers import UMT5Config, UMT5EncoderModel

from studio.priors.training.model import word_tokenizer
from tests.priors.models import T5, TEXT, WORDS, make_unet, save_t5, save_text, save_vae, save_vp, write_index

SHAKEN = 0.05
"""Random weights that training starts at zero, so that nothing of a tiny model is idle."""


def shaken(network: Any, seed: int = 3) -> Any:
    """Every weight that is zero throughout, made random: temporal layers and gates begin there."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not bool(parameter.any()):
                parameter.copy_(SHAKEN * torch.randn(parameter.shape, generator=rng))
    return network


def save_modelscope(folder: Path) -> Path:
    """ModelScope and ZeroScope: a 3D U-Net."""
    torch.manual_seed(0)
    network = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=TEXT,
        attention_head_dim=4,
    )
    shaken(network).save_pretrained(folder / "unet")
    save_vae(folder)
    save_text(folder)
    save_vp(folder)
    write_index(folder, "TextToVideoSDPipeline")
    return folder


def save_motion_adapter(folder: Path, layers: int = 1) -> Path:
    """AnimateDiff's motion modules for the tiny Stable Diffusion."""
    torch.manual_seed(5)
    network = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=layers,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=8,
        use_motion_mid_block=False,
    )
    shaken(network).save_pretrained(folder)
    return folder


def save_animatediff(folder: Path) -> Path:
    """Stable Diffusion with AnimateDiff's motion modules in it, as its pipeline saves them."""
    adapter = MotionAdapter.from_pretrained(save_motion_adapter(folder / "motion_adapter"))
    UNetMotionModel.from_unet2d(make_unet(), adapter).save_pretrained(folder / "unet")
    save_vae(folder)
    save_text(folder)
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear").save_pretrained(
        folder / "scheduler"
    )
    write_index(folder, "AnimateDiffPipeline")
    return folder


def save_cogvideox(folder: Path, *, rotary: bool = False) -> Path:
    """CogVideoX-2b, or with rotary embeddings 5b: v prediction, an autoencoder that squeezes time."""
    torch.manual_seed(0)
    CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=T5,
        num_layers=1,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=rotary,
    ).save_pretrained(folder / "transformer")
    AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(4, 4, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    ).save_pretrained(folder / "vae")
    save_t5(folder)
    CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True).save_pretrained(
        folder / "scheduler"
    )
    write_index(folder, "CogVideoXPipeline")
    return folder


def save_wan(folder: Path) -> Path:
    """Wan 2.1: a rectified flow."""
    torch.manual_seed(0)
    network = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=T5,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )
    shaken(network).save_pretrained(folder / "transformer")
    AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.1, 0.9, 1.5, 2.0],
        scale_factor_spatial=4,
    ).save_pretrained(folder / "vae")
    torch.manual_seed(9)
    tokenizer = word_tokenizer(WORDS)
    config = UMT5Config(vocab_size=len(tokenizer), d_model=T5, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ).save_pretrained(folder / "scheduler")
    write_index(folder, "WanPipeline")
    return folder


def save_ltx(folder: Path) -> Path:
    """LTX-Video: a rectified flow over cells of 8 pixels and 2 frames."""
    torch.manual_seed(0)
    network = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=1,
        caption_channels=T5,
    )
    shaken(network).save_pretrained(folder / "transformer")
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8),
        down_block_types=("LTXVideoDownBlock3D",) * 3,
        decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False),
        decoder_spatio_temporal_scaling=(True, True, False),
        decoder_inject_noise=(False,) * 4,
        downsample_type=("conv",) * 3,
        upsample_residual=(False,) * 3,
        upsample_factor=(1,) * 3,
        patch_size=2,
    )
    vae.latents_mean.copy_(torch.linspace(-0.3, 0.3, 8))
    vae.latents_std.copy_(torch.linspace(0.7, 1.3, 8))
    vae.save_pretrained(folder / "vae")
    save_t5(folder)
    FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024
    ).save_pretrained(folder / "scheduler")
    write_index(folder, "LTXPipeline")
    return folder


VIDEO_FAMILIES: Mapping[str, Callable[[Path], Path]] = {
    "modelscope": save_modelscope,
    "animatediff": save_animatediff,
    "cogvideox": save_cogvideox,
    "wan": save_wan,
    "ltx": save_ltx,
}
"""How each family is saved, by a short name."""
