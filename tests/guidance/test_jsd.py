"""JSD against its formula, its energy's finite differences, and the SDS that it is in special cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.guidance.jsd import JointScores
from studio.guidance.methods import build_guidance, method_of
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.sds import guided_minus_noise
from studio.guidance.second import SecondPrior
from studio.guidance.state import MAIN, NULL, POSITIVE, SECOND, State, Term
from studio.interfaces import Limits
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.recipes.guidance import JsdConfig, MvdreamConfig, SdsConfig, SecondPriorConfig
from studio.schedule import NoiseSchedule
from studio.types import Condition, Conditioning, GuidanceOutput
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    CountingPrior,
    at,
    conditioning_of,
    images,
    mixtures,
    random_mixture,
    under,
)

VIEWS = 2
ENERGY = 5.0
LATE = 0.5


class ManyViews(CountingPrior):
    """An exact prior that says it sees two views at once."""

    def __init__(self, inner: AnalyticPrior) -> None:
        super().__init__(inner)
        self.asked: list[tuple[Tensor, Tensor]] = []

    @property
    def limits(self) -> Limits:
        return Limits(views=VIEWS)

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        self.asked.append((x_t, timesteps))
        return super().predict_noise(x_t, timesteps, condition)


def other(schedule: NoiseSchedule = STABLE_DIFFUSION) -> ManyViews:
    return ManyViews(AnalyticPrior({"": random_mixture(20), "c": random_mixture(21)}, schedule))


def told(prior: CountingPrior, second: ManyViews, alpha: Tensor | None = None) -> Conditioning:
    return replace(conditioning_of(prior.inner), second=conditioning_of(second.inner), alpha=alpha)


def joint(
    config: JsdConfig | SdsConfig, x: Tensor, alpha: Tensor | None = None, second: ManyViews | None = None
) -> GuidanceOutput:
    """At level 400, under given noise of the first prior."""
    prior, second = CountingPrior(mixtures()), second or other()
    guidance = build_guidance(config, prior, second if isinstance(config, JsdConfig) else None)
    assert isinstance(guidance, ScoreDistillation)
    method = guidance.method
    guidance.method = replace(
        method, times=at(method.times, torch.tensor(400.0)), noise=under(method.noise, images(len(x), 1))
    )
    return guidance(x, told(prior, second, alpha), LATE, torch.Generator().manual_seed(3))


# -------------------------------------------------------------------------------------------- where it is SDS


def test_without_energy_it_is_sds_and_does_not_ask_the_second_prior() -> None:
    x, second = images(4), other()
    plain = joint(SdsConfig(cfg_scale=31.0), x)
    assert torch.equal(joint(JsdConfig(energy_scale=0.0), x, second=second).gradient, plain.gradient)
    assert second.forward_sizes == []


def test_where_nothing_is_rendered_it_is_sds() -> None:
    x = images(4)
    plain = joint(SdsConfig(cfg_scale=31.0), x).gradient
    assert torch.equal(joint(JsdConfig(), x, alpha=torch.zeros(4, 1, 8, 8)).gradient, plain)
    assert not torch.allclose(joint(JsdConfig(), x).gradient, plain)


@pytest.mark.parametrize("with_mask", [False, True])
def test_where_the_priors_agree_it_is_sds(with_mask: bool) -> None:
    state, scores = moment(with_mask)
    alpha, sigma = state.alpha_sigma()
    shown = state.noisy[MAIN] if state.coverage is None else state.coverage * state.noisy[MAIN]
    scores[SECOND] = (shown - sigma * scores[NULL]) / alpha
    sds = guided_minus_noise(31.0)
    got = JointScores(sds, ENERGY)(scores, state, LATE)
    torch.testing.assert_close(got, sds(scores, state, LATE), rtol=0, atol=1e-12)


def test_it_falls_to_sds_before_its_energy_begins() -> None:
    """600 of the paper's 5000 steps."""
    combine = method_of(JsdConfig()).combine
    assert SECOND not in combine.terms(599 / 5000) and SECOND in combine.terms(600 / 5000)


# ------------------------------------------------------------------------------------------------- the energy


def moment(with_mask: bool) -> tuple[State, dict[Term, Tensor]]:
    """A state at level 400 with predictions that mean nothing."""
    prior, count = mixtures(), 4
    policy = under(method_of(JsdConfig()).noise, images(count, 1))
    levels = {MAIN: torch.full((count,), 400.0)}
    state = policy(images(count), levels, prior.schedule, None, LATE, torch.Generator())
    coverage = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(2)).double()
    state = replace(state, coverage=coverage if with_mask else None, set_size=VIEWS)
    return state, {POSITIVE: images(count, 4), NULL: images(count, 5), SECOND: images(count, 6)}


@pytest.mark.parametrize("with_mask", [False, True])
def test_what_it_adds_is_the_energys_gradient_by_finite_differences(with_mask: bool) -> None:
    state, scores = moment(with_mask)
    alpha, sigma = state.alpha_sigma()
    mask = torch.ones(4, 1, 1, 1, dtype=torch.float64) if state.coverage is None else state.coverage

    def energy(x_t: Tensor) -> float:
        unprompted = (mask * x_t - sigma * scores[NULL]) / alpha
        return float((unprompted - scores[SECOND]).square().sum()) / (2 * VIEWS)

    x_t, step = state.noisy[MAIN], 1e-4
    slopes = torch.empty_like(x_t)
    for place in range(x_t.numel()):
        ahead, behind = x_t.clone(), x_t.clone()
        ahead.view(-1)[place] += step
        behind.view(-1)[place] -= step
        slopes.view(-1)[place] = (energy(ahead) - energy(behind)) / (2 * step)
    sds = guided_minus_noise(31.0)
    added = JointScores(sds, ENERGY)(scores, state, LATE) - sds(scores, state, LATE)
    torch.testing.assert_close(added, ENERGY * sigma * slopes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("with_mask", [False, True])
def test_the_gradient_is_the_papers(with_mask: bool) -> None:
    """The second prior's image by hand: its own noise, the same level, each set tempered by itself."""
    x, second, prior = images(4), other(), mixtures()
    alpha = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(2)) if with_mask else None
    got = joint(JsdConfig(cfg_scale=31.0), x, alpha, second).gradient
    ((asked, timesteps),) = second.asked
    assert torch.equal(timesteps, torch.full((8,), 400.0))
    x_t = asked[:4]
    a, s = (float(level) for level in STABLE_DIFFUSION.alpha_sigma(torch.tensor([400.0]), torch.float64))
    own = (x_t - a * x) / s
    assert abs(float(own.std()) - 1) < 0.15 and float((own - images(4, 1)).abs().max()) > 1
    level, told_second = torch.full((4,), 400.0), conditioning_of(second.inner)
    null, positive = (
        second.inner.predict_noise(x_t, level, condition)
        for condition in (told_second.null, told_second.positive)
    )
    guided, plain = ((x_t - s * e) / a for e in (null + 50.0 * (positive - null), positive))
    rows = []
    for row in range(4):
        pair = slice(row - row % 2, row - row % 2 + 2)
        factor = 0.5 * plain[pair].std() / guided[pair].std() + 0.5
        rows.append(factor * guided[row])
    seen = torch.stack(rows)

    noisy = a * x + s * images(4, 1)
    told_first = conditioning_of(prior)
    null, positive = (
        prior.predict_noise(noisy, level, condition) for condition in (told_first.null, told_first.positive)
    )
    m = 1.0 if alpha is None else alpha.double()
    apart = m * ((m * noisy - s * null) / a - seen)
    joined = null + 31.0 * (positive - null) + ENERGY * s / (a * VIEWS) * apart
    torch.testing.assert_close(got, s**2 * (joined - images(4, 1)), rtol=1e-6, atol=1e-6)


def test_sets_do_not_see_each_other() -> None:
    """A second set in the batch leaves the first one's gradient alone."""
    state, scores = moment(with_mask=True)
    both = JointScores(guided_minus_noise(31.0), ENERGY)(scores, state, LATE)
    assert state.coverage is not None
    first = replace(
        state,
        clean=state.clean[:2],
        noisy={MAIN: state.noisy[MAIN][:2]},
        levels={MAIN: state.levels[MAIN][:2]},
        noise=state.noise[:2],
        coverage=state.coverage[:2],
    )
    of_first = {term: score[:2] for term, score in scores.items()}
    alone = JointScores(guided_minus_noise(31.0), ENERGY)(of_first, first, LATE)
    assert torch.equal(both[:2], alone)


# ------------------------------------------------------------------------------------------- the second prior


class Halved(ManyViews):
    """Sees pictures at half the size; its mixtures are of that size."""

    def encode_images(self, rgb: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(rgb, 2)


class FourChannels(ManyViews):
    def encode_images(self, rgb: Tensor) -> Tensor:
        return torch.cat([rgb, rgb[:, :1]], dim=1)


def opinion(second: ManyViews, state: State, x: Tensor, config: SecondPriorConfig) -> tuple[Tensor, int]:
    conditioning = Conditioning(*2 * [Condition(second.encode_prompts(["c"]))])
    conditioning = replace(conditioning, second=conditioning_of(second.inner))
    return SecondPrior(config, second).shown(x, conditioning, LATE, torch.Generator().manual_seed(1))(state)


def test_a_smaller_picture_is_resized_and_its_level_is_the_same_share_of_another_schedule() -> None:
    means = {"": torch.full((3, 2, 2), 0.2), "c": torch.arange(12.0).view(3, 2, 2)}
    exact = {name: GaussianMixture.gaussian(mean.double(), 1e-4) for name, mean in means.items()}
    second = Halved(AnalyticPrior(exact, NoiseSchedule.cosine(500)))
    state, _ = moment(with_mask=False)
    seen, calls = opinion(second, state, images(4), SecondPriorConfig(cfg_scale=1.0, rescale_std=0.0))
    assert calls == 4 and torch.equal(second.asked[0][1], torch.full((4,), 200.0))
    expected = torch.nn.functional.interpolate(means["c"][None].double(), (4, 4), mode="bilinear")
    torch.testing.assert_close(seen, expected.expand(4, 3, 4, 4), rtol=1e-3, atol=1e-3)


def test_two_autoencoders_are_refused() -> None:
    state, _ = moment(with_mask=False)
    with pytest.raises(
        StudioError, match=r"views_prior denoises 4 channels and the prior 3.*one autoencoder"
    ):
        opinion(FourChannels(mixtures()), state, images(4), SecondPriorConfig())


def test_calls_are_counted_over_both_priors() -> None:
    prior, second = CountingPrior(mixtures()), other()
    guidance = build_guidance(JsdConfig(), prior, second)
    assert isinstance(guidance, ScoreDistillation)
    output = guidance(images(4), told(prior, second), LATE, torch.Generator().manual_seed(3))
    assert prior.forward_sizes == second.forward_sizes == [8]
    assert output.denoiser_calls == guidance.denoiser_calls(4, LATE) == 16


def test_nothing_flows_back_through_the_second_prior() -> None:
    x = images(4).requires_grad_()
    output = joint(JsdConfig(), x)
    output.loss.backward()
    torch.testing.assert_close(x.grad, output.gradient / 4)


# --------------------------------------------------------------------------------------------------- refusals


def test_a_second_prior_is_wanted_of_several_views_and_only_where_it_is_asked() -> None:
    prior = mixtures()
    with pytest.raises(StudioError, match=r"^jsd asks a second prior.* names none; expected views_prior = "):
        build_guidance(JsdConfig(), prior)
    with pytest.raises(StudioError, match=r"^The views_prior of jsd sees one view at a time, expected"):
        build_guidance(JsdConfig(), prior, mixtures())
    with pytest.raises(StudioError, match=r"^mvdream asks one prior .* leave that out, or use jsd"):
        build_guidance(MvdreamConfig(), prior, other())
