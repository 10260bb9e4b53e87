"""Prompt debiasing with a real BERT of one layer whose weights are set so that its answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from studio.errors import StudioError
from studio.priors.debiasing import contradicts, debiased_prompts, view_probabilities
from studio.priors.folders import load_network, load_tokenizer
from studio.view_prompts import Direction

VIEWS = ("front", "side", "back", "overhead")
# What each word adds to the logits of front, side, back and overhead, times the length of the sentence.
MEANS = {"smiling": (6.0, 0.0, -6.0, 0.0), "tail": (-4.0, 0.0, 4.0, 0.0), "corgi": (0.0, 0.0, 0.0, 0.0)}
SENTENCE = ("this", "image", "is", "depicting", "a", "view", "of", "with")


def save_bert(folder: Path, views: tuple[str, ...] = VIEWS) -> Path:
    """The logit of view k at the mask is the mean over all tokens of channel k of their embeddings.

    Attention is uniform and passes values on; an enormous epsilon makes of each layer norm a subtraction of
    the mean, which is 0 here since a second set of channels holds the opposite.
    """
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *SENTENCE, *views, *MEANS)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(words),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=4,
            hidden_act="linear",
            tie_word_embeddings=False,
            max_position_embeddings=32,
            layer_norm_eps=1e8,
        )
    )
    identity = ("value.weight", "attention.output.dense.weight", "transform.dense.weight")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_()
            if name.endswith("LayerNorm.weight"):
                parameter.fill_(1e4)
            elif name.endswith(identity):
                parameter.copy_(torch.eye(8))
        for word, means in MEANS.items():
            model.bert.embeddings.word_embeddings.weight[words.index(word)] = torch.tensor(
                [*means, *(-mean for mean in means)]
            )
        for index, view in enumerate(views):
            model.cls.predictions.decoder.weight[words.index(view), index] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def truth(prompt: str) -> list[float]:
    """Softmax of the mean over [CLS], the sentence, the prompt and [SEP]."""
    words = prompt.split()
    length = 2 + len("this image is depicting a [MASK] view of".split()) + len(words)
    logits = [sum(MEANS.get(word, (0.0,) * 4)[k] for word in words) / length for k in range(4)]
    total = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / total for logit in logits]


def test_the_ratio_by_hand() -> None:
    """0.1 / ((0.1 + 0.3) / 2) = 0.5; 0.38 / 0.4 = 0.95 stays; 0.37 / 0.405 = 0.914 goes."""
    whole = torch.tensor([0.1, 0.38, 0.37, 0.15], dtype=torch.float64)
    without = torch.tensor([[0.3, 0.42, 0.44, 0.10], [0.1, 0.38, 0.37, 0.15]], dtype=torch.float64)
    assert contradicts(whole, without, 0.9499).tolist() == [[True, False, True, False], [False] * 4]
    assert contradicts(whole, without, 0.95001).tolist() == [[True, True, True, False], [False] * 4]
    assert contradicts(whole, without, 0.4).sum() == 0


@pytest.mark.parametrize("prompt", ["a corgi", "a smiling corgi", "a smiling corgi with a tail", ""])
def test_a_saved_model_says_what_its_weights_say(prompt: str, tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    tokenizer, model = load_tokenizer(folder), load_network(folder, torch.float32)
    assert view_probabilities(tokenizer, model, prompt).tolist() == pytest.approx(truth(prompt), abs=1e-5)


def test_words_go_from_the_views_that_they_contradict(tmp_path: Path) -> None:
    """Where the closed form falls below 0.95: a smile is not seen from behind, nor a tail from the front."""
    prompt = "a smiling corgi with a tail"
    words, whole = prompt.split(), truth("a smiling corgi with a tail")
    expected = {}
    for k, direction in enumerate(Direction):
        kept = []
        for index, word in enumerate(words):
            part = truth(" ".join(words[:index] + words[index + 1 :]))
            if whole[k] / ((whole[k] + part[k]) / 2) >= 0.95:
                kept.append(word)
        expected[direction] = " ".join(kept)
    assert expected == {
        Direction.FRONT: "a smiling corgi with a",
        Direction.SIDE: prompt,
        Direction.BACK: "a corgi with a tail",
        Direction.OVERHEAD: prompt,
    }
    assert debiased_prompts(str(save_bert(tmp_path / "bert")), prompt) == expected


def test_a_view_that_would_be_told_nothing_is_told_all(tmp_path: Path) -> None:
    told = debiased_prompts(str(save_bert(tmp_path / "bert")), "smiling")
    assert set(told.values()) == {"smiling"} and len(told) == 4


def test_models_that_do_not_serve(tmp_path: Path) -> None:
    from tests.priors.models import save_text

    save_text(tmp_path / "model")
    with pytest.raises(StudioError, match=r"a CLIPTextModel, expected a BertForMaskedLM") as error:
        debiased_prompts(str(tmp_path / "model" / "text_encoder"), "a corgi")
    assert "\n" not in str(error.value)
    folder = save_bert(tmp_path / "bert", ("front", "side", "rear", "top"))
    with pytest.raises(StudioError, match="does not know back, overhead as one word"):
        debiased_prompts(str(folder), "a corgi")
    with pytest.raises(StudioError, match="There is no folder"):
        debiased_prompts(str(tmp_path / "nowhere"), "a corgi")
