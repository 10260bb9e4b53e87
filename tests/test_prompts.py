from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from studio.cameras import orbit
from studio.errors import StudioError
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.prompts import clean_prompt
from studio.schedule import NoiseSchedule
from studio.types import Cameras, NegativePrompt, PromptEmbedding
from studio.view_prompts import (
    Direction,
    ViewPrompts,
    direction_of,
    repelled_views,
    view_prompt,
)


class RecordingPrior(AnalyticPrior):
    """Knows every text and counts how often it is asked; a token is (place of the text, its length)."""

    def __init__(self) -> None:
        super().__init__(
            {"": GaussianMixture.gaussian(torch.zeros(3, 2, 2), 1.0)}, NoiseSchedule.scaled_linear()
        )
        self.texts: list[str] = []
        self.calls = 0

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        self.calls += 1
        self.texts.extend(text for text in prompts if text not in self.texts)
        places = torch.tensor([float(self.texts.index(text)) for text in prompts])
        lengths = torch.tensor([float(len(text)) for text in prompts])
        return PromptEmbedding(torch.stack([places, lengths], dim=1)[:, None], pooled=places[:, None])

    def read(self, prompt: PromptEmbedding) -> list[str]:
        assert prompt.pooled is not None
        assert torch.equal(prompt.pooled, prompt.tokens[:, 0, :1])
        return [self.texts[int(place)] for place in prompt.tokens[:, 0, 0]]


def cameras_at(*angles: tuple[float, float]) -> Cameras:
    azimuth, elevation = torch.tensor(angles, dtype=torch.float32).T
    return orbit(azimuth, elevation, 8, 8)


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "direction"),
    [
        (0.0, 0.0, Direction.FRONT),
        (44.9, 0.0, Direction.FRONT),
        (-44.9, 0.0, Direction.FRONT),
        (45.0, 0.0, Direction.SIDE),
        (90.0, 15.0, Direction.SIDE),
        (-90.0, 15.0, Direction.SIDE),
        (135.0, 0.0, Direction.SIDE),
        (135.1, 0.0, Direction.BACK),
        (180.0, 0.0, Direction.BACK),
        (-180.0, 0.0, Direction.BACK),
        (225.1, 0.0, Direction.SIDE),
        (315.1, 0.0, Direction.FRONT),
        (360.0, 0.0, Direction.FRONT),
        (720.0 + 180.0, 0.0, Direction.BACK),
        (0.0, 60.0, Direction.FRONT),
        (0.0, 60.1, Direction.OVERHEAD),
        (180.0, 85.0, Direction.OVERHEAD),
        (180.0, -80.0, Direction.BACK),
    ],
)
def test_directions(azimuth_deg: float, elevation_deg: float, direction: Direction) -> None:
    assert direction_of(azimuth_deg, elevation_deg) is direction


@pytest.mark.parametrize(
    ("azimuth_deg", "direction"), [(29.0, Direction.FRONT), (31.0, Direction.SIDE), (151.0, Direction.BACK)]
)
def test_a_narrower_front_and_back(azimuth_deg: float, direction: Direction) -> None:
    assert direction_of(azimuth_deg, 0.0, threshold_deg=30.0) is direction


def test_later_directions_win_where_they_overlap() -> None:
    assert direction_of(90.0, 0.0, threshold_deg=120.0) is Direction.BACK


def test_prompts_are_tidied() -> None:
    assert clean_prompt("  a red\n\tteddy   bear ") == "a red teddy bear"
    assert clean_prompt("une chaise bleue à côté, 猫") == "une chaise bleue à côté, 猫"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"the prompt is empty; expected a few words, try 'a teddy bear'"),
        (" \n\t ", r"the prompt is empty"),
        ("a" * 1001, r"the prompt has 1001 characters; expected at most 1000, try fewer words"),
        ("a\x00b", r"the prompt holds the unprintable character '\\x00'; expected plain text"),
        ("a\x1b[31mb", r"unprintable character '\\x1b'"),
    ],
)
def test_bad_prompts_are_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(StudioError, match=complaint) as error:
        clean_prompt(text)
    assert "\n" not in str(error.value)


def test_the_longest_prompt_is_accepted() -> None:
    assert len(clean_prompt("a" * 1000)) == 1000


def test_every_camera_gets_the_text_of_its_direction() -> None:
    prior = RecordingPrior()
    prompts = ViewPrompts(prior, " a  corgi ")
    conditioning = prompts(cameras_at((0, 0), (90, 0), (180, 0), (0, 80), (-80, 0)))
    assert prior.read(conditioning.positive.prompt) == [
        "a corgi, front view",
        "a corgi, side view",
        "a corgi, back view",
        "a corgi, overhead view",
        "a corgi, side view",
    ]
    assert prior.read(conditioning.null.prompt) == [""]
    assert conditioning.negatives == () and conditioning.repulsion is None
    assert prompts.texts[Direction.BACK] == view_prompt("a corgi", Direction.BACK) == "a corgi, back view"


def test_texts_are_embedded_once() -> None:
    prior = RecordingPrior()
    prompts = ViewPrompts(prior, "a corgi", negatives=[NegativePrompt("blurry")], plain=True)
    for azimuth in (0.0, 100.0, 170.0):
        prompts(cameras_at((azimuth, 0)))
    assert prior.calls == 1


def test_view_words_can_be_left_out() -> None:
    prior = RecordingPrior()
    prompts = ViewPrompts(prior, "a corgi", view_words=False)
    conditioning = prompts(cameras_at((0, 0), (180, 0)))
    assert prior.read(conditioning.positive.prompt) == ["a corgi", "a corgi"]


def test_negatives_stand_alone_or_extend_each_view() -> None:
    prior = RecordingPrior()
    negatives = [NegativePrompt("blurry"), NegativePrompt(", noisy", extends_prompt=True)]
    conditioning = ViewPrompts(prior, "a corgi", negatives=negatives, null_prompt="ugly")(
        cameras_at((0, 0), (180, 0))
    )
    assert [prior.read(negative.prompt) for negative in conditioning.negatives] == [
        ["blurry", "blurry"],
        ["a corgi, front view, noisy", "a corgi, back view, noisy"],
    ]
    assert prior.read(conditioning.null.prompt) == ["ugly"]


def test_an_empty_extension_is_the_prompt_itself() -> None:
    prior = RecordingPrior()
    same = [NegativePrompt("", extends_prompt=True)]
    conditioning = ViewPrompts(prior, "a corgi", negatives=same)(cameras_at((0, 0), (180, 0)))
    assert torch.equal(conditioning.negatives[0].prompt.tokens, conditioning.positive.prompt.tokens)


@pytest.mark.parametrize("camera", [True, False])
def test_cameras_and_background_reach_every_branch(camera: bool) -> None:
    prior = RecordingPrior()
    cameras, background = cameras_at((0, 0), (180, 0)), torch.rand(2, 3)
    prompts = ViewPrompts(
        prior, "a corgi", negatives=[NegativePrompt("blurry")], camera=camera, perp_neg=True
    )
    conditioning = prompts(cameras, background)
    assert conditioning.repulsion is not None
    branches = [
        conditioning.positive,
        conditioning.null,
        *conditioning.negatives,
        *conditioning.repulsion.conditions,
    ]
    assert len(branches) == 5
    for branch in branches:
        assert branch.cameras is (cameras if camera else None)
        assert branch.background is background


def test_no_background_is_no_background() -> None:
    conditioning = ViewPrompts(RecordingPrior(), "a corgi")(cameras_at((0, 0)))
    assert conditioning.positive.background is None and conditioning.null.background is None


# Perp-Neg


def weight_by_hand(scale: float, offset: float, ratio: float) -> float:
    return -(scale * math.exp(-0.5 * ratio) + offset)


@pytest.mark.parametrize(
    ("azimuth_deg", "wrong", "weights"),
    [
        (0.0, ["front", "side"], (0.0001, 1.574)),
        (90.0, ["side", "front"], (0.0005, 1.5735)),
        (180.0, ["side", "front"], (0.394, 1.967)),
    ],
)
def test_perp_neg_has_its_published_end_values(
    azimuth_deg: float, wrong: list[str], weights: tuple[float, float]
) -> None:
    views = repelled_views(torch.tensor([azimuth_deg]), torch.zeros(1))
    names = [direction.value.split()[0] for direction in Direction]
    assert [names[place] for place in views.wrong[:, 0]] == wrong
    assert (-views.weights[:, 0]).tolist() == pytest.approx(weights, abs=5e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_perp_neg_between_the_views(sign: float) -> None:
    views = repelled_views(sign * torch.tensor([30.0, 150.0]), torch.zeros(2))
    torch.testing.assert_close(views.blend, torch.tensor([[2 / 3, 1 / 3, 0, 0], [0, 1 / 3, 2 / 3, 0]]))
    assert views.weights[:, 0].tolist() == pytest.approx(
        [weight_by_hand(4.0, -2.426, 2 / 3), weight_by_hand(4.0, -2.426, 1 / 3)], abs=1e-5
    )
    assert views.weights[:, 1].tolist() == pytest.approx(
        [weight_by_hand(1.0, -0.606, 1 / 3), weight_by_hand(1.0, 0.967, 1 / 3)], abs=1e-5
    )


def strengths(azimuth_deg: float) -> Tensor:
    """How strongly each of the four directions is avoided."""
    views = repelled_views(torch.tensor([azimuth_deg]), torch.zeros(1))
    return torch.zeros(4).index_add(0, views.wrong[:, 0], views.weights[:, 0])


@pytest.mark.parametrize("azimuth_deg", [90.0, -90.0, 270.0])
def test_perp_neg_is_continuous_at_the_side(azimuth_deg: float) -> None:
    before, after = strengths(azimuth_deg - 0.01), strengths(azimuth_deg + 0.01)
    torch.testing.assert_close(before, after, atol=2e-3, rtol=0)


def test_perp_neg_is_silent_from_overhead() -> None:
    views = repelled_views(torch.tensor([0.0, 170.0]), torch.tensor([61.0, 80.0]))
    assert not views.weights.any()
    assert views.blend.tolist() == [[0, 0, 0, 1]] * 2


def test_perp_neg_blends_embeddings_and_names_the_wrong_views() -> None:
    prior = RecordingPrior()
    prompts = ViewPrompts(prior, "a corgi", perp_neg=True)
    conditioning = prompts(cameras_at((0, 0), (45, 0), (180, 0), (0, 80)))
    assert conditioning.repulsion is not None
    first, second = (prior.read(condition.prompt) for condition in conditioning.repulsion.conditions)
    assert first == ["a corgi, front view"] * 2 + ["a corgi, side view", "a corgi, front view"]
    assert second == ["a corgi, side view"] * 2 + ["a corgi, front view", "a corgi, side view"]
    lengths = conditioning.positive.prompt.tokens[:, 0, 1].tolist()
    front, side, back, overhead = (len(f"a corgi, {direction.value}") for direction in Direction)
    assert lengths == pytest.approx([front, (front + side) / 2, back, overhead])
    assert conditioning.repulsion.weights.shape == (2, 4)


def test_embeddings_can_be_blended_without_naming_wrong_views() -> None:
    """r front + (1 - r) side with r = 1 - |azimuth| / 90, and so on to the back."""
    prior = RecordingPrior()
    conditioning = ViewPrompts(prior, "a corgi", blend=True)(
        cameras_at((0, 0), (-22.5, 0), (135, 0), (0, 80))
    )
    front, side, back, overhead = (len(f"a corgi, {direction.value}") for direction in Direction)
    assert conditioning.positive.prompt.tokens[:, 0, 1].tolist() == pytest.approx(
        [front, 0.75 * front + 0.25 * side, (side + back) / 2, overhead]
    )
    assert conditioning.repulsion is None


def test_blending_without_view_words_is_refused() -> None:
    with pytest.raises(StudioError, match="view_blend needs views in words"):
        ViewPrompts(RecordingPrior(), "a corgi", view_words=False, blend=True)


def test_perp_neg_without_view_words_is_refused() -> None:
    with pytest.raises(StudioError, match="perp_neg needs views in words"):
        ViewPrompts(RecordingPrior(), "a corgi", view_words=False, perp_neg=True)


# Prompt debiasing


def test_words_that_a_view_is_not_told() -> None:
    """The positive branch alone; negatives that extend it go with it."""
    prior = RecordingPrior()
    told = dict.fromkeys(Direction, "a smiling corgi") | {Direction.BACK: "a corgi"}
    negatives = [NegativePrompt("blurry"), NegativePrompt(", noisy", extends_prompt=True)]
    prompts = ViewPrompts(prior, "a smiling corgi", negatives=negatives, plain=True, by_view=told)
    conditioning = prompts(cameras_at((0, 0), (180, 0)))
    assert prior.read(conditioning.positive.prompt) == ["a smiling corgi, front view", "a corgi, back view"]
    assert prior.read(conditioning.null.prompt) == [""]
    assert [prior.read(negative.prompt) for negative in conditioning.negatives] == [
        ["blurry", "blurry"],
        ["a smiling corgi, front view, noisy", "a corgi, back view, noisy"],
    ]
    assert conditioning.plain is not None
    assert prior.read(conditioning.plain.prompt) == ["a smiling corgi"]


def test_debiasing_without_view_words_is_refused() -> None:
    with pytest.raises(StudioError, match="prompt_debiasing needs views in words"):
        ViewPrompts(
            RecordingPrior(), "a corgi", view_words=False, by_view=dict.fromkeys(Direction, "a corgi")
        )


# Heads


def test_what_views_that_are_turned_away_must_not_show() -> None:
    prior = RecordingPrior()
    cameras = cameras_at((0, 0), (90, 0), (180, 0), (0, 80))
    for null, turned, expected in (
        ("", "face", ["", "face", "face", "face"]),
        ("ugly", "face", ["ugly", "ugly, face", "ugly, face", "ugly, face"]),
        ("ugly", "", ["ugly"]),
    ):
        prompts = ViewPrompts(prior, "a head", null_prompt=null, turned_null_prompt=turned)
        assert prior.read(prompts(cameras).null.prompt) == expected


@pytest.mark.parametrize("blend", [False, True])
def test_an_edit_of_the_front_gives_other_views_the_prompt_itself(blend: bool) -> None:
    prior = RecordingPrior()
    edit = [NegativePrompt("an old man", front_only=True)]
    cameras = cameras_at((0, 0), (30, 0), (60, 0), (180, 0), (0, 80))
    conditioning = ViewPrompts(prior, "a man", negatives=edit, blend=blend)(cameras)
    positive, edited = conditioning.positive.prompt, conditioning.negatives[0].prompt
    (old,) = prior.encode_prompts(["an old man"]).tokens
    assert torch.equal(edited.tokens[:2], old.expand(2, -1, -1))
    assert torch.equal(edited.tokens[2:], positive.tokens[2:])
    assert edited.pooled is not None and positive.pooled is not None
    assert torch.equal(edited.pooled[2:], positive.pooled[2:])
