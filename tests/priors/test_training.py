"""The learned prior's training: its data, exact resume, export and evaluation, on two coloured shapes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from studio.cameras import orbit
from studio.errors import StudioError
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.priors.latent import load_latent_prior
from studio.priors.training.config import EvaluateConfig, ModelConfig, RenderDataConfig, TrainConfig
from studio.priors.training.data import (
    CaptionedMesh,
    TrainingViews,
    dominant_colour,
    draw_batch,
    hue_shifted,
    load_views,
    render_data,
    view_word,
)
from studio.priors.training.evaluate import DdimSampler, evaluate, tiled
from studio.priors.training.model import schedule_of, word_tokenizer
from studio.priors.training.train import Trainer, learning_rate, train
from studio.randomness import generator
from studio.schedule import NoiseSchedule
from studio.types import Cameras, Condition, Material, Mesh

TINY = ModelConfig(
    image_size=16, patch=4, channels=(32, 32), attention=(False, True), text_width=48, text_layers=1
)


def tetrahedron(stretch: tuple[float, float, float], colour: tuple[float, float, float]) -> Mesh:
    corners = (
        torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * torch.tensor(stretch) * 0.28
    )
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    return Mesh(corners, faces, materials=(Material((*colour, 1.0)),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("views")
    objects = [
        CaptionedMesh(("spike", "thorn"), tetrahedron((0.3, 1.0, 0.3), (0.9, 0.1, 0.1))),
        CaptionedMesh(("slab",), tetrahedron((1.0, 0.3, 1.0), (0.1, 0.2, 0.9))),
        CaptionedMesh(("slab",), tetrahedron((1.0, 0.2, 0.4), (0.1, 0.7, 0.1))),
    ]
    render_data(objects, RenderDataConfig(image_size=16, views=8, held_out_views=4), path)
    return path


@pytest.fixture(scope="module")
def views(folder: Path) -> TrainingViews:
    return load_views(folder)


def config(views: Path, folder: Path) -> TrainConfig:
    return TrainConfig(
        views, folder, TINY, total_images=12, batch=4, warmup_steps=2, sheet_every=0, half=False
    )


def test_render_data_round_trip(views: TrainingViews) -> None:
    assert views.names == (("spike", "thorn"), ("slab",), ("slab",))
    assert views.nouns == ("spike", "slab")
    assert views.rgba.shape == (3, 8, 4, 16, 16) and views.held_out_rgba.shape == (3, 4, 4, 16, 16)
    assert [colours[0] for colours in views.colours] == ["red", "blue", "green"]
    assert {"spike", "thorn", "slab", "red", "overhead", "view"} <= set(views.words)
    # Premultiplied: no colour is brighter than its coverage.
    assert bool((views.rgba[:, :, :3] <= views.rgba[:, :, 3:]).all())
    assert bool((views.elevation_deg >= -15).all()) and bool((views.elevation_deg <= 80).all())


def test_missing_views(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"is not a folder of training views .*studio prior render-data"):
        load_views(tmp_path)


def test_hue_shift_is_colorsys() -> None:
    rgb = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shifted = hue_shifted(rgb, torch.tensor([0.0, 0.3]))
    assert torch.equal(shifted[0], rgb[0])
    for row in range(4):
        for column in range(4):
            hue, saturation, value = colorsys.rgb_to_hsv(*rgb[1, :, row, column].tolist())
            expected = torch.tensor(colorsys.hsv_to_rgb((hue + 0.3) % 1, saturation, value))
            torch.testing.assert_close(shifted[1, :, row, column], expected)


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((0.9, 0.1, 0.1), "red"),
        ((0.1, 0.1, 0.9), "blue"),
        ((0.95, 0.95, 0.95), "white"),
        ((0.5, 0.5, 0.52), "grey"),
        ((0.05, 0.02, 0.02), "black"),
        ((0.45, 0.25, 0.1), "brown"),
        ((0.9, 0.85, 0.1), "yellow"),
        ((0.9, 0.5, 0.05), "orange"),
    ],
)
def test_colour_words(rgb: tuple[float, float, float], word: str) -> None:
    # Three pixels of it against two of green that do not count, and one that does.
    pixels = torch.tensor([rgb, rgb, rgb, (0, 1, 0), (0, 1, 0), (0, 1, 0)], dtype=torch.float32).T
    assert dominant_colour(pixels, torch.tensor([1.0, 1, 1, 0, 0, 1])) == word


def test_view_words() -> None:
    angles = (
        (0.0, 0.0), (-44.0, 0.0), (46.0, 10.0), (270.0, 0.0), (170.0, 20.0), (-170.0, 20.0), (360.0, 0.0),
    (90.0, 75.0) )  # fmt: skip
    words = [view_word(azimuth, elevation) for azimuth, elevation in angles]
    assert words == ["front", "front", "side", "side", "back", "back", "front", "overhead"]


def test_batches_say_what_they_show(views: TrainingViews) -> None:
    batch = draw_batch(views, 400, generator(0, "test"))
    assert batch.rgb.shape == (400, 3, 16, 16) and 0 <= float(batch.rgb.min()) <= float(batch.rgb.max()) <= 1
    again = draw_batch(views, 400, generator(0, "test"))
    assert torch.equal(batch.rgb, again.rgb) and batch.captions == again.captions
    share = [sum(test(caption) for caption in batch.captions) / 400 for test in (
        lambda caption: caption == "",
        lambda caption: "view" in caption,
        lambda caption: "[UNK]" in caption,
        lambda caption: "spike" in caption or "thorn" in caption,
        lambda caption: "thorn" in caption,
    )]  # fmt: skip
    expected = [0.1, 0.45, 0.09, 0.45, 0.09]
    assert all(abs(got - want) < 0.06 for got, want in zip(share, expected, strict=True))
    assert abs(float(batch.has_camera.mean()) - 0.9) < 0.06
    # A picture that is called red has red in it, whichever object it was.
    for caption, rgb in zip(batch.captions, batch.rgb, strict=True):
        if "red" in caption.split():
            assert bool((rgb[0] > rgb[2] + 0.3).any())
        if "view" in caption:
            index = batch.captions.index(caption)
            word = view_word(float(batch.azimuth_deg[index]), float(batch.elevation_deg[index]))
            assert word in caption


def test_tokenizer_knows_words_and_survives_others() -> None:
    tokenizer = word_tokenizer(("a", "red", "rubik's", "cube"))
    ids = tokenizer("A red, RUBIK'S cube").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["[BOS]", "a", "red", "rubik's", "cube", "[EOS]"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("a xylophone").input_ids)[2] == "[UNK]"


def test_learning_rate_rises_holds_and_falls() -> None:
    recipe = TrainConfig(Path(), Path(), total_images=1600, batch=16, warmup_steps=10, decay_fraction=0.5)
    rates = torch.tensor([learning_rate(recipe, step) for step in range(100)]) / recipe.learning_rate
    assert rates[0] == 0.1 and bool((rates[9:51] == 1).all())
    torch.testing.assert_close(rates[50:], 1 - torch.arange(50) / 50)


def test_resumed_training_is_uninterrupted_training(folder: Path, tmp_path: Path) -> None:
    whole = list(train(config(folder, tmp_path / "whole")))
    stopped = train(config(folder, tmp_path / "parts"))
    first = list(islice(stopped, 2))
    stopped.close()
    rest = list(train(config(folder, tmp_path / "parts")))
    assert [report.step for report in (*first, *rest)] == [1, 2, 3]
    assert [report.loss for report in whole] == [report.loss for report in (*first, *rest)]
    whole_state, parts_state = (
        load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")
    )
    assert whole_state.keys() == parts_state.keys()
    assert all(torch.equal(value, parts_state[name]) for name, value in whole_state.items())


def test_resume_refuses_another_model_and_a_torn_file(folder: Path, tmp_path: Path) -> None:
    list(train(config(folder, tmp_path)))
    other = replace(config(folder, tmp_path), model=replace(TINY, text_layers=2))
    with pytest.raises(StudioError, match="use the same model, views and seed, or another folder"):
        next(train(other))
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(StudioError, match=r"cannot be read .*delete it to train from the beginning"):
        next(train(config(folder, tmp_path)))


def test_training_starts_from_a_trained_model(folder: Path, tmp_path: Path, views: TrainingViews) -> None:
    list(train(config(folder, tmp_path / "first")))
    start = tmp_path / "first" / "model"
    trained = Trainer(config(folder, tmp_path / "first"), views)
    trained.resume()
    more = replace(views, names=(("aardvark", *views.names[0][1:]), *views.names[1:]))
    second = Trainer(replace(config(folder, tmp_path / "second"), seed=5), more)
    own = second.model.text_encoder.get_input_embeddings().weight.detach().clone()
    second.start_from(start)
    # Half precision on disk.
    torch.testing.assert_close(
        second.model.unet.conv_in.weight, trained.average.unet.conv_in.weight, rtol=1e-3, atol=1e-6
    )
    for word in ("red", "view", "aardvark"):
        got, fresh = (
            table[second.model.tokenizer.get_vocab()[word]]
            for table in (second.model.text_encoder.get_input_embeddings().weight, own)
        )
        known = trained.model.tokenizer.get_vocab().get(word)
        if known is None:
            assert word == "aardvark" and torch.equal(got, fresh)
        else:
            row = trained.average.text_encoder.get_input_embeddings().weight[known]
            torch.testing.assert_close(got, row, rtol=1e-3, atol=1e-6)
    wide = Trainer(replace(config(folder, tmp_path), model=replace(TINY, text_width=96)), views)
    with pytest.raises(StudioError, match=r"of another shape: .*48"):
        wide.start_from(start)
    with pytest.raises(StudioError, match="is not a trained model to start from"):
        wide.start_from(tmp_path)


def test_sheet_and_average(folder: Path, tmp_path: Path, views: TrainingViews) -> None:
    reports = list(train(replace(config(folder, tmp_path), sheet_every=3)))
    assert reports[-1].sheet is not None and reports[-1].sheet.stat().st_size > 0
    trainer = Trainer(config(folder, tmp_path), views)
    assert trainer.resume() and trainer.step == 3
    # The average lies behind the weights: warm-up decays of 1/10, 2/11, 3/12 of the distance are left.
    fresh = Trainer(config(folder, tmp_path), views)
    start = fresh.model.unet.conv_in.weight
    assert not torch.equal(trainer.average.unet.conv_in.weight, trainer.model.unet.conv_in.weight)
    assert not torch.equal(trainer.average.unet.conv_in.weight, start)


def test_exported_prior_is_the_average(
    folder: Path, tmp_path: Path, views: TrainingViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    trainer = Trainer(config(folder, tmp_path), views)
    for _ in range(2):
        trainer.advance()
    trainer.export(tmp_path / "small", dtype=torch.float32)
    loaded, live = load_latent_prior(tmp_path / "small"), trainer.prior()
    x_t = torch.randn(2, 48, 4, 4, generator=torch.Generator().manual_seed(1))
    timesteps = torch.tensor([30.0, 800.0])
    cameras = orbit(torch.tensor([10.0, 200.0]), torch.tensor([0.0, 30.0]), 16, 16)
    for prior in (loaded, live):
        assert prior.uses_camera
    answers = [
        prior.predict_noise(x_t, timesteps, Condition(prior.encode_prompts(["a red spike", ""]), cameras))
        for prior in (loaded, live)
    ]
    assert bool(answers[0].isfinite().all())
    # The scheduler's betas are stored in single precision: alpha and sigma agree to about 1e-5.
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-3, atol=1e-3)
    table = DDIMScheduler.from_pretrained(tmp_path / "small" / "scheduler").alphas_cumprod.double()
    torch.testing.assert_close(table, schedule_of(TINY).log_snr.sigmoid(), rtol=1e-3, atol=1e-7)


class PerfectSampler:
    """Answers with the true rendering that it finds for the caption's first object."""

    def __init__(self, views: TrainingViews, wrong: bool) -> None:
        self.views, self.wrong = views, wrong

    def __call__(self, captions: Sequence[str], cameras: Cameras, rng: torch.Generator) -> torch.Tensor:
        pictures = []
        for caption, azimuth in zip(captions, cameras.azimuth_deg, strict=True):
            noun = caption.removeprefix("a ")
            model = next(i for i, names in enumerate(self.views.names) if (names[0] == noun) != self.wrong)
            view = int((self.views.held_out.azimuth_deg == azimuth).nonzero()[0, 0])
            rgba = self.views.held_out_rgba[model, view].float() / 255
            pictures.append(rgba[:3] + 1 - rgba[3:])
        return torch.stack(pictures)


def test_retrieval_of_a_perfect_and_of_a_perverse_sampler(views: TrainingViews) -> None:
    budget = EvaluateConfig(pairs=30, batch=7)
    right = evaluate(PerfectSampler(views, wrong=False), views, budget)
    assert right.top(1) == right.top(5) == 1.0 and right.nouns == 2
    torch.testing.assert_close(right.samples[0], right.truths[0])
    assert "| 30 | 2 | 100.0% | 100.0% |" in right.table()
    wrong = evaluate(PerfectSampler(views, wrong=True), views, budget)
    assert wrong.top(1) == 0.0 and wrong.top(2) == 1.0
    assert "taken for" in wrong.table()


def test_ddim_samples_a_gaussian() -> None:
    """The exact model of N(mean, std²) is sampled with that mean and deviation."""
    normal = GaussianMixture(torch.full((1, 3, 4, 4), 0.4), torch.tensor([0.1]), torch.ones(1))
    prior = AnalyticPrior({"it": normal, "": normal}, NoiseSchedule.cosine())
    cameras = orbit(torch.zeros(64), torch.zeros(64), 4, 4)
    for scale in (1.0, 3.0):  # Where both branches agree, guidance changes nothing.
        images = DdimSampler(prior, steps=200, guidance_scale=scale)(
            ["it"] * 64, cameras, generator(0, "test")
        )
        assert abs(float(images.mean()) - 0.4) < 0.01
        assert abs(float(images.std()) - 0.1) < 0.01


def test_tiles_in_reading_order() -> None:
    images = torch.arange(5.0)[:, None, None, None].expand(5, 3, 2, 2) / 10
    sheet = tiled(images, 3)
    assert sheet.shape == (3, 4, 6)
    torch.testing.assert_close(sheet[0, ::2, ::2], torch.tensor([[0, 0.1, 0.2], [0.3, 0.4, 1.0]]))
