"""What the driver reports."""

from __future__ import annotations

import torch

from studio.guidance.methods import method_of
from studio.guidance.score_distillation import ScoreDistillation
from studio.recipes.guidance import SdsConfig, SweepTimes
from tests.guidance.bench import conditioning_of, images, mixtures


def test_the_output_names_its_timesteps() -> None:
    prior = mixtures()
    guidance = ScoreDistillation(prior, method_of(SdsConfig(times=SweepTimes(start=0.5, end=0.5))))
    output = guidance(images(3), conditioning_of(prior), 0.0, torch.Generator())
    assert output.timesteps.tolist() == [500.0] * 3
