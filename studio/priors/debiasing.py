"""Prompt debiasing (D-SDS): words of a prompt that contradict a view are not told to that view.

A masked language model reads "This image is depicting a [MASK] view of" and the prompt, and says how likely
each view is. The word w is dropped for the view v where w makes it less likely:

    P(v | prompt) / (P(v | prompt) + P(v | prompt without w)) * 2  <  0.95

S. Hong, D. Ahn, S. Kim, "Debiasing Scores and Prompts of 2D Diffusion for View-consistent Text-to-3D
Generation", arXiv:2303.15413, with the sentence, the model (BERT) and the threshold of its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.errors import StudioError
from studio.priors.folders import load_network, load_tokenizer, network_name
from studio.priors.weights import model_folder
from studio.view_prompts import Direction

THRESHOLD = 0.95
_VIEWS = tuple(direction.value.removesuffix(" view") for direction in Direction)


def contradicts(
    whole: Float[Tensor, "v"], without: Float[Tensor, "n v"], threshold: float = THRESHOLD
) -> Bool[Tensor, "n v"]:
    """Which of n words make which view less likely.

    Args:
        whole: probability of each view given the prompt.
        without: the same given the prompt without each word.
    """
    return whole / ((whole + without) / 2) < threshold


@lru_cache(maxsize=32)
def debiased_prompts(source: str, prompt: str) -> Mapping[Direction, str]:
    """What of a prompt each view is told; all of it where nothing would be left.

    Args:
        source: folder or hub id of a ``BertForMaskedLM`` with its tokenizer.

    Raises:
        StudioError: the model is not there, not readable, of another kind, or does not know the views' words.
    """
    tokenizer, model = _masked_language_model(source)
    words = prompt.split()
    parts = [" ".join(words[:index] + words[index + 1 :]) for index in range(len(words))]
    without = torch.stack([view_probabilities(tokenizer, model, part) for part in parts])
    dropped = contradicts(view_probabilities(tokenizer, model, prompt), without)
    kept = {
        direction: " ".join(word for word, lost in zip(words, column, strict=True) if not lost)
        for direction, column in zip(Direction, dropped.T.tolist(), strict=True)
    }
    return MappingProxyType({direction: text or prompt for direction, text in kept.items()})


@torch.no_grad()
def view_probabilities(tokenizer: Any, model: Any, prompt: str) -> Float[Tensor, "4"]:
    """How likely each direction is, in ``Direction``'s order; together 1."""
    sentence = f"This image is depicting a {tokenizer.mask_token} view of {prompt}"
    read = tokenizer(sentence, truncation=True, return_tensors="pt")
    logits = model(**read).logits[0][read.input_ids[0] == tokenizer.mask_token_id][0]
    probabilities: Tensor = logits[tokenizer.convert_tokens_to_ids(list(_VIEWS))].softmax(dim=0)
    return probabilities


def _masked_language_model(source: str) -> tuple[Any, Any]:
    folder = model_folder(source, None)
    if (kind := network_name(folder)) != "BertForMaskedLM":
        raise StudioError(
            f"prompt_debiasing is {source}, a {kind}, expected a BertForMaskedLM; try "
            "'google-bert/bert-base-uncased'."
        )
    tokenizer, model = load_tokenizer(folder), load_network(folder, torch.float32).eval()
    unknown = [word for word in _VIEWS if tokenizer.convert_tokens_to_ids(word) == tokenizer.unk_token_id]
    if unknown:
        raise StudioError(
            f"The model {source} for prompt_debiasing does not know {', '.join(unknown)} as one word, "
            f"expected {', '.join(_VIEWS)}; try 'google-bert/bert-base-uncased'."
        )
    # Without a length of its own, a tokenizer would not cut.
    tokenizer.model_max_length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    return tokenizer, model
