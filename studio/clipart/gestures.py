"""How a drawing may move: gestures whose keypoints are known at every instant.

Each begins at rest and, at time 1, is as far as it goes; a clip plays it there and back.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError

STRENGTHS = (0.5, 0.75, 1.0)
"""How far each gesture goes, as shares of its full reach."""

Move = Callable[[Float[Tensor, "k 2"], float], Float[Tensor, "k 2"]]
"""From keypoints, y up, in a body that reaches from -1 to 1, and how far it is, 0 to 1, to where they are."""


@dataclass(frozen=True)
class Gesture:
    """A family of motions.

    Attributes:
        name: a verb.
        words: other words of prompts for it, as they begin: "danc" is in dance, dances, dancing.
        move: at full strength.
        has_sides: whether it looks different the other way round.
    """

    name: str
    words: tuple[str, ...]
    move: Move
    has_sides: bool = False


def _turned(points: Tensor, about: tuple[float, float], angle: Tensor | float) -> Tensor:
    """Points turned counter-clockwise, each by its own angle in radians."""
    angle = torch.as_tensor(angle, dtype=points.dtype, device=points.device)
    x, y = (points - points.new_tensor(about)).unbind(-1)
    turned = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], dim=-1)
    return turned + points.new_tensor(about)


def _moved(points: Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
    zero = torch.zeros_like(points[:, 0])
    return points + torch.stack([zero + x, zero + y], dim=-1)


def _beyond(coordinate: Tensor, start: float) -> Tensor:
    """0 before ``start`` and 1 a little beyond it: a head, an arm, a wing."""
    return ((coordinate - start) / 0.3).clamp(0.0, 1.0)


def _jump(points: Tensor, far: float) -> Tensor:
    """Up as a whole, the legs drawn in."""
    legs = (-points[:, 1]).clamp(min=0.0)
    return _moved(points, 0.0, 0.3 * far + 0.12 * far * legs)


def _squash(points: Tensor, far: float) -> Tensor:
    """Flat and wide on the floor, its area as it was."""
    height = 1 - 0.35 * far
    return torch.stack([points[:, 0] / height, (points[:, 1] + 1) * height - 1], dim=-1)


def _stretch(points: Tensor, far: float) -> Tensor:
    """Tall and thin."""
    return _squash(points, -0.7 * far)


def _sway(points: Tensor, far: float) -> Tensor:
    """To one side like grass: the higher, the farther."""
    return _moved(points, 0.12 * far * (points[:, 1] + 1).square(), 0.0)


def _spin(points: Tensor, far: float) -> Tensor:
    """About its middle."""
    return _turned(points, (0.0, 0.0), math.radians(50) * far)


def _bow(points: Tensor, far: float) -> Tensor:
    """The upper half bends forward."""
    upper = (points[:, 1] + 0.2).clamp(0.0, 1.0)
    return _turned(points, (0.0, -0.2), -math.radians(50) * far * upper)


def _nod(points: Tensor, far: float) -> Tensor:
    """The head alone, and little else."""
    return _moved(points, 0.0, -0.25 * far * _beyond(points[:, 1], 0.1))


def _shake(points: Tensor, far: float) -> Tensor:
    """The head to one side."""
    return _moved(points, 0.25 * far * _beyond(points[:, 1], 0.1), 0.0)


def _wave(points: Tensor, far: float) -> Tensor:
    """The arm on one side is raised, and what is below it hardly."""
    arm = ((points[:, 0] - 0.05) / 0.1).clamp(0.0, 1.0) * _beyond(points[:, 1], -0.4)
    return _turned(points, (0.2, 0.0), math.radians(30) * far * arm)


def _flap(points: Tensor, far: float) -> Tensor:
    """Both wings up."""
    right, left = _beyond(points[:, 0], 0.15), _beyond(-points[:, 0], 0.15)
    up = math.radians(40) * far
    return _turned(_turned(points, (0.15, 0.0), up * right), (-0.15, 0.0), -up * left)


def _walk(points: Tensor, far: float) -> Tensor:
    """One leg forward, the other back, and the whole a little on."""
    legs = (-points[:, 1] - 0.2).clamp(min=0.0)
    side = torch.tanh(6 * points[:, 0])
    return _moved(points, 0.15 * far + 0.5 * far * side * legs, 0.25 * far * legs * (side > 0))


def _dance(points: Tensor, far: float) -> Tensor:
    """Hips to one side, head and feet to the other, arms up."""
    arms = (points[:, 0].abs() - 0.3).clamp(min=0.0) * _beyond(points[:, 1], -0.3)
    return _moved(points, 0.2 * far * (1 - 2 * points[:, 1].square()), 0.45 * far * arms)


def _swim(points: Tensor, far: float) -> Tensor:
    """A wave runs along it."""
    x = points[:, 0]
    return _moved(points, 0.0, 0.2 * far * (torch.sin(math.pi * x) - 0.3 * x))


def _float(points: Tensor, far: float) -> Tensor:
    """Up slowly, tilting."""
    return _turned(_moved(points, 0.0, 0.22 * far), (0.0, 0.0), math.radians(12) * far)


def _grow(points: Tensor, far: float) -> Tensor:
    """Larger as a whole."""
    return points * (1 + 0.3 * far)


GESTURES = (
    Gesture("jump", ("jump", "hop", "leap", "bounc"), _jump),
    Gesture("squash", ("squash", "squat", "crouch", "squish", "duck"), _squash),
    Gesture("stretch", ("stretch", "reach"), _stretch),
    Gesture("sway", ("sway", "lean", "swing", "rock"), _sway, has_sides=True),
    Gesture("spin", ("spin", "rotat", "turn", "roll", "twirl"), _spin, has_sides=True),
    Gesture("bow", ("bow", "bend"), _bow, has_sides=True),
    Gesture("nod", ("nod", "agree"), _nod),
    Gesture("shake", ("shak", "wiggl", "shiver"), _shake, has_sides=True),
    Gesture("wave", ("wav", "greet", "hello"), _wave, has_sides=True),
    Gesture("flap", ("flap", "fly", "flies", "flutter"), _flap),
    Gesture("walk", ("walk", "run", "march", "step", "strid"), _walk, has_sides=True),
    Gesture("dance", ("danc", "boogie", "groov"), _dance, has_sides=True),
    Gesture("swim", ("swim", "crawl", "slither", "wriggl"), _swim, has_sides=True),
    Gesture("float", ("float", "hover", "drift"), _float, has_sides=True),
    Gesture("grow", ("grow", "puff", "inflat", "breath", "puls"), _grow),
)


@dataclass(frozen=True)
class Performance:
    """One member of a gesture's family.

    Attributes:
        gesture: which.
        strength: share of its full reach.
        mirrored: to the other side.
    """

    gesture: Gesture
    strength: float
    mirrored: bool = False

    def __call__(self, keypoints: Float[Tensor, "k 2"], time: float) -> Float[Tensor, "k 2"]:
        """Where the keypoints are.

        Args:
            keypoints: at rest, in canvas pixels, y down.
            time: 0 at rest, 1 as far as it goes.
        """
        low, high = keypoints.amin(0), keypoints.amax(0)
        center, half = (low + high) / 2, ((high - low).amax() / 2).clamp(min=1.0)
        flip = keypoints.new_tensor([-1.0 if self.mirrored else 1.0, -1.0])
        body = (keypoints - center) / half * flip
        return self.gesture.move(body, self.strength * time) * flip * half + center


def performances(gesture: Gesture, reach: float = 1.0) -> tuple[Performance, ...]:
    """The members of a gesture's family.

    Args:
        reach: factor of how far they go.
    """
    sides = (False, True) if gesture.has_sides else (False,)
    return tuple(Performance(gesture, reach * share, side) for share in STRENGTHS for side in sides)


def gestures_in(prompt: str) -> tuple[Gesture, ...]:
    """The gestures that a prompt names; where it names none, those whose words are nearest to its own.

    Raises:
        StudioError: nothing in the prompt is like a motion.
    """
    said = re.findall(r"[a-z]+", prompt.lower())
    named = _matching(said, lambda word, stem: word.startswith(stem))
    if not named:
        named = _matching(said, lambda word, stem: bool(difflib.get_close_matches(word, [stem], 1, 0.75)))
    if not named:
        raise StudioError(
            f"The prompt {prompt!r} names no motion that is known; expected one of "
            f"{', '.join(gesture.name for gesture in GESTURES)}, as in 'the crab is dancing'."
        )
    return named


def _matching(said: Sequence[str], fits: Callable[[str, str], bool]) -> tuple[Gesture, ...]:
    return tuple(
        gesture for gesture in GESTURES if any(fits(word, stem) for word in said for stem in gesture.words)
    )
