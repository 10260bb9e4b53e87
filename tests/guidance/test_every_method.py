"""What every method promises, whatever its paper: one test body for all.

A new method joins by one line in ``METHODS``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from studio.cameras import orbit
from studio.guidance.methods import method_of
from studio.guidance.objective import Descent
from studio.guidance.ratio import RatioHead
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.second import SecondPrior
from studio.interfaces import Prior
from studio.priors.analytic import AnalyticPrior
from studio.recipes.guidance import (
    AsdConfig,
    AutomaticBalance,
    BridgeConfig,
    BsdConfig,
    CdsConfig,
    CfdConfig,
    CsdConfig,
    CsmConfig,
    DisbackConfig,
    Dmd2Config,
    DreamTimeTimes,
    EsdConfig,
    FDistillConfig,
    GradientConfig,
    GuidanceConfig,
    HifaConfig,
    IesdConfig,
    InvertedNoise,
    IsdConfig,
    IsmConfig,
    JsdConfig,
    LodsConfig,
    MvdreamConfig,
    NfsdConfig,
    PgSbConfig,
    RefineConfig,
    RefinedNoise,
    RfdsConfig,
    ScoresConfig,
    SdiConfig,
    SdsConfig,
    SfdConfig,
    SidConfig,
    SimConfig,
    SjcConfig,
    TdmConfig,
    TsmConfig,
    UcmConfig,
    VpcsmConfig,
    VsdConfig,
)
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Condition, Conditioning, GuidanceOutput
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    at,
    conditioning_of,
    images,
    mixtures,
    random_mixture,
    under,
    with_wrong_views,
)
from tests.guidance.critics import knowing

METHODS: dict[str, GuidanceConfig] = {
    "sds": SdsConfig(),
    "sds at dreamtime's levels": SdsConfig(times=DreamTimeTimes()),
    "sds under inverted noise": SdsConfig(noise=InvertedNoise()),
    "sjc": SjcConfig(),
    "csd": CsdConfig(),
    "nfsd": NfsdConfig(),
    "bridge": BridgeConfig(),
    "hifa": HifaConfig(),
    "vsd": VsdConfig(),
    "esd": EsdConfig(),
    "lods": LodsConfig(),
    "pgsb": PgSbConfig(),
    "dmd2": Dmd2Config(),
    "f_distill": FDistillConfig(),
    "tdm": TdmConfig(),
    "disback": DisbackConfig(),
    "sid": SidConfig(),
    "sim": SimConfig(),
    "sfd": SfdConfig(),
    "iesd": IesdConfig(),
    "isd": IsdConfig(),
    "ism": IsmConfig(),
    "tsm": TsmConfig(),
    "csm": CsmConfig(),
    "vpcsm": VpcsmConfig(),
    "sdi": SdiConfig(),
    "refine": RefineConfig(),
    "cds": CdsConfig(),
    "asd": AsdConfig(),
    "bsd": BsdConfig(),
    "bsd, automatic": BsdConfig(balance=AutomaticBalance()),
    "mvdream": MvdreamConfig(),
    "jsd": JsdConfig(),
    "rfds": RfdsConfig(),
    "rfds-rev": RfdsConfig(noise=RefinedNoise()),
    "ucm": UcmConfig(),
    "cfd": CfdConfig(),
}

ONE_BY_ONE: dict[str, GuidanceConfig] = METHODS | {
    # These draw for each image, or look at the batch as a whole: what is left without that.
    "sdi": SdiConfig(noise=InvertedNoise(stride=0.1, cfg_scale=-7.5)),
    "asd": AsdConfig(shift_drawn=False),
    "mvdream": MvdreamConfig(gradient=GradientConfig()),
    "jsd": JsdConfig(energy_scale=0.0),
}
WHOLE_BATCH = {"f_distill", "pgsb"}
"""f-distill's weight has mean 1 over the batch; PG-SB draws a scale for each image."""

TIMESTEPS = torch.tensor([150.0, 400.0, 900.0])
WEIGHTS = torch.tensor([[-0.2, -1.1, -0.7], [-1.6, 0.0, -0.4]])
PROGRESS = 0.6

each_method = pytest.mark.parametrize("name", METHODS)


@dataclass(frozen=True)
class Trial:
    """One guidance beside an exact critic, at a moment of the run when everything is switched on."""

    guidance: ScoreDistillation
    conditioning: Conditioning

    def __call__(self, x: Tensor, seed: int = 3) -> GuidanceOutput:
        return self.guidance(x, self.conditioning, PROGRESS, torch.Generator().manual_seed(seed))


def trial(
    config: GuidanceConfig, prior: AnalyticPrior, asked: Prior | None = None, rows: slice = slice(None)
) -> Trial:
    """What ``prior`` knows, answered by ``asked``."""
    method, schedule = method_of(config), prior.schedule
    critic = knowing(random_mixture(7), random_mixture(8), schedule) if method.critic is not None else None
    ratio = None if method.ratio is None else RatioHead(method.ratio, schedule)
    plain = conditioning_of(prior, negatives=["neg"])
    cameras = orbit(torch.tensor([0.0, 70.0, 200.0]), torch.zeros(3), 4, 4)[rows]
    told = replace(
        plain,
        positive=replace(plain.positive, cameras=cameras),
        plain=replace(plain.positive, cameras=cameras),
        second=conditioning_of(prior),
    )
    second = None if method.second is None else SecondPrior(method.second, asked or prior)
    return Trial(
        ScoreDistillation(asked or prior, method, critic=critic, ratio=ratio, second=second),
        with_wrong_views(told, prior, WEIGHTS[:, rows]),
    )


def given(one: Trial, timesteps: Tensor, noise: Tensor) -> Trial:
    """At levels and under noise by hand."""
    method = one.guidance.method
    method = replace(method, times=at(method.times, timesteps), noise=under(method.noise, noise))
    guidance = one.guidance
    parts = {"critic": guidance.critic, "ratio": guidance.ratio, "second": guidance.second}
    return replace(one, guidance=ScoreDistillation(guidance.prior, method, **parts))


def test_no_method_is_missing() -> None:
    kinds = {kind.kind for kind in get_args(get_args(GuidanceConfig)[0])}
    assert {config.kind for config in METHODS.values()} == kinds


@each_method
def test_a_half_precision_denoiser_gives_a_full_precision_gradient(name: str) -> None:
    """Differences of near-equal predictions lose bits: what matters is that they are not lost in the sums."""
    x = images(3).float()
    exact = trial(METHODS[name], mixtures())(x).gradient
    coarse = trial(METHODS[name], mixtures(dtype=torch.float16))(x).gradient
    assert exact.dtype == coarse.dtype == torch.float32
    assert ((coarse - exact).norm() / exact.norm()).item() < 0.05


@each_method
def test_half_precision_images_get_half_precision_gradients_of_full_precision_sums(name: str) -> None:
    x = images(3).half().requires_grad_()
    output = trial(METHODS[name], mixtures(dtype=torch.float16))(x)
    assert output.gradient.dtype == torch.float32
    assert bool(torch.isfinite(output.gradient).all())
    output.loss.backward()
    assert x.grad is not None and x.grad.dtype == torch.float16


@pytest.mark.parametrize("perp_neg", [0.0, 1.0])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in WHOLE_BATCH])
def test_a_batch_is_its_images_one_by_one(name: str, perp_neg: float) -> None:
    config = replace(ONE_BY_ONE[name], scores=ScoresConfig(perp_neg=perp_neg))
    x, noise = images(3), images(3, 1)
    together = given(trial(config, mixtures()), TIMESTEPS, noise)(x).gradient
    for row in range(3):
        one = slice(row, row + 1)
        alone = given(trial(config, mixtures(), rows=one), TIMESTEPS[one], noise[one])(x[one]).gradient
        torch.testing.assert_close(together[one], alone, rtol=1e-6, atol=1e-9)


@each_method
def test_the_gradient_on_the_image_is_the_direction_over_the_batch(name: str) -> None:
    x = images(3).requires_grad_()
    output = trial(METHODS[name], mixtures())(x)
    output.loss.backward()
    torch.testing.assert_close(x.grad, output.gradient / 3, atol=0, rtol=1e-14)


@pytest.mark.parametrize("schedule", [STABLE_DIFFUSION, NoiseSchedule.rectified_flow()], ids=["vp", "flow"])
@each_method
def test_what_the_network_outputs_does_not_matter(name: str, schedule: NoiseSchedule) -> None:
    x, noise = images(3), images(3, 1)
    expected, *others = (
        given(trial(METHODS[name], mixtures(schedule, prediction)), TIMESTEPS, noise)(x).gradient
        for prediction in (Prediction.EPSILON, Prediction.X0, Prediction.V, Prediction.FLOW)
    )
    assert expected.norm().item() > 1e-6
    for got in others:
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


@each_method
def test_the_generator_decides_everything(name: str) -> None:
    """The same one, the same gradient; and no other source of chance is touched."""
    elsewhere = torch.random.get_rng_state()
    first, again = (trial(METHODS[name], mixtures())(images(3)).gradient for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), elsewhere)


class Trainable(AnalyticPrior):
    """Of one parameter, which is nobody's to train."""

    gain = torch.nn.Parameter(torch.ones(()))
    saw_gradients = False

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        self.saw_gradients |= x_t.requires_grad
        return self.gain * super().predict_noise(x_t, timesteps, condition)


@each_method
def test_the_denoiser_is_not_trained(name: str) -> None:
    """And nothing flows back through it, but for methods whose direction is a gradient through it."""
    exact = mixtures()
    distributions = {
        prompt: random_mixture(seed) for seed, prompt in enumerate(["", "c", "neg", "wrong1", "wrong2"])
    }
    prior = Trainable(distributions, STABLE_DIFFUSION)
    x = images(3).requires_grad_()
    output = trial(METHODS[name], exact, asked=prior)(x)
    output.loss.backward()
    assert not output.gradient.requires_grad
    assert prior.gain.grad is None
    assert x.grad is not None
    assert prior.saw_gradients == isinstance(method_of(METHODS[name]).combine, Descent)
