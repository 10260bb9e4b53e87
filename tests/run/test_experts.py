"""Terms of guidance that ask priors of their own, and terms that take turns."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studio.errors import StudioError
from studio.guidance.score_distillation import ScoreDistillation
from studio.priors.latent import LatentPrior
from studio.priors.library import LibraryPrior
from studio.recipes.config import (
    GuidanceTerm,
    LatentPriorConfig,
    LibraryPriorConfig,
    MultiViewConfig,
    OrbitConfig,
    PriorConfig,
    Recipe,
)
from studio.recipes.guidance import MvdreamConfig, SdsConfig, VsdConfig
from studio.recipes.load import read, to_toml
from studio.recipes.ramps import Piecewise, Ramp
from studio.reports import StepReport
from studio.run.build import BuiltStage, build_stages
from studio.run.build_prior import build_prior
from studio.run.checkpoint import save
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.run.step import Moment, Shown, counting, guide
from studio.types import Cameras, Conditioning, GuidanceOutput, RenderOutput, Splats
from tests.priors import models as tiny
from tests.run.test_optimize import Counting, with_guidance
from tests.run.tiny import equal, resumed, tiny_recipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def with_terms(recipe: Recipe, *terms: GuidanceTerm) -> Recipe:
    return replace(recipe, stages=tuple(replace(stage, guidance=terms) for stage in recipe.stages))


def built(recipe: Recipe) -> tuple[BuiltStage, ...]:
    chosen = build_prior(recipe, CPU)
    return build_stages(recipe, chosen.prior, chosen.beside)


def latent(folder: Path, family: str) -> LatentPriorConfig:
    return LatentPriorConfig(source=str(tiny.FAMILIES[family](folder / family)))


def prior_of(stage: BuiltStage, term: int) -> object:
    guidance = stage.terms[term].guidance
    assert isinstance(guidance, ScoreDistillation)
    return guidance.prior


# ---------------------------------------------------------------------------------------- priors of their own


def test_a_prior_beside_the_recipes_is_built_once_and_reads_the_prompt_itself(
    models: Path, tmp_path: Path
) -> None:
    own: PriorConfig = latent(tmp_path, "sd")
    sds = GuidanceTerm(method=SdsConfig())
    recipe = with_terms(tiny_recipe(models), sds, replace(sds, prior=own), replace(sds, prior=own))
    recipe = with_terms(recipe, *recipe.stages[0].guidance, replace(sds, prior=recipe.prior))
    chosen = build_prior(recipe, CPU)
    assert list(chosen.beside) == [own]
    assert (
        "the exact prior" in chosen.reason
        and f"; beside it the diffusion model {own.source}" in chosen.reason
    )
    (stage,) = build_stages(recipe, chosen.prior, chosen.beside)
    beside = chosen.beside[own]
    assert [prior_of(stage, term) for term in range(4)] == [chosen.prior, beside, beside, chosen.prior]
    assert isinstance(prior_of(stage, 0), LibraryPrior) and isinstance(prior_of(stage, 1), LatentPrior)

    cameras = stage.views[None].cameras(0.0, torch.Generator())
    for term, prior in ((0, chosen.prior), (1, beside)):
        text = stage.terms[term].conditioning(cameras, torch.zeros(2, 3)).positive.prompt.tokens
        assert text.shape[1:] == prior.encode_prompts(["a red cube"]).tokens.shape[1:]
    assert read_back(recipe, tmp_path) == recipe


def read_back(recipe: Recipe, folder: Path) -> Recipe:
    (folder / "recipe.toml").write_text(to_toml(recipe))
    return read(folder / "recipe.toml")


def test_a_multi_view_prior_beside_sets_the_cameras_of_the_stage(models: Path, tmp_path: Path) -> None:
    recipe = with_terms(
        tiny_recipe(models, "stages.0.steps=2"),
        GuidanceTerm(method=SdsConfig()),
        GuidanceTerm(method=MvdreamConfig(), prior=latent(tmp_path, "mvdream")),
    )
    with pytest.raises(StudioError, match=r"sees 4 views of the asset at once .* views = 4"):
        built(recipe)
    recipe = replace(recipe, stages=(replace(recipe.stages[0], cameras=MultiViewConfig()),))
    (first, _) = optimize(recipe, built(recipe), initial_state(recipe, CPU))
    assert set(first.losses) >= {"sds", "mvdream_1"}


def test_guidance_is_told_how_much_of_each_pixel_is_asset(models: Path) -> None:
    recipe = tiny_recipe(models, "stages.0.steps=1")
    told: list[torch.Tensor | None] = []

    class Listening(Counting):
        def __call__(
            self, rgb: torch.Tensor, conditioning: Conditioning, progress: float, rng: torch.Generator
        ) -> GuidanceOutput:
            told.append(conditioning.alpha)
            return super().__call__(rgb, conditioning, progress, rng)

    stages = with_guidance(built(recipe), Listening(0.0))
    (report,) = optimize(recipe, stages, initial_state(recipe, CPU))
    (alpha,) = told
    assert alpha is not None and alpha.shape == (2, 1, 16, 16) and not alpha.requires_grad
    assert float(alpha.mean()) == report.statistics["alpha_mean"] > 0


# ---------------------------------------------------------------------------------------- views of their own


@pytest.mark.parametrize("share", [None, 0.5], ids=["both count", "they take turns"])
def test_the_stages_own_views_are_drawn_only_where_a_term_sees_them(
    models: Path, share: float | None
) -> None:
    """Elsewhere, regularizers and topology see what the first term does."""
    recipe = tiny_recipe(
        models,
        "stages.0.steps=6",
        "stages.0.regularizers={ sparsity = 1.0 }",
        "stages.0.topology={ kind = 'densify', every = 5, start_at = 0.0, grow_fraction = 0.5 }",
    )
    three, one = (OrbitConfig(views_per_step=count) for count in (3.0, 1.0))
    apart = GuidanceTerm(method=SdsConfig(), cameras=three, share=share)
    recipe = with_terms(recipe, apart, replace(apart, cameras=one))
    (stage,) = built(recipe)
    drawn: list[torch.Tensor] = []

    def drawing(primitives: Splats, cameras: Cameras, background: torch.Tensor) -> RenderOutput:
        render: RenderOutput = stage.renderer(primitives, cameras, background)
        drawn.append(render.alpha.detach())
        return render

    listening = replace(stage, renderer=drawing)
    for step, report in enumerate(optimize(recipe, (listening,), initial_state(recipe, CPU))):
        taking = counting(stage, Moment(recipe.seed, step, step, step / 6))
        assert len(taking) == (2 if share is None else 1)
        assert [len(alpha) for alpha in drawn] == [(3, 1)[place] for place in taking]
        assert report.statistics["images"] == sum(map(len, drawn))
        assert report.losses["sparsity"] == float(drawn[0].mean())
        drawn.clear()
    assert report.statistics["primitives"] > 60

    mixed = with_terms(recipe, replace(apart, cameras=None), apart)
    (first, *_) = optimize(mixed, built(mixed), initial_state(mixed, CPU))
    assert first.statistics["images"] in ((5.0,) if share is None else (2.0, 5.0))


# -------------------------------------------------------------------------------------- terms that take turns


def taking_turns(models: Path, shares: tuple[Ramp | None, ...], *overrides: str) -> Recipe:
    """SDS that asks once an image, and VSD with a critic, whose prior has another null."""
    recipe = tiny_recipe(models, "stages.0.topology={ kind = 'none' }", *overrides)
    return with_terms(
        recipe,
        GuidanceTerm(method=SdsConfig(cfg_scale=1.0), share=shares[0]),
        GuidanceTerm(
            method=VsdConfig(),
            prior=LibraryPriorConfig(folder=str(models), null="subset"),
            weight=3.0,
            share=shares[1],
        ),
    )


def reports_of(recipe: Recipe) -> list[StepReport]:
    return list(optimize(recipe, built(recipe), initial_state(recipe, CPU)))


def test_each_step_takes_one_expert_and_pays_for_it_alone(models: Path) -> None:
    calls = {"sds": 2.0, "vsd_1": 8.0}  # Two images: one prediction; three, and one that trains the critic.
    seen = Counter[str]()
    for report in reports_of(taking_turns(models, (0.7, 0.3), "stages.0.steps=60")):
        (expert,) = {"sds", "vsd_1"} & report.losses.keys()
        assert report.statistics["denoiser_calls"] == calls[expert]
        seen[expert] += 1
    assert abs(seen["sds"] - 42) < 3 * (60 * 0.7 * 0.3) ** 0.5


def test_odds_follow_their_ramps(models: Path) -> None:
    falling = Piecewise(points=((0.0, 1.0), (0.5, 1.0), (0.5, 0.0)))
    rising = Piecewise(points=((0.0, 0.0), (0.5, 0.0), (0.5, 2.0)))
    reports = reports_of(taking_turns(models, (falling, rising), "stages.0.steps=12"))
    assert ["sds" in report.losses for report in reports] == [True] * 6 + [False] * 6


def test_the_mean_gradient_is_the_sum_by_shares(models: Path) -> None:
    """Each step's is the drawn expert's alone, bit for bit; over the steps they add up by their shares."""
    recipe = taking_turns(models, (0.7, 0.3))
    sds, vsd = recipe.stages[0].guidance
    recipe = with_terms(recipe, sds, replace(vsd, method=MvdreamConfig(cfg_scale=2.0)))
    (stage,) = built(recipe)
    always = replace(stage, terms=tuple(replace(term, share=None) for term in stage.terms))
    cameras, colors = (
        stage.views[None].cameras(0.0, torch.Generator()).resized(16, 16),
        torch.full((2, 3), 0.5),
    )
    rgb = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    render = RenderOutput(rgb, torch.ones(2, 1, 16, 16))
    shown = {None: Shown(cameras, (render,), render, cameras, colors)}

    def gradients(stage: BuiltStage, step: int) -> dict[str, torch.Tensor]:
        found = {}
        now = Moment(recipe.seed, step, step, 0.5)
        for place in counting(stage, now):
            weight, output = guide(stage, place, now, shown)
            gradient = torch.autograd.grad(weight * output.loss, rgb)[0]
            found[stage.terms[place].name] = gradient.flatten().double()
        return found

    steps = 100
    taken, first, second = (torch.empty(steps, rgb.numel(), dtype=torch.float64) for _ in range(3))
    for step in range(steps):
        ((name, taken[step]),) = gradients(stage, step).items()
        both = gradients(always, step)
        first[step], second[step] = both["sds"], both["mvdream_1"]
        assert torch.equal(taken[step], both[name])

    def deviation(share: float) -> float:
        """Of the mean along what sets the experts apart, in standard errors."""
        apart = (first - second).mean(0)
        along = (taken - share * first - (1 - share) * second) @ apart
        return float(along.mean() / (along.std() / steps**0.5))

    assert abs(deviation(0.7)) < 3
    assert abs(deviation(0.5)) > 3


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.4, None)], ids=["sure", "the only one"])
def test_a_sure_expert_is_that_expert_alone(
    models: Path, tmp_path: Path, shares: tuple[float | None, ...]
) -> None:
    recipe = taking_turns(models, shares, "stages.0.steps=6")
    sds, vsd = recipe.stages[0].guidance
    rest = () if shares[1] is not None else (vsd,)
    plain = with_terms(recipe, replace(sds, share=None), *rest)
    scenes = []
    for number, one in enumerate((recipe, plain)):
        state = initial_state(one, CPU)
        list(optimize(one, built(one), state))
        scenes.append(scene_of(save(state, tmp_path / str(number))))
    assert equal(*scenes)


def scene_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_file(checkpoint).items() if "scene/" in name}


def test_what_is_not_drawn_keeps_what_it_has_learned(models: Path) -> None:
    recipe = taking_turns(models, (0.5, 0.5), "stages.0.steps=12")
    state = initial_state(recipe, CPU)
    updates, drawn = [0], [False]
    for report in optimize(recipe, built(recipe), state):
        drawn.append("vsd_1" in report.losses)
        updates.append(int(state.learned.get("vsd_1/critic/updates", torch.tensor(0))))
    assert True in drawn and drawn.count(False) > 1
    assert updates == [sum(drawn[: step + 1]) for step in range(13)]


@pytest.mark.parametrize("stop_at", [1, 7])
def test_a_resumed_run_draws_the_same_experts(models: Path, tmp_path: Path, stop_at: int) -> None:
    recipe = taking_turns(models, (0.5, 0.5), "stages.0.steps=12")
    whole = initial_state(recipe, CPU)
    list(optimize(recipe, built(recipe), whole))
    second = resumed(recipe, built, stop_at, tmp_path / "half")
    files = [save(state, tmp_path / name).read_bytes() for name, state in (("a", whole), ("b", second))]
    assert files[0] == files[1]
