"""Prompts to what each family of diffusion models is told: CLIP, T5, and their combinations.

Every embedder gives one row a prompt, all of one length. A prompt longer than the tokenizer reads is cut, and
what was cut is said in a warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional

from studio.types import PromptEmbedding

Pooling = Literal["none", "end"]

_NO_LIMIT = 1_000_000
"""A tokenizer without a length of its own says an absurd one."""


@runtime_checkable
class TextEmbedder(Protocol):
    """Prompts to one row of vectors a token each."""

    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One row for each prompt, all of one length."""


@dataclass(frozen=True)
class TokenIds:
    """Prompts as a tokenizer reads them: indices, and 1 where a token is not padding."""

    ids: Int[Tensor, "b l"]
    mask: Int[Tensor, "b l"]


def tokenized(tokenizer: Any, prompts: Sequence[str], length: int, warn: bool = True) -> TokenIds:
    """Prompts padded, or cut, to ``length`` tokens, or to fewer if the tokenizer was made for fewer.

    Args:
        warn: say what was cut; off where another encoder reads on.
    """
    if tokenizer.model_max_length < _NO_LIMIT:
        length = min(length, tokenizer.model_max_length)
    batch = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    if warn:
        extra = tokenizer.num_special_tokens_to_add()
        for prompt in prompts:
            words = tokenizer(prompt, add_special_tokens=False).input_ids
            if len(words) + extra > length:
                lost = tokenizer.decode(words[length - extra :]).strip()
                warnings.warn(
                    f"the model reads {length - extra} tokens of a prompt and {prompt[:40]!r}... has "
                    f"{len(words)}: {lost!r} was cut; try fewer words",
                    stacklevel=2,
                )
    return TokenIds(batch.input_ids, batch.attention_mask)


@dataclass(frozen=True)
class ClipTextEmbedder:
    """A CLIP text encoder and its tokenizer: Stable Diffusion 1 and 2.

    Attributes:
        tokenizer, encoder: of transformers.
        layer: layers before the last whose output is taken ("CLIP skip"), through the final layer norm.
        pooling: also give the end token's vector, or not.
    """

    tokenizer: Any
    encoder: Any
    layer: int = 0
    pooling: Pooling = "none"

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Prompts padded, or cut, to the tokenizer's length."""
        output = _clip(self.tokenizer, self.encoder, prompts)
        tokens = output.last_hidden_state
        if self.layer:
            tokens = _clip_body(self.encoder).final_layer_norm(output.hidden_states[-1 - self.layer])
        pooled = output.pooler_output.float() if self.pooling == "end" else None
        return PromptEmbedding(tokens.float(), pooled)


@dataclass(frozen=True)
class T5TextEmbedder:
    """A T5 encoder and its tokenizer: DeepFloyd IF and PixArt.

    Attributes:
        tokenizer, encoder: of transformers.
        length: tokens that the denoiser was trained with.
        keep_mask: give the padding mask (1 where there is a word) as the pooled vector, for PixArt, which
            must not look at the padding.
    """

    tokenizer: Any
    encoder: Any
    length: int
    keep_mask: bool = False

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Prompts in lower case, as both models were trained."""
        lowered = [prompt.lower().strip() for prompt in prompts]
        read = tokenized(self.tokenizer, lowered, self.length)
        device = next(self.encoder.parameters()).device
        mask = read.mask.to(device)
        tokens = self.encoder(input_ids=read.ids.to(device), attention_mask=mask).last_hidden_state
        return PromptEmbedding(tokens.float(), mask.float() if self.keep_mask else None)


@dataclass(frozen=True)
class SdxlTextEmbedder:
    """Stable Diffusion XL: two CLIP encoders' layers before the last, side by side; the second one's pooled
    vector (Podell et al. 2023, arXiv:2307.01952, sec. 2.1).

    Attributes:
        zero_empty: the empty prompt is all zeros, as the base model was trained.
    """

    tokenizers: tuple[Any, Any]
    encoders: tuple[Any, Any]
    zero_empty: bool

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Prompts padded, or cut, to the tokenizers' length."""
        first, second = (
            _clip(tokenizer, encoder, prompts, warn=index == 0)
            for index, (tokenizer, encoder) in enumerate(zip(self.tokenizers, self.encoders, strict=True))
        )
        tokens = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1).float()
        pooled = second.text_embeds.float()
        if self.zero_empty:
            said = torch.tensor([float(prompt != "") for prompt in prompts], device=tokens.device)
            tokens, pooled = tokens * said[:, None, None], pooled * said[:, None]
        return PromptEmbedding(tokens, pooled)


@dataclass(frozen=True)
class Sd3TextEmbedder:
    """Stable Diffusion 3: the rows of two CLIP encoders, padded to T5's width, before T5's (Esser et al.
    2024, arXiv:2403.03206, sec. 4); both pooled vectors side by side.

    Attributes:
        t5: tokenizer and encoder, or None for a model saved without: zeros take its place.
        length: tokens of T5.
        width: of the denoiser's text input.
    """

    tokenizers: tuple[Any, Any]
    encoders: tuple[Any, Any]
    t5: tuple[Any, Any] | None
    length: int
    width: int

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Prompts padded, or cut, to the tokenizers' lengths."""
        outputs = [
            _clip(tokenizer, encoder, prompts, warn=self.t5 is None)
            for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True)
        ]
        clip = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1).float()
        clip = functional.pad(clip, (0, self.width - clip.shape[-1]))
        if self.t5 is None:
            rows = clip.new_zeros(len(prompts), self.length, self.width)
        else:
            rows = _t5(*self.t5, prompts, self.length).to(clip.device)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        return PromptEmbedding(torch.cat([clip, rows], dim=1), pooled.float())


@dataclass(frozen=True)
class FluxTextEmbedder:
    """FLUX: T5's rows, and CLIP's pooled vector.

    Attributes:
        length: tokens of T5.
    """

    clip_tokenizer: Any
    clip: Any
    t5_tokenizer: Any
    t5: Any
    length: int

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Prompts padded, or cut, to the tokenizers' lengths."""
        pooled = _clip(self.clip_tokenizer, self.clip, prompts, warn=False).pooler_output
        return PromptEmbedding(_t5(self.t5_tokenizer, self.t5, prompts, self.length), pooled.float())


@dataclass(frozen=True)
class VideoTextEmbedder:
    """T5 as the video transformers read it, in the prompt's own case.

    Attributes:
        length: tokens of T5.
        masked: the encoder looks away from the padding, whose rows are zeros (Wan); else it attends to it.
        keep_mask: give the padding mask (1 where there is a word) as the pooled vector, for LTX.
    """

    tokenizer: Any
    encoder: Any
    length: int
    masked: bool = False
    keep_mask: bool = False

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Prompts padded, or cut, to ``length``."""
        read = tokenized(self.tokenizer, prompts, self.length)
        device = next(self.encoder.parameters()).device
        mask = read.mask.to(device)
        seen = mask if self.masked else None
        rows = self.encoder(input_ids=read.ids.to(device), attention_mask=seen).last_hidden_state.float()
        if self.masked:
            rows = rows * mask[..., None]
        return PromptEmbedding(rows, mask.float() if self.keep_mask else None)


@dataclass(frozen=True)
class NoText:
    """For models that read no words: one zero a prompt."""

    device: torch.device

    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """Rows without content."""
        return PromptEmbedding(torch.zeros(len(prompts), 1, 1, device=self.device))


@dataclass(frozen=True)
class CachedTextEmbedder:
    """Embeddings kept on disk, so that a prompt seen once needs no text encoder.

    Attributes:
        load: makes the embedder that is asked for what is not on disk; it is dropped after each use.
        identity: everything else that the numbers depend on: model, revision, layer, pooling.
        folder: where ``<sha256 of prompt and identity>.safetensors`` lie.
        device: where the embeddings go.
    """

    load: Callable[[], TextEmbedder]
    identity: tuple[str, ...]
    folder: Path
    device: torch.device

    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One row for each prompt, computed at most once on this machine."""
        from safetensors.torch import load_file

        rows: dict[str, dict[str, Tensor]] = {}
        for prompt in prompts:
            try:
                rows[prompt] = load_file(self._path(prompt))
            except (OSError, SafetensorError):
                continue
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]
        if missing:
            made = self.load()(missing)
            for index, prompt in enumerate(missing):
                row = {"tokens": made.tokens[index].contiguous().cpu()}
                if made.pooled is not None:
                    row["pooled"] = made.pooled[index].contiguous().cpu()
                rows[prompt] = row
                self._save(prompt, row)
        tokens = torch.stack([rows[prompt]["tokens"] for prompt in prompts]).to(self.device)
        pooled = None
        if "pooled" in rows[prompts[0]]:
            pooled = torch.stack([rows[prompt]["pooled"] for prompt in prompts]).to(self.device)
        return PromptEmbedding(tokens, pooled)

    def _path(self, prompt: str) -> Path:
        key = hashlib.sha256(json.dumps([prompt, *self.identity]).encode()).hexdigest()
        return self.folder / f"{key}.safetensors"

    def _save(self, prompt: str, row: dict[str, Tensor]) -> None:
        from safetensors.torch import save_file

        path = self._path(prompt)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(row, part)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)  # A cache that cannot be written costs time, not the run.


def _clip(tokenizer: Any, encoder: Any, prompts: Sequence[str], warn: bool = True) -> Any:
    """A CLIP encoder's output, hidden states among it."""
    read = tokenized(tokenizer, prompts, int(encoder.config.max_position_embeddings), warn)
    device = next(encoder.parameters()).device
    return encoder(input_ids=read.ids.to(device), output_hidden_states=True)


def _t5(tokenizer: Any, encoder: Any, prompts: Sequence[str], length: int) -> Float[Tensor, "b l d"]:
    """T5's rows; the padding is attended to, as Stable Diffusion 3 and FLUX do."""
    read = tokenized(tokenizer, prompts, length)
    device = next(encoder.parameters()).device
    rows: Tensor = encoder(input_ids=read.ids.to(device)).last_hidden_state
    return rows.float()


def _clip_body(encoder: Any) -> Any:
    """The layers themselves: transformers before 5 wrap them in ``text_model``."""
    return getattr(encoder, "text_model", encoder)
