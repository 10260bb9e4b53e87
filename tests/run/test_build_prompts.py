"""What recipes say of prompts: debiasing, words for views that are turned away, and identities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from studio.cameras import orbit
from studio.errors import StudioError
from studio.priors.debiasing import debiased_prompts
from studio.priors.latent import load_latent_prior
from studio.recipes.load import load
from studio.run.build import build_stages
from studio.run.build_prior import build_prior
from studio.run.optimize import optimize
from studio.run.state import initial_state
from studio.types import Cameras, Conditioning
from tests.priors import models
from tests.priors.test_debiasing import save_bert

CPU = torch.device("cpu")
SMALL = (
    "stages.0.steps=2",
    "stages.0.resolution=16",
    "stages.0.scene.initial={ kind = 'ball', count = 40 }",
)


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


def views() -> Cameras:
    return orbit(torch.tensor([0.0, 69.0, 71.0, 180.0]), torch.zeros(4), 16, 16)


def branches(folder: Path, *lines: str) -> Conditioning:
    """What the first term of a recipe tells its prior."""
    recipe = load("sd15", "a head", [f"prior.source='{folder}'", *lines])
    (stage, *_) = build_stages(recipe, build_prior(recipe, CPU).prior)
    return stage.terms[0].conditioning(views(), torch.zeros(4, 3))


def test_views_that_are_turned_away_must_not_show_a_face(tmp_path: Path) -> None:
    folder = models.save_sd(tmp_path / "model")
    null = branches(folder, "turned_negative_prompt='horse'").null.prompt.tokens
    prior = load_latent_prior(folder)
    assert torch.equal(null, prior.encode_prompts(["", "horse", "horse", "horse"]).tokens)


@pytest.mark.parametrize("nobody", [None, -1.0])
def test_an_identity_is_told_to_views_that_show_the_face(nobody: float | None, tmp_path: Path) -> None:
    """The gate at 70 degrees; the critic hears it too, and a step of identity score distillation runs."""
    folder, face = models.save_sd(tmp_path / "model"), tmp_path / "face.safetensors"
    tokens = {"identity": torch.full((3, models.TEXT), 2.0)}
    save_file(tokens if nobody is None else tokens | {"nobody": torch.full((3, models.TEXT), nobody)}, face)
    lines = [f"prior.identity='{face}'", "prior.face_within_deg=70", "stages.0.guidance.0.method.kind='isd'"]
    told = branches(folder, *lines)
    assert told.plain is not None
    blank = 0.0 if nobody is None else nobody
    for prompt in (told.positive.prompt, told.plain.prompt):
        assert prompt.tokens.shape == (4, 16 + 3, models.TEXT)
        assert prompt.tokens[:, -3:].unique(dim=1)[:, 0, 0].tolist() == [2.0, 2.0, blank, blank]
    assert told.null.prompt.tokens[:, -3:].unique().tolist() == [blank]
    recipe = load("sd15", "a head", [f"prior.source='{folder}'", *lines, *SMALL])
    state = initial_state(recipe, CPU)
    assert len(list(optimize(recipe, build_stages(recipe, build_prior(recipe, CPU).prior), state))) == 2


def test_a_recipe_looks_away_from_a_prompt(tmp_path: Path) -> None:
    """With a critic, which is a copy of the network and looks away too at first."""
    folder = models.save_sd(tmp_path / "model")
    lines = [f"prior.source='{folder}'", "stages.0.guidance.0.method.kind='vsd'", *SMALL]
    moved = []
    for scale in (0.0, 0.5):
        keys = ["prior.negative_attention='horse'", f"prior.negative_attention_scale={scale}"]
        recipe = load("sd15", "a head", [*lines, *keys])
        state = initial_state(recipe, CPU)
        assert len(list(optimize(recipe, build_stages(recipe, build_prior(recipe, CPU).prior), state))) == 2
        moved.append(state.particles[0].scene.tensors.means.detach())
    assert not torch.equal(*moved)


def test_a_method_that_wants_an_image_is_refused_without_one(tmp_path: Path) -> None:
    folder, adapter = models.save_sd(tmp_path / "model"), models.save_ip_adapter(tmp_path / "adapter")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (16, 16), "red").save(picture)
    vpcsm = "stages.0.guidance.0.method.kind='vpcsm'"
    reads, shown = f"prior.image_prompt='{adapter}'", f"prior.image='{picture}'"
    for lines in ([], [reads], [shown]):
        with pytest.raises(StudioError, match=r"vpcsm compares .* or use csm") as error:
            branches(folder, vpcsm, *lines)
        assert "\n" not in str(error.value)
    recipe = load("sd15", "a head", [f"prior.source='{folder}'", *SMALL, vpcsm, reads, shown])
    state = initial_state(recipe, CPU)
    assert len(list(optimize(recipe, build_stages(recipe, build_prior(recipe, CPU).prior), state))) == 2


def test_files_that_hold_no_identity(tmp_path: Path) -> None:
    folder, face = models.save_sd(tmp_path / "model"), tmp_path / "face.safetensors"
    for held, complaint in (
        ({"tokens": torch.zeros(3, 12)}, r"holds tokens \[3, 12\], expected 'identity'"),
        ({"identity": torch.zeros(3, 12), "nobody": torch.zeros(2, 12)}, r"nobody \[2, 12\]"),
    ):
        save_file(held, face)
        with pytest.raises(StudioError, match=complaint):
            branches(folder, f"prior.identity='{face}'")
    face.write_bytes(b"torn")
    with pytest.raises(StudioError, match="expected a safetensors file with tokens"):
        branches(folder, f"prior.identity='{face}'")
    save_file({"identity": torch.zeros(3, 5)}, face)
    with pytest.raises(StudioError, match="expected two of one length and the prompt's width 12"):
        branches(folder, f"prior.identity='{face}'")
