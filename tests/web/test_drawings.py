"""Drawings that come through the browser, and the forms for things in motion: what they may choose."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from starlette.testclient import TestClient

from studio.errors import StudioError
from studio.export.ply import ply_bytes
from studio.recipes.config import (
    ClipartConfig,
    DeformableConfig,
    GaussiansConfig,
    LatentPriorConfig,
    LibraryPriorConfig,
    MeshConfig,
    SplatFileConfig,
)
from studio.video import SUFFIXES
from studio.web.app import build
from studio.web.clients import MOST_BODY_BYTES, MOST_FILE_BYTES
from studio.web.drawings import Drawings, shipped
from studio.web.inspection import START_SUFFIXES, inspect_drawing, inspect_film, inspect_start
from studio.web.motion_forms import ClipForm, MovingForm, clipart_presets, followers, moving_presets
from studio.web.options import Options
from studio.web.uploads import Uploads
from tests.clipart.test_drawing import png_header
from tests.export.shapes import splats_on, stool

ADA = {"x-studio-client": "ada" * 10}
SQUARE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="9" height="3" fill="red"/></svg>'
)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    return Options(tmp_path_factory.mktemp("served") / "workspace")


@pytest.fixture(scope="module")
def app(options: Options) -> Iterator[TestClient]:
    with TestClient(build(options), "http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Drawings:
    """Looked at in this process."""
    return Drawings(tmp_path_factory.mktemp("drawings"), inspect_drawing)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Uploads:
    """Looked at in this process."""
    return Uploads(tmp_path_factory.mktemp("films"), "video", SUFFIXES, inspect_film)


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Uploads:
    """Looked at in this process."""
    return Uploads(tmp_path_factory.mktemp("starts"), "file", START_SUFFIXES, inspect_start)


def form(drawing: str, keypoints: object = ((128, 128), (100, 128)), **others: object) -> ClipForm:
    rigged = json.dumps({"drawing": drawing, "keypoints": keypoints, "bones": [[0, 1]]})
    return replace(ClipForm(rigged, "it jumps"), **others)  # type: ignore[arg-type]


def test_a_drawing_that_came_is_looked_at_and_kept(app: TestClient, options: Options) -> None:
    """By another process, as the app does it."""
    answer = app.post("/drawings?name=../../a%00b.SVG", content=SQUARE, headers=ADA)
    assert answer.status_code == 200, answer.text
    called = answer.text
    project = app.get(f"/drawings/{called}/project").json()
    assert len(project["keypoints"]) >= 2 and project["drawing"] == ""
    picture = app.get(f"/drawings/{called}/picture")
    assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")
    files = {path.name for path in (options.workspace / "drawings" / called).iterdir()}
    assert files == {"sent.svg", "picture.png", "project.json"}
    refused = app.post(
        "/drawings?name=a.svg", content=SQUARE.replace(b"<rect", b"<script/><text"), headers=ADA
    )
    assert (refused.status_code == 400 and "shows nothing" in refused.text) or "only text" in refused.text
    assert len(list((options.workspace / "drawings").iterdir())) == 1


def test_what_may_not_be_sent(app: TestClient) -> None:
    assert app.post("/drawings?name=a.exe", content=SQUARE, headers=ADA).status_code == 400
    assert (
        app.post("/drawings?name=a.svg", content=b" " * (MOST_BODY_BYTES + 1), headers=ADA).status_code == 413
    )
    nobody = TestClient(app.app, "http://127.0.0.1").post("/drawings?name=a.svg", content=SQUARE)
    assert nobody.status_code == 400 and "somebody whose it is" in nobody.text


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
LAUGHS = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        (
            "a.svg",
            f'<!DOCTYPE svg [<!ENTITY a0 "ha">{LAUGHS}]>{SVG}<text>&a9;</text></svg>'.encode(),
            "entity",
        ),
        ("a.svg", (SVG + "<g>" * 5000 + "</g>" * 5000 + "</svg>").encode(), "ungroup them"),
        ("a.svg", gzip.compress(b" " * 50_000_000), "cannot be read as SVG"),
        ("a.png", png_header(30_000, 30_000), "more than 64 million"),
    ],
)
def test_hostile_drawings_leave_nothing(drawings: Drawings, name: str, data: bytes, says: str) -> None:
    folder = drawings._sent.folder
    before = sorted(folder.glob("*"))
    with pytest.raises(StudioError, match=says):
        drawings.keep(data, name)
    assert sorted(folder.glob("*")) == before


@pytest.mark.parametrize(
    "path", ["..%2f..", "0" * 32, "crab%00", "crabb", "crab/drawing.svg", "crab/../../queue.sqlite"]
)
def test_drawings_are_asked_for_by_name(app: TestClient, path: str) -> None:
    for wanted in ("picture", "project", "thumbnail"):
        assert app.get(f"/drawings/{path}/{wanted}").status_code in (404, 422)
    assert app.get("/drawings/crab/drawing.svg").status_code == 422


def test_a_form_becomes_a_recipe(options: Options, drawings: Drawings, films: Uploads) -> None:
    called = drawings.keep(SQUARE, "square.svg")
    recipe = form(called, loop="cyclic", strength=0.5, frames=12, seconds=1.5, seed=3).recipe(
        options, drawings, films
    )
    scene = recipe.stages[0].scene
    assert isinstance(scene, ClipartConfig) and scene.keypoints == ((128.0, 128.0), (100.0, 128.0))
    assert (scene.path, scene.loop, scene.bones) == (drawings.path(called), "cyclic", ((0, 1),))
    assert (recipe.export.motion_frames, recipe.export.motion_seconds, recipe.seed) == (12, 1.5, 3)
    assert recipe.prior.reach == 0.5  # type: ignore[union-attr]
    assert {"svg", "clipart.json"} < set(recipe.export.formats)
    assert set(map(Path, shipped())) >= {Path("crab"), Path("cat")}
    assert form("crab").recipe(options, drawings, films).stages[0].scene.path == "crab"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (form("/etc/passwd.svg"), "no drawing '/etc/passwd.svg'"),
        (form("../crab"), "no drawing"),
        (form(""), "No drawing was chosen"),
        (form("crab", [[1, float("nan")]]), "not a number|finite number"),
        (form("crab", loop="twice"), "no loop 'twice'"),
        (form("crab", preset="draft"), "no preset 'draft'"),
        (form("crab", strength=9.0), "prior.reach is 9.0"),
        (form("crab", frames=9999), "motion_frames is 9999"),
        (replace(form("crab"), drawing="{"), "no project of clipart"),
        (replace(form("crab"), prompt=" "), "prompt"),
    ],
)
def test_what_a_form_may_not_hold(
    options: Options, drawings: Drawings, films: Uploads, wrong: ClipForm, says: str
) -> None:
    with pytest.raises(StudioError, match=says):
        wrong.recipe(options, drawings, films)


def test_a_form_for_what_is_solid_and_moves(options: Options, films: Uploads, starts: Uploads) -> None:
    recipe = MovingForm("a bear", motion="wave", frames=8, seconds=1.0, loops=True, steps=20).recipe(
        options, films, starts
    )
    assert isinstance(recipe.prior, LibraryPriorConfig) and recipe.prior.motions == ("wave",)
    assert (recipe.export.motion_frames, recipe.export.motion_loops, recipe.total_steps) == (8, True, 20)
    assert "moving" in moving_presets(options) and "aniclipart" in clipart_presets(options)
    for wrong, says in (
        (MovingForm("a bear", motion="fly"), "no motion 'fly'"),
        (MovingForm("a bear", "draft"), "no preset"),
    ):
        with pytest.raises(StudioError, match=says):
            wrong.recipe(options, films, starts)


def film(frames: int = 3) -> bytes:
    """A GIF of a grey that becomes lighter."""
    images = [Image.new("RGB", (16, 16), (60 * i,) * 3) for i in range(frames)]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=100)
    return file.getvalue()


def test_a_video_is_followed_by_presets_that_do(options: Options, drawings: Drawings, films: Uploads) -> None:
    called = films.keep(film(), "a.gif")
    asked = form("crab", preset="reference", film=called, prompt="")
    (term,) = asked.recipe(options, drawings, films).stages[0].guidance
    assert term.method.target.path == str(films.path(called))  # type: ignore[union-attr]
    assert "reference" in followers(clipart_presets(options)) and "aniclipart" not in followers(
        options.presets
    )
    for wrong, says in (
        (replace(asked, film=""), "follows a video; choose one"),
        (form("crab", film=called), "follows no video"),
        (replace(asked, film="../../a"), "no video '../../a' here"),
    ):
        with pytest.raises(StudioError, match=says):
            wrong.recipe(options, drawings, films)


def test_videos_that_come_are_looked_at(app: TestClient, films: Uploads) -> None:
    called = app.post("/films?name=a.gif", content=film(), headers=ADA).text
    assert app.get(f"/films/{called}/picture").headers["content-type"] == "image/png"
    assert app.get("/films/..%2f..%2fa/picture").status_code == 404
    too_large = app.post("/films?name=a.gif", content=b" " * (MOST_FILE_BYTES + 1), headers=ADA)
    assert too_large.status_code == 413
    for data, name, says in (
        (film(1), "a.gif", "frame"),
        (b"no", "a.mp4", "a.mp4|sent.mp4"),
        (film(), "a.svg", "ends with '.svg'"),
    ):
        with pytest.raises(StudioError, match=says):
            films.keep(data, name)


def starting_files() -> dict[str, bytes]:
    """A red picture, and the same shape as a mesh and as splats."""
    picture = io.BytesIO()
    Image.new("RGBA", (24, 16), (200, 30, 30, 255)).save(picture, "PNG")
    shape, colors = stool()
    return {
        "a.PNG": picture.getvalue(),
        "a.glb": shape.export(file_type="glb"),
        "a.ply": ply_bytes(splats_on(shape, colors, 300)),
    }


def test_an_asset_or_a_picture_begins_to_move(options: Options, films: Uploads, starts: Uploads) -> None:
    called = {name: starts.keep(data, name) for name, data in starting_files().items()}
    for name in called.values():
        pixels = np.asarray(Image.open(starts.path(name).with_name("picture.png")).convert("RGBA"))
        covered = (pixels[..., 3] > 0) & (pixels[..., :3].min(-1) < 250)
        assert 0.02 < covered.mean() < 0.9
    asked = MovingForm("a stool", "pla4d-draft", film=films.keep(film(), "a.gif"))
    for name, kind in (("a.glb", MeshConfig), ("a.ply", SplatFileConfig)):
        recipe = replace(asked, start=called[name]).recipe(options, films, starts)
        scene = recipe.stages[0].scene
        assert isinstance(scene, DeformableConfig) and isinstance(scene.shape, GaussiansConfig)
        assert isinstance(scene.shape.initial, kind)
        assert scene.shape.initial.path == str(starts.path(called[name]))
    shown = replace(asked, preset="pla4d", start=called["a.PNG"]).recipe(options, films, starts).prior
    assert isinstance(shown, LatentPriorConfig) and shown.image == str(starts.path(called["a.PNG"]))
    for wrong, says in (
        (replace(asked, start=called["a.PNG"]), "prior of pla4d-draft is told no picture"),
        (replace(asked, start="../../a"), "no file '../../a' here"),
    ):
        with pytest.raises(StudioError, match=says):
            wrong.recipe(options, films, starts)


def many_faces() -> bytes:
    """One mesh of 81 920 faces, placed 130 times."""
    scene = trimesh.Scene({"shape": trimesh.creation.icosphere(subdivisions=6)})
    for place in range(129):
        scene.graph.update(f"n{place}", geometry="shape")
    return bytes(scene.export(file_type="glb"))


def a_long_accessor() -> bytes:
    """Seven gigabytes of zeros, said in a line."""
    position = {"componentType": 5126, "type": "VEC3", "count": 600_000_000}
    said = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": 4}],
        "bufferViews": [{"buffer": 0, "byteLength": 4}],
        "accessors": [position],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    text = json.dumps(said).encode()
    text += b" " * (-len(text) % 4)
    start = struct.pack("<4sIII4s", b"glTF", 2, 32 + len(text), len(text), b"JSON")
    return start + text + struct.pack("<I4s4x", 4, b"BIN\0")


def test_a_mesh_that_is_much_more_than_its_file(app: TestClient, starts: Uploads) -> None:
    with pytest.raises(StudioError, match="has 10649600 faces, expected at most 10000000"):
        starts.keep(many_faces(), "a.glb")
    refused = app.post("/starts?name=a.glb", content=a_long_accessor(), headers=ADA)
    assert refused.status_code == 400 and "the start takes more than 4 GiB to be read" in refused.text


def test_what_begins_to_move_is_looked_at(app: TestClient, starts: Uploads) -> None:
    called = app.post("/starts?name=a.ply", content=starting_files()["a.ply"], headers=ADA).text
    assert app.get(f"/starts/{called}/picture").headers["content-type"] == "image/png"
    assert app.get("/starts/..%2f..%2fa/picture").status_code == 404
    too_large = app.post("/starts?name=a.ply", content=b" " * (MOST_FILE_BYTES + 1), headers=ADA)
    assert too_large.status_code == 413
    for data, name, says in (
        (b"no", "a.ply", "sent.ply"),
        (b"no", "a.glb", "sent.glb cannot be read"),
        (b"no", "a.png", "cannot be read as a picture"),
        (b"v 0 0 0", "a.obj", "ends with '.obj'"),
    ):
        with pytest.raises(StudioError, match=says):
            starts.keep(data, name)
