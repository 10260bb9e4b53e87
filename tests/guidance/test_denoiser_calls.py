"""How often each method asks: what it says beforehand, what it reports, and what the prior counts.

A new method joins by one line in ``CALLS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from studio.guidance.methods import build_guidance, method_of
from studio.guidance.ratio import RatioHead
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.second import SecondPrior
from studio.recipes.guidance import (
    AsdConfig,
    BridgeConfig,
    BsdConfig,
    CdsConfig,
    CfdConfig,
    CsdConfig,
    CsmConfig,
    DisbackConfig,
    Dmd2Config,
    EsdConfig,
    FDistillConfig,
    GuidanceConfig,
    HifaConfig,
    IesdConfig,
    IsdConfig,
    IsmConfig,
    JsdConfig,
    LodsConfig,
    MvdreamConfig,
    NfsdConfig,
    PgSbConfig,
    RandomNoise,
    RefineConfig,
    RefinedNoise,
    RfdsConfig,
    ScoresConfig,
    SdiConfig,
    SdsConfig,
    SecondPriorConfig,
    SfdConfig,
    SidConfig,
    SimConfig,
    SjcConfig,
    SweepTimes,
    TdmConfig,
    TsmConfig,
    UcmConfig,
    VpcsmConfig,
    VsdConfig,
)
from studio.types import Condition, Conditioning
from tests.guidance.bench import (
    CountingPrior,
    conditioning_of,
    images,
    mixtures,
    random_mixture,
    with_wrong_views,
)
from tests.guidance.critics import GivenCritic, knowing

PROGRESS = [0.0, 0.25, 0.75]
WEIGHTS = torch.tensor([[-0.2, -1.1, -0.7], [-1.6, 0.0, -0.4]])
HALF, QUARTER = SweepTimes(start=0.5, end=0.5), SweepTimes(start=0.25, end=0.25)

CALLS: list[tuple[str, GuidanceConfig, tuple[int, int, int]]] = [
    ("sds", SdsConfig(), (2, 2, 2)),
    ("sds, scale 1", SdsConfig(cfg_scale=1.0), (1, 1, 1)),
    ("sds, scale 0", SdsConfig(cfg_scale=0.0), (1, 1, 1)),
    ("sjc", SjcConfig(), (2, 2, 2)),
    ("csd", CsdConfig(), (2, 3, 2)),
    ("nfsd", NfsdConfig(), (3, 3, 3)),
    ("bridge", BridgeConfig(), (2, 2, 2)),
    ("hifa", HifaConfig(), (2, 2, 2)),
    ("vsd", VsdConfig(), (3, 3, 3)),
    ("esd", EsdConfig(), (4, 4, 4)),
    ("lods", LodsConfig(), (2, 2, 2)),
    ("pgsb", PgSbConfig(), (4, 4, 4)),
    ("dmd2", Dmd2Config(), (3, 3, 3)),
    ("f_distill", FDistillConfig(), (3, 3, 3)),
    ("tdm", TdmConfig(), (3, 3, 3)),
    ("disback, its second stage", DisbackConfig(), (3, 3, 3)),
    ("sid", SidConfig(), (2, 2, 2)),
    ("sim", SimConfig(), (2, 2, 2)),
    ("sfd", SfdConfig(), (3, 3, 3)),
    ("iesd", IesdConfig(), (3, 3, 3)),
    ("iesd, all edited", IesdConfig(edit_weight=1.0), (2, 2, 2)),
    ("isd", IsdConfig(), (3, 3, 3)),
    ("isd, with noise", IsdConfig(form="sds"), (2, 2, 2)),
    # Inversion: a stop at 0, 200, 400 and s, then the step's own; s = t - 100, falling to t - 80.
    ("ism at 500", IsmConfig(times=HALF), (5, 6, 6)),
    ("ism at 250", IsmConfig(times=QUARTER), (4, 4, 4)),
    ("tsm at 500", TsmConfig(times=HALF), (6, 7, 7)),
    ("tsm at 250", TsmConfig(times=QUARTER), (5, 5, 5)),
    ("csm at 500", CsmConfig(times=HALF), (5, 6, 6)),
    ("csm at 500, random noise", CsmConfig(times=HALF, noise=RandomNoise()), (2, 2, 2)),
    ("vpcsm at 500", VpcsmConfig(times=HALF, text_scale=2.0), (6, 7, 7)),
    ("sdi", SdiConfig(jitter=0.0), (22, 18, 12)),
    ("refine", RefineConfig(), (10, 10, 10)),
    ("refine, unguided", RefineConfig(cfg_scale=1.0, steps=3), (3, 3, 3)),
    ("cds", CdsConfig(), (4, 4, 4)),
    ("asd", AsdConfig(), (3, 3, 3)),
    ("bsd", BsdConfig(), (2, 2, 2)),
    ("mvdream", MvdreamConfig(), (2, 2, 2)),
    ("jsd", JsdConfig(), (2, 4, 4)),
    ("jsd, the second prior unguided", JsdConfig(second=SecondPriorConfig(cfg_scale=1.0)), (2, 3, 3)),
    ("rfds", RfdsConfig(), (2, 2, 2)),
    ("rfds-rev", RfdsConfig(noise=RefinedNoise()), (3, 3, 3)),
    ("ucm", UcmConfig(), (2, 2, 5)),
    ("cfd, random noise", CfdConfig(noise=RandomNoise()), (2, 2, 2)),
]
"""Predictions for each image at each of ``PROGRESS``: a critic's are included, its training is left out."""


def counting_critic(asked: list[int]) -> GivenCritic:
    exact = knowing(random_mixture(7))

    def answer(x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        asked.append(len(x_t))
        return exact.answer(x_t, timesteps, condition)

    return GivenCritic(answer)


def beside_critic(config: GuidanceConfig, prior: CountingPrior) -> ScoreDistillation:
    method = method_of(config)
    return ScoreDistillation(
        prior,
        method,
        critic=None if method.critic is None else counting_critic(prior.forward_sizes),
        ratio=None if method.ratio is None else RatioHead(method.ratio, prior.schedule),
        second=None if method.second is None else SecondPrior(method.second, prior),
    )


def told(prior: CountingPrior) -> Conditioning:
    conditioning = replace(
        conditioning_of(prior.inner, negatives=["neg"]), second=conditioning_of(prior.inner)
    )
    return with_wrong_views(conditioning, prior.inner, WEIGHTS)


def test_no_method_is_missing() -> None:
    kinds = {kind.kind for kind in get_args(get_args(GuidanceConfig)[0])}
    assert {config.kind for _, config, _ in CALLS} == kinds


@pytest.mark.parametrize(("name", "config", "calls"), CALLS, ids=[name for name, _, _ in CALLS])
def test_a_method_asks_as_often_as_its_paper(
    name: str, config: GuidanceConfig, calls: tuple[int, int, int]
) -> None:
    for progress, per_image in zip(PROGRESS, calls, strict=True):
        prior = CountingPrior(mixtures())
        guidance = beside_critic(config, prior)
        output = guidance(images(3), told(prior), progress, torch.Generator().manual_seed(3))
        assert sum(prior.forward_sizes) == output.denoiser_calls == per_image * 3
        assert guidance.denoiser_calls(3, progress) == per_image * 3


@pytest.mark.parametrize("config", [IsmConfig(), SdiConfig()], ids=lambda config: config.kind)
def test_where_levels_are_drawn_the_count_is_a_bound(config: GuidanceConfig) -> None:
    for seed in range(8):
        prior = CountingPrior(mixtures())
        guidance = beside_critic(config, prior)
        output = guidance(images(1), told(prior), 0.5, torch.Generator().manual_seed(seed))
        assert sum(prior.forward_sizes) == output.denoiser_calls <= guidance.denoiser_calls(1, 0.5)


def test_the_bound_is_reached_at_the_highest_level() -> None:
    """Half of the schedule at progress 0.5, with the inversion's end at 420."""
    prior = CountingPrior(mixtures())
    guidance = beside_critic(IsmConfig(), prior)
    output = beside_critic(IsmConfig(times=HALF), prior)(images(1), told(prior), 0.5, torch.Generator())
    assert output.denoiser_calls == guidance.denoiser_calls(1, 0.5) == 6


EXTRA: Mapping[str, int] = {"bridge": 3, "bsd": 2, "csd": 3, "asd": 2, "cds": 4, "ism": 2, "vpcsm": 2}


@pytest.mark.parametrize(
    "config",
    [
        SdsConfig(),
        SjcConfig(),
        CsdConfig(),
        NfsdConfig(),
        BridgeConfig(),
        HifaConfig(),
        AsdConfig(),
        BsdConfig(),
        CdsConfig(),
        IsmConfig(times=HALF),
        VpcsmConfig(times=HALF),
    ],
    ids=lambda config: config.kind,
)
def test_perp_neg_adds_its_wrong_views_to_the_count(config: GuidanceConfig) -> None:
    """Two wrong views for each steered level, and the unconditional branch where it was not wanted before."""
    prior = CountingPrior(mixtures())
    guidance = build_guidance(replace(config, scores=ScoresConfig(perp_neg=1.0)), prior)
    output = guidance(images(3), told(prior), 0.75, torch.Generator().manual_seed(3))
    plain = build_guidance(config, prior)
    assert isinstance(guidance, ScoreDistillation) and isinstance(plain, ScoreDistillation)
    assert sum(prior.forward_sizes) == output.denoiser_calls == guidance.denoiser_calls(3, 0.75)
    assert output.denoiser_calls == plain.denoiser_calls(3, 0.75) + 3 * EXTRA.get(config.kind, 2)


def test_chunks_change_the_passes_and_nothing_else() -> None:
    whole, parts = CountingPrior(mixtures()), CountingPrior(mixtures())
    gradients = [
        build_guidance(SdsConfig(scores=ScoresConfig(perp_neg=1.0, terms_per_forward=size)), prior)(
            images(3), told(prior), 0.0, torch.Generator().manual_seed(3)
        ).gradient
        for prior, size in ((whole, None), (parts, 1))
    ]
    assert (whole.forward_sizes, parts.forward_sizes) == ([12], [3, 3, 3, 3])
    torch.testing.assert_close(*gradients)
