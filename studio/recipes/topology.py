"""How the number of splats changes: densification or relocation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from studio.recipes.values import STRICT, Count, Fraction, NotNegative, Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoTopologyConfig:
    """The number of splats stays as it is."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DensifyConfig:
    """Clone, split, prune and opacity reset, as in 3D Gaussian splatting (Kerbl et al. 2023, sec. 5)."""

    kind: Literal["densify"] = "densify"
    every: Count = 100
    """Steps between two edits."""
    start_at: Fraction = 0.1
    """Progress of the stage at which edits begin."""
    end_at: Fraction = 0.7
    """Progress at which they end."""
    max_count: Count = 12000
    """Never more splats than this."""
    grow_fraction: Fraction = 0.1
    """At each edit, the share of the splats with the largest screen gradients that is cloned or split.
    A share, not a threshold: the scale of a guidance gradient is anyone's guess."""
    split_scale: Positive = 0.02
    """Splats larger than this, in world units, are split; smaller ones are cloned."""
    prune_opacity: Fraction = 0.02
    """Splats fainter than this are removed."""
    prune_scale: Positive = 0.25
    """Splats larger than this, in world units, are removed."""
    prune_radius: Positive = 0.5
    """Splats whose radius on the screen exceeds this share of the picture's width are removed."""
    reset_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two resets of all opacities to ``reset_opacity``; 0 for never."""
    reset_opacity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """The opacity that a reset leaves."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RelocateConfig:
    """Dead splats move onto living ones, and noise explores (Kheradmand et al. 2024, "3DGS as MCMC")."""

    kind: Literal["relocate"] = "relocate"
    every: Count = 50
    """Steps between two edits."""
    start_at: Fraction = 0.05
    """Progress of the stage at which edits begin."""
    end_at: Fraction = 0.85
    """Progress at which they end; the noise ends with them."""
    max_count: Count = 10000
    """Never more splats than this."""
    growth: NotNegative = 0.05
    """Share of splats added at each edit, up to ``max_count``."""
    dead_opacity: Fraction = 0.005
    """Splats fainter than this are relocated."""
    noise: NotNegative = 0.0
    """Size of the exploring noise, times the learning rate of the centres; the paper's is 5e5."""


TopologyConfig = Annotated[NoTopologyConfig | DensifyConfig | RelocateConfig, Field(discriminator="kind")]
