"""What critics learn, and that all of it can be saved: nothing here is exact but the truth it is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from studio.cameras import orbit
from studio.errors import StudioError
from studio.guidance.critic import Critic, FittedCritic, TrainedCritic, build_critic
from studio.guidance.denoiser import SmallDenoiser
from studio.guidance.disback import Disback, teacher_at
from studio.guidance.methods import build_guidance
from studio.guidance.ratio import RatioHead
from studio.interfaces import Guidance, TrainableNetwork, TunablePrior
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.recipes.guidance import (
    DisbackConfig,
    Dmd2Config,
    EsdConfig,
    FDistillConfig,
    FittedCriticConfig,
    GuidanceConfig,
    LodsConfig,
    PgSbConfig,
    RatioHeadConfig,
    SfdConfig,
    SidConfig,
    SimConfig,
    TdmConfig,
    TrainedCriticConfig,
    VsdConfig,
)
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Cameras, Condition, Conditioning
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    CountingPrior,
    conditioning_of,
    constant,
    gaussian,
    images,
    mixtures,
    two_gaussians,
)
from tests.guidance.critics import told_cameras

CONDITION = Condition(two_gaussians().encode_prompts(["c"]))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def few_levels() -> NoiseSchedule:
    """Six of Stable Diffusion's levels."""
    return NoiseSchedule("vp", STABLE_DIFFUSION.log_snr[[50, 200, 400, 600, 800, 950]])


@dataclass
class Linear:
    """``a[t] x_t + b[t]``; remembers how it was asked."""

    levels: int
    slopes: nn.Parameter = field(init=False)
    offsets: nn.Parameter = field(init=False)
    asked: list[tuple[Tensor, Tensor, Condition]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slopes = nn.Parameter(torch.ones(self.levels, dtype=torch.float64))
        self.offsets = nn.Parameter(torch.zeros(self.levels, dtype=torch.float64))

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return {"slopes": self.slopes, "offsets": self.offsets}

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        self.asked.append((x_t.detach(), timesteps, condition))
        slopes, offsets = (each[timesteps.long()] for each in (self.slopes, self.offsets))
        return slopes[:, None, None, None] * x_t + offsets[:, None, None, None]


def linear_critic(config: TrainedCriticConfig, schedule: NoiseSchedule) -> tuple[TrainedCritic, Linear]:
    network = Linear(len(schedule))
    return TrainedCritic(config, network, schedule), network


@pytest.mark.parametrize("target", ["epsilon", "v", "x0"])
def test_a_trained_critic_finds_the_score_of_a_gaussian(target: str) -> None:
    """sigma (x_t - alpha m)/v within 2 %, whatever its error is measured in."""
    schedule, (mean, std) = few_levels(), (0.6, 0.4)
    config = TrainedCriticConfig(target=target, learning_rate=0.02, updates=100)  # type: ignore[arg-type]
    critic, network = linear_critic(config, schedule)
    conditioning = conditioning_of(two_gaussians())
    for number in range(4):
        critic.learn(mean + std * images(400, number), conditioning, seeded())
        critic._learner._optimizer.param_groups[0]["lr"] *= 0.4
    alpha, sigma = (level.flatten() for level in schedule.alpha_sigma(torch.arange(6.0), torch.float64))
    v = alpha**2 * std**2 + sigma**2
    torch.testing.assert_close(network.slopes.detach(), sigma / v, atol=0, rtol=0.02)
    torch.testing.assert_close(network.offsets.detach(), -sigma * alpha * mean / v, atol=0.01, rtol=0.02)


@pytest.mark.parametrize("target", [Prediction.EPSILON, Prediction.V, Prediction.X0])
def test_the_critics_error_is_measured_in_its_target(target: Prediction) -> None:
    names = {Prediction.EPSILON: "epsilon", Prediction.V: "v", Prediction.X0: "x0"}
    critic, network = linear_critic(TrainedCriticConfig(target=names[target]), STABLE_DIFFUSION)  # type: ignore[arg-type]
    clean = images(2)
    loss = critic.learn(clean, conditioning_of(two_gaussians()), seeded())["critic_loss"]
    x_t, timesteps, _ = network.asked[0]
    alpha, sigma = STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64)
    noise = (x_t - alpha * clean) / sigma
    said, true = (
        STABLE_DIFFUSION.output_from_noise(each, x_t, timesteps, target) for each in (x_t, noise)
    )  # the network's first answer is x_t itself
    assert loss == pytest.approx((said - true).square().mean().item(), rel=1e-6)


def test_errors_can_be_weighed_by_a_capped_signal_to_noise_ratio() -> None:
    config = TrainedCriticConfig(target="x0", snr_cap=5.0)
    critic, network = linear_critic(config, STABLE_DIFFUSION)
    clean = images(2)
    loss = critic.learn(clean, conditioning_of(two_gaussians()), seeded())["critic_loss"]
    x_t, timesteps, _ = network.asked[0]
    alpha, sigma = STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64)
    error = (x_t - (x_t - alpha * clean) / sigma) * sigma / alpha
    snr = (alpha / sigma) ** 2
    assert loss == pytest.approx((snr.clamp(max=5.0) * error**2).mean().item(), rel=1e-6)


def test_critics_draw_all_levels_whatever_the_scene_is_guided_at() -> None:
    critic, network = linear_critic(TrainedCriticConfig(updates=20), STABLE_DIFFUSION)
    rng = seeded(7)
    before = rng.get_state()
    critic.learn(images(1).expand(1000, -1, -1, -1), conditioning_of(two_gaussians()), rng)
    assert torch.equal(rng.get_state(), before)  # The scene's own draws do not depend on its critic's.
    drawn = torch.cat([timesteps for _, timesteps, _ in network.asked])
    counts = torch.bincount((drawn / 50).long(), minlength=20).double()
    assert len(counts) == 20
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # The 99.9 % quantile for 19 degrees of freedom.
    first = [x_t[0] for x_t, _, _ in network.asked]
    assert not torch.equal(first[0], first[1])


def test_cameras_and_prompts_are_dropped_as_often_as_told() -> None:
    config = TrainedCriticConfig(updates=100, camera_drop=0.1, prompt_drop=0.3)
    critic, network = linear_critic(config, STABLE_DIFFUSION)
    conditioning = told_cameras(conditioning_of(two_gaussians()), 1)
    for _ in range(10):
        critic.learn(images(1), conditioning, seeded())
    conditions = [condition for _, _, condition in network.asked]
    without_camera = sum(condition.cameras is None for condition in conditions)
    without_prompt = sum(float(condition.prompt.tokens[0, 0, 0]) == 0 for condition in conditions)
    assert abs(without_camera - 100) < 3.3 * 90**0.5
    assert abs(without_prompt - 300) < 3.3 * 210**0.5


def test_a_loss_that_is_not_finite_teaches_nothing() -> None:
    critic, network = linear_critic(TrainedCriticConfig(), STABLE_DIFFUSION)
    clean = images(2)
    clean[0, 0, 0, 0] = torch.nan
    critic.learn(clean, conditioning_of(two_gaussians()), seeded())
    assert bool((network.slopes == 1).all()) and bool((network.offsets == 0).all())


def test_the_fitted_gaussian_is_exact() -> None:
    x, x_t, timesteps = images(6), images(2, 1), torch.tensor([100.0, 700.0])
    critic = FittedCritic(STABLE_DIFFUSION, "gaussian")
    critic.learn(x, conditioning_of(two_gaussians()), seeded())
    got = critic.predict_noise(x_t, timesteps, CONDITION)
    alpha, sigma = STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64)
    for place in ((0, 0, 0), (2, 3, 1)):
        values = x[(slice(None), *place)]
        one = GaussianMixture.gaussian(values.mean().view(1, 1, 1), float(values.std(unbiased=False)))
        number = x_t[(slice(None), *place)].view(2, 1, 1, 1)
        torch.testing.assert_close(got[(slice(None), *place)], one.noise(number, alpha, sigma).flatten())


# The small denoiser


def views(count: int) -> Cameras:
    return orbit(torch.arange(count) * 360.0 / count, torch.zeros(count), 16, 16)


def test_the_small_denoiser_begins_as_a_gaussian() -> None:
    network = SmallDenoiser(STABLE_DIFFUSION, seeded())
    x_t, timesteps = torch.randn(3, 3, 16, 16, generator=seeded()), torch.tensor([10.0, 500.0, 990.0])
    truth = GaussianMixture.gaussian(torch.zeros(3, 16, 16), 0.5)
    expected = truth.noise(x_t, *STABLE_DIFFUSION.alpha_sigma(timesteps))
    got = network.predict_noise(x_t, timesteps, replace(CONDITION, cameras=views(3)))
    torch.testing.assert_close(got, expected, atol=2e-2, rtol=2e-2)  # Its last layer has a bias.
    assert isinstance(network, TrainableNetwork)


def test_the_small_denoiser_learns_what_each_camera_sees() -> None:
    """Four pictures, one a camera; asked at much noise, where only the camera tells which it is."""
    pictures = torch.rand(4, 3, 1, 1, generator=seeded(1)).expand(-1, -1, 16, 16) * 2 - 1
    conditioning = Conditioning(CONDITION, CONDITION, plain=replace(CONDITION, cameras=views(4)))
    config = TrainedCriticConfig(learning_rate=3e-3, updates=50)
    critic = TrainedCritic(config, SmallDenoiser(STABLE_DIFFUSION, seeded()), STABLE_DIFFUSION)
    losses = [critic.learn(pictures, conditioning, seeded())["critic_loss"] for _ in range(4)]
    assert losses[-1] < 0.6 * losses[0]
    timesteps = torch.full((4,), 900.0)
    x_t = STABLE_DIFFUSION.add_noise(pictures, torch.randn(pictures.shape, generator=seeded(2)), timesteps)

    def seen(cameras: Cameras) -> Tensor:
        noise = critic.predict_noise(x_t, timesteps, replace(CONDITION, cameras=cameras))
        return STABLE_DIFFUSION.clean_from_noise(x_t, noise, timesteps)

    own = (seen(views(4)) - pictures).abs().mean()
    others = (seen(views(4)[[1, 2, 3, 0]]) - pictures).abs().mean()
    assert own < 0.5 * others


def test_the_small_denoiser_names_the_shapes_it_takes() -> None:
    network = SmallDenoiser(STABLE_DIFFUSION, seeded())
    with pytest.raises(StudioError, match=r"shape \(1, 3, 6, 8\); expected 3 channels and sides .* of 4"):
        network.predict_noise(torch.zeros(1, 3, 6, 8), torch.zeros(1), CONDITION)


def test_global_randomness_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (SmallDenoiser(STABLE_DIFFUSION, seeded(seed)) for seed in (0, 1))
    RatioHead(RatioHeadConfig(), STABLE_DIFFUSION)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [next(iter(network.parameters().values())) for network in (first, second)]
    assert not torch.equal(*weights)


def test_an_embedding_needs_a_network_to_read_it() -> None:
    with pytest.raises(StudioError, match=r"critic.rank is 0.*try critic.rank = 4"):
        build_critic(TrainedCriticConfig(rank=0), two_gaussians())


# The density ratio


def test_the_ratio_is_learned_and_bounded() -> None:
    """p = N(0.5, 0.3²), q = N(-0.5, 0.3²) in every element: images near p get a positive logarithm."""
    head = RatioHead(RatioHeadConfig(learning_rate=3e-3), STABLE_DIFFUSION)
    x, timesteps = images(4), torch.full((4,), 300.0)
    assert head(x, timesteps).abs().max() == 0
    losses = [
        head.learn(-0.5 + 0.3 * images(64, 2 * step), 0.5 + 0.3 * images(64, 2 * step + 1), seeded(step))
        for step in range(100)
    ]
    assert losses[0]["ratio_loss"] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1]["ratio_loss"] < 0.35
    alpha, _ = STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64)
    assert head(alpha * 0.5 + 0 * x, timesteps).min() > 0 > head(-alpha * 0.5 + 0 * x, timesteps).max()
    assert head(1e6 * x, timesteps).abs().max() <= 10


# DisBack


@dataclass
class Shifted:
    """A Gaussian of width 0.5 whose mean may be learned."""

    mean: nn.Parameter

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return {"mean": self.mean}

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        alpha, sigma = STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64)
        return sigma * (x_t - alpha * self.mean) / (0.25 * alpha**2 + sigma**2)


class TunableGaussian(AnalyticPrior):
    """N(1, 0.5²), told anything; a copy's mean may be learned."""

    def __init__(self) -> None:
        super().__init__({"": gaussian(1.0, 0.5), "c": gaussian(1.0, 0.5)}, STABLE_DIFFUSION)

    def tunable(self, rank: int, rng: torch.Generator) -> TrainableNetwork:
        return Shifted(nn.Parameter(torch.ones((), dtype=torch.float64)))


DEGRADATION = TrainedCriticConfig(target="epsilon", learning_rate=0.02, updates=5, rank=1)


def test_the_teachers_are_walked_backwards_to_the_true_one() -> None:
    taken = [teacher_at(progress / 1000, 0.1, 0.6, 5) for progress in range(100, 1001)]
    assert taken == sorted(taken, reverse=True)
    assert (taken[0], taken[499], taken[500], taken[-1]) == (5, 1, 0, 0)
    assert [taken.count(teacher) for teacher in range(6)] == [401, 100, 100, 100, 100, 100]


def test_disback_follows_its_teachers_to_the_prior() -> None:
    """The prior's mean is 1 and the scene starts at -1: teachers lie between, and the scene stays close."""
    prior = TunableGaussian()
    assert isinstance(prior, TunablePrior)
    config = DisbackConfig(
        cfg_scale=1.0, degrade_until=0.1, walk_until=0.6, teachers=4, degradation=DEGRADATION,
        critic=FittedCriticConfig(shape="gaussian"),
    )  # fmt: skip
    guidance = build_guidance(config, prior)
    assert isinstance(guidance, Disback) and isinstance(guidance, Guidance)
    conditioning = conditioning_of(prior)
    scene, steps = -1 + 0.5 * images(40), 200
    for step in range(20):
        output = guidance(scene, conditioning, step / steps, seeded(step))
        assert not output.gradient.any() and output.denoiser_calls == 40 * 5
    kept = [float(weights["mean"]) for weights in guidance._walk._kept]
    assert len(kept) == 4 and kept == sorted(kept, reverse=True) and kept[-1] < 0 < kept[0] < 1
    gaps = []
    for step in range(20, steps):
        output = guidance(scene, conditioning, step / steps, seeded(step))
        scene = scene - 0.3 * output.gradient
        leader = teacher_at(step / steps, 0.1, 0.6, 4)
        gaps.append(abs(float(scene.mean()) - (kept[leader - 1] if leader else 1.0)))
    longest = max(abs(one - two) for one, two in zip([1.0, *kept], [*kept, -1.0], strict=True))
    assert max(gaps) < longest + 0.05
    assert float(scene.mean()) == pytest.approx(1.0, abs=0.1)


def test_after_the_walk_disback_is_dmd() -> None:
    prior, fitted = TunableGaussian(), FittedCriticConfig(shape="gaussian")
    walking = build_guidance(DisbackConfig(critic=fitted, degradation=DEGRADATION), prior)
    plain = build_guidance(Dmd2Config(critic=fitted), prior)
    conditioning = conditioning_of(prior)
    walking(images(3), conditioning, 0.0, seeded())
    got, expected = (each(images(3), conditioning, 0.9, seeded(1)).gradient for each in (walking, plain))
    assert expected.abs().max() > 0.1
    assert torch.equal(got, expected)
    earlier = walking(images(3), conditioning, 0.3, seeded(1)).gradient
    assert not torch.equal(earlier, expected)


def test_disback_needs_a_network() -> None:
    with pytest.raises(StudioError, match=r"disback needs a prior whose network can be tuned.*'small'"):
        build_guidance(DisbackConfig(), two_gaussians())


# Whatever the method

TRAINED = TrainedCriticConfig(learning_rate=1e-3, updates=2)
FITTED = FittedCriticConfig()
CONFIGS: list[GuidanceConfig] = [
    VsdConfig(), EsdConfig(), LodsConfig(), PgSbConfig(), Dmd2Config(), FDistillConfig(), TdmConfig(),
    SidConfig(), SimConfig(), SfdConfig(),
]  # fmt: skip
CALLS = {
    "vsd": 3, "esd": 4, "lods": 2, "pgsb": 4, "dmd2": 3, "f_distill": 3, "tdm": 3, "sid": 2, "sim": 2,
    "sfd": 3,
}  # fmt: skip
"""Denoiser calls per image, beside the critic's training."""

each_method = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)


def beside(config: GuidanceConfig, critic: TrainedCriticConfig | FittedCriticConfig) -> GuidanceConfig:
    return replace(config, critic=critic)  # type: ignore[call-arg]


def branches(prior: AnalyticPrior) -> Conditioning:
    return conditioning_of(prior, negatives=["neg"])


def called(guidance: Guidance, x: Tensor, prior: AnalyticPrior, seed: int = 3) -> Tensor:
    return guidance(x, branches(prior), 0.25, seeded(seed)).gradient


@each_method
def test_denoiser_calls_are_what_prior_and_critic_count(config: GuidanceConfig) -> None:
    prior = CountingPrior(mixtures())
    asked: list[int] = []

    class Counted(FittedCritic):
        def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
            asked.append(len(x_t))
            return super().predict_noise(x_t, timesteps, condition)

    guidance = build_guidance(beside(config, FITTED), prior)
    guidance.critic = Counted(STABLE_DIFFUSION, "particles")  # type: ignore[attr-defined]
    output = guidance(images(3), branches(prior.inner), 0.25, seeded())
    assert output.denoiser_calls == guidance.denoiser_calls(3) == 3 * CALLS[config.kind]
    assert sum(prior.forward_sizes) + sum(asked) == output.denoiser_calls
    assert len(prior.forward_sizes) == len(asked) == 1
    trained = build_guidance(beside(config, TRAINED), mixtures())
    output = trained(images(3), branches(prior.inner), 0.25, seeded())
    assert output.denoiser_calls == trained.denoiser_calls(3) == 3 * (CALLS[config.kind] + 2)
    assert "critic_loss" in output.terms


@each_method
def test_the_gradient_on_the_image_is_the_direction_over_the_batch(config: GuidanceConfig) -> None:
    prior, x = mixtures(), images(3).requires_grad_()
    output = build_guidance(beside(config, TRAINED), prior)(x, branches(prior), 0.25, seeded())
    output.loss.backward()
    assert output.gradient.norm() > 1e-3 and not output.gradient.requires_grad
    torch.testing.assert_close(x.grad, output.gradient / 3, atol=0, rtol=1e-13)


@pytest.mark.parametrize("prediction", [Prediction.X0, Prediction.V, Prediction.FLOW])
@each_method
def test_what_the_network_outputs_does_not_matter(config: GuidanceConfig, prediction: Prediction) -> None:
    for schedule in (STABLE_DIFFUSION, NoiseSchedule.rectified_flow()):
        got, expected = (
            called(build_guidance(beside(config, FITTED), prior), images(3), prior)
            for prior in (mixtures(schedule, prediction), mixtures(schedule))
        )
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


@each_method
def test_a_resumed_critic_goes_on_bit_for_bit(config: GuidanceConfig) -> None:
    """Also from the empty state, which is the beginning, in a guidance that has learned something else."""
    prior = mixtures()
    make: Callable[[], Guidance] = lambda: build_guidance(beside(config, TRAINED), prior)  # noqa: E731
    whole, x = make(), images(3)
    assert not whole.state()
    expected = [called(whole, x, prior, seed) for seed in range(4)]
    half = make()
    for seed in range(2):
        called(half, x, prior, seed)
    saved = {name: tensor.clone() for name, tensor in half.state().items()}
    resumed = make()
    called(resumed, 2 * x, prior, 9)
    resumed.load_state(saved)
    assert all(torch.equal(called(resumed, x, prior, seed), expected[seed]) for seed in (2, 3))
    final = whole.state()
    assert resumed.state().keys() == final.keys()
    assert all(torch.equal(tensor, final[name]) for name, tensor in resumed.state().items())
    resumed.load_state({})
    assert all(torch.equal(called(resumed, x, prior, seed), expected[seed]) for seed in range(2))


@each_method
def test_a_half_precision_denoiser_gives_a_full_precision_gradient(config: GuidanceConfig) -> None:
    x = images(3).float()
    exact, coarse = (
        called(build_guidance(beside(config, FITTED), prior), x, prior)
        for prior in (mixtures(), mixtures(dtype=torch.float16))
    )
    assert exact.dtype == coarse.dtype == torch.float32
    assert ((coarse - exact).norm() / exact.norm()).item() < 0.05


def test_nothing_of_the_priors_graph_is_left() -> None:
    critics: list[Critic] = [FittedCritic(STABLE_DIFFUSION, "particles")]
    assert all(isinstance(critic, Critic) for critic in critics)
    prior, x = mixtures(), constant(0.5, 2).requires_grad_()
    output = build_guidance(beside(SidConfig(), TRAINED), prior)(x, branches(prior), 0.25, seeded())
    assert x.grad is None
    output.loss.backward()
    assert x.grad is not None
