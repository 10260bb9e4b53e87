"""What recipes say of prompts: debiasing, and the words for views that do not show the front."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from studio.cameras import orbit
from studio.priors.debiasing import debiased_prompts
from studio.recipes.load import load
from studio.run.build import build_prior, build_stages
from tests.priors import models
from tests.priors.test_debiasing import save_bert

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def test_a_debiased_prompt_reaches_the_prior_and_is_said(tmp_path: Path) -> None:
    folder, bert = models.save_sd(tmp_path / "model"), save_bert(tmp_path / "bert")
    prompt = "a smiling corgi with a tail"
    recipe = load("sd15", prompt, [f"prior.source='{folder}'", f"prompt_debiasing='{bert}'"])
    chosen = build_prior(recipe, CPU)
    assert chosen.reason.endswith(
        "; of the prompt, the front view is told 'a smiling corgi with a', "
        "the back view is told 'a corgi with a tail'"
    )
    (stage, *_) = build_stages(recipe, chosen.prior)
    cameras = orbit(torch.tensor([0.0, 90.0, 180.0]), torch.zeros(3), 16, 16)
    told = stage.terms[0].conditioning(cameras, torch.zeros(3, 3)).positive.prompt.tokens
    texts = list(debiased_prompts(str(bert), prompt).items())[:3]
    wanted = chosen.prior.encode_prompts([f"{text}, {direction.value}" for direction, text in texts])
    assert torch.equal(told, wanted.tokens)
    assert texts[2][1] == "a corgi with a tail"
