"""Prompts as weights over models, on a hand-made catalogue whose right answers are plain to see."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from studio.errors import StudioError
from studio.priors.vocabulary import Vocabulary, caption_noun, caption_phrases


@dataclass(frozen=True)
class Model:
    noun: str
    caption: str
    synonyms: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()


MODELS = (
    Model("teddy bear", "a teddy bear", ("bear",), ("toy",), ("brown",)),
    Model("chair", "a red wooden chair", ("seat",), ("furniture",), ("red",)),
    Model("chair", "a folding chair", ("seat",), ("furniture",), ("black", "grey")),
    Model("coffee table", "a glass coffee table", ("table",), ("furniture",), ("blue",)),
    Model("table", "a wooden table", (), ("furniture",), ("brown",)),
    Model("coffee cup", "a coffee cup", ("cup",), (), ("white",)),
    Model("wine glass", "a wine glass", ("glass",), (), ("blue",)),
    Model("glasses", "glasses", ("spectacles",), (), ("black",)),
    Model("sofa", "a leather sofa", ("couch",), ("furniture",), ("brown",)),
    Model("vase", "a vase of flowers", ("flowers",), ("decoration",), ("white", "green")),
    Model("wine bottle", "a wine bottle", ("bottle", "wine"), (), ("green",)),
    Model("bottle", "a shampoo bottle", ("shampoo",), (), ("white",)),
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(MODELS)


@pytest.mark.parametrize(
    ("prompt", "members"),
    [
        ("a teddy bear", (0,)),
        ("Teddy Bears!", (0,)),
        ("a teddy", (0,)),
        ("a chair", (1, 2)),
        ("chairs", (1, 2)),
        ("a red chair", (1,)),
        ("a folding chair", (2,)),
        ("a gray chair", (2,)),
        ("a wood chair", (1,)),
        ("a coffee table", (3,)),
        ("a table", (4,)),
        ("a glass table", (3,)),
        ("a blue table", (3,)),
        ("a cup of coffee", (5,)),
        ("a glass", (6,)),
        ("two wine glasses", (6,)),
        ("glasses", (7,)),
        ("a settee", (8,)),
        ("a DSLR photo of a leather couch, 8k, highly detailed, front view", (8,)),
        ("a vase of flowers", (9,)),
        ("a bottle of wine", (10,)),
        ("a bottle", (11,)),
        ("a toy", (0,)),
        ("brown furniture", (4, 8)),
        ("something wooden", (1, 4)),
    ],
)
def test_prompts_choose_the_models_a_person_would(
    vocabulary: Vocabulary, prompt: str, members: tuple[int, ...]
) -> None:
    match = vocabulary.match(prompt)
    assert match.members == members
    assert match.weights == pytest.approx(
        [1 / len(members) if place in members else 0.0 for place in range(len(MODELS))]
    )


def test_an_unknown_word_is_named_with_the_nearest_known_one(vocabulary: Vocabulary) -> None:
    match = vocabulary.match("a chair with leathre")
    assert match.members == (1, 2)
    assert match.warnings == (
        "The catalogue does not know 'leathre'; it is ignored. Did you mean 'leather'?",
    )


def test_a_word_that_fits_no_such_model_is_named(vocabulary: Vocabulary) -> None:
    match = vocabulary.match("a purple sofa")
    assert match.members == (8,)
    assert match.warnings == ("The catalogue has no sofa with 'purple'; that word is ignored.",)


def test_the_first_thing_named_is_the_subject(vocabulary: Vocabulary) -> None:
    match = vocabulary.match("a teddy bear on a chair")
    assert match.members == (0,)
    assert match.warnings == ("The catalogue has no teddy bear with 'chair'; that word is ignored.",)


@pytest.mark.parametrize(
    ("prompt", "views"),
    [
        ("a chair, front view", ("front",)),
        ("a chair, side view", ("side",)),
        ("back view of a chair", ("back",)),
        ("a chair seen from behind", ("back",)),
        ("a chair, overhead view", ("above",)),
        ("a chair from above", ("above",)),
        ("the back of a chair", ("back",)),
        ("a chair", ()),
    ],
)
def test_view_words_are_read_and_choose_no_model(
    vocabulary: Vocabulary, prompt: str, views: tuple[str, ...]
) -> None:
    match = vocabulary.match(prompt)
    assert match.views == views
    assert match.members == (1, 2)
    assert not match.warnings


def test_nothing_known_is_an_error_with_the_nearest_word(vocabulary: Vocabulary) -> None:
    with pytest.raises(
        StudioError, match=r"nothing for the prompt 'a sofaa'\. Did you mean 'sofa'\?"
    ) as error:
        vocabulary.match("a sofaa")
    assert "'studio prior vocab'" in str(error.value)


def test_quality_words_alone_name_nothing(vocabulary: Vocabulary) -> None:
    assert not vocabulary.match("blurry, low quality, ugly").names_something
    with pytest.raises(StudioError, match="names no thing"):
        vocabulary.match_something("blurry, low quality, ugly")


@pytest.mark.parametrize("prompt", ["", "   ", "?!"])
def test_an_empty_prompt_is_an_error(vocabulary: Vocabulary, prompt: str) -> None:
    with pytest.raises(StudioError, match="is empty"):
        vocabulary.match(prompt)


@pytest.mark.parametrize("prompt", ["chair " * 78, "c" * 1001])
def test_an_overlong_prompt_is_an_error(vocabulary: Vocabulary, prompt: str) -> None:
    with pytest.raises(StudioError, match="at most 77 words and 1000 characters"):
        vocabulary.match(prompt)


def test_the_listing_counts_models(vocabulary: Vocabulary) -> None:
    names = dict(vocabulary.names())
    assert names["chair"] == 2
    assert names["furniture"] == 5
    assert "wooden" not in names
    assert dict(vocabulary.adjectives())["wooden"] == 2


def test_captions_give_their_nouns() -> None:
    assert caption_noun("A red toy car with stripes") == "car"
    assert caption_phrases("A red toy car with stripes") == ("red toy car", "toy car", "car")
    assert caption_noun("the") == ""
