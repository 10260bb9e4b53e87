"""What the recipes of all methods share: noise levels, noise, weights, what is done to the gradient."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.ramps import Ramp
from studio.recipes.values import STRICT, Count, Fraction, NotNegative, Number, Positive

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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DreamTimeTimes:
    """One falling noise level that dwells where content forms (DreamTime); nothing is drawn."""

    kind: Literal["dreamtime"] = "dreamtime"
    t_min: Fraction = 0.02
    """The level after the last step, as a fraction of the schedule."""
    t_max: Fraction = 0.98
    """The level at the first step, as a fraction of the schedule."""
    plateau_from: Fraction = 0.5
    """Lower end of the levels that matter most."""
    plateau_to: Fraction = 0.8
    """Upper end of the levels that matter most."""
    spread_below: Positive = 0.1
    """How fast the levels below matter less: a standard deviation, as a fraction of the schedule."""
    spread_above: Positive = 0.3
    """How fast the levels above matter less."""


TimesConfig = Annotated[UniformTimes | SweepTimes | DreamTimeTimes, Field(discriminator="kind")]


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


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InvertedNoise:
    """The noise that the prior finds in the image, by DDIM inversion. It costs a prediction each stride."""

    kind: Literal["inverted"] = "inverted"
    stride: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """The longest step, as a fraction of the schedule."""
    cfg_scale: Number = 0.0
    """Guidance on the way; 0 asks the unconditional branch alone."""
    eta: Fraction = 0.0
    """Fresh noise in each step, as a share of DDPM's."""
    start_noise: NotNegative = 0.0
    """Fresh noise before the first step, as a share of the lowest level's (LucidDreamer's code has 1)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RefinedNoise:
    """Fresh noise, replaced once by what the prompt predicts (RFDS-Rev)."""

    kind: Literal["refined"] = "refined"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OdeNoise:
    """The noise at the end of the prompt's ODE (UCM)."""

    kind: Literal["ode"] = "ode"
    steps: Count = 3
    """Euler steps from the image to pure noise."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConsistentNoise:
    """Noise that sticks to a sphere around the scene and is seen from each camera (CFD)."""

    kind: Literal["consistent"] = "consistent"
    seed: int = 0
    """Which noise."""
    share: Fraction = 1.0
    """The variance that is consistent between views; the rest is fresh noise."""
    radius: Positive = 0.6
    """Of the sphere around the origin; the default just fills the pictures of the default camera."""
    cells_per_pixel: Positive = 16.0
    """Grains of noise on the sphere for each pixel of an image."""


NoiseConfig = Annotated[
    RandomNoise | FixedNoise | InvertedNoise | RefinedNoise | OdeNoise | ConsistentNoise,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoresConfig:
    """How the prior is asked."""

    perp_neg: NotNegative = 0.0
    """Scale of Perp-Neg's repulsion from the wrong views; 0 turns it off, 1 is the paper's."""
    terms_per_forward: Count | None = None
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
