"""What each command of the command line does."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from typing_extensions import assert_never

from studio import app_command, arguments, job_commands
from studio.cameras import orbit
from studio.clipart.gestures import GESTURES
from studio.console import RunProgress, duration, stop_request
from studio.doctor import EXAMPLE_PROMPT, automatic_prior, examine
from studio.errors import StudioError
from studio.evaluate.compare import Comparison, method_kinds
from studio.evaluate.likeness import clip_at_hand
from studio.export.files import replacing, write_bytes
from studio.export.images import to_pixels
from studio.guidance import hybrid
from studio.guidance.citation import Citation
from studio.guidance.methods import citations
from studio.meshes import load_mesh, normalised
from studio.priors import weights
from studio.priors.catalogue import Catalogue, CatalogueEntry
from studio.priors.catalogue_build import build_catalogue
from studio.priors.latent import LatentPrior, load_latent_prior
from studio.priors.training.data import CaptionedMesh, load_views, render_data
from studio.priors.training.evaluate import DdimSampler, evaluate, save_png, tiled
from studio.priors.training.train import MODEL, train
from studio.priors.video import VideoOptions, VideoPrior, load_video_prior
from studio.priors.vocabulary import Vocabulary
from studio.recipes import load
from studio.recipes.config import (
    AutoPriorConfig,
    ClipPriorConfig,
    LatentPriorConfig,
    LibraryPriorConfig,
    NoPriorConfig,
    Recipe,
    SmallPriorConfig,
    VideoPriorConfig,
)
from studio.renderers.raster import MeshRenderer
from studio.run.asked import Asked
from studio.run.build import build_device
from studio.run.build_prior import build_prior, small_prior_folder
from studio.run.forecast import forecast
from studio.run.prior_names import prior_named
from studio.run.session import Run
from studio.run.views import drawn

_TRAIN_LINE_EVERY_S = 10.0
_EXAMPLE_FRAMES = 16


def perform(command: arguments.Command) -> int:
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
        case arguments.Presets():
            return presets(command.command)
        case arguments.Prior():
            return prior(command.command)
        case arguments.Batch():
            with weights.offline(command.offline):
                return job_commands.batch(command)
        case arguments.Jobs():
            return job_commands.perform(command.command)
        case arguments.App():
            return app_command.perform(command)
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
    """Takes a run for each method, prompt and seed, and writes the page."""
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
    """Writes a run's scene to files."""
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
    """Draws a run's scene or a mesh over white."""
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


def presets(command: arguments.PresetsList | arguments.PresetsShow) -> int:
    """Names the presets, or prints one with every key."""
    match command:
        case arguments.PresetsList():
            names = load.preset_names()
            width = max(map(len, names)) + 2
            for name in names:
                print(f"{name:<{width}}{load.load(name).description}")
        case arguments.PresetsShow():
            print(load.to_toml(load.load(command.preset)), end="")
        case _:
            assert_never(command)
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


def prior(
    command: arguments.PriorInfo
    | arguments.PriorVocab
    | arguments.PriorBuildCatalogue
    | arguments.PriorRenderData
    | arguments.PriorTrain
    | arguments.PriorEvaluate,
) -> int:
    """Looks at priors, and makes them."""
    match command:
        case arguments.PriorInfo():
            with weights.offline(command.offline):
                return prior_info(command)
        case arguments.PriorVocab():
            return prior_vocab(command)
        case arguments.PriorBuildCatalogue():
            return prior_build_catalogue(command)
        case arguments.PriorRenderData():
            return prior_render_data(command)
        case arguments.PriorTrain():
            return prior_train(command)
        case arguments.PriorEvaluate():
            return prior_evaluate(command)
        case _:
            assert_never(command)


def prior_vocab(command: arguments.PriorVocab) -> int:
    """Lists the names that the exact prior knows, or says how it reads a prompt."""
    catalogue = _catalogue(command.models)
    vocabulary = Vocabulary(catalogue.entries)
    if command.prompt is None:
        for name, count in vocabulary.names():
            print(f"{count:>4}  {name}")
        print(f"also: {', '.join(word for word, _ in vocabulary.adjectives())}")
        return 0
    match = vocabulary.match_something(command.prompt)
    for member in match.members:
        print(f"{match.weights[member]:.2f}  {catalogue.entries[member].caption}")
    for warning in match.warnings:
        print(f"studio: warning: {warning}", file=sys.stderr)
    return 0


def prior_build_catalogue(command: arguments.PriorBuildCatalogue) -> int:
    """Builds the exact prior's catalogue from furniture libraries."""

    def progress(done: int, total: int, name: str) -> None:
        print(f"{done}/{total}  {name}", flush=True)

    report = build_catalogue(command.source, command.catalogue, workers=command.workers, progress=progress)
    mean = sum(report.kept.values()) / len(report.kept)
    print(f"{len(report.kept)} models in {report.total_bytes / 1e6:.1f} MB, mean fidelity {mean:.1f} dB")
    for name, decibels in report.dropped.items():
        print(f"left out: {name} at {decibels:.1f} dB")
    return 0


def prior_render_data(command: arguments.PriorRenderData) -> int:
    """Draws the learned prior's training pictures from a catalogue."""
    catalogue = _catalogue(command.models)
    chosen = list(catalogue) if command.only is None else _only(catalogue, command.only)

    def drawn() -> Iterator[CaptionedMesh]:
        for place, entry in enumerate(chosen):
            print(f"{place + 1}/{len(chosen)}  {entry.caption}", flush=True)
            yield CaptionedMesh((entry.noun, *entry.synonyms), entry.mesh())

    render_data(drawn(), command.pictures, command.output)
    nouns = {entry.noun for entry in chosen}
    print(f"{len(chosen)} models of {len(nouns)} nouns in {command.output}")
    return 0


def _only(catalogue: Catalogue, listed: Path) -> list[CatalogueEntry]:
    """The models whose ids a file lists, in its order."""
    try:
        ids = listed.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise StudioError(f"{listed} cannot be read ({error}); expected ids, one a line.") from error
    if not ids:
        raise StudioError(f"{listed} is empty; expected the ids of models, one a line.")
    return [catalogue[name] for name in ids]


def prior_train(command: arguments.PriorTrain) -> int:
    """Trains the learned prior, and writes it as a folder that --prior takes."""
    config = command.training
    latest = time.monotonic() - _TRAIN_LINE_EVERY_S
    for report in train(config):
        if time.monotonic() - latest >= _TRAIN_LINE_EVERY_S or report.step == report.total_steps:
            latest = time.monotonic()
            print(
                f"step {report.step}/{report.total_steps}  loss {report.loss:.4f}  "
                f"{report.images_per_second:.0f} images/s  ETA {duration(report.eta_seconds)}",
                flush=True,
            )
        if report.sheet is not None:
            print(f"samples: {report.sheet}", flush=True)
    print(f"trained; use it with: studio generate PROMPT --prior {config.folder / MODEL}")
    return 0


def prior_evaluate(command: arguments.PriorEvaluate) -> int:
    """Scores a learned prior by the nearest true renderings of its samples."""
    views = load_views(command.views)
    config = command.sampling
    sampler = DdimSampler(_learned(command.prior), config.steps, config.guidance_scale)
    result = evaluate(sampler, views, config)
    write_bytes(command.output / "retrieval.md", result.table().encode())
    pairs = [image for pair in zip(result.samples, result.truths, strict=True) for image in pair]
    save_png(tiled(torch.stack(pairs), 20), command.output / "samples.png")
    print(result.table(), end="")
    print(f"samples beside the truth: {command.output / 'samples.png'}")
    return 0


def prior_info(command: arguments.PriorInfo) -> int:
    """Says what a prior is made of, and by whom."""
    config = prior_named(command.prior)
    match config:
        case AutoPriorConfig():
            print(f"for the prompt {EXAMPLE_PROMPT!r} this machine takes {automatic_prior()}")
        case LibraryPriorConfig():
            _describe_catalogue(_catalogue(None if config.folder is None else Path(config.folder)))
        case SmallPriorConfig():
            print((small_prior_folder().parent / "README.md").read_text(encoding="utf-8"), end="")
        case LatentPriorConfig():
            _describe_model(config.source)
        case VideoPriorConfig():
            _describe_video_model(config.source)
        case ClipPriorConfig():
            print(f"the exact motion prior: {', '.join(gesture.name for gesture in GESTURES)}")
        case NoPriorConfig():
            print("none: for guidance that asks no diffusion model, such as pixels")
        case _:
            assert_never(config)
    return 0


def _describe_catalogue(catalogue: Catalogue) -> None:
    nouns = Counter(entry.noun for entry in catalogue)
    print(f"the exact prior: {len(catalogue)} captioned models of {len(nouns)} nouns")
    print(f"most models: {', '.join(f'{noun} ({count})' for noun, count in nouns.most_common(12))}")
    licences = Counter(entry.licence for entry in catalogue if entry.licence)
    for licence, count in licences.most_common():
        creators = sorted({entry.creator for entry in catalogue if entry.licence == licence})
        print(f"{licence}: {count} models by {', '.join(creators)}")


def _describe_network(source: str, model: LatentPrior | VideoPrior) -> None:
    count = sum(parameter.numel() for parameter in model.denoiser.parameters())
    print(f"{source}: {type(model.denoiser).__name__}, {count / 1e6:.1f} M weights")
    print(f"predicts {model.prediction.value} at {len(model.schedule)} noise levels")
    if (entry := weights.known(source)) is not None:
        print(f"licence: {entry.licence}")


def _describe_video_model(source: str) -> None:
    model = load_video_prior(source, VideoOptions(pictures=_EXAMPLE_FRAMES))
    _describe_network(source, model)
    print(f"sees clips: of {_EXAMPLE_FRAMES} frames it denoises {model.latent_frames}")


def _describe_model(source: str) -> None:
    model = load_latent_prior(source, torch.device("cpu"))
    _describe_network(source, model)
    print(f"is told the camera: {'yes' if model.uses_camera else 'no, only words'}")
    limits = model.limits
    if not limits.supports_null:
        print("is guidance-distilled: it has no unconditional branch")
    if limits.views > 1:
        print(f"sees {limits.views} views at once")
    if limits.needs_image:
        print("shows the object in prior.image; it reads no words")


def _catalogue(folder: Path | None) -> Catalogue:
    """A folder of a user's own models, or the catalogue that ships with the studio."""
    return Catalogue.load() if folder is None else Catalogue.from_folder(folder)


def _bibtex(citation: Citation) -> str:
    surname = citation.authors.split(",")[0].split()[-1].lower()
    authors = citation.authors.replace(", ", " and ")
    return (
        f"@article{{{surname}{citation.year}_{citation.arxiv.replace('.', '_')},\n"
        f"  author = {{{authors}}},\n  title = {{{citation.title}}},\n  year = {{{citation.year}}},\n"
        f"  journal = {{arXiv preprint arXiv:{citation.arxiv}}}\n}}\n"
    )


def _learned(name: str) -> LatentPrior:
    """A learned prior by name, folder or hub id."""
    match prior_named(name):
        case SmallPriorConfig():
            return load_latent_prior(small_prior_folder())
        case LatentPriorConfig(source=source):
            return load_latent_prior(source)
        case _:
            raise StudioError(f"{name} is no learned prior; expected small, a diffusers folder or a hub id.")
