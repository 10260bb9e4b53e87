"""What the commands about one run do, compare among them; also doctor and cite."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from typing_extensions import assert_never

from studio import arguments
from studio.cameras import orbit
from studio.console import RunProgress, duration, stop_request
from studio.doctor import examine
from studio.errors import StudioError
from studio.evaluate.compare import Comparison, method_kinds
from studio.evaluate.likeness import clip_at_hand
from studio.export.files import replacing
from studio.export.images import to_pixels
from studio.guidance import hybrid
from studio.guidance.citation import Citation
from studio.guidance.methods import citations
from studio.meshes import load_mesh, normalised
from studio.priors import weights
from studio.recipes import load
from studio.recipes.config import Recipe
from studio.renderers.raster import MeshRenderer
from studio.run.asked import Asked
from studio.run.build import build_device
from studio.run.build_prior import build_prior
from studio.run.forecast import forecast
from studio.run.session import Run
from studio.run.views import drawn


def perform(
    command: arguments.OneRun
    | arguments.Resume
    | arguments.Compare
    | arguments.Export
    | arguments.Render
    | arguments.Doctor
    | arguments.Cite,
) -> int:
    """Carries a command out; returns the exit code.

    Raises:
        StudioError: something that the user can mend.
    """
    match command:
        case arguments.OneRun():
            with weights.offline(command.offline):
                return generate(command)
        case arguments.Resume():
            with weights.offline(command.offline):
                return resume(command)
        case arguments.Compare():
            with weights.offline(command.offline):
                return compare(command)
        case arguments.Export():
            return export(command)
        case arguments.Render():
            return render(command)
        case arguments.Doctor():
            with weights.offline(command.offline):
                return doctor(command)
        case arguments.Cite():
            return cite(command)
        case _:
            assert_never(command)


def generate(command: arguments.OneRun) -> int:
    """Makes a new run and takes it to the end."""
    recipe = command.asked().recipe()
    if command.dry_run:
        return _predict(recipe)
    run = Run.create(recipe, command.output)
    print(f"prior: {run.prior_reason}")
    print(f"run: {run.folder}", flush=True)
    return _complete(run)


def resume(command: arguments.Resume) -> int:
    """Goes on with a run."""
    run = Run.open(command.run)
    if not run.is_finished:
        print(f"prior: {run.prior_reason}")
    print(f"run: {run.folder}, {run.step} of {run.recipe.total_steps} steps done", flush=True)
    return _complete(run)


def compare(command: arguments.Compare) -> int:
    """Takes a run for each method, prompt and seed, and writes the page.

    Raises:
        StudioError: there is no prompt or seed; ``--set`` names a key of the method; see ``Comparison``.
    """
    if not command.prompts:
        raise StudioError('No prompt was given; try: studio compare "a teddy bear" --methods sds,ism')
    if command.seeds < 1:
        raise StudioError(f"--seeds is {command.seeds}; expected a count of at least 1.")
    if any(".guidance.0.method" in line for line in command.set):
        raise StudioError("--set names a key of the method, which compare replaces; try: studio generate")
    shared = Asked("", command.preset, prior=command.prior, steps=command.steps, overrides=command.set)
    firsts = [replace(shared, prompt=prompt).recipe() for prompt in dict.fromkeys(command.prompts)]
    bases = [replace(first, seed=first.seed + seed) for first in firsts for seed in range(command.seeds)]
    kinds = method_kinds() if command.methods == "all" else command.methods.split(",")
    methods = list(dict.fromkeys(kind.strip() for kind in kinds))
    clip = clip_at_hand(command.clip, build_device(firsts[0]))
    comparison = Comparison(bases, methods, command.output, _numbers("--cfg-scale", command.cfg_scale), clip)
    console, stopped = Console(), False
    with RunProgress(console, 0, comparison.total_steps) as progress, stop_request() as wants_to_stop:
        with contextlib.closing(iter(comparison)) as steps:
            for taken in steps:
                if taken.report.step == 1:
                    progress.say(f"{taken.method}, cell {taken.cell} of {taken.cells}: {taken.run.folder}")
                report = replace(taken.report, step=taken.steps)
                progress.show(report, taken.run.latest_preview())
                if stopped := wants_to_stop() and taken.steps < comparison.total_steps:
                    break
    page = comparison.write_page()
    for group in comparison.groups:
        for cell in group.cells:
            if cell.ending:
                print(f"studio: {cell.method}, {group.prompt}: {cell.ending}", file=sys.stderr)
    print(page)
    if stopped:
        print("studio: stopped; the same command goes on from here", file=sys.stderr)
    return 130 if stopped else 0


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    """Different numbers with commas between them, in their order; none of nothing."""
    try:
        numbers = tuple(dict.fromkeys(float(part) for part in text.split(","))) if text is not None else ()
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise StudioError(f"{option} is {text!r}; expected numbers with commas between, such as 1,7.5,20.")
    return numbers


def _predict(recipe: Recipe) -> int:
    """Prints the recipe with every key, and what it will cost."""
    chosen = build_prior(recipe, build_device(recipe))
    expected = forecast(recipe, chosen)
    print(load.to_toml(recipe))
    print(f"# prior: {chosen.reason}")
    print(f"# time: about {duration(expected.seconds)} for {recipe.total_steps} steps, then the export")
    print(f"# memory: about {expected.memory_bytes / 2**30:.1f} GiB")
    return 0


def _complete(run: Run) -> int:
    """Takes the steps that are left, with a live line; then writes the assets and prints where they are."""
    total_steps = run.recipe.total_steps
    with RunProgress(Console(), run.step, total_steps) as progress, stop_request() as wants_to_stop:
        for report in run:
            progress.show(report, run.latest_preview())
            if wants_to_stop() and report.step < total_steps:
                break  # which closes the loop, and that saves the state
    if not run.is_finished:
        print(f"studio: stopped at step {run.step}; resume with: studio resume {run.folder}", file=sys.stderr)
        return 130
    for path in _export(run, None):
        print(path)
    for name, value in run.metrics().items():
        print(f"{name:<22} {value:.4g}" if isinstance(value, float) else f"{name:<22} {value}")
    return 0


def export(command: arguments.Export) -> int:
    """Writes a run's scene to files.

    Raises:
        StudioError: no file is named; see ``Run.open`` and ``Run.export``.
    """
    if not command.files:
        raise StudioError(f"No file was named; try: studio export {command.run} asset.spz clip.gif")
    for path in _export(Run.open(command.run), command.files):
        print(path)
    return 0


def _export(run: Run, paths: Sequence[Path] | None) -> tuple[Path, ...]:
    """Writes the recipe's formats, or files by their suffixes, and shows what is going on."""
    with Console().status("writing the assets") as status:
        return run.export(paths, lambda part: status.update(f"writing the assets: {part}"))


def render(command: arguments.Render) -> int:
    """Draws a run's scene or a mesh over white.

    Raises:
        StudioError: a suffix, size or elevation that cannot be; see ``Run.open`` and ``load_mesh``.
    """
    if command.output.suffix.lower() != ".png":
        raise StudioError(f"--output is {command.output}; expected a .png file.")
    if not 16 <= command.size <= 4096:
        raise StudioError(f"--size is {command.size}; expected 16 to 4096 pixels.")
    if not -90 <= command.elevation <= 90:
        raise StudioError(f"--elevation is {command.elevation:g}; expected -90 to 90 degrees.")
    angles = torch.tensor([command.azimuth]), torch.tensor([command.elevation])
    camera = orbit(*angles, command.size, command.size)
    if command.source.is_dir():
        run = Run.open(command.source)
        picture = drawn(run.scene(), run.renderer(), camera)
    else:
        picture = MeshRenderer()(normalised(load_mesh(command.source)), camera, torch.ones(1, 3))
    with replacing(command.output) as temporary:
        Image.fromarray(to_pixels(picture.rgb)[0]).save(temporary)
    print(command.output)
    return 0


def cite(command: arguments.Cite) -> int:
    """Prints the papers behind a preset's guidance, each once."""
    recipe = load.load(command.preset)
    terms = [term for stage in recipe.stages for term in stage.guidance]
    papers = [citation for term in terms for citation in citations(term.method)]
    takes_turns = any(term.share is not None for term in terms)
    for citation in dict.fromkeys([*papers, *([hybrid.CITATION] if takes_turns else [])]):
        print(_bibtex(citation))
    return 0


def doctor(command: arguments.Doctor) -> int:
    """Prints what this machine has; trouble is marked and told again at the end."""
    troubles = []
    for finding in examine(command.output):
        mark = "!" if finding.trouble else " "
        print(f"{mark} {finding.what:<18} {finding.says}", flush=True)
        if finding.trouble:
            troubles.append(finding.what)
    print(f"\nTrouble with: {', '.join(troubles)}." if troubles else "\nAll is well.")
    return 0


def _bibtex(citation: Citation) -> str:
    surname = citation.authors.split(",")[0].split()[-1].lower()
    authors = citation.authors.replace(", ", " and ")
    return (
        f"@article{{{surname}{citation.year}_{citation.arxiv.replace('.', '_')},\n"
        f"  author = {{{authors}}},\n  title = {{{citation.title}}},\n  year = {{{citation.year}}},\n"
        f"  journal = {{arXiv preprint arXiv:{citation.arxiv}}}\n}}\n"
    )
