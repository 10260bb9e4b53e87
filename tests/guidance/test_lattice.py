"""Methods are special cases of one another. Each row says which, and by what factor.

To add a method, add the rows that its paper promises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from studio.guidance.methods import method_of
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.recipes.guidance import (
    AsdConfig,
    BridgeConfig,
    CfdConfig,
    CsdConfig,
    CsmConfig,
    GradientConfig,
    GuidanceConfig,
    HifaConfig,
    InvertedNoise,
    IsmConfig,
    JsdConfig,
    MvdreamConfig,
    NfsdConfig,
    RandomNoise,
    RefinedNoise,
    RfdsConfig,
    SdiConfig,
    SdsConfig,
    SjcConfig,
    TsmConfig,
    UcmConfig,
    VpcsmConfig,
    WeightName,
)
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    conditioning_of,
    images,
    mixtures,
    random_mixture,
    run,
)

SCALE = 7.5
X, NOISE = images(1, 11), images(1, 12)


@dataclass(frozen=True)
class Identity:
    """``special`` equals ``factor`` times ``general`` when the negative prompt is the named distribution."""

    name: str
    special: GuidanceConfig
    general: GuidanceConfig
    factor: float = 1.0
    negative: str = "neg"
    timestep: float = 600.0
    progress: float = 0.8
    prior: Callable[[], AnalyticPrior] = mixtures


def sds(weight: WeightName = "sigma2") -> SdsConfig:
    return SdsConfig(cfg_scale=SCALE, weight=weight)


def csd(positive: float, null: float, noise: float = 0.0) -> CsdConfig:
    return CsdConfig(positive=positive, null=null, negative=0.0, noise_coefficient=noise, weight="sigma2")


def knowing_the_image() -> AnalyticPrior:
    """A negative prompt that is exactly the rendered image predicts exactly the noise."""
    known = GaussianMixture.particles(X)
    return AnalyticPrior({"": random_mixture(0), "c": random_mixture(1), "known": known}, STABLE_DIFFUSION)


LATTICE = [
    Identity("CSD(w, 1 - w, -1) = SDS", csd(SCALE, 1 - SCALE, -1.0), sds()),
    Identity("SJC with variance reduction = uniform SDS", SjcConfig(cfg_scale=SCALE), sds("uniform")),
    Identity(
        "SJC as it is = SDS plus the noise",
        SjcConfig(cfg_scale=SCALE, variance_reduction=False, weight="sigma2"),
        csd(SCALE, 1 - SCALE),
    ),
    Identity("NFSD(negative = noise) = SDS", NfsdConfig(), sds(), negative="known", prior=knowing_the_image),
    Identity("NFSD(negative = null) = w CSD", NfsdConfig(), csd(1.0, -1.0), factor=SCALE, negative=""),
    Identity("NFSD at low noise = guided score", NfsdConfig(), csd(SCALE, 1 - SCALE), timestep=150.0),
    Identity("Bridge(source = null) = w CSD", BridgeConfig(cfg_scale=SCALE), csd(1.0, -1.0), SCALE, ""),
    Identity("Bridge before its switch = SDS", BridgeConfig(cfg_scale=SCALE), sds(), progress=0.2),
    Identity("HiFA = SDS(sigma/alpha)", HifaConfig(cfg_scale=SCALE), sds("sigma_over_alpha"), 0.05),
    Identity(
        "HiFA(noise match) = uniform SDS",
        HifaConfig(cfg_scale=SCALE, weight="noise_match"),
        sds("uniform"),
        0.05,
    ),
    Identity("HiFA(alpha sigma) = SDS", HifaConfig(cfg_scale=SCALE, weight="alpha_sigma"), sds(), 0.05),
    Identity(
        "HiFA(alpha²/sigma) = SDS(alpha)",
        HifaConfig(cfg_scale=SCALE, weight="alpha2_over_sigma"),
        sds("alpha"),
        0.05,
    ),
    Identity("TSM(gamma = 1) = ISM", TsmConfig(gamma=1.0), IsmConfig()),
    Identity("TSM(gamma = 0) = w CSM", TsmConfig(gamma=0.0), CsmConfig(), factor=SCALE),
    Identity("ISM(gap = 0) = w CSM(gap = 0)", IsmConfig(gap=0.0), CsmConfig(gap=0.0), factor=SCALE),
    Identity(
        "CSM(random noise) = CSD(sigma/alpha)",
        CsmConfig(noise=RandomNoise()),
        CsdConfig(positive=1.0, null=-1.0, negative=0.0, weight="sigma_over_alpha"),
    ),
    Identity(
        "CSM(gap = 0) = CSD under inverted noise",
        CsmConfig(gap=0.0, weight="uniform"),
        CsdConfig(positive=1.0, null=-1.0, negative=0.0, noise=InvertedNoise()),
    ),
    Identity("VPCSM(no image) = CSM", VpcsmConfig(image_scale=4.0), CsmConfig()),
    Identity(
        "SDI(random noise) = SDS(sigma/alpha)",
        SdiConfig(noise=RandomNoise(), jitter=0.0),
        sds("sigma_over_alpha"),
    ),
    Identity(
        "SDI = SDS(sigma/alpha) under its noise",
        SdiConfig(jitter=0.0, noise=InvertedNoise(stride=0.1, cfg_scale=-SCALE)),
        SdsConfig(
            cfg_scale=SCALE,
            weight="sigma_over_alpha",
            noise=InvertedNoise(stride=0.1, cfg_scale=-SCALE),
        ),
    ),
    Identity("ASD(rate = 0) = (w - 1) CSD", AsdConfig(shift_rate=0.0), csd(1.0, -1.0), factor=SCALE - 1.0),
    Identity(
        "MVDream(no rescaling) = SDS(sigma/alpha)",
        MvdreamConfig(cfg_scale=SCALE, gradient=GradientConfig()),
        sds("sigma_over_alpha"),
    ),
    Identity("JSD(no energy) = SDS", JsdConfig(cfg_scale=SCALE, energy_scale=0.0), sds()),
    Identity("RFDS = SDS(1/alpha)", RfdsConfig(cfg_scale=SCALE), sds("inverse_alpha")),
    Identity(
        "RFDS-Rev = SDS(1/alpha) under refined noise",
        RfdsConfig(cfg_scale=SCALE, noise=RefinedNoise()),
        SdsConfig(cfg_scale=SCALE, noise=RefinedNoise(), weight="inverse_alpha"),
    ),
    Identity("UCM before its switch = RFDS", UcmConfig(switch_at=0.9), RfdsConfig(cfg_scale=60.0)),
    Identity("CFD(random noise) = SDS(sigma/alpha)", CfdConfig(cfg_scale=SCALE), sds("sigma_over_alpha")),
]


def gradient(config: GuidanceConfig, row: Identity) -> Tensor:
    prior = row.prior()
    conditioning = conditioning_of(prior, negatives=[row.negative])
    return run(method_of(config), prior, conditioning, X, row.timestep, NOISE, row.progress).gradient


@pytest.mark.parametrize("row", LATTICE, ids=lambda row: row.name)
def test_special_cases(row: Identity) -> None:
    special, general = gradient(row.special, row), gradient(row.general, row)
    assert general.norm() > 0.1
    torch.testing.assert_close(special, row.factor * general, atol=1e-9, rtol=1e-9)
