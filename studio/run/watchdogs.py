"""What can go wrong in a run, seen early: each alarm says what happened, why, and which key to change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from typing_extensions import assert_never

from studio.recipes.config import (
    ClipartConfig,
    DeformableConfig,
    DensifyConfig,
    FieldConfig,
    GaussiansConfig,
    HexPlaneConfig,
    KeyframesConfig,
    NodesConfig,
    NoTopologyConfig,
    PerceptronConfig,
    RelocateConfig,
    SceneConfig,
    Stage,
    SurfaceConfig,
    TexturedMeshConfig,
    WatchdogsConfig,
)


@dataclass(frozen=True)
class Observation:
    """What the loop saw in one step.

    Attributes:
        stage_step: steps done in this stage.
        non_finite: names of the tensors whose gradients were not finite; with any, the step was skipped.
        guidance_non_finite: whether guidance already was not.
        alpha_mean: mean coverage of the pictures.
        burnt: share of the asset's pixels with one channel at 0 and another at 1, where it was measured.
        count_before, count_after: splats before and after a topology edit.
        depth_confidence: how well the depth of a motion can be known, 0-1; None where nothing moves in space.
        acceleration: the largest of any node, where it was measured.
    """

    stage_step: int
    non_finite: tuple[str, ...]
    guidance_non_finite: bool
    alpha_mean: float
    burnt: float | None
    count_before: int
    count_after: int
    depth_confidence: float | None = None
    acceleration: float | None = None


@dataclass(frozen=True)
class Alarms:
    """What the watchdogs remember from step to step.

    Attributes:
        non_finite: skipped steps in a row.
        empty: empty steps in a row.
        raised: alarms that have been given and whose cause lasts.
        hopeless: why the run should end, or empty.
    """

    non_finite: int = 0
    empty: int = 0
    raised: tuple[str, ...] = ()
    hopeless: str = ""


def examine(
    config: WatchdogsConfig, stage_index: int, stage: Stage, alarms: Alarms, seen: Observation
) -> tuple[Alarms, tuple[str, ...]]:
    """The alarms after a step, and the warnings that are new."""
    alarms = replace(
        alarms,
        non_finite=alarms.non_finite + 1 if seen.non_finite else 0,
        empty=alarms.empty + 1 if _is_empty(config, seen) else 0,
    )
    standing = dict(_standing(config, f"stages.{stage_index}", stage, alarms, seen))
    measured = {"burnt": seen.burnt, "jumps": seen.acceleration}
    unmeasured = {name for name in alarms.raised if name in measured and measured[name] is None}
    fresh = tuple(text for name, text in standing.items() if name not in alarms.raised)
    raised = tuple(sorted(set(standing) | unmeasured))
    return replace(alarms, raised=raised, hopeless=_hopeless(config, alarms, standing)), fresh


def _is_empty(config: WatchdogsConfig, seen: Observation) -> bool:
    return seen.stage_step > config.warm_up and seen.alpha_mean < config.min_alpha


def _standing(
    config: WatchdogsConfig, path: str, stage: Stage, alarms: Alarms, seen: Observation
) -> Iterator[tuple[str, str]]:
    """The alarms whose cause is there now, by name."""
    if seen.non_finite:
        yield "non_finite", _non_finite(path, stage, seen)
    if alarms.empty:
        yield "empty", _empty(path, config, stage)
    if seen.count_after > seen.count_before * (1 + config.max_growth):
        yield "exploding", _exploding(path, stage, seen)
    if seen.burnt is not None and seen.burnt > config.max_burnt:
        yield "burnt", _burnt(path, stage, config)
    if seen.depth_confidence is not None and seen.depth_confidence < config.min_depth_confidence:
        yield "depth", _depth(path, seen.depth_confidence)
    if seen.acceleration is not None and not seen.acceleration <= config.max_acceleration:
        yield "jumps", _jumps(path, stage, config, seen.acceleration)


def _non_finite(path: str, stage: Stage, seen: Observation) -> str:
    if seen.guidance_non_finite:
        cause = "guidance returned values that are not finite"
        advice = f"bound them with {path}.guidance.0.method.gradient.clamp or lower the guidance scale"
    else:
        cause = "guidance was finite, the renderer's gradient was not"
        advice = f"lower {path}.scene.{_levers(stage.scene).shape_rate}"
    tensors = ", ".join(seen.non_finite)
    return f"The gradient of {tensors} is not finite and the step was skipped: {cause}; {advice}."


def _empty(path: str, config: WatchdogsConfig, stage: Stage) -> str:
    pressing = [name for name in ("opacity", "sparsity") if getattr(stage.regularizers, name) != 0.0]
    key = f"regularizers.{pressing[0]}" if pressing else f"scene.{_levers(stage.scene).coverage_rate}"
    return (
        f"The scene is empty: its mean coverage is below {config.min_alpha:g}; lower {path}.{key} "
        f"or raise {path}.scene.{_levers(stage.scene).first_coverage}."
    )


@dataclass(frozen=True)
class _Levers:
    """The keys of a scene that alarms name: learning rates, and what it covers of a picture at first."""

    shape_rate: str
    coverage_rate: str
    first_coverage: str
    color_rate: str


def _levers(scene: SceneConfig) -> _Levers:
    match scene:
        case GaussiansConfig():
            return _Levers("scales_rate", "opacities_rate", "initial.opacity", "colors_rate")
        case FieldConfig():
            return _Levers("table_rate", "table_rate", "blob_density", "table_rate")
        case SurfaceConfig():
            return _Levers("distances_rate", "distances_rate", "radius", "colors_rate")
        case TexturedMeshConfig():
            return _Levers("vertices_rate", "vertices_rate", "faces", "texture_rate")
        case DeformableConfig(motion=motion):
            shape, rate = _levers(scene.shape), f"motion.{_motion_rate(motion)}"
            return _Levers(rate, rate, f"shape.{shape.first_coverage}", f"shape.{shape.color_rate}")
        case ClipartConfig():
            return _Levers("curves_rate_px", "curves_rate_px", "path", "curves_rate_px")
        case _:
            assert_never(scene)


def _motion_rate(motion: NodesConfig | HexPlaneConfig | KeyframesConfig | PerceptronConfig) -> str:
    match motion:
        case NodesConfig(track=track):
            return f"track.{_motion_rate(track)}"
        case HexPlaneConfig():
            return "planes_rate"
        case KeyframesConfig():
            return "translations_rate"
        case PerceptronConfig():
            return "rate"
        case _:
            assert_never(motion)


def _exploding(path: str, stage: Stage, seen: Observation) -> str:
    match stage.topology:
        case DensifyConfig():
            key = "grow_fraction"
        case RelocateConfig():
            key = "growth"
        case NoTopologyConfig():
            key = "kind"
        case _:
            assert_never(stage.topology)
    return (
        f"The number of splats explodes: one edit took it from {seen.count_before} to {seen.count_after}; "
        f"lower {path}.topology.{key}."
    )


def _burnt(path: str, stage: Stage, config: WatchdogsConfig) -> str:
    color_rate = f"{path}.scene.{_levers(stage.scene).color_rate}"
    return (
        f"The colours are burnt: over {config.max_burnt:.0%} of the asset's pixels are fully saturated; "
        f"lower the guidance scale of {path}.guidance.0.method or {color_rate}."
    )


def _depth(path: str, confidence: float) -> str:
    return (
        "The depth of the motion is a guess: guidance sees it from one side alone, or nearly "
        f"(depth_confidence {confidence:.2f} of 1); add a term to {path}.guidance with cameras of its own "
        "that knows other sides."
    )


def _jumps(path: str, stage: Stage, config: WatchdogsConfig, acceleration: float) -> str:
    rate = f"{path}.scene.{_levers(stage.scene).shape_rate}"
    return (
        f"The motion jumps: a node's places an instant apart differ by {acceleration:.2f} more than before, "
        f"above {config.max_acceleration:g}; raise {path}.regularizers.acceleration or lower {rate}."
    )


def _hopeless(config: WatchdogsConfig, alarms: Alarms, standing: dict[str, str]) -> str:
    for name, steps in (("non_finite", alarms.non_finite), ("empty", alarms.empty)):
        if steps >= config.patience:
            return f"Stopped after {steps} such steps in a row: {standing[name]}"
    return ""
