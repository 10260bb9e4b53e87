"""The examples run, at small sizes, and show what they claim."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest
import uvicorn
from PIL import Image

from studio.jobs.queue import Queue
from studio.jobs.worker import Worker
from studio.web.app import build
from studio.web.options import Options
from tests.conftest import QUICK_RECIPE

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    """An example as a module, not run."""
    spec = importlib.util.spec_from_file_location(name[3:], EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_three_lines(tmp_path: Path) -> None:
    folder = example("01_three_lines").main(steps=3, resolution=32, output=tmp_path)
    assert (folder / "metrics.json").is_file()


def test_guidance_on_a_gaussian_finds_the_mode_and_loses_the_spread() -> None:
    outcome = example("02_guidance_on_a_gaussian").main(steps=200)
    assert outcome.mean == pytest.approx(0.3, abs=0.01)
    assert outcome.std < 0.03


def test_render_splats(tmp_path: Path) -> None:
    sheet = example("03_render_splats").main(count=12, size=32, steps=3, output=tmp_path)
    assert sheet.is_file()
    assert (tmp_path / "ring.ply").is_file()


def test_your_own_models(tmp_path: Path) -> None:
    """What a picture shows is certain while it is clear and an even bet when it is noise."""
    beliefs = example("04_your_own_models").main(tmp_path)
    assert beliefs[0] == pytest.approx(1.0)
    assert beliefs[-1] == pytest.approx(0.5, abs=0.05)


def test_stop_and_resume(tmp_path: Path) -> None:
    assert example("05_stop_and_resume").main(steps=4, resolution=32, output=tmp_path)


def test_the_app_as_a_service(tmp_path: Path, models: Path, quick_recipe: Path) -> None:
    prior = f"prior = {{ kind = 'library', folder = '{models}' }}\n"
    quick_recipe.write_text(QUICK_RECIPE.replace("\n", f"\n{prior}", 1))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = Options(tmp_path / "workspace", port=port, presets=(str(quick_recipe),))
    server = uvicorn.Server(uvicorn.Config(build(options), port=port, log_level="error"))
    worker, stop = Worker(Queue(options.workspace), "w"), threading.Event()
    threads = [threading.Thread(target=server.run), threading.Thread(target=worker.work, args=(stop.is_set,))]
    for thread in threads:
        thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        main = example("06_the_app_as_a_service").main
        sheet = main("a red cube", str(quick_recipe), f"http://127.0.0.1:{port}", tmp_path / "sheet.png")
    finally:
        server.should_exit = True
        stop.set()
        for thread in threads:
            thread.join()
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text()
    assert [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in source] == []
