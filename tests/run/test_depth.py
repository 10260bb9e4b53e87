"""How well depth can be known, against views whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.run.build_prior import build_prior
from studio.run.depth import depth_confidence, seen_apart
from studio.run.metrics import final_metrics
from studio.run.optimize import optimize
from studio.run.state import initial_state
from tests.run.test_moving_run import CPU, moving_recipe
from tests.run.test_optimize import built
from tests.run.tiny import tiny_recipe

FRONT = "stages.0.cameras={ kind = 'orbit', views_per_step = 1, azimuth_deg = 0.0, elevation_deg = [0, 0] }"
RING = "stages.0.cameras={ kind = 'multi_view', elevation_deg = [0, 0] }"
SIDES = (
    "stages.0.guidance=[{ method = { kind = 'sds' } }, { method = { kind = 'sds' }, "
    "cameras = { kind = 'multi_view', elevation_deg = [0, 0] } }]"
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((FRONT,), 0.0),  # all from one side
        ((RING,), 0.75),  # evenly around an axis: D is half of the plane's identity
        ((FRONT, SIDES), 0.6),  # one picture in five is of the front besides: λ = 1/5 + 2/5
    ],
)
def test_directions_that_differ_make_depth_known(
    models: Path, lines: tuple[str, ...], expected: float
) -> None:
    (stage,) = moving_recipe(models, *lines).stages
    assert seen_apart(stage) == pytest.approx(expected, abs=0.01)


def test_what_stands_still_has_none(models: Path) -> None:
    assert depth_confidence(tiny_recipe(models)) is None


def test_a_run_from_the_front_says_that_its_depth_is_not_known(models: Path) -> None:
    """Once, with what to do; and in its figures."""
    for lines, warns in (((FRONT,), True), ((FRONT, SIDES), False)):
        recipe = moving_recipe(models, "stages.0.steps=3", *lines)
        state = initial_state(recipe, CPU)
        reports = list(optimize(recipe, built(recipe), state))
        told = [warning for report in reports for warning in report.warnings if "depth" in warning]
        assert len(told) == warns
        assert all("stages.0.guidance" in warning for warning in told)
        confidence = depth_confidence(recipe)
        assert confidence is not None
        assert reports[-1].statistics["depth_confidence"] == confidence
        stage = built(recipe)[0]
        prior = build_prior(recipe, CPU).prior
        metrics = final_metrics(state.particles[0].scene, stage.renderer, recipe, prior)
        assert metrics["depth_confidence"] == confidence
