"""Recipes over diffusion models: the image that a recipe shows, and what is refused before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from studio.cameras import orbit
from studio.errors import StudioError
from studio.priors.families import Zero123, relative_pose
from studio.priors.latent import LatentPrior
from studio.recipes.config import Recipe
from studio.recipes.load import load, preset_names
from studio.run.asked import Asked
from studio.run.build import BuiltStage, build_stages
from studio.run.build_prior import build_prior
from studio.run.optimize import optimize
from studio.run.state import initial_state
from tests.priors import models, video_models
from tests.run.test_presets import asks_one_prior

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def recipe_for(preset: str, folder: Path, *lines: str) -> Recipe:
    """A preset's first steps with a tiny model in the place of its own."""
    return load(
        preset,
        "a red cube",
        [
            f"prior.source='{folder}'",
            "stages.0.steps=2",
            "stages.0.resolution=16",
            "stages.0.scene.initial={ kind = 'ball', count = 40 }",
            *lines,
        ],
    )


def built(recipe: Recipe) -> tuple[BuiltStage, ...]:
    return build_stages(recipe, build_prior(recipe, CPU).prior)


PRESETS = {
    "sd15": "sd", "sd21": "sd", "sdxl": "sdxl", "if": "if", "pixart": "pixart", "sd3": "sd3", "flux": "flux",
    "mvdream": "mvdream",
}  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_each_familys_preset_runs_on_its_family(preset: str, tmp_path: Path) -> None:
    folder = models.FAMILIES[PRESETS[preset]](tmp_path / "model")
    small = ["prior.image_size=16"] if preset in ("sd3", "flux") else []
    recipe = recipe_for(preset, folder, *small)
    state = initial_state(recipe, CPU)
    before = state.particles[0].scene.tensors.means.detach().clone()
    assert len(list(optimize(recipe, built(recipe), state))) == 2
    assert not torch.equal(state.particles[0].scene.tensors.means, before)


BESIDE = {
    "4d-fy": ("stages.0.guidance.0.prior", "stages.1.guidance.0.prior"),
    "jointdreamer": ("stages.0.guidance.0.views_prior",),
}
"""Where a preset names MVDream beside Stable Diffusion."""
MOVING = (
    "stages.1.steps=8",
    "stages.1.resolution=16",
    "stages.1.guidance.2.instants.count=3",
    "stages.1.scene.motion.count=4",
)
"""The last stage of ``4d-fy`` in small; its video model lies beside the others."""


@pytest.mark.parametrize("preset", BESIDE)
def test_presets_of_two_models_take_steps(preset: str, tmp_path: Path) -> None:
    first, second = models.save_sd(tmp_path / "model"), models.save_mvdream(tmp_path / "views")
    lines = ["stages.0.steps=12", *(f"{place}.source='{second}'" for place in BESIDE[preset])]
    if preset == "4d-fy":
        clips = video_models.save_modelscope(tmp_path / "clips")
        lines += [*MOVING, f"stages.1.guidance.2.prior.source='{clips}'"]
    recipe = recipe_for(preset, first, *lines)
    state = initial_state(recipe, CPU)
    every = list(optimize(recipe, built(recipe), state))
    reports, moving = every[:12], every[12:]
    assert len(reports) == 12 and not any(report.warnings for report in reports)
    calls = [report.statistics["denoiser_calls"] / 4 for report in reports]
    if preset == "jointdreamer":
        assert calls == [2, 2, *10 * [4]]
    else:  # A multi-view expert asks twice, VSD three times and trains once.
        assert calls[:4] == 4 * [2] and set(calls[4:]) == {2, 4}
        assert [set(report.losses) & {"mvdream", "vsd_1"} for report in reports] == [
            {"mvdream"} if count == 2 else {"vsd_1"} for count in calls
        ]
    asked = [set(report.losses) & {"mvdream", "vsd_1", "sds_2"} for report in moving]
    assert (preset == "4d-fy") == ({"sds_2"} in asked) and all(len(experts) == 1 for experts in asked)
    for experts, report in zip(asked, moving, strict=True):
        # Beside the stage's four views, a clip of three frames from one camera.
        assert report.statistics["images"] == (7 if experts == {"sds_2"} else 4)


def test_every_preset_of_two_models_is_tried() -> None:
    assert set(BESIDE) == {preset for preset in preset_names() if not asks_one_prior(preset)}


def test_jsd_wants_whole_sets_of_views_and_a_second_prior(tmp_path: Path) -> None:
    first, second = models.save_sd(tmp_path / "model"), models.save_mvdream(tmp_path / "views")
    beside = f"stages.0.guidance.0.views_prior.source='{second}'"
    with pytest.raises(StudioError, match=r"sees 4 views of the asset at once"):
        built(recipe_for("jointdreamer", first, beside, "stages.0.cameras={ kind = 'orbit' }"))
    with pytest.raises(StudioError, match=r"^jsd asks a second prior.* names none"):
        built(recipe_for("sd21", first, "stages.0.guidance.0.method={ kind = 'jsd' }"))
    with pytest.raises(StudioError, match=r"^The views_prior of jsd sees one view at a time"):
        built(recipe_for("jointdreamer", first, f"stages.0.guidance.0.views_prior.source='{first}'"))
    with pytest.raises(StudioError, match=r"^sds asks one prior and its term names a views_prior too"):
        built(recipe_for("jointdreamer", first, beside, "stages.0.guidance.0.method={ kind = 'sds' }"))


def test_zero123_is_shown_the_picture_in_the_positive_branch_only(tmp_path: Path) -> None:
    folder = models.save_zero123(tmp_path / "model")
    picture = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 4, 4))
    picture.save(tmp_path / "picture.png")
    recipe = recipe_for("zero123", folder, f"prior.image='{tmp_path / 'picture.png'}'")
    (stage,) = built(recipe)
    cameras = stage.views[None].cameras(0.0, torch.Generator())
    conditioning = stage.terms[0].conditioning(cameras, torch.zeros(len(cameras), 3))
    image = conditioning.positive.image
    assert image is not None and image.shape == (len(cameras), 3, 8, 8)
    assert image[0, :, 0, 0].tolist() == [1, 1, 1]  # padded to a square with white
    assert image[0, :, 4, 0].tolist() == [1, 0, 0]
    assert image[0, :, 4, 7].tolist() == [1, 1, 1]  # transparent over white
    assert conditioning.null.image is None
    assert len(list(optimize(recipe, (stage,), initial_state(recipe, CPU)))) == 2


def filmed_discs(folder: Path, side: int) -> Float[Tensor, "t 4 h w"]:
    """Three frames of a disc that turns from red to green, written to a folder; rgba in 0-1."""
    middle = torch.arange(side) + 0.5 - side / 2
    inside = (middle[:, None] ** 2 + middle**2 < (0.35 * side) ** 2).float()
    red = torch.tensor([1.0, 0.6, 0.2])[:, None, None]
    frames = torch.stack([red, 1 - red, 0 * red, 1 + 0 * red], dim=1) * inside
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(np.uint8((255 * frame.movedim(0, -1)).round().numpy()), "RGBA").save(
            folder / f"{number}.png"
        )
    return frames


@pytest.mark.parametrize("preset", ["pla4d", "dreamgaussian4d"])
def test_a_view_is_told_the_frame_of_its_instant(preset: str, tmp_path: Path) -> None:
    """What reaches the U-Net: a frame's own latents, and CLIP's vector of it in the place of the text."""
    folder, side = models.save_zero123(tmp_path / "model"), 16
    frames = filmed_discs(tmp_path / "film", side)
    recipe = Asked(
        "a disc",
        preset,
        video=tmp_path / "film",
        overrides=(
            f"prior.source='{folder}'",
            "stages.0.scene.initial={ kind = 'ball', count = 40 }",
            *(f"stages.{stage}.steps=2" for stage in range(len(load(preset).stages))),
            *(f"stages.{stage}.resolution=16" for stage in range(len(load(preset).stages))),
        ),
    ).recipe()
    prior = build_prior(recipe, CPU).prior
    assert isinstance(prior, LatentPrior)
    told: list[tuple[Tensor, Tensor]] = []

    def watch(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        told.append((arguments[0][:, 4:], arguments[2][:, 0]))

    prior.denoiser.register_forward_pre_hook(watch)
    moving = build_stages(recipe, prior)[1]
    term = moving.terms[1]
    cameras = replace(
        orbit(torch.tensor([30.0, 90.0, 180.0, 250.0]), torch.zeros(4), side, side),
        time=torch.tensor([0.0, 0.55, 1.0, 0.1]),
    )
    conditioning = term.conditioning(cameras, torch.zeros(4, 3))
    assert conditioning.null.image is None
    term.guidance(torch.rand(4, 3, side, side), conditioning, 0.5, torch.Generator())
    shown = (frames[:, :3] + 1 - frames[:, 3:])[[0, 1, 2, 0]]  # over white
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    with torch.no_grad():
        latents = vae.encode(2 * shown - 1).latent_dist.mode()
        vectors = encoder((shown - mean) / std).image_embeds
    assert isinstance(prior.family, Zero123)
    pose = relative_pose(cameras, 0.0, 2.0)
    words = prior.family.projection(torch.cat([vectors, pose], dim=1))
    ((told_latents, told_words),) = (call for call in told if bool(call[0].any()))  # the null branch sees 0
    torch.testing.assert_close(told_latents, latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(told_words, words, atol=1e-5, rtol=1e-5)
    assert float((latents[0] - latents[2]).abs().max()) > 0.05
    at_rest = term.conditioning(replace(cameras, time=None), torch.zeros(4, 3)).positive.image
    assert at_rest is not None
    torch.testing.assert_close(at_rest, shown[:1].expand(4, -1, -1, -1))


def test_zero123_wants_a_picture(tmp_path: Path) -> None:
    recipe = recipe_for("zero123", models.save_zero123(tmp_path / "model"))
    with pytest.raises(StudioError, match=r"reference image and the recipe has none; expected --image"):
        built(recipe)
    recipe = recipe_for("zero123", tmp_path / "model", "prior.image='nowhere.png'")
    with pytest.raises(StudioError, match=r"prior.image is nowhere.png, expected a picture"):
        built(recipe)


def test_mvdream_wants_whole_sets_of_views(tmp_path: Path) -> None:
    folder = models.save_mvdream(tmp_path / "model")
    for cameras in ("{ kind = 'orbit' }", "{ kind = 'multi_view', views = 3 }"):
        recipe = recipe_for("mvdream", folder, f"stages.0.cameras={cameras}")
        with pytest.raises(StudioError, match=r"sees 4 views of the asset at once .* views = 4"):
            built(recipe)


def test_flux_refuses_guidance_of_the_outside(tmp_path: Path) -> None:
    folder = models.save_flux(tmp_path / "model")
    recipe = recipe_for("flux", folder, "prior.image_size=16", "stages.0.guidance.0.method.cfg_scale=7.5")
    with pytest.raises(StudioError, match=r"a guidance-distilled model has none"):
        built(recipe)
