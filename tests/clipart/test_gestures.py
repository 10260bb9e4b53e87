"""Gestures begin at rest, have two sides where they say so, and are found in prompts."""

from __future__ import annotations

import pytest
import torch

from studio.clipart.drawing import read_drawing
from studio.clipart.gestures import GESTURES, Gesture, gestures_in, performances
from studio.clipart.sheet import sheet_of
from studio.errors import StudioError
from studio.resources import clipart

BODY = 60 + 120 * torch.rand(14, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gesture", GESTURES, ids=lambda gesture: gesture.name)
def test_a_gesture_begins_at_rest_and_goes_farther_with_strength(gesture: Gesture) -> None:
    weak, *_, strong = (each for each in performances(gesture) if not each.mirrored)
    torch.testing.assert_close(weak(BODY, 0.0), BODY, atol=1e-4, rtol=0)
    reach = [(each(BODY, 1.0) - BODY).norm(dim=1).mean() for each in (weak, strong)]
    assert 1.0 < reach[0] < reach[1] < 60.0


@pytest.mark.parametrize("gesture", GESTURES, ids=lambda gesture: gesture.name)
def test_the_other_side_is_the_mirror_image(gesture: Gesture) -> None:
    family = performances(gesture)
    assert len(family) == (6 if gesture.has_sides else 3)
    if gesture.has_sides:
        one, other = family[:2]
        axis = (BODY.amin(0) + BODY.amax(0))[0]
        mirror = torch.stack([axis - BODY[:, 0], BODY[:, 1]], dim=1)
        seen = one(mirror, 0.7)
        expected = torch.stack([axis - seen[:, 0], seen[:, 1]], dim=1)
        torch.testing.assert_close(other(BODY, 0.7), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["dance", "wave"])
def test_no_leg_of_a_crab_is_folded(name: str) -> None:
    """Bones neither turn about nor lose more than half of their length."""
    sheet = sheet_of(read_drawing(clipart("crab"), 256), edge_px=24.0)
    rest = sheet.vertices[sheet.keypoints]
    (gesture,) = (each for each in GESTURES if each.name == name)
    for performance in performances(gesture):
        before, after = (
            points[sheet.bones[:, 1]] - points[sheet.bones[:, 0]] for points in (rest, performance(rest, 1.0))
        )
        assert float(torch.cosine_similarity(before, after).amin()) > 0.3
        assert float((after.norm(dim=1) / before.norm(dim=1)).amin()) > 0.5


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("the crab is dancing", ["dance"]),
        ("A T-rex that jumps, then waves!", ["jump", "wave"]),
        ("a cat wiggles", ["shake"]),
        ("the bird is flyng", ["flap"]),  # misspelt
    ],
)
def test_a_prompt_names_gestures_or_something_like_them(prompt: str, names: list[str]) -> None:
    assert [gesture.name for gesture in gestures_in(prompt)] == names


def test_a_prompt_without_motion_is_told_what_is_known() -> None:
    with pytest.raises(StudioError, match="names no motion that is known; expected one of jump, squash"):
        gestures_in("an emoji of a crab")
