"""What a page shows of runs: cells, the truth beside them, and means over many."""

from __future__ import annotations

import io
import shlex
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from studio.cameras import orbit
from studio.evaluate.likeness import Judge
from studio.evaluate.metrics import mode_coverage
from studio.evaluate.results import TRUTHS, Cell, Curve, Group, Row, Truth
from studio.export.images import to_pixels
from studio.guidance.methods import citations
from studio.priors.library import LibraryPrior
from studio.recipes.config import Recipe
from studio.recipes.guidance import AnyGuidanceConfig, PgSbConfig
from studio.recipes.load import to_toml
from studio.recipes.ramps import Ramp, value_at
from studio.reports import Figure
from studio.run.events import Event, EventLog
from studio.run.folder import EVENTS, RECIPE
from studio.run.metrics import picture_metrics
from studio.run.session import Run
from studio.run.views import drawn, held_out_cameras, side_cameras

FRAMES, FRAME_SIZE, FRAME_MS = 24, 160, 85
SIDE_SIZE = 128
FULL_TURNS = 100
"""Of more cells than this the turntables have fewer frames, so that the page stays below 10 MB or so."""


def cell_of(run: Run, truths: Sequence[Truth], judge: Judge | None, cells: int, ending: str = "") -> Cell:
    """A run as a page shows it.

    Args:
        truths: what its prompt means, where that is known.
        judge: tells how near its views are to its prompt, if there is one.
        cells: how many the page will have.
        ending: why the run is not finished; empty where it is.
    """
    recipe = run.recipe
    steps = [event for event in EventLog(run.folder / EVENTS).read() if event["event"] == "step"]
    preview = run.latest_preview()
    figures = run.metrics() | _costs(steps)
    known = {truth.model: truth.figures for truth in truths}
    models = tuple(model for model in str(figures.get("nearest_model", "")).split(", ") if model in known)
    if models:
        own = statistics.fmean(float(known[model]["saturation"]) for model in models)
        figures["oversaturation"] = float(figures["saturation"]) - own
    figures |= _coverage(models, truths)
    if judge is not None and not ending:
        cameras = held_out_cameras(recipe.stages[-1].resolution_at(1.0))
        scenes = [run.scene(particle) for particle in range(recipe.particles)]
        figures |= judge.figures(torch.cat([drawn(scene, run.renderer(), cameras).rgb for scene in scenes]))
    method = recipe.stages[0].guidance[0].method
    return Cell(
        method=method.kind,
        paper=_paper(method),
        scale=_scale_in_words(method),
        cfg_scale=_scale(method),
        ending=f"Not finished: {ending}" if ending else "",
        figures=figures,
        curves=_curves(steps, method.kind),
        models=models,
        turntable=_turntable(run, frames_for(cells)),
        sides=None if preview is None else _small(Image.open(preview), 4 * SIDE_SIZE),
        recipe=to_toml(recipe),
        command=shlex.join(["studio", "generate", recipe.prompt, "--preset", str(run.folder / RECIPE)]),
    )


def refused(recipe: Recipe, why: str) -> Cell:
    """A run that could not begin."""
    method = recipe.stages[0].guidance[0].method
    return Cell(
        method=method.kind,
        paper=_paper(method),
        scale=_scale_in_words(method),
        cfg_scale=_scale(method),
        ending=f"Not run: {why}",
        figures={},
        curves={},
        models=(),
        turntable=None,
        sides=None,
        recipe=to_toml(recipe),
        command="save these lines as recipe.toml; studio generate --preset recipe.toml says why, too",
    )


def truths_of(prompt: str, prior: LibraryPrior, size: int, judge: Judge | None) -> tuple[Truth, ...]:
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
    shown = sorted(match.members, key=lambda member: -match.weights[member])[:TRUTHS]
    truths = []
    for member, on_white, on_black, from_sides in pictures_of:
        alpha = 1 - (on_white - on_black).mean(1, keepdim=True)
        figures = picture_metrics(on_white, alpha, from_sides)
        if judge is not None and member in shown:
            figures |= judge.figures(on_white)
        strip = Image.fromarray(np.concatenate(to_pixels(from_sides), axis=1))
        truths.append(
            Truth(
                prior.catalogue.entries[member].id,
                match.weights[member],
                figures,
                _small(strip, 4 * SIDE_SIZE),
            )
        )
    return tuple(sorted(truths, key=lambda truth: -truth.weight))


def summary(groups: Sequence[Group]) -> list[Row]:
    """Means over prompts and seeds for each method and guidance scale, after what the truth scores."""
    rows = []
    truth = [_expected(group.truths) for group in groups if group.truths]
    if truth:
        rows.append(Row("truth", "", None, _means(truth), is_truth=True))
    cells = [cell for group in groups for cell in group.cells if not cell.ending]
    for method, scale in dict.fromkeys((cell.method, cell.scale) for cell in cells):
        own = [cell for cell in cells if (cell.method, cell.scale) == (method, scale)]
        figures = _means([cell.figures for cell in own]) | _modes(groups, method, scale)
        rows.append(Row(method, scale, own[0].cfg_scale, figures))
    return rows


def frames_for(cells: int) -> int:
    """How many pictures a turntable has on a page of so many cells."""
    return max(6, FRAMES * FULL_TURNS // max(cells, FULL_TURNS))


def _expected(truths: Sequence[Truth]) -> dict[str, Figure]:
    """The figures of a model drawn by its weight; those that only some models have are left out."""
    names = set.intersection(*(set(truth.figures) for truth in truths))
    return {name: sum(truth.weight * float(truth.figures[name]) for truth in truths) for name in names}


def _means(figures: Sequence[Mapping[str, Figure]]) -> dict[str, Figure]:
    """The means of numbers, over those that have them."""
    names = dict.fromkeys(
        name for own in figures for name, value in own.items() if not isinstance(value, str)
    )
    return {name: statistics.fmean(float(own[name]) for own in figures if name in own) for name in names}


def _modes(groups: Sequence[Group], method: str, scale: str) -> dict[str, Figure]:
    """Coverage of the prompts that mean several models and have several results, averaged."""
    coverages = []
    for prompt in dict.fromkeys(group.prompt for group in groups):
        own = [group for group in groups if group.prompt == prompt]
        cells = [
            cell for group in own for cell in group.cells if (cell.method, cell.scale) == (method, scale)
        ]
        became = [model for cell in cells if not cell.ending for model in cell.models]
        coverages.append(_coverage(became, own[0].truths))
    return _means(coverages)


def _coverage(became: Sequence[str], truths: Sequence[Truth]) -> dict[str, Figure]:
    """How results spread over the models of a prompt, if there are several of each."""
    if len(became) < 2 or len(truths) < 2:
        return {}
    known = [truth.model for truth in truths]
    weights = torch.tensor([truth.weight for truth in truths])
    coverage = mode_coverage([known.index(model) for model in became], weights)
    return {"modes_found": coverage.found, "modes_distance": coverage.distance}


def _paper(method: AnyGuidanceConfig) -> str:
    papers = citations(method)
    if not papers:
        return "no paper"
    paper = papers[0]
    return f"{paper.authors.split(',')[0]} et al. {paper.year}, arXiv:{paper.arxiv}"


def _scale(method: AnyGuidanceConfig) -> float | None:
    """The guidance scale, where it is one number."""
    scale: Ramp | None = getattr(method, "cfg_scale", None)
    if scale is None or value_at(scale, 0.0) != value_at(scale, 1.0):
        return None
    return value_at(scale, 0.0)


def _scale_in_words(method: AnyGuidanceConfig) -> str:
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


def _turntable(run: Run, frames: int) -> bytes:
    """One turn of the scene as an animated WebP."""
    azimuth = torch.arange(frames) * (360.0 / frames)
    cameras = orbit(azimuth, torch.full_like(azimuth, 15.0), FRAME_SIZE, FRAME_SIZE)
    turn = drawn(run.scene(), run.renderer(), cameras)
    first, *others = (Image.fromarray(frame) for frame in to_pixels(turn.rgb))
    duration = FRAME_MS * FRAMES // frames
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=duration, loop=0, quality=80)
    return buffer.getvalue()


def _small(picture: Image.Image, width: int) -> bytes:
    """A picture of at most a width, as WebP."""
    if picture.width > width:
        picture = picture.resize(
            (width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS
        )
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=90)
    return buffer.getvalue()
