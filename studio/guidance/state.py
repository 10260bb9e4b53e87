"""What a guidance step knows: its noise levels, the noisy images, and names for the scores it may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from jaxtyping import Float
from torch import Tensor

from studio.schedule import NoiseSchedule

Level = str
"""The name of a noise level within a step. Most methods use one; others compare two or three."""

MAIN: Level = "t"
"""The level that every method has: the one its weight is a function of."""

ANCHOR: Level = "s"
"""Where an inversion ends; the other levels are one step from it."""

MIDDLE: Level = "mu"
"""Between ``ANCHOR`` and ``MAIN``."""

NOISIER: Level = "noisier"
"""A little beyond ``MAIN``."""

LATER: Level = "later"
"""Below ``MAIN``: where a step down the ODE leads."""

Levels = Mapping[Level, Float[Tensor, "b"]]
"""Timesteps of a batch, by level."""


class Branch(Enum):
    """Which of the conditioning's branches a score belongs to."""

    POSITIVE = "positive"
    TEXT_ONLY = "text_only"
    """The positive branch without its reference image, where it has one."""
    NULL = "null"
    NEGATIVE = "negative"
    REPULSION = "repulsion"
    CRITIC = "critic"
    """The critic, told the prompt and the camera."""
    CRITIC_NULL = "critic_null"
    """The critic, told no camera: what is rendered from anywhere."""
    CRITIC_UNPROMPTED = "critic_unprompted"
    """The critic, told the empty prompt."""
    LOG_RATIO = "log_ratio"
    """Not a score: log p/q of each noisy image, in every element."""
    SECOND = "second"
    """Not a score: the image that a second prior, of several views at once, makes of the renders."""

    @property
    def is_score(self) -> bool:
        """Whether it is a noise prediction."""
        return self not in (Branch.LOG_RATIO, Branch.SECOND)


@dataclass(frozen=True)
class Term:
    """The name of one noise prediction: a branch at a level.

    Attributes:
        branch: what the prior is told.
        index: which of several negatives or repulsions.
        level: where the noisy image lies.
        unsteered: Perp-Neg, where it is on, leaves this one alone.
    """

    branch: Branch
    index: int = 0
    level: Level = MAIN
    unsteered: bool = False


POSITIVE, NULL, NEGATIVE = Term(Branch.POSITIVE), Term(Branch.NULL), Term(Branch.NEGATIVE)
CRITIC, CRITIC_NULL = Term(Branch.CRITIC), Term(Branch.CRITIC_NULL)
CRITIC_UNPROMPTED = Term(Branch.CRITIC_UNPROMPTED)
LOG_RATIO, SECOND = Term(Branch.LOG_RATIO), Term(Branch.SECOND)


@dataclass(frozen=True)
class State:
    """The images of a step at its noise levels.

    Attributes:
        schedule: the prior's.
        clean: the rendered images as the prior sees them, detached.
        levels: timesteps by name; ``MAIN`` among them.
        noisy: the images at each level.
        noise: the noise that a method may subtract: what was added to reach ``MAIN``.
        scores: answers that were given on the way (DDIM inversion), so nobody asks for them twice.
        chance: a number in 0-1 for each image, for methods that draw their guidance scale; None for others.
        coverage: how much of each pixel is asset, 0-1; None where nobody says.
        set_size: how many images of one asset a second prior sees at once.
    """

    schedule: NoiseSchedule
    clean: Float[Tensor, "b c h w"]
    levels: Levels
    noisy: Mapping[Level, Float[Tensor, "b c h w"]]
    noise: Float[Tensor, "b c h w"]
    scores: Mapping[Term, Float[Tensor, "b c h w"]] = field(default_factory=dict)
    chance: Float[Tensor, "b"] | None = None
    coverage: Float[Tensor, "b 1 h w"] | None = None
    set_size: int = 1

    def alpha_sigma(self, level: Level = MAIN) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """Signal and noise coefficients at a level, in the images' precision."""
        return self.schedule.alpha_sigma(self.levels[level], self.clean.dtype)

    def noisier_than(self, log_snr: float, level: Level = MAIN) -> Float[Tensor, "b 1 1 1"]:
        """1 for the images whose level lies below a log-SNR, 0 for the others."""
        noisier = self.schedule.log_snr_at(self.levels[level]) < log_snr
        return noisier.to(self.clean.dtype)[:, None, None, None]
