"""Radiance fields as scenes: how they begin, what they keep, when they look again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from studio.errors import StudioError
from studio.interfaces import Scene, TendedScene
from studio.ops.marching import OccupancyGrid
from studio.randomness import generator
from studio.recipes.config import FieldConfig, GaussiansConfig
from studio.scenes.field import RadianceField
from studio.scenes.kinds import handed_over, scene_from_state

CONFIG = FieldConfig(
    levels=3, log2_table_size=8, base_resolution=4, finest_resolution=16, width=8, occupancy_resolution=16
)


def scene(seed: int = 0) -> RadianceField:
    return RadianceField.initial(CONFIG, generator(seed, "initialise"))


def test_it_is_a_scene_that_wants_upkeep() -> None:
    assert isinstance(scene(), Scene) and isinstance(scene(), TendedScene)
    assert len(scene()) == len(scene().table)


def test_it_begins_as_the_blob_that_the_recipe_describes() -> None:
    """Density d exp(-r² / 2 s²), hardly any colour."""
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    densities, colors = scene().at(None).sampled(points)
    distance = (points - 0.5).norm(dim=-1) * 2 * CONFIG.radius
    blob = CONFIG.blob_density * torch.exp(-(distance**2) / (2 * CONFIG.blob_radius**2))
    torch.testing.assert_close(densities.detach(), blob, rtol=1e-2, atol=0)
    assert float((colors - 0.5).detach().abs().max()) < 1e-2


def test_another_seed_is_another_field() -> None:
    assert torch.equal(scene(1).table, scene(1).table)
    assert not torch.equal(scene(1).table, scene(2).table)


def test_rays_need_no_samples_where_the_blob_is_thin_or_the_ball_ends() -> None:
    thin = RadianceField.initial(replace(CONFIG, blob_radius=0.1), generator(0, "initialise"))
    wide = RadianceField.initial(replace(CONFIG, blob_radius=1.0), generator(0, "initialise"))
    cells = (torch.arange(16) + 0.5) / 16 - 0.5
    x, y, z = torch.meshgrid(cells, cells, cells, indexing="ij")
    distance = (x * x + y * y + z * z).sqrt()
    # Everything that the recipe's ball holds, and no more.
    assert torch.equal(wide.occupancy.occupied, distance <= 0.5)
    # Where the blob is thicker than 0.5, in units of the cube's side, and the cells next to it.
    edge = 0.1 * math.sqrt(2 * math.log(10 / 0.5)) / (2 * CONFIG.radius)
    assert bool(thin.occupancy.occupied[distance < edge].all())
    assert not bool(thin.occupancy.occupied[distance > edge + 2 * math.sqrt(3) / 16].any())


def test_upkeep_looks_every_few_steps_at_points_of_the_generator() -> None:
    first, second, third = scene(), scene(), scene()
    before = first.occupancy
    first.upkeep(CONFIG.occupancy_every - 1, generator(0, "upkeep"))
    assert first.occupancy is before
    for each, seed in ((first, 0), (second, 0), (third, 1)):
        each.upkeep(CONFIG.occupancy_every, generator(seed, "upkeep"))
    assert torch.equal(first.occupancy.densities, second.occupancy.densities)
    assert not torch.equal(first.occupancy.densities, third.occupancy.densities)


def test_what_vanishes_is_forgotten_and_what_grows_is_found() -> None:
    narrow = replace(CONFIG, blob_radius=0.1)
    field, untouched = (RadianceField.initial(narrow, generator(0, "initialise")) for _ in range(2))
    full = OccupancyGrid.full(CONFIG.occupancy_resolution)
    field.occupancy = OccupancyGrid(full.densities + 100.0, full.occupied)
    for step in range(30):
        for each in (field, untouched):
            each.upkeep(CONFIG.occupancy_every, generator(0, "upkeep", step))
    assert torch.equal(field.occupancy.occupied, untouched.occupancy.occupied)
    before = int(field.occupancy.occupied.sum())
    with torch.no_grad():
        field.biases[-1][0] += 4.0  # of the logarithm of the density
    field.upkeep(CONFIG.occupancy_every, generator(0, "upkeep"))
    assert int(field.occupancy.occupied.sum()) > 1.1 * before


def test_state_and_back() -> None:
    field = scene()
    field.upkeep(CONFIG.occupancy_every, generator(0, "upkeep"))
    again = scene_from_state(field.state(), CONFIG)
    assert isinstance(again, RadianceField)
    assert field.state().keys() == again.state().keys()
    assert all(torch.equal(again.state()[name], tensor) for name, tensor in field.state().items())
    with torch.no_grad():
        again.table.zero_()
    assert not torch.equal(again.table, field.table)


def test_states_of_another_kind_or_size_are_refused() -> None:
    state = scene().state()
    with pytest.raises(StudioError, match=r"lacks table, .*of another kind"):
        RadianceField.from_state({"means": torch.zeros(3, 3)}, CONFIG)
    with pytest.raises(StudioError, match=r"table is \[\d+, 4\], expected \[\d+, 2\].*must be the same"):
        RadianceField.from_state(state, replace(CONFIG, features=2))


def test_stages_hand_over_what_they_can() -> None:
    faster = handed_over(scene(), replace(CONFIG, table_rate=0.5))
    assert isinstance(faster, RadianceField)
    assert faster.parameter_groups()[0].learning_rate == 0.5
    assert torch.equal(faster.table, scene().table)
    with pytest.raises(StudioError, match="kind 'field' cannot go on as one of kind 'gaussians'"):
        handed_over(scene(), GaussiansConfig())
