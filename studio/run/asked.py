"""What a person asks for, in the few words of a command line, a table's row or a form, as a recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from studio.errors import StudioError
from studio.recipes.config import (
    DeformableConfig,
    FramesConfig,
    GaussiansConfig,
    GuidanceTerm,
    LatentPriorConfig,
    LibraryPriorConfig,
    MeshConfig,
    OrbitConfig,
    Recipe,
    SplatFileConfig,
    Stage,
    TexturedMeshConfig,
    VideoPriorConfig,
)
from studio.recipes.guidance import (
    FootageConfig,
    MeshContrastConfig,
    MeshesTarget,
    RefineConfig,
    SdsConfig,
)
from studio.recipes.load import load
from studio.recipes.project import Project
from studio.run.prior_names import prior_named

MESHES_WEIGHT = 1000.0
"""Of the error to meshes, beside that of pixels, which is its square."""
AROUND = 4
"""Views all around that are drawn to meshes in each step."""
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
        video: what the recipe's pixel guidance compares with, and a prior of other sides is told.
        asset: a file that begins to move in the place of the preset's still stages.
        image: what a prior is told that shows an object from a picture.
        meshes: a folder with a mesh of each frame, towards which what moves is drawn too.
        refine: steps more at the end, in which renders follow what the prior makes of them.
        overrides: lines ``path.to.key=value``; they have the last word.
    """

    prompt: str
    preset: str = "default"
    negative_prompt: str | None = None
    prior: str | None = None
    steps: int | None = None
    seed: int | None = None
    motion_strength: float | None = None
    video: Path | None = None
    asset: Path | None = None
    image: Path | None = None
    meshes: Path | None = None
    refine: int | None = None
    overrides: tuple[str, ...] = ()

    def recipe(self) -> Recipe:
        """The recipe with everything decided.

        Raises:
            StudioError: see ``studio.recipes.load.load`` and ``prior_named``; the preset compares with no
                video, moves or refines nothing, or its prior is told no picture; the asset is of a kind that
                cannot begin to move.
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
        if self.video is not None:
            lines += _video_lines(load(self.preset, overrides=lines), self.preset, self.video)
        if self.image is not None:
            lines.append(_image_line(load(self.preset, overrides=lines), self.preset, self.image))
        recipe = load(self.preset, self.prompt, [*lines, *self.overrides])
        if self.asset is not None:
            recipe = _moving(recipe, self.asset)
        if self.meshes is not None:
            recipe = _beside_meshes(recipe, self.meshes)
        return recipe if self.refine is None else _refined(recipe, self.refine)


def _prior_lines(name: str) -> Sequence[str]:
    match prior_named(name):
        case LibraryPriorConfig(folder=str(folder)):
            return "prior.kind=library", f"prior.folder={quoted(folder)}"
        case LatentPriorConfig(kind=kind, source=source) | VideoPriorConfig(kind=kind, source=source):
            return f"prior.kind={kind}", f"prior.source={quoted(source)}"
        case config:
            return (f"prior.kind={config.kind}",)


def _video_lines(recipe: Recipe, preset: str, video: Path) -> Sequence[str]:
    """The video's path, wherever the preset compares with one, and where its prior is told the frames."""
    keys = [
        f"stages.{stage}.guidance.{term}.method.target"
        for stage, config in enumerate(recipe.stages)
        for term, own in enumerate(config.guidance)
        if own.compares_with_video
    ]
    if not keys:
        raise StudioError(
            f"--video is {video}, and {preset} compares with no video; try --preset pla4d-draft."
        )
    if isinstance(recipe.prior, LatentPriorConfig) and isinstance(recipe.prior.image, FootageConfig):
        keys.append("prior.image")
    return [f"{key}.path={quoted(str(video))}" for key in keys]


def _image_line(recipe: Recipe, preset: str, image: Path) -> str:
    """The picture's path, where the preset's prior can be told one."""
    if not isinstance(recipe.prior, LatentPriorConfig):
        raise StudioError(
            f"--image is {image}, and the prior of {preset} is told no picture; try --preset zero123."
        )
    return f"prior.image={quoted(str(image))}"


def _moving(recipe: Recipe, asset: Path) -> Recipe:
    """The recipe's stages in which something moves, which begin with a file."""
    moving = [(stage, stage.scene) for stage in recipe.stages if isinstance(stage.scene, DeformableConfig)]
    if not moving:
        raise StudioError(
            f"--asset is {asset}, and in {recipe.preset} nothing moves that could begin with a file; try "
            "--preset pla4d-draft."
        )
    (stage, scene), *later = moving
    first = replace(stage, scene=replace(scene, shape=_shape_of(scene.shape, asset)))
    return replace(recipe, stages=(first, *(stage for stage, _ in later)))


def _beside_meshes(recipe: Recipe, meshes: Path) -> Recipe:
    """The recipe whose stages in motion are drawn to meshes too: where they look already, and all around."""
    if not any(isinstance(stage.scene, DeformableConfig) for stage in recipe.stages):
        raise StudioError(f"--meshes is {meshes}, and in {recipe.preset} nothing moves; try pla4d-draft.")
    as_seen = GuidanceTerm(
        weight=MESHES_WEIGHT, method=MeshContrastConfig(target=MeshesTarget(path=str(meshes)))
    )

    def drawn_to_them(stage: Stage) -> Stage:
        if not isinstance(stage.scene, DeformableConfig):
            return stage
        instants = stage.instants
        if isinstance(instants, FramesConfig):
            instants = replace(instants, per_step=min(instants.per_step, AROUND))
        all_around = replace(as_seen, cameras=OrbitConfig(views_per_step=float(AROUND)), instants=instants)
        return replace(stage, guidance=(*stage.guidance, as_seen, all_around))

    return replace(recipe, stages=tuple(map(drawn_to_them, recipe.stages)))


def _refined(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with a last stage more, as the one before, in which renders follow refined ones."""
    last = recipe.stages[-1]
    terms = tuple(
        replace(term, method=RefineConfig(cfg_scale=term.method.cfg_scale))
        if isinstance(term.method, SdsConfig)
        else term
        for term in last.guidance
    )
    if terms == last.guidance or steps < 1:
        raise StudioError(
            f"--refine is {steps} and {recipe.preset} the preset; expected at least 1 step, and a preset "
            "whose last stage asks a prior by sds, in whose place it refines: try --preset pla4d-draft."
        )
    return replace(recipe, stages=(*recipe.stages, replace(last, steps=steps, guidance=terms)))


def _shape_of(
    shape: GaussiansConfig | TexturedMeshConfig, asset: Path
) -> GaussiansConfig | TexturedMeshConfig:
    """A shape that begins as a file."""
    is_mesh = asset.suffix.lower() in (".glb", ".obj", ".stl")
    match shape:
        case GaussiansConfig() if is_mesh:
            return replace(shape, initial=MeshConfig(path=str(asset), opacity=0.9))
        case GaussiansConfig() if asset.suffix.lower() == ".ply":
            return replace(shape, initial=SplatFileConfig(path=str(asset)))
        case TexturedMeshConfig() if is_mesh:
            return replace(shape, path=str(asset))
        case _:
            wanted = "a .glb, .obj or .stl" + ("" if shape.kind == "mesh" else ", or a .ply of splats")
            raise StudioError(f"--asset is {asset}; expected {wanted}.")


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
    if project.layers:
        tables = (
            f"{{name={quoted(layer.name)}, paths={json.dumps(layer.paths)}, "
            f"keypoints={json.dumps(layer.keypoints)}}}"
            for layer in project.layers
        )
        lines.append(f"stages.0.scene.layers=[{', '.join(tables)}]")
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
