"""What the recipes of all methods share: noise levels, noise, weights, what is done to the gradient."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.ramps import STRICT, Fraction, Ramp

Positive = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]

WeightName = Literal["sigma2", "uniform", "alpha", "fantasia3d", "sigma_over_alpha", "inverse_alpha"]
"""The weights of ``studio.guidance.weighting``, functions of the noise level."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UniformTimes:
    """Noise levels drawn evenly from a window that may move over the run."""

    kind: Literal["uniform"] = "uniform"
    t_min: Ramp = 0.02
    """Lower end of the window, as a fraction of the schedule."""
    t_max: Ramp = 0.98
    """Upper end of the window, as a fraction of the schedule."""
    shared: bool = False
    """One level for the whole batch, as multi-view and video priors need, instead of one per image."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SweepTimes:
    """One noise level that moves from ``start`` to ``end`` over the run; nothing is drawn."""

    kind: Literal["sweep"] = "sweep"
    start: Fraction = 0.98
    """The level at the first step, as a fraction of the schedule."""
    end: Fraction = 0.3
    """The level after the last step."""
    shape: Literal["sqrt", "linear"] = "sqrt"
    """How the level follows progress: its square root (HiFA), fast at first, or progress itself."""


TimesConfig = Annotated[UniformTimes | SweepTimes, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RandomNoise:
    """Fresh noise for each image and step."""

    kind: Literal["random"] = "random"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FixedNoise:
    """One noise image for all views and steps of a run."""

    kind: Literal["fixed"] = "fixed"
    seed: int = 0
    """Which noise image."""


NoiseConfig = Annotated[RandomNoise | FixedNoise, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoresConfig:
    """How the prior is asked."""

    perp_neg: NotNegative = 0.0
    """Scale of Perp-Neg's repulsion from the wrong views; 0 turns it off, 1 is the paper's."""
    terms_per_forward: Annotated[int, Field(strict=True, ge=1)] | None = None
    """At most this many branches (prompt, null, ...) in one forward pass: less memory, more time."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GradientConfig:
    """What is done to the gradient before it reaches the scene. By default nothing."""

    rescale_std: Fraction = 0.0
    """Pull the guided x0's spread towards the unguided one's by this much (MVDream uses 0.5)."""
    clamp: Ramp | None = None
    """Bound on each element of the gradient on the prior's variable (debiased SDS: 2 rising to 8)."""
    pixel_clip: Positive | None = None
    """Bound on the gradient of each rendered pixel, its colour direction kept (PGC uses 0.1)."""
