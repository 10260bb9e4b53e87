"""Methods side by side: ordinary runs, a page that stands alone, recipes that give the same numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from studio.errors import StudioError
from studio.evaluate.cells import FRAME_SIZE, FRAMES, frames_for, summary
from studio.evaluate.compare import (
    NEW_RATE,
    TUNED_RATE,
    Comparison,
    CriticTraining,
    adapted,
    method_kinds,
    method_of_kind,
)
from studio.evaluate.results import Cell, Curve, Group, Truth
from studio.recipes.guidance import SdiConfig, SdsConfig, TrainedCriticConfig, VsdConfig
from studio.recipes.load import load
from studio.run.session import Run
from tests.conftest import Said
from tests.run.tiny import tiny_recipe

VOID = {"meta", "img", "line", "polyline", "input", "br"}
TIMES = {"seconds", "steps_per_second"}


@dataclass
class Page(HTMLParser):
    """What a page holds; a tag that is not closed, or another one's end, is an error."""

    open: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [str(value) for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)
        if self.open and self.open[-1] == "pre":
            self.recipes.append(data)


def parsed(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def numbers(run: Run) -> dict[str, object]:
    return {name: value for name, value in run.metrics().items() if name not in TIMES}


def test_two_methods_become_runs_and_a_page_that_stands_alone(models: Path, tmp_path: Path) -> None:
    base = tiny_recipe(models, "stages.0.steps=6")
    comparison = Comparison([base], ["sds", "csd"], tmp_path / "out")
    taken = list(comparison)
    assert [step.steps for step in taken] == list(range(1, 13)) and comparison.total_steps == 12
    assert [(step.method, step.cell, step.cells) for step in taken[5:7]] == [("sds", 1, 2), ("csd", 2, 2)]
    page = parsed(comparison.write_page())

    # Nothing from elsewhere, and every picture can be shown.
    assert not {"link", "iframe"} & set(page.tags)
    assert [reference for reference in page.sources if reference[0] == "#"] == ["#g0c0", "#g0c1"]
    pictures = []
    for source in page.sources:
        if source[0] == "#":
            continue
        data = source.removeprefix("data:image/webp;base64,")
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            pictures.append((picture.format, picture.size, getattr(picture, "n_frames", 1)))
    turntable, sides = ("WEBP", (FRAME_SIZE, FRAME_SIZE), FRAMES), ("WEBP", (64, 16), 1)
    assert pictures == [sides, turntable, sides, turntable, sides], "the truth's four sides come first"
    # Three curves a cell, quality against cost, saturation.
    assert page.tags.count("article") == 2 and page.tags.count("svg") == 8
    assert {"truth: red.obj", "sds", "csd"} <= set(page.text)

    # Every cell's recipe, as the page shows it, runs to the same numbers.
    (group,) = comparison.groups
    assert len(page.recipes) == 2
    for cell, recipe in zip(group.cells, page.recipes, strict=True):
        path = tmp_path / f"{cell.method}.toml"
        path.write_text(recipe)
        again = Run.create(load(str(path)), tmp_path / "again")
        list(again)
        original = Run.open(tmp_path / "out" / cell.method / "a-red-cube")
        assert numbers(again) == numbers(original)
        assert again.recipe.stages[0].guidance[0].method.kind == cell.method
        # Six steps of two images.
        assert cell.figures["denoiser_calls"] == 6 * 2 * float(cell.figures["calls_per_image"])
    assert group.cells[0].figures["calls_per_image"] == 1.0, "without exaggeration SDS asks the prompt alone"
    assert group.cells[0].curves["alpha"].steps == (1, 2, 3, 4, 5, 6)
    for cell in group.cells:
        above = float(cell.figures["saturation"]) - float(group.truths[0].figures["saturation"])
        assert cell.figures["oversaturation"] == pytest.approx(above)


def test_finished_cells_are_kept_and_stopped_ones_go_on(models: Path, tmp_path: Path) -> None:
    base = tiny_recipe(models, "stages.0.steps=6")
    steps = iter(Comparison([base], ["sds", "sjc"], tmp_path))
    for taken in steps:
        if (taken.method, taken.report.step) == ("sjc", 2):
            break
    steps.close()
    assert Run.open(tmp_path / "sjc" / "a-red-cube").step == 2
    rest = Comparison([base], ["sds", "sjc"], tmp_path)
    assert [(taken.method, taken.report.step, taken.steps) for taken in rest] == [
        ("sjc", step, 6 + step) for step in (3, 4, 5, 6)
    ]
    assert [cell.ending for cell in rest.groups[0].cells] == ["", ""]
    # Another budget is another run, beside the old one.
    assert len(list(Comparison([tiny_recipe(models, "stages.0.steps=2")], ["sds"], tmp_path))) == 2
    assert sorted(path.name for path in (tmp_path / "sds").iterdir()) == ["a-red-cube", "a-red-cube-2"]


def test_a_stopped_comparison_still_shows_what_it_has(models: Path, tmp_path: Path) -> None:
    comparison = Comparison([tiny_recipe(models)], ["sds", "sjc"], tmp_path)
    steps = iter(comparison)
    next(steps)
    steps.close()
    text = " ".join(parsed(comparison.write_page()).text)
    assert "Not finished: stopped at step 1" in text


def test_seeds_have_means_and_modes(models: Path, tmp_path: Path) -> None:
    """Two seeds of a prompt that means both models; the result is judged by hand."""
    base = replace(tiny_recipe(models, "stages.0.steps=2"), prompt="a cube")
    comparison = Comparison([base, replace(base, seed=1)], ["sds"], tmp_path)
    list(comparison)
    became = [str(group.cells[0].figures["nearest_model"]) for group in comparison.groups]
    found = len(set(became)) / 2
    text = parsed(comparison.write_page()).text
    assert "All prompts and seeds" in text and "modes" in text
    assert f"{found:.2f}" in text


def test_several_guidance_scales_are_several_runs(models: Path, tmp_path: Path) -> None:
    """CSD has no scale, LODS cannot take 1: one run and two. Every other scale is a cell of its own."""
    base = tiny_recipe(models, "stages.0.steps=2")
    assert Comparison([base], ["lods"], tmp_path, (1.0, 3.0)).cells == 2
    list(Comparison([base], ["sds"], tmp_path, (7.5,)))
    comparison = Comparison([base], ["sds", "csd"], tmp_path, (1.0, 7.5, 20.0))
    assert (comparison.cells, comparison.total_steps) == (4, 8)
    taken = list(comparison)
    assert [(step.method, step.cell) for step in taken[::2]] == [("sds", 1), ("sds", 3), ("csd", 4)]
    (group,) = comparison.groups
    scales = [(cell.method, cell.scale, cell.cfg_scale) for cell in group.cells]
    assert scales == [("sds", "1", 1.0), ("sds", "7.5", 7.5), ("sds", "20", 20.0), ("csd", "none", None)]
    assert all(f"cfg_scale = {cell.cfg_scale}" in cell.recipe for cell in group.cells[:3])
    page = comparison.write_page()
    text = " ".join(parsed(page).text)
    assert "sds @7.5" in text and "Not drawn, as they have one scale or none: csd." in text
    assert page.read_text().count('class="line"') == 1


def cell(method: str, models: tuple[str, ...], saturation: float) -> Cell:
    figures = {"saturation": saturation, "second_face": 1}
    return Cell(method, "", "1", 1.0, "", figures, {}, models, None, None, "", "")


def test_means_and_modes_by_counting() -> None:
    """Two prompts; a run of the second has several results. The truth is drawn by its weights."""
    truths = tuple(
        Truth(name, weight, {"saturation": s}, b"")
        for name, weight, s in (("a", 0.75, 0.2), ("b", 0.25, 0.6))
    )
    groups = [
        Group("first", 0, (), truths, (cell("sds", ("a",), 0.1), cell("ism", ("a",), 0.5))),
        Group("first", 1, (), truths, (cell("sds", ("a",), 0.3), cell("ism", ("b",), 0.5))),
        Group("second", 0, (), truths, (cell("sds", ("a", "a", "a", "b"), 0.8),)),
    ]
    truth, sds, ism = summary(groups)
    assert truth.is_truth and truth.figures == pytest.approx({"saturation": 0.3})
    assert sds.figures == pytest.approx(
        {"saturation": 0.4, "second_face": 1.0, "modes_found": 0.75, "modes_distance": 0.125}
    )
    assert ism.figures == pytest.approx(
        {"saturation": 0.5, "second_face": 1.0, "modes_found": 1.0, "modes_distance": 0.25}
    )


def test_a_run_of_several_scenes_has_several_results(models: Path, tmp_path: Path) -> None:
    base = replace(tiny_recipe(models, "stages.0.steps=2", "particles=3"), prompt="a cube")
    comparison = Comparison([base], ["sds"], tmp_path)
    list(comparison)
    (cell,) = comparison.groups[0].cells
    assert ", ".join(cell.models) == cell.figures["nearest_model"] and len(cell.models) == 3
    assert cell.figures["modes_found"] == len(set(cell.models)) / 2
    assert "modes" in parsed(comparison.write_page()).text


def test_large_pages_have_shorter_turntables() -> None:
    assert [frames_for(cells) for cells in (1, 100, 200, 300, 5000)] == [24, 24, 12, 8, 6]


def test_what_a_prior_cannot_serve_says_why(models: Path, tmp_path: Path) -> None:
    """What would end a run of its own is a cell here."""
    base = tiny_recipe(
        models, "stages.0.steps=2", "stages.0.scene.initial={ kind = 'point_cloud', path = 'no.ply' }"
    )
    comparison = Comparison([base], ["sds"], tmp_path)
    assert list(comparison) == []
    (cell,) = comparison.groups[0].cells
    assert cell.ending.startswith("Not run: ") and "no.ply" in cell.ending
    assert "no.ply" in " ".join(parsed(comparison.write_page()).text)


def test_a_method_that_the_prior_cannot_serve_is_a_cell_beside_the_others(
    models: Path, quick_recipe: Path, tmp_path: Path, studio_command: Callable[..., Said]
) -> None:
    """The exact prior sees no images: VPCSM is refused, CSM runs."""
    said = studio_command(
        "compare", "a red cube", "--preset", quick_recipe, "--prior", models, "--steps", "2",
        "--methods", "vpcsm,csm", "--output", "out",
    )  # fmt: skip
    assert said.code == 0, said.err
    text = " ".join(parsed(tmp_path / "out" / "index.html").text)
    reason = "vpcsm compares the prompt with and without an image, and the prior is shown none"
    assert f"Not run: {reason}; expected prior.image_prompt and prior.image, or use csm" in text
    assert text.count("Not run:") == 1 and not (tmp_path / "out" / "vpcsm").exists()
    assert (tmp_path / "out" / "csm").is_dir()


def test_an_unknown_method_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"no method 'vsdd'; expected some of sds, .*Did you mean 'vsd'"):
        Comparison([tiny_recipe(models)], ["sds", "vsdd"], tmp_path)


def test_methods_are_put_to_the_priors_needs() -> None:
    sds, vsd, sdi = (
        adapted(method_of_kind(kind), 1.5, CriticTraining.FROM_NOTHING) for kind in ("sds", "vsd", "sdi")
    )
    assert isinstance(sds, SdsConfig) and isinstance(vsd, VsdConfig) and isinstance(sdi, SdiConfig)
    assert sds == SdsConfig(cfg_scale=1.5)
    assert (vsd.cfg_scale, vsd.critic.kind) == (1.5, "trained")
    assert (vsd.critic.learning_rate, vsd.critic.target) == (NEW_RATE, "epsilon")  # type: ignore[union-attr]
    assert (sdi.cfg_scale, sdi.noise.cfg_scale) == (1.5, -1.5)  # type: ignore[union-attr]
    brief = adapted(VsdConfig(), None, CriticTraining.BRIEFLY)
    assert brief == VsdConfig(critic=TrainedCriticConfig(learning_rate=TUNED_RATE))
    assert adapted(method_of_kind("lods"), 1.0, CriticTraining.AS_PUBLISHED) == method_of_kind("lods"), (
        "it wants more than 1"
    )
    for kind in method_kinds():
        assert method_of_kind(kind).kind == kind
        assert adapted(method_of_kind(kind), None, CriticTraining.AS_PUBLISHED) == method_of_kind(kind)


def test_curves_are_thinned_by_means() -> None:
    curve = Curve(tuple(range(1, 241)), tuple(float(value) for value in range(240))).thinned()
    assert curve.steps[:3] == (1, 3, 5) and curve.values[:3] == (0.5, 2.5, 4.5) and len(curve.steps) == 120


def test_the_command(
    models: Path, quick_recipe: Path, tmp_path: Path, studio_command: Callable[..., Said]
) -> None:
    shared = ("compare", "a red cube", "--preset", quick_recipe, "--prior", models, "--steps", "2")
    said = studio_command(*shared, "--methods", "sds,sjc", "--seeds", "2", "--output", "out")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == "out/index.html"
    assert "sjc, cell 4 of 4" in said.out
    parsed(tmp_path / "out" / "index.html")
    assert studio_command(*shared, "--methods", "sdss").code == 2
    assert studio_command(*shared, "--seeds", "0").code == 2
    assert studio_command(*shared, "--set", "stages.0.guidance.0.method.kind=sds").code == 2
    assert studio_command("compare").code == 2
    many = studio_command(*shared, "--methods", "sds", "--cfg-scale", "1,7.5", "--output", "scales")
    assert many.code == 0 and "sds, cell 2 of 2" in many.out
    for wrong in ("1,", "a", "inf"):
        assert "1,7.5,20" in studio_command(*shared, "--cfg-scale", wrong).err
    unknown = studio_command("compare", "a zeppelin", *shared[2:], "--methods", "sds")
    assert unknown.code == 2 and "zeppelin" in unknown.err
