"""Small real things that many tests share: a folder of captioned models, a quick recipe, the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import tests.annotations  # noqa: F401  (pyproject.toml names what is in it)

# Before torch is imported, here and in programs that tests start: a worker of `make test` has one core.
os.environ["OMP_NUM_THREADS"] = "1"

CUBE = """\
mtllib {name}.mtl
usemtl paint
v -1 -1 -1
v 1 -1 -1
v 1 1 -1
v -1 1 -1
v -1 -1 1
v 1 -1 1
v 1 1 1
v -1 1 1
f 1 4 3 2
f 5 6 7 8
f 1 2 6 5
f 2 3 7 6
f 3 4 8 7
f 4 1 5 8
"""

QUICK_RECIPE = """\
base = "default"
checkpoint_every = 2
preview_every = 2
log_every = 1

[[stages]]
steps = 4
resolution = 32

[stages.scene.initial]
kind = "ball"
count = 200

[stages.cameras]
kind = "fixed_set"
count = 8
views_per_step = 2

[stages.topology]
kind = "none"

[export]
formats = ["ply", "png"]
turntable_frames = 4
turntable_size = 32
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with two captioned models: a red cube and a blue cube."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name, colour in (("red", "0.8 0.1 0.1"), ("blue", "0.1 0.1 0.8")):
        (folder / f"{name}.obj").write_text(CUBE.format(name=name))
        (folder / f"{name}.mtl").write_text(f"newmtl paint\nKd {colour}\n")
    (folder / "captions.txt").write_text("red.obj: a red cube\nblue.obj: a blue cube\n")
    return folder


@pytest.fixture
def quick_recipe(tmp_path: Path) -> Path:
    """A recipe that takes four small steps."""
    path = tmp_path / "quick.toml"
    path.write_text(QUICK_RECIPE)
    return path


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def studio_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs the command line in this process, in an empty folder of its own."""
    from studio.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run
