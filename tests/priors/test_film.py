"""Videos that priors make: of clips, beside diffusers' own pipeline; of known motions, beside their rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
from transformers import CLIPTextModel

from studio.errors import StudioError
from studio.priors.catalogue import Catalogue
from studio.priors.film import film_of_motion, film_of_prompt
from studio.priors.library import LibraryPrior
from studio.priors.motions import motion_named
from studio.priors.video import VideoOptions, load_video_prior
from studio.video import read_footage
from tests.conftest import Said
from tests.priors.test_families import tokenizer
from tests.priors.video_models import save_ltx, save_modelscope, save_wan

FRAMES, STEPS, SCALE = 5, 4, 3.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def test_a_clip_is_the_one_that_diffusers_draws(tmp_path: Path) -> None:
    folder = save_modelscope(tmp_path / "model")
    prior = load_video_prior(folder, VideoOptions(pictures=FRAMES))
    rng = torch.Generator().manual_seed(1)
    told: list[tuple[int, int]] = []
    drawn = film_of_prompt(prior, ("a horse", "a dog"), STEPS, SCALE, rng, lambda *at: told.append(at))
    noise = torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    pipeline = TextToVideoSDPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=tokenizer(folder),
        unet=UNet3DConditionModel.from_pretrained(folder / "unet"),
        scheduler=DDIMScheduler.from_pretrained(
            folder / "scheduler", timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a horse", negative_prompt="a dog", num_frames=FRAMES, num_inference_steps=STEPS,
        guidance_scale=SCALE, latents=noise.movedim(0, 1)[None], height=drawn.shape[2], width=drawn.shape[3],
        output_type="pt",
    ).frames[0]  # fmt: skip
    torch.testing.assert_close(drawn, theirs, atol=1e-4, rtol=0)
    assert float(drawn.std()) > 0.01
    assert told == [(step, STEPS) for step in range(1, STEPS + 1)]


@pytest.mark.parametrize("save", [save_wan, save_ltx])
def test_flows_lead_from_noise_to_a_clip(save: Callable[[Path], Path], tmp_path: Path) -> None:
    prior = load_video_prior(save(tmp_path / "model"), VideoOptions(pictures=FRAMES, image_size=16))
    drawn = film_of_prompt(prior, ("a horse", ""), STEPS, 1.0, torch.Generator().manual_seed(1))
    assert drawn.shape == (FRAMES, 3, 16, 16)
    assert bool(drawn.isfinite().all()) and float(drawn.std()) > 0.001


def test_a_known_motion_is_filmed_from_the_front(models: Path) -> None:
    prior = LibraryPrior(Catalogue.from_folder(models), motions=[motion_named("bend")])
    film = film_of_motion(prior, "a red cube", 5, 24)
    assert film.shape == (5, 3, 24, 24) and float(film.min()) >= 0 and float(film.max()) <= 1
    torch.testing.assert_close(film[0], film[-1], atol=1e-3, rtol=0)  # motions end where they began
    assert float((film[1] - film[0]).abs().max()) > 0.1
    assert bool((film[:, :, 0, 0] == 1).all())
    with pytest.raises(StudioError, match="has nothing for the prompt"):
        film_of_motion(prior, "a horse", 5, 24)


def test_the_command_writes_what_generate_follows(
    studio_command: Callable[..., Said], models: Path, tmp_path: Path
) -> None:
    said = studio_command(
        "prior", "film", "a red cube", tmp_path / "cube.mp4", "--prior", models, "--motion", "sway",
        "--frames", "6", "--size", "32",
    )  # fmt: skip
    assert said.code == 0 and said.out.split() == [str(tmp_path / "cube.mp4")]
    footage = read_footage(tmp_path / "cube.mp4")
    assert footage.rgb.shape == (6, 3, 32, 32) and footage.frames_per_second == pytest.approx(8)
    for more, says in (
        (("x.gif",), "x.gif has the suffix '.gif'; expected .mp4."),
        (("x.mp4", "--frames", "1"), "--frames is 1; expected at least 2."),
        (("x.mp4", "--prior", "small"), "small knows no motion; expected library, a folder"),
    ):
        said = studio_command("prior", "film", "a red cube", *more)
        assert said.code == 2 and says in said.err
