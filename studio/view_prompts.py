"""From a prompt and a view direction to the branches that guidance asks a prior for.

A model that knows no cameras is told the direction in words ("a corgi, side view"). Azimuth 0 is the front.
Each text is embedded once, when ``ViewPrompts`` is made; a step only gathers rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from studio.errors import StudioError
from studio.interfaces import Prior
from studio.prompts import clean_prompt
from studio.types import Cameras, Condition, Conditioning, NegativePrompt, PromptEmbedding, Repulsion

Angle = TypeVar("Angle", float, Tensor)

OVERHEAD_ELEVATION_DEG = 60.0
VIEW_THRESHOLD_DEG = 45.0


class Direction(Enum):
    """Where a camera stands, and the words for what it sees."""

    FRONT = "front view"
    SIDE = "side view"
    BACK = "back view"
    OVERHEAD = "overhead view"


_DIRECTIONS = tuple(Direction)


def from_front_deg(azimuth_deg: Angle) -> Angle:
    """How far a camera, or each of several, has turned from the front, to either side: 0-180."""
    return abs((azimuth_deg + 180.0) % 360.0 - 180.0)


def direction_of(
    azimuth_deg: float, elevation_deg: float, threshold_deg: float = VIEW_THRESHOLD_DEG
) -> Direction:
    """The direction of a camera; of those that apply, the last in the order side, front, back, overhead.

    Args:
        azimuth_deg: any angle; 0 is the front.
        threshold_deg: half the width of the front and of the back.
    """
    turned_deg = from_front_deg(azimuth_deg)
    if elevation_deg > OVERHEAD_ELEVATION_DEG:
        return Direction.OVERHEAD
    if turned_deg > 180.0 - threshold_deg:
        return Direction.BACK
    if turned_deg < threshold_deg:
        return Direction.FRONT
    return Direction.SIDE


def view_prompt(prompt: str, direction: Direction) -> str:
    """The prompt with the direction's words after it."""
    return f"{prompt}, {direction.value}"


class ViewPrompts:
    """One prompt as a prior understands it from every side.

    Args:
        prior: embeds the texts, here and never again.
        negatives: texts that the guidance needs; ``studio.guidance.methods.negative_prompts`` lists them.
        null_prompt: the text of the unconditional branch; a negative prompt may take the place of none.
        turned_null_prompt: is added to it for views that are not from the front, such as "face" of a head
            (HeadSculpt, arXiv:2306.03038).
        view_words: name each camera's direction in the prompt.
        camera: hand the cameras to the prior, for one that knows them.
        threshold_deg: half the width of what counts as front and as back.
        perp_neg: also name the wrong views of each image, for guidance with ``perp_neg`` on. The prompt's
            embedding then turns from view to view gradually. Needs ``view_words``.
        plain: also give the prompt without view words, as a critic is told it.
        by_view: what of the prompt each direction is told instead of all of it; a critic, and negatives that
            stand alone, are not concerned. Needs ``view_words``.
        blend: let the prompt's embedding turn from view to view gradually, as LucidDreamer does
            (arXiv:2311.11284), without ``perp_neg`` too. Needs ``view_words``.
    """

    def __init__(
        self,
        prior: Prior,
        prompt: str,
        *,
        negatives: Sequence[NegativePrompt] = (),
        null_prompt: str = "",
        turned_null_prompt: str = "",
        view_words: bool = True,
        camera: bool = True,
        threshold_deg: float = VIEW_THRESHOLD_DEG,
        perp_neg: bool = False,
        plain: bool = False,
        blend: bool = False,
        by_view: Mapping[Direction, str] | None = None,
    ) -> None:
        if perp_neg and not view_words:
            raise StudioError(
                "perp_neg needs views in words; expected view_words = true, or turn perp_neg off"
            )
        if blend and not view_words:
            raise StudioError(
                "view_blend needs views in words; expected view_words = true, or turn view_blend off"
            )
        if by_view is not None and not view_words:
            raise StudioError(
                "prompt_debiasing needs views in words; expected view_words = true, or leave it out"
            )
        prompt = clean_prompt(prompt)
        told = by_view or dict.fromkeys(_DIRECTIONS, prompt)
        self.texts = (
            {direction: view_prompt(told[direction], direction) for direction in _DIRECTIONS}
            if view_words
            else dict.fromkeys(_DIRECTIONS, prompt)
        )
        """The prompt of each direction."""
        self._camera = camera
        self._threshold_deg = threshold_deg
        self._perp_neg = perp_neg
        self._blend = blend
        self._suppresses = turned_null_prompt != ""
        turned = ", ".join(text for text in (null_prompt, turned_null_prompt) if text)
        nulls = (
            [null_prompt if direction is Direction.FRONT else turned for direction in _DIRECTIONS]
            if self._suppresses
            else [null_prompt]
        )
        self._front_only = tuple(negative.front_only for negative in negatives)
        parts = [
            nulls,
            [prompt] if plain else [],
            [self.texts[direction] for direction in _DIRECTIONS],
            *(
                [
                    self.texts[direction] + negative.text if negative.extends_prompt else negative.text
                    for direction in _DIRECTIONS
                ]
                for negative in negatives
            ),
        ]
        # All in one call: a text encoder can be larger than the model, and is loaded for the call.
        embedded = prior.encode_prompts([text for part in parts for text in part])
        self._null, told_plainly, self._views, *self._negatives = _split(embedded, list(map(len, parts)))
        self._plain = told_plainly if plain else None

    def __call__(self, cameras: Cameras, background: Float[Tensor, "b 3"] | None = None) -> Conditioning:
        """The branches for a batch of cameras.

        Args:
            background: the colour behind each image, for priors that want to know it.
        """

        def condition(prompt: PromptEmbedding) -> Condition:
            return Condition(prompt, cameras if self._camera else None, background)

        directions = self._directions(cameras)
        views = repelled_views(cameras.azimuth_deg, cameras.elevation_deg)
        blends = self._perp_neg or self._blend
        positive = _blend(self._views, views.blend) if blends else _rows(self._views, directions)
        negatives = [_rows(negative, directions) for negative in self._negatives]
        front = directions == _DIRECTIONS.index(Direction.FRONT)
        return Conditioning(
            positive=condition(positive),
            null=condition(_rows(self._null, directions) if self._suppresses else self._null),
            negatives=tuple(
                condition(_where(front, negative, positive) if front_only else negative)
                for negative, front_only in zip(negatives, self._front_only, strict=True)
            ),
            repulsion=Repulsion(
                tuple(condition(_rows(self._views, places)) for places in views.wrong), views.weights
            )
            if self._perp_neg
            else None,
            plain=None if self._plain is None else Condition(self._plain, cameras, background),
        )

    def _directions(self, cameras: Cameras) -> Int[Tensor, "b"]:
        angles = zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
        places = [_DIRECTIONS.index(direction_of(*pair, self._threshold_deg)) for pair in angles]
        return torch.tensor(places, device=self._views.tokens.device)


@dataclass(frozen=True)
class RepelledViews:
    """What Perp-Neg makes of each camera. Directions count as in ``Direction``: front, side, back, overhead.

    Attributes:
        blend: how much of each direction's embedding makes the positive one; rows sum to one.
        wrong: two directions to avoid.
        weights: minus the strength of the avoidance.
    """

    blend: Float[Tensor, "b 4"]
    wrong: Int[Tensor, "2 b"]
    weights: Float[Tensor, "2 b"]


def repelled_views(azimuth_deg: Float[Tensor, "b"], elevation_deg: Float[Tensor, "b"]) -> RepelledViews:
    """Perp-Neg's interpolation between views (arXiv:2304.04968), with threestudio's constants.

    Between front and side the front and the side are avoided, each more the further the camera has left it;
    between side and back, the side and the front. Seen from overhead nothing is avoided.
    """
    front, side, overhead = 0, 1, 3
    from_front = from_front_deg(azimuth_deg) / 90.0  # 0 front, 1 side, 2 back
    is_frontal = from_front < 1.0
    is_overhead = elevation_deg > OVERHEAD_ELEVATION_DEG
    frontness = 1.0 - from_front
    sideness = 2.0 - from_front

    none = torch.zeros_like(from_front)
    blend = torch.where(
        is_frontal,
        torch.stack([frontness, 1.0 - frontness, none, none]),
        torch.stack([none, sideness, 1.0 - sideness, none]),
    )
    above = torch.nn.functional.one_hot(torch.tensor(overhead), 4).to(blend)[:, None]
    frontal_wrong = torch.tensor([front, side], device=blend.device)[:, None]
    rear_wrong = torch.tensor([side, front], device=blend.device)[:, None]
    weights = torch.where(
        is_frontal,
        torch.stack([_decay(frontness, 4.0, 0.5, -2.426), _decay(1.0 - frontness, 4.0, 0.5, -2.426)]),
        torch.stack([_decay(sideness, 1.0, 0.5, -0.606), _decay(sideness, 1.0, 0.5, 0.967)]),
    )
    return RepelledViews(
        blend=torch.where(is_overhead, above, blend).T,
        wrong=torch.where(is_frontal, frontal_wrong, rear_wrong),
        weights=torch.where(is_overhead, 0.0, -weights),
    )


def _decay(ratio: Tensor, scale: float, rate: float, offset: float) -> Tensor:
    return scale * torch.exp(-rate * ratio) + offset


def _rows(embedding: PromptEmbedding, places: Int[Tensor, "b"]) -> PromptEmbedding:
    places = places.to(embedding.tokens.device)
    pooled = None if embedding.pooled is None else embedding.pooled[places]
    return PromptEmbedding(embedding.tokens[places], pooled)


def _split(embedding: PromptEmbedding, sizes: list[int]) -> list[PromptEmbedding]:
    tokens = torch.split(embedding.tokens, sizes)
    pooled = [None] * len(sizes) if embedding.pooled is None else torch.split(embedding.pooled, sizes)
    return [PromptEmbedding(*rows) for rows in zip(tokens, pooled, strict=True)]


def _where(mask: Bool[Tensor, "b"], yes: PromptEmbedding, no: PromptEmbedding) -> PromptEmbedding:
    mask = mask.to(yes.tokens.device)
    pooled = None
    if yes.pooled is not None and no.pooled is not None:
        pooled = torch.where(mask[:, None], yes.pooled, no.pooled)
    return PromptEmbedding(torch.where(mask[:, None, None], yes.tokens, no.tokens), pooled)


def _blend(embedding: PromptEmbedding, weights: Float[Tensor, "b n"]) -> PromptEmbedding:
    weights = weights.to(embedding.tokens)
    pooled = None if embedding.pooled is None else weights @ embedding.pooled
    return PromptEmbedding(torch.einsum("bn,nld->bld", weights, embedding.tokens), pooled)
