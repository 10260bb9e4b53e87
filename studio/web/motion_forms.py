"""What the forms for things in motion hold, as what a person asks for; like ``Form`` they only choose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from studio.clipart.drawing import SUFFIXES
from studio.errors import StudioError
from studio.prompts import clean_prompt
from studio.recipes.config import (
    ClipartConfig,
    DeformableConfig,
    LibraryPriorConfig,
    Loop,
    MotionName,
    Recipe,
)
from studio.recipes.load import load
from studio.recipes.project import project_of
from studio.run.asked import Asked, quoted, skeleton_lines
from studio.web.drawings import Drawings
from studio.web.forms import MOST_STEPS, OWN, choice
from studio.web.inspection import PICTURE_SUFFIXES
from studio.web.options import Options
from studio.web.uploads import Uploads

LOOPS: tuple[Loop, ...] = get_args(Loop)
MOTIONS: tuple[MotionName, ...] = get_args(MotionName)
_CLIP_FORMATS = ("mp4", "gif", "webp", "svg", "json", "clipart.json", "png")
_OF_CURVES = ("svg", "json")


def clipart_presets(options: Options) -> tuple[str, ...]:
    """The presets on offer whose scene is a drawing."""
    return _presets_of(options, ClipartConfig)


def moving_presets(options: Options) -> tuple[str, ...]:
    """The presets on offer whose scene is solid and moves."""
    return _presets_of(options, DeformableConfig)


def _presets_of(options: Options, scene: type) -> tuple[str, ...]:
    return tuple(name for name in options.presets if isinstance(load(name).stages[-1].scene, scene))


@dataclass(frozen=True)
class ClipForm:
    """The fields of the Animate page.

    Attributes:
        drawing: a project as JSON, whose ``drawing`` is what ``Drawings`` calls it.
        prompt: the motion.
        preset, loop: choices.
        strength: how far it moves; 1 as far as usual.
        frames: of the clip.
        seconds: that it takes.
        steps, seed: as ``Form`` has them.
        film: what ``Uploads`` calls a video to follow, for presets that do; empty for none.
    """

    drawing: str
    prompt: str
    preset: str = "aniclipart"
    loop: str = "there_and_back"
    strength: float = 1.0
    frames: int = 24
    seconds: float = 2.0
    steps: int | None = None
    seed: int | None = None
    film: str = ""

    def recipe(self, options: Options, drawings: Drawings, films: Uploads) -> Recipe:
        """The recipe that it asks for.

        Raises:
            StudioError: a choice that is not offered, a drawing that is not there, keypoints that do not fit,
                an empty or strange prompt.
        """
        choice("preset", self.preset, clipart_presets(options))
        choice("loop", self.loop, LOOPS)
        video = _video(self.preset, self.film, films)
        project = project_of(self.drawing.encode(), "What was drawn here")
        if project.drawing == "":
            raise StudioError("No drawing was chosen; choose one above, or drop a file.")
        path = drawings.path(project.drawing)
        is_picture = path.endswith(tuple(set(SUFFIXES) - {".svg"}))
        formats = [name for name in _CLIP_FORMATS if not (is_picture and name in _OF_CURVES)]
        lines = [
            f"stages.0.scene.path={quoted(path)}",
            *skeleton_lines(project),
            f"stages.0.scene.loop={self.loop}",
            f"export.formats={formats}",
            *_timing(self.frames, self.seconds),
        ]
        prompt = self.prompt if self.prompt.strip() or not self.film else "as in the video"
        # 1 is as far as the preset goes; what follows a video goes as far as that.
        strength = None if self.strength == 1 else float(self.strength)
        return _asked(prompt, self.preset, self.steps, self.seed, lines, video, strength)


@dataclass(frozen=True)
class MovingForm:
    """The fields of the 4D page.

    Attributes:
        prompt: what to make.
        preset, motion: choices; the motion is the exact prior's to show.
        frames, seconds, loops: of the asset's animation.
        steps, seed, film: as ``ClipForm`` has them.
        start: what ``Uploads`` calls the asset that moves, or a picture of it; empty for none.
    """

    prompt: str
    preset: str = "moving"
    motion: str = OWN
    frames: int = 24
    seconds: float = 2.0
    loops: bool = False
    steps: int | None = None
    seed: int | None = None
    film: str = ""
    start: str = ""

    def recipe(self, options: Options, films: Uploads, starts: Uploads) -> Recipe:
        """The recipe that it asks for.

        Raises:
            StudioError: a choice that is not offered, an empty or strange prompt, a start of no use to the
                preset.
        """
        choice("preset", self.preset, moving_presets(options))
        choice("motion", self.motion, (OWN, *MOTIONS))
        video = _video(self.preset, self.film, films)
        lines = [
            *_timing(self.frames, self.seconds),
            f"export.motion_loops={str(self.loops).lower()}",
        ]
        if self.motion != OWN:
            if not isinstance(load(self.preset).prior, LibraryPriorConfig):
                raise StudioError(
                    f"{self.preset} has a prior of its own, which reads the motion in the prompt."
                )
            lines.append(f"prior.motions={[self.motion]}")
        start = starts.path(self.start) if self.start else None
        return _asked(self.prompt, self.preset, self.steps, self.seed, lines, video, start=start)


def followers(presets: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the presets that follow a video; those with a draft's budget first."""
    found = (name for name in presets if _follows_a_video(name))
    return tuple(sorted(found, key=lambda name: not name.endswith("draft")))


def _follows_a_video(preset: str) -> bool:
    return any(term.compares_with_video for stage in load(preset).stages for term in stage.guidance)


def _video(preset: str, film: str, films: Uploads) -> Path | None:
    """The file of the video that was sent, if the preset follows one."""
    if _follows_a_video(preset) and not film:
        raise StudioError(f"The preset {preset} follows a video; choose one to send, or another preset.")
    if film and not _follows_a_video(preset):
        raise StudioError(f"The preset {preset} follows no video; take it away, or choose another preset.")
    return films.path(film) if film else None


def _timing(frames: int, seconds: float) -> tuple[str, str]:
    return f"export.motion_frames={frames}", f"export.motion_seconds={float(seconds)}"


def _asked(
    prompt: str,
    preset: str,
    steps: int | None,
    seed: int | None,
    lines: list[str],
    video: Path | None,
    strength: float | None = None,
    start: Path | None = None,
) -> Recipe:
    if not 0 <= (steps or 0) <= MOST_STEPS:
        raise StudioError(f"steps is {steps}; expected 0 (the preset's own) to {MOST_STEPS}.")
    is_picture = start is not None and start.suffix in PICTURE_SUFFIXES
    return Asked(
        clean_prompt(prompt),
        preset,
        steps=steps or None,
        seed=seed,
        motion_strength=strength,
        video=video,
        asset=None if is_picture else start,
        image=start if is_picture else None,
        overrides=tuple(lines),
    ).recipe()
