"""CLIP's figures against a tiny real CLIPModel of transformers, saved to a folder and loaded back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, BertConfig, CLIPConfig, CLIPImageProcessor, CLIPModel

from studio.errors import StudioError
from studio.evaluate.compare import Comparison
from studio.evaluate.likeness import USUAL_NETS, Clip, clip_at_hand, clip_figures, pool_of
from studio.export.images import to_pixels
from studio.priors.catalogue import Catalogue
from studio.priors.library import LibraryPrior
from studio.priors.training.model import word_tokenizer
from tests.conftest import CUBE, Said
from tests.priors.models import WORDS
from tests.run.tiny import tiny_recipe

TEXTS = ["a red cube", "a blue cube", "a chair"]


def save_clip(folder: Path) -> Path:
    """CLIP for images of 16 x 16 and texts of 16 tokens."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(WORDS)
    shared = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=shared
        | {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 16,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config=shared | {"image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save_clip(tmp_path / "tiny-clip")


def test_cosines_are_those_of_transformers(net: Path) -> None:
    rgb = torch.rand(5, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    clip = Clip(net, "tiny")
    images, texts = clip.embed_images(rgb), clip.embed_texts(TEXTS)

    model = CLIPModel.from_pretrained(net).eval()
    tokens = word_tokenizer(WORDS)(TEXTS, padding="max_length", max_length=16, return_tensors="pt")
    pixels = AutoImageProcessor.from_pretrained(net)(images=list(to_pixels(rgb)), return_tensors="pt")
    with torch.no_grad():
        output = model(input_ids=tokens["input_ids"], pixel_values=pixels["pixel_values"])
        cosines = output.logits_per_image / model.logit_scale.exp()
    torch.testing.assert_close(images @ texts.T, cosines)
    assert cosines.std() > 1e-3, "all alike would prove nothing"

    figures = clip_figures(images, texts[0], texts[1:])
    assert figures["clip_score"] == pytest.approx(100 * float(cosines[:, 0].clamp_min(0).mean()), abs=1e-4)
    assert figures["clip_r_precision"] == pytest.approx(float((cosines.argmax(1) == 0).float().mean()))


def test_figures_by_hand() -> None:
    """Cosines to the prompt of 1, 0.6 and -1; the second view is nearer to another text."""
    views = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    prompt, others = torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0]])
    figures = clip_figures(views, prompt, others)
    assert figures == pytest.approx({"clip_score": 160 / 3, "clip_r_precision": 1 / 3})
    assert clip_figures(views, prompt, others[:0]).keys() == {"clip_score"}


def test_long_texts_are_cut(net: Path) -> None:
    assert Clip(net, "tiny").embed_texts(["a red cube " * 40]).shape == (1, 8)


def test_the_pool_is_what_the_prompt_does_not_mean(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.obj").write_text(CUBE.format(name=name))
    captions = "one.obj: a red cube\ntwo.obj: a chair\nthree.obj: an apple\n"
    (tmp_path / "captions.txt").write_text(captions)
    prior = LibraryPrior(Catalogue.from_folder(tmp_path))
    pool = pool_of("a cube", ["a cube", "a chair"], prior)
    assert pool.name == "the catalogue's nouns" and pool.others == ("an apple", "a chair")


def test_without_a_catalogue_the_pool_is_the_other_prompts() -> None:
    pool = pool_of("a cube", ["a cube", "a chair"], object())
    assert pool.name == "the compared prompts" and pool.others == ("a chair",)


def test_a_network_in_the_cache_is_taken_unasked(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    assert clip_at_hand(None) is None
    home = cache / f"models--{USUAL_NETS[1].replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    (home / "snapshots").mkdir()
    net.rename(home / "snapshots" / "abc")
    for source in (None, USUAL_NETS[1]):
        found = clip_at_hand(source)
        assert found is not None and found.name == "clip-vit-base-patch32"
    # Half a download is none, pickled weights are not read.
    (home / "snapshots" / "abc" / "model.safetensors").unlink()
    assert clip_at_hand(None) is None
    (home / "snapshots" / "abc" / "pytorch_model.bin").write_bytes(b"")
    assert clip_at_hand(None) is None
    with pytest.raises(StudioError, match="cannot be read as a CLIP network"):
        clip_at_hand(USUAL_NETS[1])


def test_what_is_no_clip_network_is_refused(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(StudioError, match=r"no CLIP network some/net .* hf download some/net"):
        clip_at_hand("some/net")
    with pytest.raises(StudioError, match=r"no CLIP network nowhere .* folder"):
        clip_at_hand("nowhere")
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(StudioError, match="holds a bert network"):
        clip_at_hand(str(tmp_path / "bert"))
    (net / "preprocessor_config.json").unlink()
    with pytest.raises(StudioError, match="cannot be read as a CLIP network"):
        clip_at_hand(str(net))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudioError, match="cannot be read as a CLIP network"):
        clip_at_hand(str(tmp_path / "empty"))


def test_a_comparison_has_its_columns(net: Path, models: Path, tmp_path: Path) -> None:
    """Both the run and the truth are scored; the heads name the network and the pool."""
    (models / "captions.txt").write_text("red.obj: a red cube\nblue.obj: a blue chair\n")
    clip = Clip(net, "tiny-clip")
    comparison = Comparison([tiny_recipe(models, "stages.0.steps=2")], ["sds"], tmp_path / "out", clip=clip)
    list(comparison)
    (group,) = comparison.groups
    for figures in (group.cells[0].figures, group.truths[0].figures):
        assert 0 <= float(figures["clip_score"]) <= 100
        assert 0 <= float(figures["clip_r_precision"]) <= 1
    text = comparison.write_page().read_text()
    assert ">CLIP, tiny-clip<" in text and ">R-precision, the catalogue&#x27;s nouns<" in text
    assert "among the prompt and 1 other texts" in text


def test_the_command_takes_a_folder(
    net: Path, models: Path, quick_recipe: Path, tmp_path: Path, studio_command: Callable[..., Said]
) -> None:
    shared = ("compare", "a red cube", "--preset", quick_recipe, "--prior", models, "--methods", "sds")
    said = studio_command(*shared, "--steps", "1", "--clip", net, "--output", "out")
    assert said.code == 0, said.err
    assert "CLIP, tiny-clip" in (tmp_path / "out" / "index.html").read_text()
    assert studio_command(*shared, "--clip", "nowhere").code == 2
