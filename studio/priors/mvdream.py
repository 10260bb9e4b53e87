"""MVDream's published U-Net, in the names of latent diffusion, as a diffusers network.

Its layers are those of Stable Diffusion 2.1, and its camera embedding is what diffusers calls a projected
class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from studio.errors import StudioError
from studio.priors.folders import UNREADABLE, read_json, unreadable

CLASS_NAME = "MultiViewUNetModel"
_PREFIX = "model.diffusion_model."


def load_multi_view(path: Path, dtype: torch.dtype) -> Any:
    """The network in a folder whose config names ``MultiViewUNetModel``; its attention is not yet joined.

    Raises:
        StudioError: it is damaged, or not of MVDream's shape.
    """
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from safetensors.torch import load_file

    config = read_json(path / "config.json")
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise StudioError(
            f"{path} has no .safetensors file, expected the weights there; pickled weights are not read."
        )
    try:
        options = _diffusers_config(config)
        state = {}
        for name, weight in load_file(files[0]).items():
            # diffusers' converter knows the embedding of a class by this name.
            state[_PREFIX + name.replace("camera_embed.", "label_emb.0.")] = weight
        network = UNet2DConditionModel(**options)
        network.load_state_dict(convert_ldm_unet_checkpoint(state, options))
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    return network.to(dtype)


def _diffusers_config(config: dict[str, Any]) -> dict[str, Any]:
    channels = tuple(int(config["model_channels"]) * factor for factor in config["channel_mult"])
    attends = tuple(2**level in config["attention_resolutions"] for level in range(len(channels)))
    kinds = tuple("CrossAttn" if attention else "" for attention in attends)
    return {
        "sample_size": config["image_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "block_out_channels": channels,
        "layers_per_block": config["num_res_blocks"],
        "down_block_types": tuple(f"{kind}DownBlock2D" for kind in kinds),
        "up_block_types": tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        "cross_attention_dim": config["context_dim"],
        # By diffusers' old misnomer this is the number of heads.
        "attention_head_dim": tuple(width // int(config["num_head_channels"]) for width in channels),
        "use_linear_projection": True,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": config["camera_dim"],
    }
