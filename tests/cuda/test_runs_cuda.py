"""Whole runs on a GPU: a few steps of every kind of scene, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from studio.cli import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize(
    ("preset", "formats"),
    [
        ("draft", "['glb','ply','spz','png']"),
        ("nerf", "['glb','png']"),
        ("surface", "['glb','obj','png']"),
        ("magic3d", "['glb','png']"),
        ("moving", "['glb','ply','skinned.zip','png']"),
    ],
)
def test_from_a_prompt_to_files(preset: str, formats: str, tmp_path: Path) -> None:
    wishes = ["device=cuda", f"export.formats={formats}", "export.texture_size=128", "export.mesh_faces=2000"]
    options = [word for wish in wishes for word in ("--set", wish)]
    prior = ["--preset", preset, "--prior", "library", "--steps", "12"]
    assert main(["generate", "a teddy bear", *prior, *options, "--output", str(tmp_path)]) == 0
    (metrics,) = tmp_path.glob("*/metrics.json")
    assert json.loads(metrics.read_text())["mesh_psnr_db"] > 10


def test_from_a_drawing_to_files(tmp_path: Path) -> None:
    options = ["--steps", "4", "--set", "device=cuda", "--set", "export.formats=['gif','svg','json','png']"]
    assert main(["animate", "crab", "the crab is dancing", *options, "--output", str(tmp_path)]) == 0
    assert {path.suffix for path in tmp_path.glob("*/assets/*")} >= {".gif", ".svg", ".json", ".png"}
