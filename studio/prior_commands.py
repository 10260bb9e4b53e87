"""What ``studio prior`` does: looks at priors, and makes them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from typing_extensions import assert_never

from studio import arguments
from studio.clipart.gestures import GESTURES
from studio.console import duration
from studio.doctor import EXAMPLE_PROMPT, automatic_prior
from studio.errors import StudioError
from studio.export.files import write_bytes
from studio.export.images import to_pixels
from studio.export.pictures import write_mp4
from studio.priors import weights
from studio.priors.catalogue import Catalogue, CatalogueEntry
from studio.priors.catalogue_build import build_catalogue
from studio.priors.film import film_of_motion, film_of_prompt
from studio.priors.latent import LatentPrior, load_latent_prior
from studio.priors.library import LibraryPrior
from studio.priors.motions import motion_named
from studio.priors.training.data import CaptionedMesh, load_views, render_data
from studio.priors.training.evaluate import DdimSampler, evaluate, save_png, tiled
from studio.priors.training.train import MODEL, train
from studio.priors.video import VideoOptions, VideoPrior, load_video_prior
from studio.priors.vocabulary import Vocabulary
from studio.prompts import clean_prompt
from studio.randomness import generator
from studio.recipes.config import (
    AutoPriorConfig,
    ClipPriorConfig,
    LatentPriorConfig,
    LibraryPriorConfig,
    NoPriorConfig,
    SmallPriorConfig,
    VideoPriorConfig,
)
from studio.run.build_prior import small_prior_folder
from studio.run.prior_names import prior_named

_TRAIN_LINE_EVERY_S = 10.0
_EXAMPLE_FRAMES = 16


def perform(command: arguments.PriorCommand) -> int:
    """Looks at priors, and makes them; returns the exit code.

    Raises:
        StudioError: something that the user can mend.
    """
    match command:
        case arguments.PriorInfo():
            with weights.offline(command.offline):
                return prior_info(command)
        case arguments.PriorVocab():
            return prior_vocab(command)
        case arguments.PriorFilm():
            with weights.offline(command.offline):
                return prior_film(command)
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


def prior_film(command: arguments.PriorFilm) -> int:
    """Makes a video of a prior."""
    if command.video.suffix.lower() != ".mp4":
        raise StudioError(f"{command.video} has the suffix {command.video.suffix!r}; expected .mp4.")
    for name, value, least in (
        ("frames", command.frames, 2), ("size", command.size, 16), ("steps", command.steps, 1),
        ("frames-per-second", command.frames_per_second, 0.1),
    ):  # fmt: skip
        if value < least:
            raise StudioError(f"--{name} is {value}; expected at least {least}.")
    match prior_named(command.prior):
        case LibraryPriorConfig() as config:
            catalogue = _catalogue(None if config.folder is None else Path(config.folder))
            library = LibraryPrior(catalogue, motions=[motion_named(command.motion)])
            rgb = film_of_motion(library, command.prompt, command.frames, command.size)
        case VideoPriorConfig(source=source):
            _say_licence(source)
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            model = load_video_prior(source, VideoOptions(pictures=command.frames), device)
            began = time.monotonic()

            def progress(done: int, total: int) -> None:
                left = (time.monotonic() - began) / done * (total - done)
                print(f"step {done}/{total}  ETA {duration(left)}", flush=True)

            prompts = (clean_prompt(command.prompt), command.negative)
            rng = generator(command.seed, "film")
            rgb = film_of_prompt(model, prompts, command.steps, command.guidance_scale, rng, progress)
        case _:
            raise StudioError(
                f"{command.prior} knows no motion; expected library, a folder of your own models, or a video "
                "diffusion model's folder or hub id."
            )
    write_mp4(to_pixels(rgb), command.video, command.frames_per_second)
    print(command.video)
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
    _say_licence(source)


def _say_licence(source: str) -> None:
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


def _learned(name: str) -> LatentPrior:
    """A learned prior by name, folder or hub id."""
    match prior_named(name):
        case SmallPriorConfig():
            return load_latent_prior(small_prior_folder())
        case LatentPriorConfig(source=source):
            return load_latent_prior(source)
        case _:
            raise StudioError(f"{name} is no learned prior; expected small, a diffusers folder or a hub id.")
