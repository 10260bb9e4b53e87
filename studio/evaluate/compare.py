"""Many methods, one prompt, seed, scene and budget: an ordinary run for each, then one page that shows them.

Every cell is a run folder whose recipe is the preset's with another guidance method. What is finished is not
taken again, what was stopped goes on, and a method that the prior cannot serve becomes a cell that says why.
"""

from __future__ import annotations

import platform
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError

from studio.errors import StudioError, nearest
from studio.evaluate.cells import cell_of, refused, summary, truths_of
from studio.evaluate.likeness import Clip, Judge, pool_of
from studio.evaluate.page import page
from studio.evaluate.results import Cell, ClipNames, Group
from studio.export.files import check_writable, write_bytes
from studio.interfaces import Prior, TunablePrior
from studio.priors.library import LibraryPrior
from studio.recipes.config import LibraryPriorConfig, Recipe, SmallPriorConfig
from studio.recipes.guidance import GuidanceConfig, InvertedNoise, SdiConfig, TrainedCriticConfig
from studio.recipes.ramps import Ramp, value_at
from studio.reports import StepReport
from studio.run.build import build_device
from studio.run.build_prior import ChosenPrior, build_prior
from studio.run.session import Run

TUNED_RATE, NEW_RATE, NEW_UPDATES = 5e-3, 1e-3, 2
"""Of critics beside the studio's own priors: the methods' rates are for tens of thousands of steps."""


class CriticTraining(Enum):
    """How a critic of a comparison learns."""

    AS_PUBLISHED = "as published"
    BRIEFLY = "briefly"
    """A small network is tuned within hundreds of steps: at a higher rate."""
    FROM_NOTHING = "from nothing"
    """So is a new one: also in more updates, and on the noise rather than on v, whose error grows without
    bound towards pure noise."""


_METHODS: Mapping[str, type[GuidanceConfig]] = {
    str(next(field.default for field in fields(config) if field.name == "kind")): config
    for config in get_args(get_args(GuidanceConfig)[0])
}


def method_kinds() -> tuple[str, ...]:
    """Every method that a recipe can name."""
    return tuple(_METHODS)


def method_of_kind(kind: str) -> GuidanceConfig:
    """A method with its own defaults.

    Raises:
        StudioError: there is no such method.
    """
    if kind not in _METHODS:
        known = ", ".join(_METHODS)
        raise StudioError(f"There is no method {kind!r}; expected some of {known}.{nearest(kind, _METHODS)}")
    config: GuidanceConfig = _METHODS[kind]()
    return config


def adapted(method: GuidanceConfig, cfg_scale: float | None, training: CriticTraining) -> GuidanceConfig:
    """A method's defaults, put to a prior's needs.

    Args:
        cfg_scale: takes the place of the method's own where it may (LODS wants more than 1), and its negative
            in SDI's inversion, as in the paper.
        training: of its critic, where it has one.
    """
    changes: dict[str, Any] = {}
    for name in ("critic", "degradation"):
        critic = getattr(method, name, None)
        if training is CriticTraining.AS_PUBLISHED or not isinstance(critic, TrainedCriticConfig):
            continue
        if training is CriticTraining.BRIEFLY:
            changes[name] = replace(critic, learning_rate=TUNED_RATE)
        else:
            changes[name] = replace(
                critic,
                learning_rate=NEW_RATE,
                updates=max(NEW_UPDATES, critic.updates),
                target="epsilon" if critic.target == "v" else critic.target,
            )
    method = replace(method, **changes)
    if cfg_scale is None or not hasattr(method, "cfg_scale"):
        return method
    scaled: dict[str, Any] = {"cfg_scale": cfg_scale}
    if isinstance(method, SdiConfig) and isinstance(method.noise, InvertedNoise):
        scaled["noise"] = replace(method.noise, cfg_scale=-cfg_scale)
    try:
        return replace(method, **scaled)
    except ValidationError:
        return method


@dataclass(frozen=True)
class Taken:
    """A step of a comparison.

    Attributes:
        method: whose run.
        cell: which of the ``cells`` it is, from 1.
        steps: that are done or need not be, over all cells.
        run: the cell's.
        report: what the step says of itself.
    """

    method: str
    cell: int
    cells: int
    steps: int
    run: Run
    report: StepReport


class Comparison:
    """Methods side by side. Iterating it takes the steps that are left; closing the iteration saves the run
    at hand::

        comparison = Comparison([load("draft", "a teddy bear")], ["sds", "ism"], Path("comparison"))
        for taken in comparison:
            print(taken.method, taken.report.step)
        print(comparison.write_page())

    Args:
        bases: recipes with a prompt and a seed; they share all else. Their first guidance method is replaced.
        methods: the kinds to compare.
        output: the folder of the page and of a folder for each method.
        cfg_scales: classifier-free guidance of every method that has it, a run for each value. By default the
            base recipe's for the exact prior and the learned one, which need no exaggeration, and each
            method's own elsewhere.
        clip: tells how near the views are to their prompts.

    Raises:
        StudioError: an unknown method, or an output that cannot be written to.
    """

    def __init__(
        self,
        bases: Sequence[Recipe],
        methods: Sequence[str],
        output: Path,
        cfg_scales: Sequence[float] = (),
        clip: Clip | None = None,
    ) -> None:
        self._bases = tuple(bases)
        self._methods = {kind: method_of_kind(kind) for kind in methods}
        self._output = output
        self._cfg_scales = tuple(cfg_scales)
        self._clip = clip
        self._judges: dict[str, Judge] = {}
        self._groups: dict[int, Group] = {}
        check_writable(output)

    def __iter__(self) -> Generator[Taken, None, None]:
        """Take the steps that are left.

        Raises:
            StudioError: a prior cannot be had or knows nothing of a prompt; all are tried before any step.
        """
        priors = _priors(self._bases)
        number, before = 0, 0
        for index, base in enumerate(self._bases):
            chosen = priors[index]
            self._groups[index] = self._empty_group(base, chosen)
            for recipe in self._recipes(base, chosen):
                number += 1
                kind = recipe.stages[0].guidance[0].method.kind
                try:
                    run = _found(recipe, self._output / kind, chosen) or Run.create(
                        recipe, self._output / kind, chosen
                    )
                except StudioError as error:
                    self._show(index, refused(recipe, str(error)))
                    before += recipe.total_steps
                    continue
                ending = ""
                try:
                    if not run.metrics():
                        with closing(iter(run)) as steps:
                            for report in steps:
                                done = before + report.step
                                yield Taken(kind, number, self.cells, done, run, report)
                except StudioError as error:
                    ending = str(error)
                except GeneratorExit:
                    self._show(index, self._cell(index, run, f"stopped at step {run.step}"))
                    raise
                self._show(index, self._cell(index, run, ending))
                before += recipe.total_steps

    def write_page(self) -> Path:
        """Write ``index.html`` of what was taken so far.

        Raises:
            StudioError: the folder cannot be written to.
        """
        judge = next(iter(self._judges.values()), None)
        names = None if judge is None else ClipNames(judge.clip.name, judge.pool.name)
        text = _page(self.groups, len(self._methods), names)
        path = self._output / "index.html"
        write_bytes(path, text.encode())
        return path

    @property
    def cells(self) -> int:
        """How many runs there are, taken or not."""
        return len(self._bases) * sum(
            len(self._variants(kind, self._cfg_scales or (None,))) for kind in self._methods
        )

    @property
    def total_steps(self) -> int:
        """Steps of all cells, whether they are left or not."""
        return self.cells // len(self._bases) * sum(base.total_steps for base in self._bases)

    @property
    def groups(self) -> tuple[Group, ...]:
        """What was taken so far."""
        return tuple(self._groups.values())

    def _recipes(self, base: Recipe, chosen: ChosenPrior) -> list[Recipe]:
        """The base with every method at every guidance scale that it can take, each step of it logged."""
        scales = self._cfg_scales or (self._own_scale(base, chosen),)
        training = _critic_training(base, chosen.prior)
        return [
            _with_method(base, method)
            for kind in self._methods
            for method in self._variants(kind, scales, training)
        ]

    def _variants(
        self,
        kind: str,
        scales: Sequence[float | None],
        training: CriticTraining = CriticTraining.AS_PUBLISHED,
    ) -> tuple[GuidanceConfig, ...]:
        """A method at each guidance scale; once only where that changes nothing."""
        method = self._methods[kind]
        return tuple(dict.fromkeys(adapted(method, scale, training) for scale in scales))

    def _own_scale(self, base: Recipe, chosen: ChosenPrior) -> float | None:
        if not isinstance(chosen.prior, LibraryPrior) and not isinstance(base.prior, SmallPriorConfig):
            return None
        return _last_scale(base)

    def _empty_group(self, base: Recipe, chosen: ChosenPrior) -> Group:
        stage = base.stages[-1]
        size = stage.resolution_at(1.0)
        scales = self._cfg_scales or (self._own_scale(base, chosen),)
        said = ", ".join("each method's own" if scale is None else f"{scale:g}" for scale in scales)
        whose = "" if scales == (None,) else " for every method that can take it"
        notes = [
            f"{chosen.reason}.",
            _budget(base),
            f"Guidance scale: {said}{whose}.",
        ]
        training = _critic_training(base, chosen.prior)
        if training is CriticTraining.BRIEFLY:
            notes.append(f"The run is brief: critics learn at a rate of {TUNED_RATE:g}.")
        elif training is CriticTraining.FROM_NOTHING:
            notes.append(
                "The prior has no network to tune: critics are small denoisers trained from nothing, at a "
                f"rate of {NEW_RATE:g} and in at least {NEW_UPDATES} updates a step."
            )
        judge = self._judge(base.prompt, chosen)
        if judge is not None:
            notes.append(
                f"CLIP is {judge.clip.name}; R-precision is among the prompt and {len(judge.pool.others)} "
                f"other texts, {judge.pool.name}."
            )
        prior = chosen.prior
        truths = truths_of(base.prompt, prior, size, judge) if isinstance(prior, LibraryPrior) else ()
        return Group(base.prompt, base.seed, tuple(notes), truths, ())

    def _judge(self, prompt: str, chosen: ChosenPrior) -> Judge | None:
        if self._clip is not None and prompt not in self._judges:
            prompts = tuple(dict.fromkeys(base.prompt for base in self._bases))
            self._judges[prompt] = Judge.of(self._clip, prompt, pool_of(prompt, prompts, chosen.prior))
        return self._judges.get(prompt)

    def _cell(self, index: int, run: Run, ending: str) -> Cell:
        judge = self._judges.get(self._bases[index].prompt)
        return cell_of(run, self._groups[index].truths, judge, self.cells, ending)

    def _show(self, index: int, cell: Cell) -> None:
        group = self._groups[index]
        self._groups[index] = replace(group, cells=(*group.cells, cell))


def recipes_to_compare(base: Recipe, methods: Sequence[str]) -> list[Recipe]:
    """The base with each method, put to the prior that the base names as a ``Comparison`` would.

    Raises:
        StudioError: an unknown method.
    """
    scale: float | None = _last_scale(base)
    training = CriticTraining.AS_PUBLISHED
    match base.prior:
        case LibraryPriorConfig():
            training = CriticTraining.FROM_NOTHING
        case SmallPriorConfig():
            training = CriticTraining.BRIEFLY
        case _:
            scale = None
    return [_with_method(base, adapted(method_of_kind(kind), scale, training)) for kind in methods]


def page_of(runs: Sequence[Run]) -> str:
    """The page about runs of ``recipes_to_compare`` that were taken elsewhere.

    Raises:
        StudioError: their prior cannot be had.
    """
    base = runs[0].recipe
    chosen = build_prior(base, build_device(base))
    size = base.stages[-1].resolution_at(1.0)
    truths = (
        truths_of(base.prompt, chosen.prior, size, None) if isinstance(chosen.prior, LibraryPrior) else ()
    )
    endings = ["" if run.metrics() else f"stopped at step {run.step}" for run in runs]
    cells = tuple(
        cell_of(run, truths, None, len(runs), ending) for run, ending in zip(runs, endings, strict=True)
    )
    group = Group(base.prompt, base.seed, (f"{chosen.reason}.", _budget(base)), truths, cells)
    return _page([group], len(runs))


def _page(groups: Sequence[Group], methods: int, names: ClipNames | None = None) -> str:
    return page(
        f"Score distillation: {methods} method{'s' * (methods > 1)} side by side",
        [f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"],
        groups,
        summary(groups),
        names,
    )


def _budget(base: Recipe) -> str:
    size = base.stages[-1].resolution_at(1.0)
    return f"Preset {base.preset}: {base.total_steps} steps, in the end at {size}²."


def _last_scale(base: Recipe) -> float:
    own: Ramp = getattr(base.stages[0].guidance[0].method, "cfg_scale", 1.0)
    return value_at(own, 1.0)


def _with_method(base: Recipe, method: GuidanceConfig) -> Recipe:
    stages = tuple(
        replace(stage, guidance=(replace(stage.guidance[0], method=method), *stage.guidance[1:]))
        for stage in base.stages
    )
    return replace(base, stages=stages, log_every=1)


def _critic_training(base: Recipe, prior: Prior) -> CriticTraining:
    if not isinstance(prior, TunablePrior):
        return CriticTraining.FROM_NOTHING
    return CriticTraining.BRIEFLY if isinstance(base.prior, SmallPriorConfig) else CriticTraining.AS_PUBLISHED


def _priors(bases: Sequence[Recipe]) -> list[ChosenPrior]:
    """Each recipe's prior; what does not depend on the prompt is built once."""
    built: dict[str, ChosenPrior] = {}
    for base in bases:
        first = next(iter(built.values()), None)
        if first is not None and not isinstance(first.prior, LibraryPrior):
            built[base.prompt] = first
        elif base.prompt not in built:
            built[base.prompt] = build_prior(base, build_device(base))
    return [built[base.prompt] for base in bases]


def _found(recipe: Recipe, folder: Path, chosen: ChosenPrior) -> Run | None:
    """The run in ``folder`` that has this very recipe, if there is one."""
    for marker in sorted(folder.glob("*/recipe.toml")):
        run = Run.open(marker.parent)
        if run.recipe == recipe:
            return Run(run.folder, recipe, chosen)
    return None
