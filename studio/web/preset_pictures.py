"""What each preset makes of one prompt with the studio's own priors, as a small picture of it.

``python -m studio.web.preset_pictures`` makes those that are missing: a minute or so each. Presets whose
prior has to be fetched have none.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image

from studio.export.files import replacing
from studio.export.images import to_pixels
from studio.recipes.config import (
    ClipartConfig,
    FixedSetConfig,
    GaussiansConfig,
    LatentPriorConfig,
    Recipe,
    RelocateConfig,
    SplatFileConfig,
    Stage,
    VideoPriorConfig,
)
from studio.recipes.load import load, preset_names
from studio.resources import assets_folder
from studio.run.session import Run
from studio.run.views import clip_cameras, drawn
from studio.types import RenderOutput

PROMPT, MOTION = "a teddy bear", "the crab is dancing"
_STEPS, _RESOLUTION, _SIZE = 250, 64, 128
_SPLATS, _MOST_SPLATS, _CAMERAS = 2500, 4000, 48


def preset_picture(preset: str) -> Path | None:
    """The picture of a preset, if there is one."""
    path = _path(preset)
    return path if path.is_file() else None


def _path(preset: str) -> Path:
    return assets_folder() / "presets" / f"{preset}.webp"


def _briefly(recipe: Recipe) -> Recipe:
    """The recipe within the budget of the preset ``draft``."""
    return replace(recipe, stages=tuple(map(_small, recipe.stages)))


def _small(stage: Stage) -> Stage:
    scene, cameras, topology = stage.scene, stage.cameras, stage.topology
    if isinstance(scene, GaussiansConfig) and not isinstance(scene.initial, SplatFileConfig):
        scene = replace(scene, initial=replace(scene.initial, count=min(scene.initial.count, _SPLATS)))
    if isinstance(cameras, FixedSetConfig):
        cameras = replace(cameras, count=min(cameras.count, _CAMERAS))
    if isinstance(topology, RelocateConfig):
        topology = replace(topology, max_count=_MOST_SPLATS)
    steps = min(stage.steps, _STEPS)
    return replace(
        stage, steps=steps, resolution=_RESOLUTION, scene=scene, cameras=cameras, topology=topology
    )


def _seen(run: Run) -> RenderOutput:
    """The scene from its sides, the front first; clipart where its motion ends."""
    if isinstance(run.recipe.stages[-1].scene, ClipartConfig):
        return drawn(run.scene(), run.renderer(), clip_cameras(_SIZE, [1.0]))
    return run.render_sides(_SIZE)


def main() -> None:
    """Makes the pictures that are missing."""
    for preset in preset_names():
        recipe = load(preset, PROMPT)
        if isinstance(recipe.stages[-1].scene, ClipartConfig):
            recipe = load(preset, MOTION)
        if isinstance(recipe.prior, LatentPriorConfig | VideoPriorConfig) or _path(preset).is_file():
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = Run.create(_briefly(recipe), Path(folder))
            for _ in run:
                pass
            front = to_pixels(_seen(run).rgb)[0]
        with replacing(_path(preset)) as temporary:
            Image.fromarray(front).save(temporary, "WEBP", quality=80)
        print(_path(preset), flush=True)


if __name__ == "__main__":
    main()
