"""The loop: what it asks of guidance, how it goes on, when it gives up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.interfaces import Guidance
from studio.recipes.config import Recipe, WatchdogsConfig
from studio.run.build import BuiltStage, BuiltTerm, build_device, build_stages
from studio.run.build_prior import build_prior
from studio.run.checkpoint import save
from studio.run.optimize import locate, optimize
from studio.run.state import initial_state
from studio.run.step import burnt_share
from studio.types import Conditioning, GuidanceOutput, RenderOutput
from tests.run.tiny import equal, resumed, tiny_recipe

CPU = torch.device("cpu")


@dataclass
class Counting:
    """Guidance that pulls every pixel to one value and remembers how it was called."""

    target: float
    batches: list[int] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    first_draws: list[float] = field(default_factory=list)

    def __call__(
        self, rgb: torch.Tensor, conditioning: Conditioning, progress: float, rng: torch.Generator
    ) -> GuidanceOutput:
        self.batches.append(len(rgb))
        self.progress.append(progress)
        self.first_draws.append(float(torch.rand((), generator=rng)))
        gradient = (rgb - self.target).detach()
        loss = 0.5 * (rgb - self.target).square().sum() / len(rgb)
        return GuidanceOutput(loss, gradient, torch.zeros(len(rgb)), 0, {"target": self.target})

    def denoiser_calls(self, batch: int) -> int:
        return 0

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        assert not state


def built(recipe: Recipe) -> tuple[BuiltStage, ...]:
    return build_stages(recipe, build_prior(recipe, CPU).prior)


def with_guidance(stages: Iterable[BuiltStage], guidance: Guidance) -> tuple[BuiltStage, ...]:
    return tuple(
        replace(stage, terms=(BuiltTerm("counted", 1.0, guidance, stage.terms[0].conditioning),))
        for stage in stages
    )


def test_guidance_is_asked_once_a_step_with_the_stages_progress(models: Path) -> None:
    recipe = tiny_recipe(models, "stages.0.steps=5")
    recipe = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[0], steps=2)))
    guidance = Counting(0.0)
    reports = list(optimize(recipe, with_guidance(built(recipe), guidance), initial_state(recipe, CPU)))
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6, 7]
    assert [report.stage for report in reports] == [0, 0, 0, 0, 0, 1, 1]
    assert guidance.batches == [2] * 7
    assert guidance.progress == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 0.0, 0.5])
    assert len(set(guidance.first_draws)) == 7
    assert reports[0].total_steps == 7
    assert set(reports[0].losses) == {"counted", "opacity", "scale"}
    assert reports[4].statistics["counted_target"] == 0.0
    assert "burnt" in reports[4].statistics and "burnt" not in reports[3].statistics
    assert sum(reports[0].seconds.values()) > 0


def test_the_loop_follows_its_guidance(models: Path) -> None:
    recipe = tiny_recipe(
        models, "stages.0.steps=60", "stages.0.background={ kind = 'fixed', color = [1, 1, 1] }"
    )
    losses = [
        report.losses["counted"]
        for report in optimize(
            recipe, with_guidance(built(recipe), Counting(0.2)), initial_state(recipe, CPU)
        )
    ]
    assert losses[-1] < 0.5 * losses[0]


def test_each_stage_begins_with_its_own_rates_and_fresh_moments(models: Path) -> None:
    recipe = tiny_recipe(models, "stages.0.steps=3")
    second = replace(recipe.stages[0], scene=replace(recipe.stages[0].scene, means_rate=0.5, sh_degree=1))
    recipe = replace(recipe, stages=(recipe.stages[0], second))
    state = initial_state(recipe, CPU)
    for report in optimize(recipe, built(recipe), state):
        step = state.particles[0].optimizer.state[state.particles[0].optimizer.param_groups[0]["params"][0]][
            "step"
        ]
        assert int(step) == (report.step - 1) % 3 + 1
    assert state.particles[0].scene.tensors.sh_rest.shape[1] == 3
    assert state.particles[0].scene.parameter_groups()[0].learning_rate == 0.5


def test_locate() -> None:
    recipe = Recipe.__new__(Recipe)
    object.__setattr__(recipe, "stages", tuple(type("S", (), {"steps": n})() for n in (3, 2)))
    assert [locate(recipe, step) for step in range(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_particles_are_scenes_of_their_own(models: Path) -> None:
    """Guidance sees all of them in one call; where it treats images alike, each fares as it would alone."""
    recipe = tiny_recipe(models, "stages.0.steps=12", "stages.0.topology={ kind = 'none' }")
    alone, beside = initial_state(recipe, CPU), initial_state(replace(recipe, particles=4), CPU)
    together, single = Counting(0.3), Counting(0.3)
    list(optimize(recipe, with_guidance(built(recipe), single), alone))
    reports = list(optimize(replace(recipe, particles=4), with_guidance(built(recipe), together), beside))
    assert together.batches == [8] * 12
    assert single.first_draws == together.first_draws
    assert reports[0].statistics["images"] == 8.0
    first, second, *_ = (particle.scene.state() for particle in beside.particles)
    expected = alone.particles[0].scene.state()
    for name in ("means", "opacity_logits", "sh_dc"):  # Round splats feel no pull to turn but rounding's.
        torch.testing.assert_close(first[name], expected[name], atol=1e-3, rtol=1e-3)
    assert (first["means"] - second["means"]).abs().max() > 1e-2


@pytest.mark.parametrize("topology", ["relocate", "densify"])
def test_n_steps_then_m_equal_all_at_once(models: Path, tmp_path: Path, topology: str) -> None:
    """Bit for bit: scene, moments, statistics, counters; through the file, in a loop built anew."""
    lines = ("stages.0.topology.every=4", f"stages.0.topology.kind={topology}", "stages.0.steps=15")
    recipe = tiny_recipe(models, *lines, "particles=2")
    recipe = replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[0], steps=4)))
    whole = initial_state(recipe, CPU)
    for _ in optimize(recipe, built(recipe), whole):
        pass

    expected = save(whole, tmp_path / "whole").read_bytes()
    for stop_at in (1, 6, 14):
        second = resumed(recipe, built, stop_at, tmp_path / f"half {stop_at}")
        assert save(second, tmp_path / f"resumed {stop_at}").read_bytes() == expected


def test_another_seed_is_another_run(models: Path, tmp_path: Path) -> None:
    states = []
    for seed in (0, 0, 1):
        recipe = tiny_recipe(models, f"seed={seed}", "stages.0.steps=3")
        state = initial_state(recipe, CPU)
        list(optimize(recipe, built(recipe), state))
        states.append(state.particles[0].scene.state())
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


def test_a_gradient_that_is_not_finite_skips_the_step_and_is_told(models: Path) -> None:
    recipe = tiny_recipe(models)
    state = initial_state(recipe, CPU)
    before = {name: tensor.clone() for name, tensor in state.particles[0].scene.state().items()}
    reports = optimize(recipe, with_guidance(built(recipe), Counting(float("nan"))), state)
    (warning,) = next(reports).warnings
    assert "opacity_logits" in warning
    assert "stages.0.guidance.0.method.gradient.clamp" in warning
    assert equal(state.particles[0].scene.state(), before)
    assert next(reports).warnings == ()  # Told once.


def test_a_hopeless_run_ends_with_the_reason(models: Path) -> None:
    recipe = replace(tiny_recipe(models), watchdogs=WatchdogsConfig(patience=3))
    state = initial_state(recipe, CPU)
    with pytest.raises(StudioError, match=r"Stopped after 3 such steps in a row: The gradient of .*clamp"):
        list(optimize(recipe, with_guidance(built(recipe), Counting(float("nan"))), state))
    assert state.step == 3


def test_resolution_follows_its_ramp(models: Path) -> None:
    recipe = tiny_recipe(
        models, "stages.0.steps=4", "stages.0.resolution={ kind = 'linear', start = 16, end = 48 }"
    )
    sizes: list[int] = []

    @dataclass
    class Measuring(Counting):
        def __call__(
            self, rgb: torch.Tensor, conditioning: Conditioning, progress: float, rng: torch.Generator
        ) -> GuidanceOutput:
            sizes.append(rgb.shape[-1])
            assert conditioning.positive.cameras is not None
            assert conditioning.positive.cameras.width == rgb.shape[-1]
            return super().__call__(rgb, conditioning, progress, rng)

    list(optimize(recipe, with_guidance(built(recipe), Measuring(0.0)), initial_state(recipe, CPU)))
    assert sizes == [16, 24, 32, 40]


def test_burnt_share() -> None:
    rgb = torch.tensor([[1.0, 0.0, 0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.3, 0.0]]).T.reshape(
        1, 3, 2, 2
    )
    alpha = torch.tensor([1.0, 1.0, 1.0, 0.1]).reshape(1, 1, 2, 2)
    assert burnt_share(RenderOutput(rgb, alpha)) == pytest.approx(1 / 3)


def test_cuda_is_asked_for_where_there_is_none(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudioError, match="sees no CUDA device"):
        build_device(replace(tiny_recipe(models), device="cuda"))
