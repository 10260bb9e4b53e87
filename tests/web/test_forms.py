"""What stands in a form's fields is text: strange text is refused, and shown as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.jobs.queue import Queue
from studio.prompts import MAX_CHARACTERS
from studio.recipes.config import DRAWN_BY, LibraryPriorConfig
from studio.recipes.load import load, preset_names
from studio.web import markup
from studio.web.controls import controls
from studio.web.forms import SCENES, Form, details_of
from studio.web.options import Options

OPTIONS = Options(presets=("draft", "default", "nerf", "dreamgaussian"))
BEAR = Form("a bear", preset="draft")
PATHS = ("../../etc/passwd", "/etc/passwd", "draft.toml", "~/x", "C:\\x", "draft\0", "", "file:///etc/passwd")


def test_a_form_is_a_recipe() -> None:
    form = replace(BEAR, negative_prompt="ugly", prior="library", steps=100, seed=7)
    recipe = form.recipe(OPTIONS)
    assert (recipe.prompt, recipe.negative_prompt, recipe.seed, recipe.total_steps) == (
        "a bear",
        "ugly",
        7,
        100,
    )
    assert isinstance(recipe.prior, LibraryPriorConfig)
    assert BEAR.recipe(OPTIONS) == replace(load("draft", "a bear"), prompt="a bear")


@pytest.mark.parametrize("scene", SCENES[1:])
def test_any_scene_gets_its_renderer(scene: str) -> None:
    stage = replace(BEAR, scene=scene).recipe(OPTIONS).stages[0]
    assert (stage.scene.kind, stage.renderer.kind) == (scene, DRAWN_BY[scene])


def test_another_method_keeps_the_prior_s_scale() -> None:
    method = replace(BEAR, guidance="ism").recipe(OPTIONS).stages[0].guidance[0].method
    assert method.kind == "ism"
    assert getattr(method, "cfg_scale", None) == 1.0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("field", ["preset", "prior", "guidance", "scene"])
def test_a_path_is_no_choice(field: str, path: str) -> None:
    with pytest.raises(StudioError, match=f"There is no {field} "):
        replace(BEAR, **{field: path}).recipe(OPTIONS)


@pytest.mark.parametrize(
    "key",
    [
        "prior.folder",
        "prior.source",
        "prior.image",
        "device",
        "preset",
        "base",
        "stages.0.scene.kind",
        "__class__",
        "",
    ],
)
def test_only_keys_that_are_shown_may_be_set(key: str) -> None:
    with pytest.raises(StudioError, match="There is no setting"):
        replace(BEAR, details=((key, "/etc/passwd"),)).recipe(OPTIONS)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("x" * 100_000, "100000 characters"),
        ("1\nprior.folder='/etc'", "expected one short value"),
        ("\0", "short"),
        ("wide", "expected a number"),
    ],
)
def test_values_that_do_not_fit(value: str, says: str) -> None:
    with pytest.raises(StudioError, match=says):
        replace(BEAR, details=(("stages.0.resolution", value),)).recipe(OPTIONS)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{" * 100_000, "null", "x"])
def test_settings_that_are_none(text: str) -> None:
    with pytest.raises(StudioError, match="JSON object"):
        details_of(text)


@pytest.mark.parametrize("steps", [-1, 10**9])
def test_a_budget_has_bounds(steps: int) -> None:
    with pytest.raises(StudioError, match="expected 0"):
        replace(BEAR, steps=steps).recipe(OPTIONS)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x" * 100_000, f"at most {MAX_CHARACTERS}"),
        ("a\x1b[31mb", "unprintable"),
        ("a\0b", "unprintable"),
        ("\u202e", "unprintable"),
    ],
)
def test_strange_prompts(field: str, text: str, says: str) -> None:
    with pytest.raises(StudioError, match=says):
        replace(BEAR, **{field: text}).recipe(OPTIONS)


HTML = "<script>alert(1)</script><img src=x onerror='alert(1)'>\"'&"


def test_html_stays_text(tmp_path: Path) -> None:
    (job,) = Queue(tmp_path).submit([replace(BEAR, prompt=HTML).recipe(OPTIONS)])
    job = replace(job, reason=HTML, preset=HTML)
    shown = [
        markup.title(job),
        markup.cards([job], "asset", ""),
        markup.preview(job, HTML),
        markup.pictures(job, ["mp4", "png"]),
        markup.downloads(job, ["glb"]),
        markup.log([HTML]),
        markup.figures({HTML: HTML}),
        markup.preset_cards([(HTML, HTML, True)], HTML),
    ]
    for made in shown:
        assert "<script" not in made and "<img src=x" not in made and "onerror='" not in made
    assert "&lt;script&gt;" in shown[0]


@pytest.mark.parametrize("preset", preset_names())
def test_every_control_sets_a_key_to_what_it_shows(preset: str) -> None:
    """The value that a control shows is the recipe's own: setting it changes nothing."""
    recipe = load(preset, "a bear")
    shown = controls(recipe)
    lines = [f"{control.key}={control.value}" for control in shown]
    assert load(preset, "a bear", lines) == recipe
    assert all(control.help for control in shown)
    assert len({control.key for control in shown}) == len(shown)
