"""Distances that are known are found again; where there is nothing to find, it is said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from studio.cameras import Aligned, orbit
from studio.errors import StudioError
from studio.export.images import to_bytes
from studio.guidance.pixels import Filmed
from studio.interfaces import ParameterGroup
from studio.meshes import normalised
from studio.priors.library import LibraryPrior
from studio.recipes.config import AlignedConfig, Recipe
from studio.renderers.raster import MeshRenderer
from studio.renderers.splatting import SplatRenderer
from studio.run.align import DistanceCurve, front_curve, prior_curve
from studio.run.build_prior import build_prior
from studio.run.checkpoint import save
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.run.views import drawn
from studio.scenes.gaussians import Gaussians
from studio.types import Mesh
from studio.video import Footage
from tests.run.test_moving_run import CPU, moving_recipe
from tests.run.test_optimize import built
from tests.run.tiny import resumed
from tests.scenes.test_two_link_arm import arm

VIEW = Aligned(AlignedConfig(), 32)
COARSE = Aligned(AlignedConfig(distance=(1.0, 2.2), step=0.1), 32)


@dataclass(frozen=True)
class Still:
    """A mesh as a scene."""

    mesh: Mesh

    def at(self, time: torch.Tensor | None) -> Mesh:
        return self.mesh

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        return (ParameterGroup("vertices", torch.nn.Parameter(self.mesh.vertices), 0.0),)

    def state(self) -> dict[str, torch.Tensor]:
        return {"vertices": self.mesh.vertices}


def filmed_from(distance: float, scene: Gaussians) -> Filmed:
    """Two equal frames of the scene from the front."""
    front = orbit(torch.zeros(1), torch.zeros(1), 32, 32, distance)
    shown = drawn(scene, SplatRenderer(), front, 0.0)
    return Filmed(Footage(shown.rgb.repeat(2, 1, 1, 1), shown.alpha.repeat(2, 1, 1, 1), 8.0))


@pytest.mark.parametrize("distance", [1.30, 1.327, 2.91])
def test_the_distance_of_a_video_is_found(distance: float) -> None:
    scene = arm()
    curve = front_curve(scene, SplatRenderer(), filmed_from(distance, scene), VIEW)
    assert len(curve.minima) == 1
    assert curve.video_distance() == pytest.approx(distance, abs=0.025)


@pytest.mark.parametrize(("grey", "alpha", "where"), [(0.0, 0.0, "far"), (0.6, 1.0, "near")])
def test_an_empty_or_a_full_picture_has_no_distance(grey: float, alpha: float, where: str) -> None:
    nothing = Filmed(Footage(torch.full((2, 3, 32, 32), grey), torch.full((2, 1, 32, 32), alpha), 8.0))
    curve = front_curve(arm(), SplatRenderer(), nothing, VIEW)
    with pytest.raises(StudioError, match=f"from as {where} as was tried, 0.6 to 4"):
        curve.video_distance()


def test_the_prior_s_distance_is_the_minimum_before_the_video_s() -> None:
    """Not the lower one of a blank background behind it."""
    distances = 0.5 + 0.05 * torch.arange(50)
    dip = 0.3 * torch.exp(-((distances - 1.2) / 0.1).square())
    curve = DistanceCurve(distances, 1.0 - dip - 0.6 * (distances - 1.6).clamp_min(0))
    assert float(curve.distances[curve.errors.argmin()]) > 2.9
    assert curve.prior_distance(1.6) == pytest.approx(1.2, abs=0.01)
    assert curve.prior_distance(1.1) == 1.1, "without a minimum nearer than the video's, the video's"


def test_a_smaller_asset_is_expected_nearer(models: Path) -> None:
    """What is 0.7 times as large looks the same from 0.7 times as far."""
    recipe = moving_recipe(models)
    prior = build_prior(recipe, CPU).prior
    assert isinstance(prior, LibraryPrior)
    mesh = normalised(prior.catalogue.entries[prior.match(recipe.prompt).members[0]].mesh())
    small = Still(replace(mesh, vertices=0.7 * mesh.vertices))
    renderer = MeshRenderer()
    told = built(recipe)[0].terms[0].conditioning
    curve = prior_curve(small, renderer, prior, told, COARSE, torch.Generator().manual_seed(0))
    assert curve.prior_distance(3.0) == pytest.approx(1.4, abs=0.05)


def aligned_recipe(models: Path, film: Path, *lines: str) -> Recipe:
    """Pixels from the front, and SDS where the prior expects the asset."""
    guidance = (
        "stages.0.guidance=[{ method = { kind = 'pixels', target = { kind = 'video', "
        f"path = '{film}' }} }}, cameras = {{ kind = 'aligned', distance = [1.0, 2.2] }} }}, "
        "{ method = { kind = 'sds' }, cameras = { kind = 'aligned', to = 'prior', views = 2, "
        "distance = [1.0, 2.2], step = 0.1 } }]"
    )
    return moving_recipe(models, guidance, "stages.0.resolution=32", "stages.0.steps=4", *lines)


def written(scene: Gaussians, folder: Path) -> Path:
    """Two equal frames of a scene, transparent around it, from a distance of 1.6."""
    target, front = filmed_from(1.6, scene), orbit(torch.zeros(1), torch.zeros(1), 32, 32)
    black, white = (target(front, torch.full((1, 3), grey)) for grey in (0.0, 1.0))
    alpha = 1 - (white - black).mean(1, keepdim=True)
    rgba = to_bytes(255 * torch.cat([black / alpha.clamp_min(1e-6), alpha], dim=1).permute(0, 2, 3, 1))
    folder.mkdir()
    for number in range(2):
        Image.fromarray(rgba[0], "RGBA").save(folder / f"{number}.png")
    return folder


def test_a_run_looks_from_where_the_video_was_filmed(models: Path, tmp_path: Path) -> None:
    """The distances are found once, and kept where the run stops, bit for bit."""
    shape = initial_state(moving_recipe(models), CPU).particles[0].scene.shape
    film = written(shape, tmp_path / "film")
    recipe = aligned_recipe(models, film, "stages.0.scene.shape_rate=20.0")
    whole = initial_state(recipe, CPU)
    reports = list(optimize(recipe, built(recipe), whole))
    assert whole.distances["video"] == pytest.approx(1.6, abs=0.025)
    assert 1.0 < whole.distances["sds_1"] <= whole.distances["video"]
    assert {report.statistics["video_distance"] for report in reports} == {whole.distances["video"]}
    assert all(report.statistics["pixels_known"] == 1 for report in reports)

    second = resumed(recipe, built, 2, tmp_path / "half")
    paths = [save(state, tmp_path / name) for state, name in ((whole, "whole"), (second, "resumed"))]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "stages.0.cameras={ kind = 'aligned' }",
            "look for where a video was filmed from, and there is none",
        ),
        ("stages.0.cameras={ kind = 'aligned', to = 'prior' }", "expected cameras.to = 'video'"),
        ("stages.0.cameras={ kind = 'aligned', distance = [1.0, 1.05] }", "rise by at least two steps"),
    ],
)
def test_cameras_that_cannot_be_aligned_are_refused(models: Path, line: str, said: str) -> None:
    with pytest.raises(StudioError, match=said):
        moving_recipe(models, line)
