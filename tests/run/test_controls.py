"""Pictures for ControlNets, against projections by hand, and recipes that show them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trimesh
from torch import Tensor

from studio.cameras import orbit
from studio.errors import StudioError
from studio.recipes.load import load
from studio.run.build import build_stages
from studio.run.build_prior import build_prior
from studio.run.controls import SIZE, Landmarks
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.types import Cameras
from tests.priors import models

CPU = torch.device("cpu")
RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def seen_from(*azimuths: float) -> Cameras:
    return orbit(torch.tensor(azimuths), torch.zeros(len(azimuths)), 16, 16)


def drawn(points: list[tuple[float, float, float]], *azimuths: float, within: float = 180.0) -> Tensor:
    colors = torch.tensor([RED, GREEN, BLUE])[: len(points)]
    return Landmarks(torch.tensor(points), colors, 0.02, within)(seen_from(*azimuths))


def test_a_disc_is_where_the_camera_sees_its_point() -> None:
    """The origin in the middle, +x to the right and +y above it, from 2 units away under 35 degrees."""
    (picture,) = drawn([(0.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.0, 0.3, 0.0)], 0.0)
    assert picture.shape == (3, SIZE, SIZE)
    reach = 0.3 / (2 * torch.tan(torch.deg2rad(torch.tensor(35.0 / 2))).item()) * SIZE / 2
    half = SIZE / 2
    centres = [(half, half), (half + reach, half), (half, half - reach)]
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    for channel, (x, y) in enumerate(centres):
        inside = ((columns - x) ** 2 + (rows - y) ** 2).sqrt() - 0.02 * SIZE
        # Rounding may decide of pixels on the rim.
        assert bool((picture[channel][inside < -1e-3] == 1).all())
        assert not bool(picture[channel][inside > 1e-3].any())


def test_nearer_points_hide_others_and_the_other_side_sees_the_reverse() -> None:
    front, back = drawn([(0.0, 0.0, 0.2), (0.0, 0.0, -0.2)], 0.0, 180.0)
    middle = SIZE // 2
    assert front[:, middle, middle].tolist() == list(RED)
    assert back[:, middle, middle].tolist() == list(GREEN)


def test_what_is_behind_the_camera_or_beside_the_picture_is_not_drawn() -> None:
    assert not drawn([(0.0, 0.0, 3.0), (9.0, 0.0, 0.0)], 0.0).any()


def test_views_that_are_turned_away_are_shown_nothing() -> None:
    pictures = drawn([(0.0, 0.0, 0.0)], 0.0, 69.0, 71.0, 180.0, 291.0, within=70.0)
    assert pictures.flatten(1).any(dim=1).tolist() == [True, True, False, False, True]


def test_recipes_show_points_to_controlnets(tmp_path: Path) -> None:
    """Edits of a head: all branches see the same picture, two steps run, and without points it is refused."""
    folder, control = models.save_sd(tmp_path / "model"), models.save_controlnet(tmp_path / "control")
    points, colors = [[0.0, 0.0, 0.3], [0.1, 0.0, 0.3]], [[255, 0, 0, 255], [0, 255, 0, 255]]
    trimesh.PointCloud(points, colors).export(tmp_path / "face.ply")
    lines = [
        f"prior.source='{folder}'",
        f"prior.controls=['{control}']",
        "stages.0.guidance.0.method={ kind = 'iesd', edit_prompt = 'a horse', front_only = true }",
        "stages.0.steps=2",
        "stages.0.resolution=16",
        "stages.0.scene.initial={ kind = 'ball', count = 40 }",
    ]
    recipe = load("sd15", "a head", lines)
    with pytest.raises(StudioError, match=r"expected prior.control_points = 'POINTS.ply'") as error:
        build_stages(recipe, build_prior(recipe, CPU).prior)
    assert "\n" not in str(error.value)
    recipe = load("sd15", "a head", [*lines, f"prior.control_points='{tmp_path / 'face.ply'}'"])
    stages = build_stages(recipe, build_prior(recipe, CPU).prior)
    told = stages[0].terms[0].conditioning(seen_from(0.0, 180.0), torch.zeros(2, 3))
    control_pictures = told.positive.control
    assert control_pictures is not None
    assert control_pictures[0, :, SIZE // 2, SIZE // 2].tolist() == list(RED)
    for branch in (told.null, *told.negatives):
        assert branch.control is control_pictures
    state = initial_state(recipe, CPU)
    assert len(list(optimize(recipe, stages, state))) == 2
