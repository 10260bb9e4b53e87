"""Each alarm: when it is raised, that it is raised once, and the key that it names."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import replace

import pytest

from studio.recipes.config import (
    DeformableConfig,
    DensifyConfig,
    HexPlaneConfig,
    NodesConfig,
    NoTopologyConfig,
    PerceptronConfig,
    RandomInstantsConfig,
    RegularizersConfig,
    RelocateConfig,
    WatchdogsConfig,
)
from studio.recipes.load import load
from studio.run.watchdogs import Alarms, Observation, examine

CONFIG = WatchdogsConfig(patience=3, warm_up=10, min_alpha=0.01, max_burnt=0.5, max_growth=0.5)
STAGE = load("default").stages[0]
MOVING = replace(
    STAGE,
    scene=DeformableConfig(),
    instants=RandomInstantsConfig(),
    topology=NoTopologyConfig(),
    regularizers=RegularizersConfig(),
)
WELL = Observation(
    stage_step=50,
    non_finite=(),
    guidance_non_finite=False,
    alpha_mean=0.3,
    burnt=0.1,
    count_before=100,
    count_after=110,
    acceleration=0.01,
)


def test_a_healthy_run_is_left_alone() -> None:
    assert examine(CONFIG, 0, STAGE, Alarms(), WELL) == (Alarms(), ())


@pytest.mark.parametrize(
    ("seen", "stage", "parts"),
    [
        (
            replace(WELL, non_finite=("means",), guidance_non_finite=True),
            STAGE,
            ["gradient of means is not finite", "stages.1.guidance.0.method.gradient.clamp"],
        ),
        (
            replace(WELL, non_finite=("means", "sh_dc")),
            STAGE,
            ["means, sh_dc", "stages.1.scene.scales_rate"],
        ),
        (
            replace(WELL, alpha_mean=0.001),
            replace(STAGE, regularizers=RegularizersConfig(sparsity=1.0)),
            ["empty", "below 0.01", "lower stages.1.regularizers.sparsity"],
        ),
        (
            replace(WELL, alpha_mean=0.001),
            replace(STAGE, regularizers=RegularizersConfig()),
            ["empty", "lower stages.1.scene.opacities_rate", "raise stages.1.scene.initial.opacity"],
        ),
        (
            replace(WELL, count_after=200),
            replace(STAGE, topology=DensifyConfig()),
            ["explodes", "from 100 to 200", "stages.1.topology.grow_fraction"],
        ),
        (
            replace(WELL, count_after=200),
            replace(STAGE, topology=RelocateConfig()),
            ["explodes", "stages.1.topology.growth"],
        ),
        (replace(WELL, burnt=0.6), STAGE, ["burnt", "over 50%", "stages.1.guidance.0.method"]),
        (
            replace(WELL, acceleration=0.3),
            MOVING,
            ["jumps", "0.30", "above 0.25", "raise stages.1.regularizers.acceleration", "translations_rate"],
        ),
        (replace(WELL, acceleration=math.nan), MOVING, ["jumps", "stages.1.regularizers.acceleration"]),
    ],
)
def test_alarms_name_the_key_once(seen: Observation, stage: object, parts: list[str]) -> None:
    alarms, (warning,) = examine(CONFIG, 1, stage, Alarms(), seen)  # type: ignore[arg-type]
    for part in parts:
        assert part in warning
    assert "\n" not in warning
    alarms, again = examine(CONFIG, 1, stage, alarms, seen)  # type: ignore[arg-type]
    assert again == ()
    alarms, _ = examine(CONFIG, 1, STAGE, alarms, WELL)
    assert alarms == Alarms()
    assert examine(CONFIG, 1, stage, alarms, seen)[1] == (warning,)  # type: ignore[arg-type]


def test_emptiness_does_not_count_while_the_run_warms_up() -> None:
    seen = replace(WELL, alpha_mean=0.0, stage_step=10)
    assert examine(CONFIG, 0, STAGE, Alarms(), seen) == (Alarms(), ())


@pytest.mark.parametrize("trouble", [{"alpha_mean": 0.0}, {"non_finite": ("means",)}])
def test_patience_ends(trouble: dict[str, object]) -> None:
    seen, alarms = replace(WELL, **trouble), Alarms()  # type: ignore[arg-type]
    for step in range(1, 4):
        alarms, _ = examine(CONFIG, 0, STAGE, alarms, seen)
        assert bool(alarms.hopeless) == (step == 3)
    assert "3 such steps in a row" in alarms.hopeless
    assert "stages.0." in alarms.hopeless


def test_an_alarm_stays_raised_while_nothing_is_measured() -> None:
    alarms, _ = examine(CONFIG, 0, STAGE, Alarms(), replace(WELL, burnt=0.9))
    alarms, fresh = examine(CONFIG, 0, STAGE, alarms, replace(WELL, burnt=None))
    assert fresh == ()
    assert examine(CONFIG, 0, STAGE, alarms, replace(WELL, burnt=0.9))[1] == ()


@pytest.mark.parametrize(
    "motion", [NodesConfig(), NodesConfig(track=PerceptronConfig()), HexPlaneConfig(), PerceptronConfig()]
)
def test_alarms_of_what_moves_name_keys_that_are_there(motion: NodesConfig) -> None:
    scene = DeformableConfig(motion=motion)
    stage = replace(MOVING, scene=scene)
    for seen in (
        replace(WELL, non_finite=("motion/planes",)),
        replace(WELL, alpha_mean=0.0),
        replace(WELL, burnt=0.9),
        replace(WELL, acceleration=1.0),
    ):
        _, (warning,) = examine(CONFIG, 0, stage, Alarms(), seen)
        keys = re.findall(r"stages\.0\.scene\.([\w.]*\w)", warning)
        assert keys
        for key in keys:
            assert operator.attrgetter(key)(scene) is not None
