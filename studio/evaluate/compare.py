"""Many methods, one prompt, seed, scene and budget: an ordinary run for each, then one page that shows them.

Every cell is a run folder whose recipe is the preset's with another guidance method. What is finished is not
taken again, what was stopped goes on, and a method that the prior cannot serve becomes a cell that says why.
"""

from __future__ import annotations

import io
import platform
import shlex
import statistics
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from studio.cameras import orbit
from studio.errors import StudioError, nearest
from studio.evaluate.metrics import mode_coverage
from studio.evaluate.page import Cell, Curve, Group, Row, Truth, page
from studio.export.files import check_writable, write_bytes
from studio.export.images import to_pixels
from studio.export.views import pictures
from studio.guidance.methods import citations
from studio.interfaces import Prior, TunablePrior
from studio.priors.library import LibraryPrior
from studio.recipes.config import Recipe, SmallPriorConfig
from studio.recipes.guidance import GuidanceConfig, InvertedNoise, PgSbConfig, SdiConfig, TrainedCriticConfig
from studio.recipes.load import to_toml
from studio.recipes.ramps import Ramp, value_at
from studio.run.build import ChosenPrior, build_device, build_prior
from studio.run.events import Event, EventLog
from studio.run.metrics import Figure, picture_metrics
from studio.run.session import Run
from studio.run.views import held_out_cameras, side_cameras
from studio.types import StepReport

FRAMES, FRAME_SIZE, FRAME_MS = 24, 160, 85
CRITIC_RATE, CRITIC_UPDATES = 1e-3, 2
"""Of a critic that is trained from nothing; the methods' own rates are for networks that are tuned."""

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


def adapted(method: GuidanceConfig, cfg_scale: float | None, trains_from_nothing: bool) -> GuidanceConfig:
    """A method's defaults, put to a prior's needs.

    Args:
        cfg_scale: takes the place of the method's own where it may (LODS wants more than 1), and its negative
            in SDI's inversion, as in the paper.
        trains_from_nothing: critics are small new networks: they learn at a higher rate, and on the noise
            rather than on v, whose error grows without bound towards pure noise.
    """
    changes: dict[str, Any] = {}
    for name in ("critic", "degradation"):
        critic = getattr(method, name, None)
        if trains_from_nothing and isinstance(critic, TrainedCriticConfig):
            changes[name] = replace(
                critic,
                learning_rate=CRITIC_RATE,
                updates=max(CRITIC_UPDATES, critic.updates),
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
        cfg_scale: classifier-free guidance of every method that has it. By default the base recipe's for the
            exact prior and the learned one, which need no exaggeration, and each method's own elsewhere.

    Raises:
        StudioError: an unknown method, or an output that cannot be written to.
    """

    def __init__(
        self, bases: Sequence[Recipe], methods: Sequence[str], output: Path, cfg_scale: float | None = None
    ) -> None:
        self._bases = tuple(bases)
        self._methods = {kind: method_of_kind(kind) for kind in methods}
        self._output = output
        self._cfg_scale = cfg_scale
        self._groups: dict[int, Group] = {}
        check_writable(output)

    def __iter__(self) -> Generator[Taken, None, None]:
        """Take the steps that are left.

        Raises:
            StudioError: a prior cannot be had or knows nothing of a prompt; all are tried before any step.
        """
        priors = _priors(self._bases)
        cells, number, before = len(self._bases) * len(self._methods), 0, 0
        for index, base in enumerate(self._bases):
            chosen = priors[index]
            scale = self._scale(base, chosen.prior)
            self._groups[index] = _empty_group(base, chosen, scale)
            for kind in self._methods:
                recipe = self._recipe(kind, base, chosen.prior)
                number += 1
                try:
                    run = _found(recipe, self._output / kind, chosen) or Run.create(
                        recipe, self._output / kind, chosen
                    )
                except StudioError as error:
                    self._show(index, _refused(kind, recipe, str(error)))
                    before += recipe.total_steps
                    continue
                ending = ""
                try:
                    if not run.metrics():
                        with closing(iter(run)) as steps:
                            for report in steps:
                                done = before + report.step
                                yield Taken(kind, number, cells, done, run, report)
                except StudioError as error:
                    ending = str(error)
                except GeneratorExit:
                    self._show(index, _cell(kind, run, f"stopped at step {run.step}"))
                    raise
                self._show(index, _cell(kind, run, ending))
                before += recipe.total_steps

    def write_page(self) -> Path:
        """Write ``index.html`` of what was taken so far.

        Raises:
            StudioError: the folder cannot be written to.
        """
        groups = list(self._groups.values())
        kinds = f"{len(self._methods)} method{'s' * (len(self._methods) > 1)}"
        text = page(
            f"Score distillation: {kinds} side by side",
            [f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"],
            groups,
            _summary(groups) if len(groups) > 1 else (),
        )
        path = self._output / "index.html"
        write_bytes(path, text.encode())
        return path

    @property
    def total_steps(self) -> int:
        """Steps of all cells, whether they are left or not."""
        return len(self._methods) * sum(base.total_steps for base in self._bases)

    @property
    def groups(self) -> tuple[Group, ...]:
        """What was taken so far."""
        return tuple(self._groups.values())

    def _recipe(self, kind: str, base: Recipe, prior: Prior) -> Recipe:
        """The base with another method, every step of it logged."""
        method = adapted(self._methods[kind], self._scale(base, prior), not isinstance(prior, TunablePrior))
        stages = tuple(
            replace(stage, guidance=(replace(stage.guidance[0], method=method), *stage.guidance[1:]))
            for stage in base.stages
        )
        return replace(base, stages=stages, log_every=1)

    def _scale(self, base: Recipe, prior: Prior) -> float | None:
        if self._cfg_scale is not None:
            return self._cfg_scale
        if not isinstance(prior, LibraryPrior) and not isinstance(base.prior, SmallPriorConfig):
            return None
        own: Ramp = getattr(base.stages[0].guidance[0].method, "cfg_scale", 1.0)
        return value_at(own, 1.0)

    def _show(self, index: int, cell: Cell) -> None:
        group = self._groups[index]
        self._groups[index] = replace(group, cells=(*group.cells, cell))


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


# ------------------------------------------------------------------------------------------ what is shown


def _cell(kind: str, run: Run, ending: str) -> Cell:
    recipe = run.recipe
    steps = [event for event in EventLog(run.folder / "events.jsonl").read() if event["event"] == "step"]
    preview = run.latest_preview()
    recipe_file = run.folder / "recipe.toml"
    return Cell(
        method=kind,
        paper=_paper(recipe),
        scale=_scale_in_words(recipe.stages[0].guidance[0].method),
        ending=f"Not finished: {ending}" if ending else "",
        figures=run.metrics() | _costs(steps),
        curves=_curves(steps, kind),
        turntable=_turntable(run),
        sides=None if preview is None else preview.read_bytes(),
        recipe=to_toml(recipe),
        command=shlex.join(["studio", "generate", recipe.prompt, "--preset", str(recipe_file)]),
    )


def _refused(kind: str, recipe: Recipe, why: str) -> Cell:
    return Cell(
        method=kind,
        paper=_paper(recipe),
        scale=_scale_in_words(recipe.stages[0].guidance[0].method),
        ending=f"Not run: {why}",
        figures={},
        curves={},
        turntable=None,
        sides=None,
        recipe=to_toml(recipe),
        command="save these lines as recipe.toml; studio generate --preset recipe.toml says why, too",
    )


def _paper(recipe: Recipe) -> str:
    paper = citations(recipe.stages[0].guidance[0].method)[0]
    return f"{paper.authors.split(',')[0]} et al. {paper.year}, arXiv:{paper.arxiv}"


def _scale_in_words(method: GuidanceConfig) -> str:
    if isinstance(method, PgSbConfig):
        return f"{method.lowest_scale:g}–{method.highest_scale:g}"
    scale: Ramp | None = getattr(method, "cfg_scale", None)
    if scale is None:
        return "none"
    first, last = value_at(scale, 0.0), value_at(scale, 1.0)
    return f"{first:g}" if first == last else f"{first:g} to {last:g}"


def _costs(steps: Sequence[Event]) -> dict[str, Figure]:
    """Denoiser calls and time, of steps that were all logged."""
    if not steps:
        return {}
    calls, images = (
        sum(event["statistics"][name] for event in steps) for name in ("denoiser_calls", "images")
    )
    return {
        "denoiser_calls": int(calls),
        "calls_per_image": calls / images,
        "step_ms": 1000 * statistics.median(sum(event["seconds"].values()) for event in steps),
    }


def _curves(steps: Sequence[Event], kind: str) -> dict[str, Curve]:
    keys = {"gradient rms": f"{kind}_gradient_rms", "alpha": "alpha_mean", "burnt share": "burnt"}
    curves = {}
    for name, key in keys.items():
        points = [(event["step"], event["statistics"][key]) for event in steps if key in event["statistics"]]
        if points:
            numbers, values = zip(*points, strict=True)
            curves[name] = Curve(numbers, values)
    return curves


def _turntable(run: Run) -> bytes:
    """One turn of the scene as an animated WebP."""
    azimuth = torch.arange(FRAMES) * (360.0 / FRAMES)
    cameras = orbit(azimuth, torch.full_like(azimuth, 15.0), FRAME_SIZE, FRAME_SIZE)
    drawn = pictures(run.renderer(), run.splats(), cameras, brightness=1.0, device=run.device)
    first, *others = (Image.fromarray(frame) for frame in to_pixels(drawn.rgb))
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=FRAME_MS, loop=0, quality=80)
    return buffer.getvalue()


def _empty_group(base: Recipe, chosen: ChosenPrior, scale: float | None) -> Group:
    stage = base.stages[-1]
    size = stage.resolution_at(1.0)
    said = "each method's own" if scale is None else f"{scale:g} for every method that can take it"
    notes = [
        f"{chosen.reason}.",
        f"Preset {base.preset}: {base.total_steps} steps, in the end at {size}²; guidance scale: {said}.",
    ]
    if not isinstance(chosen.prior, TunablePrior):
        notes.append(
            "The prior has no network to tune: critics are small denoisers trained from nothing, at a rate "
            f"of {CRITIC_RATE:g} and in at least {CRITIC_UPDATES} updates a step."
        )
    truths = _truths(base.prompt, chosen.prior, size) if isinstance(chosen.prior, LibraryPrior) else ()
    return Group(base.prompt, base.seed, tuple(notes), truths, ())


def _truths(prompt: str, prior: LibraryPrior, size: int) -> tuple[Truth, ...]:
    """The models that the prompt means, measured as the runs are: what a perfect result would score."""
    around, sides = held_out_cameras(size), side_cameras(size)
    white, black = torch.ones(len(around), 3), torch.zeros(len(around), 3)
    match = prior.match(prompt)
    pictures_of = zip(
        match.members,
        prior.true_renderings(prompt, around, white),
        prior.true_renderings(prompt, around, black),
        prior.true_renderings(prompt, sides, white[: len(sides)]),
        strict=True,
    )
    truths = []
    for member, on_white, on_black, from_sides in pictures_of:
        alpha = 1 - (on_white - on_black).mean(1, keepdim=True)
        figures = picture_metrics(on_white, alpha, from_sides)
        truths.append(
            Truth(prior.catalogue.entries[member].id, match.weights[member], figures, _strip(from_sides))
        )
    return tuple(sorted(truths, key=lambda truth: -truth.weight))


def _strip(images: Float[Tensor, "b 3 h w"]) -> bytes:
    """Pictures in a row, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(to_pixels(images), axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


def _summary(groups: Sequence[Group]) -> list[Row]:
    """Means over prompts and seeds, method by method, and how many of the truths each method found."""
    cells = [cell for group in groups for cell in group.cells if not cell.ending]
    rows = []
    for method in dict.fromkeys(cell.method for cell in cells):
        own = [cell for cell in cells if cell.method == method]
        names = [name for name, value in own[0].figures.items() if not isinstance(value, str)]
        figures: dict[str, Figure] = {
            name: statistics.fmean(float(cell.figures[name]) for cell in own if name in cell.figures)
            for name in names
        }
        rows.append(Row(method, own[0].scale, figures | _modes(groups, method)))
    return rows


def _modes(groups: Sequence[Group], method: str) -> dict[str, Figure]:
    """Coverage of the prompts that mean several models and were run more than once, averaged."""
    coverages = []
    for prompt in dict.fromkeys(group.prompt for group in groups):
        own = [group for group in groups if group.prompt == prompt]
        models = [truth.model for truth in own[0].truths]
        became = [
            models.index(str(cell.figures["nearest_model"]))
            for group in own
            for cell in group.cells
            if cell.method == method and not cell.ending and "nearest_model" in cell.figures
        ]
        if len(models) > 1 and len(became) > 1:
            weights = torch.tensor([truth.weight for truth in own[0].truths])
            coverages.append(mode_coverage(became, weights))
    if not coverages:
        return {}
    return {
        "modes_found": statistics.fmean(coverage.found for coverage in coverages),
        "modes_distance": statistics.fmean(coverage.distance for coverage in coverages),
    }
