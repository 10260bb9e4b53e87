"""Recipes from TOML: what is inherited, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.recipes.config import Recipe, SmallPriorConfig, Stage
from studio.recipes.guidance import CsdConfig, SdsConfig
from studio.recipes.load import load, preset_names, read, to_toml
from studio.recipes.ramps import Linear

METHOD = "stages.0.guidance.0.method"
LATENT = "prior={ kind = 'latent', source = 'somewhere'"


def refusal(*overrides: str, preset: str = "default") -> str:
    with pytest.raises(StudioError) as refused:
        load(preset, "a bear", overrides)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("preset", preset_names())
def test_presets_say_what_they_are_for_and_round_trip(preset: str, tmp_path: Path) -> None:
    recipe = load(preset, "a bear")
    assert recipe.preset == preset
    assert recipe.description.endswith(".")
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert read(path) == recipe


def test_descriptions_differ() -> None:
    descriptions = [load(preset).description for preset in preset_names()]
    assert len(set(descriptions)) == len(descriptions)


def test_base_gives_all_but_the_lines_that_differ(tmp_path: Path) -> None:
    heir = tmp_path / "heir.toml"
    heir.write_text('base = "default"\nseed = 5\n[[stages]]\nsteps = 7\n[stages.scene]\nsh_degree = 2\n')
    base, recipe = load("default"), read(heir)
    assert (recipe.seed, recipe.stages[0].steps, recipe.stages[0].scene.sh_degree) == (5, 7, 2)
    assert recipe.stages[0].scene.initial == base.stages[0].scene.initial
    assert recipe.stages[0].guidance == base.stages[0].guidance
    assert recipe.prior == base.prior


def test_another_kind_takes_the_place_of_the_old_table(tmp_path: Path) -> None:
    heir = tmp_path / "heir.toml"
    heir.write_text(
        'base = "default"\n[prior]\nkind = "small"\n'
        '[[stages]]\n[[stages.guidance]]\nmethod = { kind = "csd" }\n'
    )
    recipe = read(heir)
    assert recipe.prior == SmallPriorConfig()
    assert recipe.stages[0].guidance[0].method == CsdConfig()
    assert recipe.stages[0].steps == load("default").stages[0].steps


def test_a_longer_list_of_stages_appends(tmp_path: Path) -> None:
    heir = tmp_path / "heir.toml"
    heir.write_text(
        'base = "default"\n[[stages]]\n'
        '[[stages]]\nsteps = 3\n[[stages.guidance]]\nmethod = { kind = "sds" }\n'
    )
    first, second = read(heir).stages
    assert first == load("default").stages[0]
    assert second == Stage(steps=3, guidance=second.guidance)
    assert second.guidance[0].method == SdsConfig()


def test_base_may_be_a_path_and_go_on_from_heir_to_heir(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = "default"\nseed = 1\n')
    (tmp_path / "b.toml").write_text('base = "a.toml"\nlog_every = 3\n')
    recipe = load(str(tmp_path / "b.toml"))
    assert (recipe.seed, recipe.log_every, recipe.preset) == (1, 3, "b")


def test_overrides() -> None:
    recipe = load(
        "default",
        "a bear",
        [
            "stages.0.steps=400",
            f"{METHOD}.cfg_scale = {{ kind = 'linear', start = 9, end = 2 }}",
            "prior.camera=none",
            "export.formats=['ply']",
            "stages.0.background.kind=fixed",
            "stages.0.background.color=[0, 0, 0]",
        ],
    )
    stage = recipe.stages[0]
    method = stage.guidance[0].method
    assert stage.steps == 400
    assert isinstance(method, SdsConfig)
    assert method.cfg_scale == Linear(start=9.0, end=2.0)
    assert recipe.prior.kind == "library"
    assert recipe.prior.camera == "none"
    assert recipe.export.formats == ("ply",)
    assert stage.background.color == (0.0, 0.0, 0.0)


def test_overriding_a_kind_starts_that_table_anew() -> None:
    recipe = load("default", "a bear", ["stages.0.scene.sh_degree=1", f"{METHOD}.kind=csd"])
    assert recipe.stages[0].guidance[0].method == CsdConfig()
    assert recipe.stages[0].scene.sh_degree == 1


def test_unknown_preset() -> None:
    assert "no preset 'defualt'" in refusal(preset="defualt")
    assert "Did you mean 'default'?" in refusal(preset="defualt")
    assert "no recipe file nowhere/x.toml" in refusal(preset="nowhere/x.toml")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sed=1", ["no key 'sed'", "Did you mean 'seed'?"]),
        ("steps=1", ["no key 'steps'", "Did you mean 'stages.0.steps'?"]),
        (f"{METHOD}.cfg_scal=3", [f"no key '{METHOD}.cfg_scal'", "Did you mean 'cfg_scale'?"]),
        ("stages.0.topologie.every=3", ["no key 'stages.0.topologie'", "Did you mean 'topology'?"]),
        ("stages.3.steps=1", ["no stages.3", "from 0 to 0"]),
        ("prior.kind=smal", ["prior.kind is 'smal'", "'library'", "Did you mean 'small'?"]),
        (f"{METHOD}.kind=brigde", [f"{METHOD}.kind is 'brigde'", "Did you mean 'bridge'?"]),
        ("prior.camera=exct", ["prior.camera is 'exct'", "Did you mean 'exact'?"]),
        ("stages.0.steps=0", ["stages.0.steps is 0", "a whole number from 1 to 1000000"]),
        ("stages.0.steps=2.5", ["stages.0.steps is 2.5", "a whole number"]),
        ("stages.0.steps=many", ["stages.0.steps is 'many'", "a whole number"]),
        ("seed=-1", ["seed is -1", "from 0 to below"]),
        ("view_words=1", ["view_words is 1", "true or false"]),
        ("prior.std=0", ["prior.std is 0", "above 0.0, up to 1.0"]),
        ("stages.0.background.color=[1, 2, 0]", ["background.color.1 is 2", "from 0.0 to 1.0"]),
        ("stages.0.background.color=[1, 0]", ["background.color", "[a number from 0.0 to 1.0, a number"]),
        ("stages.0.guidance=[]", ["stages.0.guidance is []", "at least one element"]),
        ("export.formats=['fbx']", ["export.formats.0 is 'fbx'", "'glb'"]),
        (f"{METHOD}.cfg_scale=big", ["cfg_scale is 'big'", "a number, or a table of kind 'linear'"]),
        ("stages.0.resolution={ start = 1 }", ["stages.0.resolution has no kind", "'linear'"]),
        ("stages.0.resolution={ kind = 'linear', start = 64 }", ["stages.0.resolution.end is missing"]),
        ("stages.0.resolution=8", ["stages.0: resolution must stay within 16 to 2048"]),
        ("stages.0.cameras.elevation_deg=[30, 10]", ["stages.0.cameras: elevation_deg must not fall"]),
        (
            "stages.0.cameras.views_per_step=1000",
            ["must stay within 1 to 96 (count), got 1000"],
        ),
        ("stages.0.cameras={ kind = 'orbit', elevation_deg = [0, 95] }", ["elevation_deg must stay within"]),
        ("stages.0.cameras={ kind = 'orbit', elevation_deg = [0, true] }", ["elevation_deg.1 is true"]),
        (
            "stages.0.cameras={ kind = 'orbit', radius = [2, { kind = 'linear', start = 3, end = 1 }] }",
            ["stages.0.cameras: radius must not fall, got [2, 1.9"],
        ),
        (
            "stages.0.cameras={ kind = 'orbit', views_per_step = { kind = 'linear', start = 4, end = 0 } }",
            ["stages.0.cameras: views_per_step must stay within 1 to 4096, got 0 to 4"],
        ),
        ("stages.0.guidance.0.prior.kind=smal", ["guidance.0.prior.kind is 'smal'", "Did you mean 'small'?"]),
        (f"{LATENT}, image = 5 }}", ["prior.image is 5", "text in quotes, or a table of kind 'video'"]),
        (f"{LATENT}, image = {{ kind = 'video', pth = 'a.mp4' }} }}", ["prior.image.pth", "'path'"]),
        ("stages.0.guidance.0.prior={ kind = 'latent' }", ["guidance.0.prior.source is missing", "text"]),
        ("stages.0.guidance.0.share=-0.5", ["stages.0: the shares of guidance must never be negative"]),
        ("stages.0.guidance.0.share=0", ["nor all be 0 at once"]),
        ("stages.0.guidance.0.share={ kind = 'linear', start = 1, end = 0 }", ["nor all be 0 at once"]),
        ("seed", ["'seed' is not an override", "path.to.key=value"]),
        ("=3", ["is not an override"]),
    ],
)
def test_refusals_name_the_key_and_what_was_expected(override: str, parts: list[str]) -> None:
    message = refusal(override)
    for part in parts:
        assert part in message


def test_refusals_in_a_file_name_the_file(tmp_path: Path) -> None:
    for text, parts in {
        'base = "defalt"\n': ["no preset 'defalt'", "Did you mean 'default'?"],
        "base = 3\n": ["bad.toml: base is 3"],
        'base = "bad.toml"\n': ["bad.toml", "base goes in a circle: bad → bad"],
        "seed = \n": ["bad.toml is not valid TOML"],
        "seed = 1\n": ["bad.toml: stages is missing"],
        'base = "default"\nsead = 1\n': ["bad.toml: There is no key 'sead'", "Did you mean 'seed'?"],
    }.items():
        path = tmp_path / "bad.toml"
        path.write_text(text)
        with pytest.raises(StudioError) as refused:
            load(str(path))
        for part in parts:
            assert part in str(refused.value)


def test_a_recipe_that_is_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="Cannot read"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("prompt", "said"), [("", "empty"), ("  \n", "empty"), ("x" * 2000, "2000 characters; expected at most")]
)
def test_prompts_that_are_none(prompt: str, said: str) -> None:
    with pytest.raises(StudioError, match=said):
        load("default", prompt)


def test_recipes_are_frozen_and_count_their_steps() -> None:
    recipe = load("default", "a bear", ["stages.0.steps=12"])
    assert isinstance(recipe, Recipe)
    assert recipe.total_steps == 12
    with pytest.raises(AttributeError):
        recipe.seed = 3  # type: ignore[misc]
