"""Every preset builds and takes two steps, with a small library in the place of its prior."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio.interfaces import Guidance
from studio.recipes.config import (
    AlignedConfig,
    BallConfig,
    CamerasConfig,
    DeformableConfig,
    ExportConfig,
    GaussiansConfig,
    GuidanceTerm,
    Stage,
    SurfaceConfig,
    TexturedMeshConfig,
)
from studio.recipes.guidance import FootageConfig, PixelsConfig
from studio.recipes.load import load, preset_names
from studio.run.build import build_stages
from studio.run.build_prior import build_prior
from studio.run.optimize import optimize
from studio.run.state import initial_state


def asks_one_prior(preset: str) -> bool:
    """Others want two diffusion models: ``test_build_diffusion.py`` has them."""
    terms = [term for stage in load(preset).stages for term in stage.guidance]
    return all(term.prior is None and term.views_prior is None for term in terms)


def short(stage: Stage) -> Stage:
    """The stage in small, with two steps."""
    scene = stage.scene
    match scene:
        case GaussiansConfig():
            scene = replace(scene, initial=BallConfig(count=40))
        case TexturedMeshConfig():
            scene = replace(scene, texture_size=32)
        case SurfaceConfig():
            scene = replace(scene, resolution=10)
        case DeformableConfig():
            scene = replace(scene, shape=GaussiansConfig(initial=BallConfig(count=40)))
    return replace(stage, steps=2, resolution=16.0, scene=scene)


def with_film(stage: Stage, folder: Path) -> Stage:
    """The stage with two frames of a grey ball where it compares with a video, and a coarse search."""
    if not any(term.compares_with_video for term in stage.guidance):
        return stage
    y, x = np.mgrid[-7.5:8, -7.5:8]
    inside = (x**2 + y**2 < 5.5**2).astype(np.uint8)
    folder.mkdir(exist_ok=True)
    for number in range(2):
        rgba = np.stack([128 * inside] * 3 + [255 * inside], axis=-1)
        Image.fromarray(rgba, "RGBA").save(folder / f"{number}.png")

    def coarse(cameras: CamerasConfig | None) -> CamerasConfig | None:
        aligned = isinstance(cameras, AlignedConfig)
        return replace(cameras, distance=(1.4, 3.4), step=0.2) if aligned else cameras

    def shown(term: GuidanceTerm) -> GuidanceTerm:
        target = FootageConfig(path=str(folder))
        method = PixelsConfig(target=target) if term.compares_with_video else term.method
        return replace(term, method=method, cameras=coarse(term.cameras))

    return replace(stage, guidance=tuple(map(shown, stage.guidance)), cameras=coarse(stage.cameras))


@pytest.mark.filterwarnings("ignore:The catalogue does not know")  # of words such as 'blurry'
@pytest.mark.parametrize("preset", [name for name in preset_names() if asks_one_prior(name)])
def test_each_stage_of_a_preset_takes_two_steps(preset: str, models: Path, tmp_path: Path) -> None:
    """Each from a beginning of its own: what one stage hands to the next is tested with the scenes."""
    whole = load(preset, "a red cube", ["prior.kind=library", f"prior.folder='{models}'"])
    cpu = torch.device("cpu")
    for stage in whole.stages:
        small = with_film(short(stage), tmp_path / "film")
        recipe = replace(whole, stages=(small,), export=ExportConfig(formats=("png",)))
        stages = build_stages(recipe, build_prior(recipe, cpu).prior)
        assert all(isinstance(term.guidance, Guidance) for stage in stages for term in stage.terms)
        state = initial_state(recipe, cpu)
        scene = state.particles[0].scene
        before = {group.name: group.parameter.detach().clone() for group in scene.parameter_groups()}
        assert len(list(optimize(recipe, stages, state))) == 2
        scene = state.particles[0].scene
        after = {group.name: group.parameter for group in scene.parameter_groups()}
        first = next(iter(before))
        assert not torch.equal(after[first], before[first])
        assert all(tensor.isfinite().all() for tensor in scene.state().values())
