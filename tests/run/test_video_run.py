"""Clipart moved by video models: every family from its folder to a file, and what guidance makes of a
denoiser whose answer is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.guidance.methods import build_guidance
from studio.interfaces import Limits
from studio.priors.video import VideoPrior
from studio.recipes.config import AugmentationConfig, Recipe, VideoPriorConfig
from studio.recipes.guidance import SdsConfig, UniformTimes
from studio.recipes.load import load
from studio.run.build import build_stages
from studio.run.build_prior import build_prior
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.schedule import NoiseSchedule
from studio.types import Condition, Conditioning, PromptEmbedding
from tests.conftest import Said
from tests.priors.video_models import VIDEO_FAMILIES, save_modelscope
from tests.run.test_clipart_run import LINES

CPU = torch.device("cpu")
VSDS = (
    *LINES,
    "stages.0.steps=2",
    "prior.image_size=16",
    "prior.there_and_back=1",
    "export.formats=['json']",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("family", VIDEO_FAMILIES)
def test_a_drawing_is_animated_by_each_family(
    family: str, studio_command: Callable[..., Said], tmp_path: Path
) -> None:
    folder = VIDEO_FAMILIES[family](tmp_path / family)
    sets = [word for line in VSDS for word in ("--set", line)]
    said = studio_command(
        "animate", "crab", "a red horse", "--preset", "vsds", "--prior", str(folder), "--output",
        str(tmp_path / "runs"), *sets,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert f"the video diffusion model {folder}" in said.out
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "metrics.json").read_text())["travel_px"] > 0
    assert json.loads((run / "assets" / "animation.json").read_text())["op"] == 8


def test_what_a_video_model_is(studio_command: Callable[..., Said], tmp_path: Path) -> None:
    said = studio_command("prior", "info", str(VIDEO_FAMILIES["wan"](tmp_path / "wan")))
    assert said.code == 0, said.err
    assert "WanTransformer3DModel" in said.out and "predicts flow_prediction at 1000" in said.out
    assert "of 16 frames it denoises 5" in said.out  # held until there are 17


def vsds(folder: Path, *overrides: str) -> Recipe:
    prior = ("prior.kind=video", f"prior.source='{folder}'")
    return load("vsds", "a red horse", [*VSDS, *prior, *overrides])


def test_the_published_numbers() -> None:
    recipe = load("vsds", "the crab is dancing")
    (stage,) = recipe.stages
    (term,) = stage.guidance
    assert isinstance(recipe.prior, VideoPriorConfig) and recipe.prior.there_and_back == 2
    assert term.augmentation == AugmentationConfig(perspective=0.5, crop=0.4)
    assert term.method == SdsConfig(
        cfg_scale=50.0, weight="sigma2", times=UniformTimes(t_min=0.05, t_max=0.95, shared=True)
    )
    assert stage.steps == 500 and stage.resolution_at(0.0) == 256


def test_a_step_asks_for_the_clip_as_it_is_shown_and_renders_each_frame_once(tmp_path: Path) -> None:
    recipe = vsds(save_modelscope(tmp_path / "model"), "prior.there_and_back=2", "stages.0.steps=1")
    chosen = build_prior(recipe, CPU)
    assert isinstance(chosen.prior, VideoPrior) and len(chosen.prior.order) == 12
    state = initial_state(recipe, CPU)
    (report,) = optimize(recipe, build_stages(recipe, chosen.prior), state)
    assert report.statistics["images"] == 3
    assert report.statistics["denoiser_calls"] == 2 * 12  # the prompt and the unconditional branch


def test_two_particles_are_two_clips(tmp_path: Path) -> None:
    """Each is told its own camera's prompt, with words for the view and Perp-Neg too."""
    lines = (
        "particles=2",
        "view_words=true",
        "stages.0.guidance.0.method.scores.perp_neg=1.0",
        "stages.0.steps=1",
    )
    recipe = vsds(save_modelscope(tmp_path / "model"), *lines)
    (report,) = optimize(
        recipe, build_stages(recipe, build_prior(recipe, CPU).prior), initial_state(recipe, CPU)
    )
    assert report.statistics["images"] == 6 and report.statistics["denoiser_calls"] == 2 * 6 * 4


def test_augmentation_changes_what_guidance_sees_and_nothing_else(tmp_path: Path) -> None:
    recipe = vsds(save_modelscope(tmp_path / "model"))
    stages = build_stages(recipe, build_prior(recipe, CPU).prior)
    plain = replace(recipe.stages[0], guidance=(replace(recipe.stages[0].guidance[0], augmentation=None),))
    losses = []
    for config in (recipe.stages[0], recipe.stages[0], plain):
        again = replace(recipe, stages=(config,))
        stage = replace(stages[0], config=config)
        reports = list(optimize(again, (stage,), initial_state(again, CPU)))
        losses.append([report.losses for report in reports])
    assert losses[0] == losses[1]
    assert losses[0][0]["sds"] != losses[2][0]["sds"]
    assert losses[0][0]["bones"] == losses[2][0]["bones"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ("stages.0.guidance.0.method={kind='vsd'}",),
            "trains a critic of single pictures, and this prior sees clips",
        ),
        (("stages.0.instants={kind='frames',count=3}",), "that ask it show 1 frames; expected .*'clip'"),
        (
            ("stages.0.guidance.0.method={kind='pixels',target={kind='video',path='x.mp4'}}",),
            "augmentation came with a method that compares pictures, whose target stays as it is",
        ),
        (("prior.there_and_back=17",), "prior.there_and_back"),
        (("stages.0.guidance.0.augmentation.crop=0",), "augmentation.crop"),
    ],
)
def test_what_a_video_prior_cannot_be_asked_is_refused(
    lines: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudioError, match=message):
        recipe = vsds(save_modelscope(tmp_path / "model"), *lines)
        build_stages(recipe, build_prior(recipe, CPU).prior)


# --------------------------------------------------------------------------------- a denoiser that is known


@dataclass(frozen=True)
class Pulling:
    """Says that the noise is what was added, and ``pull`` times what still leads away from ``goal``; without
    a prompt, ``astray`` times as much of the opposite. Implements ``Prior`` and ``LimitedPrior``.
    """

    goal: Tensor
    noise: Tensor
    pull: float = 0.3
    astray: float = 0.0
    schedule: NoiseSchedule = NoiseSchedule.scaled_linear()  # noqa: RUF009
    limits: Limits = Limits(frames=4)  # noqa: RUF009

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One number: whether there is a prompt."""
        return PromptEmbedding(torch.tensor([[[float(prompt != "")]] for prompt in prompts]))

    def encode_images(self, rgb: Tensor) -> Tensor:
        return rgb

    def decode_images(self, x: Tensor) -> Tensor:
        return x

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        alpha, sigma = self.schedule.alpha_sigma(timesteps, x_t.dtype)
        clips = len(x_t) // len(self.noise)
        noise = self.noise.repeat(clips, 1, 1, 1)
        clean = (x_t - sigma * noise) / alpha
        said = condition.prompt.expanded(len(x_t)).tokens[:, 0].view(-1, 1, 1, 1)
        away = self.pull * (clean - self.goal.repeat(clips, 1, 1, 1))
        return noise + torch.where(said > 0, away, -self.astray * away)


def told(prior: Pulling) -> Conditioning:
    return Conditioning(Condition(prior.encode_prompts(["a horse"])), Condition(prior.encode_prompts([""])))


def known(cfg_scale: float) -> SdsConfig:
    return SdsConfig(cfg_scale=cfg_scale, times=UniformTimes(t_min=0.05, t_max=0.95, shared=True))


def drawn_noise(shape: Sequence[int], seed: int) -> Tensor:
    """What SDS draws after its one level from a generator with this seed."""
    rng = torch.Generator().manual_seed(seed)
    torch.randint(50, 951, (1,), generator=rng)
    return torch.randn(tuple(shape), generator=rng)


@pytest.mark.parametrize(("cfg_scale", "astray"), [(1.0, 0.0), (50.0, 0.0), (50.0, 0.5), (7.5, 1.0)])
def test_the_gradient_in_closed_form(cfg_scale: float, astray: float) -> None:
    """w(t) (null + scale (positive - null) - noise) with w = 1 - alpha-bar: the noise cancels, and of the
    pull are left ``scale - (1 - scale) astray`` parts.
    """
    z = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    goal = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    prior = Pulling(goal, drawn_noise(z.shape, 11), astray=astray)
    x = z.clone().requires_grad_()
    output = build_guidance(known(cfg_scale), prior)(x, told(prior), 0.5, torch.Generator().manual_seed(11))
    levels = output.timesteps
    assert len(set(levels.tolist())) == 1 and 50 <= float(levels[0]) <= 950  # one level for the whole clip
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    weight = 1 - torch.cumprod(1 - betas, 0)[int(levels[0])]
    parts = cfg_scale - (1 - cfg_scale) * astray
    expected = weight.float() * parts * prior.pull * (z - goal)
    torch.testing.assert_close(output.gradient, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))
    (slope,) = torch.autograd.grad(output.loss, x)
    torch.testing.assert_close(slope, output.gradient / 4)
    # Against it lies the goal, for every frame.
    assert bool(((slope * (z - goal)).flatten(1).sum(1) > 0).all())


def test_latents_move_to_the_goal_without_turning_back() -> None:
    z = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    goal = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    before = (z - goal).abs()
    first = float(before.max())
    for step in range(25):
        prior = Pulling(goal, drawn_noise(z.shape, step))
        x = z.clone().requires_grad_()
        output = build_guidance(known(5.0), prior)(
            x, told(prior), step / 25, torch.Generator().manual_seed(step)
        )
        z = z - 0.5 * output.gradient
        now = (z - goal).abs()
        assert bool((now <= before + 1e-4).all())  # every element, at every level
        before = now
    assert float(before.max()) < 1e-3 * first


@dataclass(frozen=True)
class Correlated(Pulling):
    """The exact prior of clips whose frames are Gaussian around ``goal``, tied to one another by
    ``covariance`` K along time: ``noise = sigma (alpha² K + sigma²)^-1 (x_t - alpha goal)``.
    """

    covariance: Tensor = torch.eye(4)  # noqa: RUF009

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        alpha, sigma = (level.flatten()[0] for level in self.schedule.alpha_sigma(timesteps, x_t.dtype))
        spread = alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.covariance))
        away = (x_t - alpha * self.goal).flatten(1)
        return sigma * torch.linalg.solve(spread, away).view_as(x_t)


def test_each_way_to_move_is_pulled_by_its_own_variance() -> None:
    """In the covariance's eigenvectors over time, with variance v, a step is
    ``w ((sigma alpha d + sigma² n) / (alpha² v + sigma²) - n)`` of the distance d and the noise n there.
    """
    times = torch.arange(4.0)
    covariance = torch.exp(-(times[:, None] - times).abs() / 2)  # neighbours are alike
    goal, z = (torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) for seed in (2, 1))
    noise = drawn_noise(z.shape, 5)
    prior = Correlated(goal, noise, covariance=covariance)
    output = build_guidance(known(1.0), prior)(z, told(prior), 0.5, torch.Generator().manual_seed(5))
    alpha, sigma = (level.flatten()[0] for level in prior.schedule.alpha_sigma(output.timesteps[:1]))
    variances, ways = torch.linalg.eigh(covariance)
    distance, drawn = (ways.T @ part.flatten(1) for part in (z - goal, noise))
    pulled = sigma * (alpha * distance + sigma * drawn) / (alpha**2 * variances + sigma**2)[:, None]
    torch.testing.assert_close(
        ways.T @ output.gradient.flatten(1), sigma**2 * (pulled - drawn), atol=1e-4, rtol=1e-3
    )
    assert float(variances[-1] / variances[0]) > 5
