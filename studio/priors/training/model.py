"""The learned prior ``small``: a U-Net on un-shuffled pixels, a tiny CLIP text encoder and a word-level
tokenizer.

The network predicts the clean image: noise fills all 48 channels of a cell and would have to be carried
through the narrow layers, images lie near a surface of few dimensions (Li and He 2025, "Back to basics",
arXiv:2511.13720).

Everything is a diffusers or transformers class, so that the folder which `save_model` writes is read by
`studio.priors.latent` like any other model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from studio.cameras import CAMERA_FEATURES
from studio.errors import StudioError
from studio.priors.codecs import PixelUnshuffle
from studio.priors.training.config import ModelConfig
from studio.schedule import NoiseSchedule, Prediction

TOKENS = 16
LEVELS = 985
PREDICTION = Prediction.X0
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")


def codec_of(config: ModelConfig) -> PixelUnshuffle:
    """Images to cells and back."""
    return PixelUnshuffle(config.patch, config.image_size)


def schedule_of(config: ModelConfig) -> NoiseSchedule:
    """The noise levels that the model is trained on; the cosine's last ones, noise alone, are left out."""
    shifted = NoiseSchedule.cosine().shifted(config.schedule_shift)
    return replace(shifted, log_snr=shifted.log_snr[:LEVELS])


class TextToImageModel(nn.Module):
    """The two networks that are trained together, with the tokenizer between the words and them."""

    def __init__(self, config: ModelConfig, words: Sequence[str]) -> None:
        """Fresh weights for a vocabulary of lower-case ``words``."""
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        super().__init__()
        self.tokenizer = word_tokenizer(words)
        cells = 3 * config.patch**2
        kinds = tuple("CrossAttn" if reads_text else "" for reads_text in config.attention)
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=config.text_width,
                intermediate_size=4 * config.text_width,
                projection_dim=config.text_width,
                num_hidden_layers=config.text_layers,
                num_attention_heads=max(config.text_width // 48, 1),
                max_position_embeddings=TOKENS,
                pad_token_id=self.tokenizer.pad_token_id,
                bos_token_id=self.tokenizer.bos_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=config.image_size // config.patch,
            in_channels=cells,
            out_channels=cells,
            block_out_channels=config.channels,
            layers_per_block=config.blocks,
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            cross_attention_dim=config.text_width,
            attention_head_dim=4,
            # The camera and a summary of the words join the noise level, which scales and shifts every block.
            class_embed_type="projection",
            projection_class_embeddings_input_dim=CAMERA_FEATURES,
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
            resnet_time_scale_shift="scale_shift",
            time_embedding_dim=4 * 128,
        )

    def tokenize(self, captions: Sequence[str]) -> Int[Tensor, "b l"]:
        """Word indices, padded to one length."""
        return tokenize(self.tokenizer, captions)

    def forward(
        self,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        tokens: Int[Tensor, "b l"],
        camera: Float[Tensor, "b k"],
    ) -> Float[Tensor, "b c h w"]:
        """The clean cells behind noisy ones at the given levels."""
        text = self.text_encoder(input_ids=tokens).last_hidden_state
        clean: Tensor = self.unet(x_t, timesteps, text, class_labels=camera, return_dict=False)[0]
        return clean


def word_tokenizer(words: Sequence[str]) -> Any:
    """A tokenizer with one token a word (transformers' ``PreTrainedTokenizerFast``)."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\w']+"), "removed")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[(name, vocabulary[name]) for name in ("[BOS]", "[EOS]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=TOKENS,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        bos_token="[BOS]",  # noqa: S106
        eos_token="[EOS]",  # noqa: S106
    )


def tokenize(tokenizer: Any, captions: Sequence[str]) -> Int[Tensor, "b l"]:
    """Word indices, padded and cut to the tokenizer's length."""
    batch = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
    ids: Tensor = batch.input_ids
    return ids


def save_model(
    model: TextToImageModel, config: ModelConfig, folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write diffusers' folder layout; what was in ``folder`` by those names is replaced.

    Args:
        dtype: of the weights on disk. Half precision halves the file; the loader computes in float32 on a
            CPU.
    """
    from diffusers import DDIMScheduler

    folder.mkdir(parents=True, exist_ok=True)
    alphas_cumprod = schedule_of(config).log_snr.sigmoid()
    betas = 1 - alphas_cumprod / torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    scheduler = DDIMScheduler(
        num_train_timesteps=len(betas),
        trained_betas=betas.tolist(),
        prediction_type=PREDICTION.value,
        clip_sample=False,
    )
    scheduler.save_pretrained(folder / "scheduler")
    model.tokenizer.save_pretrained(folder / "tokenizer")
    for name, module in (("unet", model.unet), ("text_encoder", model.text_encoder)):
        _saved_copy(module, dtype).save_pretrained(folder / name, safe_serialization=True)
    (folder / "codec").mkdir(exist_ok=True)
    codec = {"kind": "pixel_unshuffle", "factor": config.patch}
    (folder / "codec" / "config.json").write_text(json.dumps(codec) + "\n")
    index = {
        "_class_name": "DiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_weights(model: TextToImageModel, folder: Path) -> None:
    """Take over the weights that `save_model` wrote. A word's embedding follows the word; words of ``model``
    that the folder does not know keep what they have.

    Raises:
        StudioError: when the folder holds no such model, or one of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
        text_encoder = load_file(folder / "text_encoder" / "model.safetensors")
        known = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise StudioError(f"{folder} is not a trained model to start from ({error}).") from error
    vocabulary = model.tokenizer.get_vocab()
    embeddings = model.text_encoder.get_input_embeddings().weight.detach().clone()
    name = next(name for name in text_encoder if name.endswith("token_embedding.weight"))
    try:
        for word in vocabulary.keys() & known.keys():
            embeddings[vocabulary[word]] = text_encoder[name][known[word]]
        model.text_encoder.load_state_dict(text_encoder | {name: embeddings})
        model.unet.load_state_dict(unet)
    except (RuntimeError, IndexError) as error:
        raise StudioError(
            f"The model in {folder} is of another shape: {str(error).splitlines()[-1].strip()}"
        ) from error


def _saved_copy(module: Any, dtype: torch.dtype) -> Any:
    import copy

    return copy.deepcopy(module).to(dtype)
