"""Comparisons through the app: a run for each method in the queue, and a page once all are over."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.evaluate.compare import Comparison, recipes_to_compare
from studio.jobs.queue import Queue, State
from studio.jobs.worker import Worker
from studio.recipes.load import load
from studio.web.forms import Form
from studio.web.options import Options
from studio.web.service import Service
from tests.conftest import QUICK_RECIPE


def test_recipes_are_those_of_a_comparison(tmp_path: Path, models: Path, quick_recipe: Path) -> None:
    base = load(str(quick_recipe), "a red cube", [f"prior.folder='{models}'", "stages.0.steps=1"])
    methods = ["sds", "vsd", "ism"]
    taken = {step.run.recipe for step in Comparison([base], methods, tmp_path / "comparison")}
    assert taken == set(recipes_to_compare(base, methods))


def test_a_comparison_is_jobs_then_a_page(tmp_path: Path, models: Path, quick_recipe: Path) -> None:
    prior = f"prior = {{ kind = 'library', folder = '{models}' }}\n"
    quick_recipe.write_text(QUICK_RECIPE.replace("\n", f"\n{prior}", 1).replace('"ply", ', ""))
    service = Service(Options(tmp_path / "workspace", presets=(str(quick_recipe),)))
    form = Form("a red cube", preset=str(quick_recipe))
    for methods, says in (
        (["sds"], "two or more"),
        (["sds", "sds"], "two or more"),
        (["sds", "x"], "no method"),
    ):
        with pytest.raises(StudioError, match=says):
            service.compare(form, methods, "ada")
    tag = service.compare(form, ["sds", "csd"], "ada")
    with pytest.raises(StudioError, match="2 of 2 runs are not over"):
        service.comparison(tag, "ada")
    Worker(Queue(service.queue.workspace), "w").work(lambda: False, until_empty=True)
    assert {job.state for job in service.tagged(tag, "ada")} == {State.FINISHED}
    page = service.comparison(tag, "ada").read_text()
    assert "2 methods side by side" in page and "a red cube" in page and "csd" in page
    for stranger in ("eve", None):
        with pytest.raises(StudioError, match="No job of yours"):
            service.comparison(tag, stranger)
