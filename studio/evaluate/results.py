"""What a comparison shows: runs, the truth beside them, and rows of figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from studio.reports import Figure

_POINTS = 120
TRUTHS = 8
"""Of the models that a prompt means, how many are shown."""


@dataclass(frozen=True)
class Curve:
    """A value over the steps of a run."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def thinned(self) -> Curve:
        """At most 120 points, each the mean of its neighbours."""
        size = math.ceil(len(self.steps) / _POINTS) or 1
        starts = range(0, len(self.steps), size)
        means = (statistics.fmean(self.values[start : start + size]) for start in starts)
        return Curve(tuple(self.steps[start] for start in starts), tuple(means))


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        method: its kind.
        paper: whom to thank, in a line.
        scale: the guidance scale that was used, in words.
        cfg_scale: the same as a number; None where the method has none or lets it vary.
        ending: why the run is not finished; empty where it is.
        figures: by name, as in a run's ``metrics.json``.
        curves: by name.
        models: that the run's results are nearest to, where the prompt means known ones.
        turntable: an animated WebP.
        sides: the front, the right, the back and the left, as WebP.
        recipe: the whole recipe, as TOML.
        command: what takes this run again.
    """

    method: str
    paper: str
    scale: str
    cfg_scale: float | None
    ending: str
    figures: Mapping[str, Figure]
    curves: Mapping[str, Curve]
    models: tuple[str, ...]
    turntable: bytes | None
    sides: bytes | None
    recipe: str
    command: str


@dataclass(frozen=True)
class Truth:
    """A model that the prompt means: its probability, its figures and its four sides as WebP."""

    model: str
    weight: float
    figures: Mapping[str, Figure]
    sides: bytes


@dataclass(frozen=True)
class Group:
    """The cells that share prompt, seed, scene and budget.

    Attributes:
        notes: what they share, a line each.
        truths: with the exact prior, the likeliest first.
    """

    prompt: str
    seed: int
    notes: tuple[str, ...]
    truths: tuple[Truth, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        scale, cfg_scale: as in a cell.
        is_truth: whether it is what a perfect result would score.
        link: the id of what it tells of, on the same page.
    """

    name: str
    scale: str
    cfg_scale: float | None
    figures: Mapping[str, Figure]
    is_truth: bool = False
    link: str = ""


@dataclass(frozen=True)
class ClipNames:
    """The network that compared pictures with texts, and what the pool of texts is called."""

    net: str
    pool: str
