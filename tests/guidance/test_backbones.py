"""Every method on every family: two optimisation steps, or a refusal with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from studio.errors import StudioError
from studio.guidance.methods import build_guidance, method_of
from studio.guidance.refusals import asked_branches
from studio.guidance.state import Branch
from studio.recipes.guidance import (
    GuidanceConfig,
    InvertedNoise,
    IsmConfig,
    SdsConfig,
    TsmConfig,
    UniformTimes,
)
from studio.schedule import NoiseSchedule
from tests.guidance.matrix import METHODS, Outcome, load_family, row, two_steps
from tests.priors.models import FAMILIES

# A distilled model has no unconditional branch; at guidance scale 1 SDS does not ask for it.
DISTILLED = "a guidance-distilled model has none: its guidance is inside"
WORDLESS = "this prior reads no words"
SCHEDULE = NoiseSchedule.scaled_linear()
NO_FREE_CAMERA = "a multi-view prior has no camera-free branch"
NO_CRITIC = "trains a critic of single pictures, and this prior sees clips"
NO_PICTURE = "follows single pictures, and this prior sees clips"
OTHER_AUTOENCODER = "expected two models with one autoencoder"
OTHER_CHANNELS = ("small", "if")
"""Their denoisers see other than the four channels of the tiny MVDream."""

OF_CLIPS = ("modelscope",)
"""One that denoises clips stands for all: they differ in what they are told."""


def assert_as_expected(name: str, row: Mapping[str, Outcome]) -> None:
    """Each method runs, or is refused for what the family is and what the paper's formula holds."""
    assert row.keys() == METHODS.keys()
    for kind, outcome in row.items():
        method = method_of(METHODS[kind]())
        branches = asked_branches(method, SCHEDULE)
        if name == "flux" and Branch.NULL in branches:
            reason: str | None = DISTILLED
        elif name in OF_CLIPS and method.critic is not None:
            reason = NO_CRITIC
        elif name in OF_CLIPS and method.as_pixels:
            reason = NO_PICTURE
        elif name == "mvdream" and Branch.CRITIC_NULL in branches:
            reason = NO_FREE_CAMERA
        elif name == "zero123" and (method.negatives or kind == "lods"):
            reason = WORDLESS
        elif kind == "jsd" and name in OTHER_CHANNELS:
            reason = OTHER_AUTOENCODER
        else:
            reason = None
        if reason is None:
            assert outcome.refused is None, (name, kind, outcome.refused)
            assert outcome.finite, (name, kind)
            assert outcome.moved > 0.05, (name, kind)
        else:
            assert outcome.refused is not None, (name, kind)
            assert reason in outcome.refused and "\n" not in outcome.refused


@pytest.mark.filterwarnings("ignore:the model reads 14 tokens")
@pytest.mark.parametrize("name", [*FAMILIES, *OF_CLIPS])
def test_two_steps_or_a_reason(name: str, tmp_path: Path) -> None:
    assert_as_expected(name, row(name, tmp_path))


def test_the_matrix_has_every_method() -> None:
    assert len(METHODS) == len(get_args(get_args(GuidanceConfig)[0])) >= 17


@pytest.mark.parametrize("kind", ["sds", "csd", "nfsd", "bsd", "ism", "tsm", "csm", "vsd", "bridge"])
def test_methods_of_the_classifier_term_need_the_unconditional_branch(kind: str) -> None:
    """By the formulas of the papers, not by what the code asks: each holds e_c - e_null."""
    assert Branch.NULL in asked_branches(method_of(METHODS[kind]()), SCHEDULE)


def test_a_distilled_model_serves_sds_without_guidance_of_its_own(tmp_path: Path) -> None:
    flux = load_family("flux", tmp_path)
    assert two_steps(SdsConfig(cfg_scale=1.0), flux).moved > 0.05
    with pytest.raises(StudioError, match=DISTILLED):
        build_guidance(SdsConfig(cfg_scale=1.5), flux)


def test_a_distilled_model_serves_ism_along_its_own_ode(tmp_path: Path) -> None:
    """With both scales 1 nothing but the prompt is asked: e_c(t) - e_c(s)."""
    flux = load_family("flux", tmp_path)
    along = InvertedNoise(cfg_scale=1.0)
    config = IsmConfig(cfg_scale=1.0, noise=along)
    assert asked_branches(method_of(config), flux.schedule) == {Branch.POSITIVE}
    assert two_steps(config, flux).moved > 0.05
    advice = DISTILLED + r".* or ism with cfg_scale = 1 and noise.cfg_scale = 1"
    for other in (IsmConfig(cfg_scale=2.0, noise=along), IsmConfig(cfg_scale=1.0), TsmConfig(cfg_scale=1.0)):
        with pytest.raises(StudioError, match=advice):
            build_guidance(other, flux)


@pytest.mark.parametrize(
    ("kind", "t_min", "t_max"), [("lods", 0.0, 1e-3), ("sim", 0.999, 1.0), ("jsd", 0.999, 1.0)]
)
def test_float16_has_room_at_the_ends_of_the_schedule(
    tmp_path: Path, kind: str, t_min: float, t_max: float
) -> None:
    """Gradients of 1e-11 and of 1e7 on the latents reach the pictures."""
    config = replace(METHODS[kind](), times=UniformTimes(t_min=t_min, t_max=t_max))
    prior = load_family("sd3", tmp_path, dtype=torch.float16)
    outcome = two_steps(
        config, prior, views_prior=load_family("mvdream", tmp_path / "views", dtype=torch.float16)
    )
    assert outcome.finite and outcome.moved > 0.05


def test_a_critic_leaves_the_teacher_as_it_is(tmp_path: Path) -> None:
    """Bit for bit, on a transformer too."""
    prior = load_family("sd3", tmp_path)
    before = {key: value.clone() for key, value in prior.denoiser.state_dict().items()}
    two_steps(METHODS["vsd"](), prior)
    assert all(torch.equal(before[key], value) for key, value in prior.denoiser.state_dict().items())
