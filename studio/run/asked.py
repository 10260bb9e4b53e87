"""What a person asks for, in the few words of a command line, a table's row or a form, as a recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from studio.recipes.config import LatentPriorConfig, LibraryPriorConfig, Recipe, VideoPriorConfig
from studio.recipes.load import load
from studio.recipes.project import Project
from studio.run.prior_names import prior_named

STRONG_PX = 32.0
"""How far a drawing moves with a ``motion_strength`` of 1, in pixels of the canvas of 256."""


@dataclass(frozen=True)
class Asked:
    """What to make. None leaves the preset's own.

    Attributes:
        prompt: the text.
        preset: its name, or the path of a recipe.
        negative_prompt: what the picture must not be.
        prior: a short name, a folder or a hub id.
        steps: of all stages together, shared out as the preset does.
        seed: another one gives another asset.
        motion_strength: how far a drawing moves. With the exact motion prior, gestures go so many times as
            far; of any other guidance, under which motion grows with the steps, curves stop growing at so
            many times 32 pixels of the canvas of 256.
        overrides: lines ``path.to.key=value``; they have the last word.
    """

    prompt: str
    preset: str = "default"
    negative_prompt: str | None = None
    prior: str | None = None
    steps: int | None = None
    seed: int | None = None
    motion_strength: float | None = None
    overrides: tuple[str, ...] = ()

    def recipe(self) -> Recipe:
        """The recipe with everything decided.

        Raises:
            StudioError: see ``studio.recipes.load.load`` and ``prior_named``.
        """
        lines: list[str] = []
        if self.steps is not None:
            stages = load(self.preset).stages
            total = sum(stage.steps for stage in stages)
            shares = [round(self.steps * stage.steps / total) for stage in stages]
            lines += [f"stages.{index}.steps={share}" for index, share in enumerate(shares)]
        if self.seed is not None:
            lines.append(f"seed={self.seed}")
        if self.negative_prompt is not None:
            lines.append(f"negative_prompt={quoted(self.negative_prompt)}")
        if self.prior is not None:
            lines += _prior_lines(self.prior)
        if self.motion_strength is not None:
            by_prior = load(self.preset).prior.kind == "clips" and self.prior is None
            key, unit = ("prior.reach", 1.0) if by_prior else ("stages.0.scene.reach_px", STRONG_PX)
            lines.append(f"{key}={unit * self.motion_strength}")
        return load(self.preset, self.prompt, [*lines, *self.overrides])


def _prior_lines(name: str) -> Sequence[str]:
    match prior_named(name):
        case LibraryPriorConfig(folder=str(folder)):
            return "prior.kind=library", f"prior.folder={quoted(folder)}"
        case LatentPriorConfig(kind=kind, source=source) | VideoPriorConfig(kind=kind, source=source):
            return f"prior.kind={kind}", f"prior.source={quoted(source)}"
        case config:
            return (f"prior.kind={config.kind}",)


def skeleton_lines(project: Project) -> tuple[str, ...]:
    """A project's keypoints and bones, as overrides."""
    lines = [f"stages.0.scene.keypoints={json.dumps(project.keypoints)}"]
    if project.bones is not None:
        lines.append(f"stages.0.scene.bones={json.dumps(project.bones)}")
    return tuple(lines)


def project_lines(project: Project) -> tuple[str, ...]:
    """All of a project but its drawing and its words, as overrides. Its motion is gone on from."""
    lines = [
        *skeleton_lines(project),
        f"stages.0.scene.texture_size={project.texture_size}",
        f"stages.0.scene.edge_px={project.mesh.edge_px}",
        f"stages.0.scene.margin_px={project.mesh.margin_px}",
    ]
    if (motion := project.motion) is not None:
        lines += [
            f"stages.0.scene.curves={json.dumps(motion.delta)}",
            f"stages.0.scene.loop={motion.loop}",
            f"export.motion_frames={motion.frames}",
            f"export.motion_seconds={motion.frames / motion.fps}",
        ]
    return tuple(lines)


def quoted(text: str) -> str:
    """A TOML string; JSON's differ in what they escape beyond ASCII and in the character DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
