"""Vector clips: curves against maps that are known, files against what readers find in them."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from studio.clipart.drawing import CANVAS_PX, read_drawing
from studio.clipart.sheet import sheet_of
from studio.clipart.svg_writer import path_data, svg_of
from studio.errors import StudioError
from studio.export.animated_svg import write_animated_svg, write_svg_frames
from studio.export.lottie import lottie_of, write_lottie
from studio.export.vector import MovingPath, MovingSheet, VectorClip, carriers, vector_clip
from studio.resources import clipart
from tests.export.vector_clips import PAINTS, bending, drawn, drawn_frame, on_one_sheet

SVG = "{http://www.w3.org/2000/svg}"
SIZE = 256


@pytest.fixture(scope="module")
def paints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawings") / "paints.svg"
    path.write_text(PAINTS)
    return path


@pytest.fixture(scope="module")
def clip(paints: Path) -> VectorClip:
    return bending(paints)


def points_of(path: MovingPath, frame: int) -> Tensor:
    return torch.cat([curves[frame].reshape(-1, 2) for curves in path.frames])


def test_an_affine_map_of_the_sheet_maps_every_curve() -> None:
    drawing = read_drawing(clipart("crab"), texture_size=SIZE)
    sheet = sheet_of(drawing)
    linear, shift = torch.tensor([[0.8, 0.3], [-0.2, 1.1]]), torch.tensor([5.0, -9.0])
    frames = torch.stack([sheet.vertices, sheet.vertices @ linear.T + shift])
    made = vector_clip(drawing, on_one_sheet(drawing, sheet, frames), [0, 1], 1.0)
    for path, source in zip(made.paths, drawing.paths, strict=True):
        rest = torch.cat([curves.reshape(-1, 2) for curves in path.rest.subpaths])
        torch.testing.assert_close(points_of(path, 0), rest, atol=1e-3, rtol=0)
        torch.testing.assert_close(points_of(path, 1), rest @ linear.T + shift, atol=1e-3, rtol=0)
        for cut, whole in zip(path.rest.subpaths, source.subpaths, strict=True):
            assert torch.equal(cut[0, 0], whole[0, 0]) and torch.equal(cut[-1, 3], whole[-1, 3])
            torch.testing.assert_close(cut[1:, 0], cut[:-1, 3])


def test_each_path_goes_with_its_own_sheet() -> None:
    """The claws are shifted and the rest is not; the order of drawing stays, in every format."""
    drawing = read_drawing(clipart("crab"), texture_size=SIZE)
    sheet, shift = sheet_of(drawing), torch.tensor([10.0, -4.0])
    claws, rest = (0, 1, 4), [2, 3, *range(5, len(drawing.paths))]
    moved, still = (torch.stack([sheet.vertices, sheet.vertices + step]) for step in (shift, 0 * shift))
    made = vector_clip(
        drawing, [MovingSheet(rest, sheet, still), MovingSheet(claws, sheet, moved)], [0, 1], 1.0
    )
    assert len(made.paths) == len(drawing.paths)
    for number, (path, source) in enumerate(zip(made.paths, drawing.paths, strict=True)):
        assert path.rest.style is source.style
        step = points_of(path, 1) - points_of(path, 0)
        expected = (shift if number in claws else 0 * shift).expand_as(step)
        torch.testing.assert_close(step, expected, atol=1e-3, rtol=0)
    groups = lottie_of(made)["layers"][0]["shapes"]
    assert [group["nm"] for group in groups][::-1] == [f"path {n}" for n in range(len(drawing.paths))]
    moves = [group["it"][0]["ks"]["a"] == 1 for group in groups[::-1]]
    assert [number for number, moving in enumerate(moves) if moving] == list(claws)


def test_points_off_the_sheet_hang_on_the_nearest_triangle() -> None:
    drawing = read_drawing(clipart("cat"), texture_size=SIZE)
    sheet = sheet_of(drawing)
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * CANVAS_PX
    corners, weights = carriers(points, sheet)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[:, 0]))
    back = (sheet.vertices[corners].double() * weights[..., None]).sum(1)
    torch.testing.assert_close(back, points.double(), atol=1e-3, rtol=0)
    sampled = sheet.vertices[sheet.faces].mean(1)  # some point of every triangle
    for point, triangle, weight in zip(points, corners, weights, strict=True):
        if bool((weight >= 0).all()):
            continue
        away = (point - sheet.vertices[triangle]).norm(dim=-1).amin()
        assert away <= (point - sampled).norm(dim=-1).amin() + 9.0


@pytest.mark.parametrize("name", ["man-dancing", "octopus", "paints"])
def test_the_curves_at_rest_are_the_picture(name: str, paints: Path) -> None:
    drawing = read_drawing(paints if name == "paints" else clipart(name), texture_size=SIZE)
    picture = Image.new("RGBA", (SIZE, SIZE), "white")
    picture.alpha_composite(Image.fromarray(drawing.rgba.numpy()))
    truth = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    assert np.abs(drawn(svg_of(drawing.paths), SIZE) - truth).mean() < 1e-3


# -------------------------------------------------------------------------------------------------------- svg


def test_an_animated_svg_has_one_command_string_a_path(clip: VectorClip, tmp_path: Path) -> None:
    write_animated_svg(clip, tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()  # noqa: S314
    paths = root.findall(f"{SVG}path")
    assert len(paths) == len(clip.paths)
    for element in paths:
        (animate,) = element.findall(f"{SVG}animate")
        values = animate.attrib["values"].split(";")
        times = [float(time) for time in animate.attrib["keyTimes"].split(";")]
        assert len(values) == len(times) == len(clip.order) + 1
        assert times[0] == 0 and times[-1] == 1 and (np.diff(times) > 0).all()
        assert values[0] == values[-1] == element.attrib["d"]
        assert len({re.sub(r"[^A-Z]+", "", value) for value in values}) == 1
        assert len(set(values)) == len(set(clip.order))
        assert animate.attrib["repeatCount"] == "indefinite" and animate.attrib["dur"] == "1s"


def test_the_first_frame_of_an_animated_svg_is_the_drawing(
    clip: VectorClip, paints: Path, tmp_path: Path
) -> None:
    write_animated_svg(clip, tmp_path / "a.svg")
    truth = drawn(svg_of(read_drawing(paints, texture_size=SIZE).paths), SIZE)
    assert np.abs(drawn((tmp_path / "a.svg").read_bytes(), SIZE) - truth).mean() < 1e-3


def test_gradients_move_with_their_paths(clip: VectorClip) -> None:
    """A drawing moved to the right looks the same there."""
    moved = [
        MovingPath(path.rest, tuple(curves + torch.tensor([20.0, 0.0]) for curves in path.frames))
        for path in clip.paths
    ]
    there = VectorClip(clip.name, tuple(moved), clip.order, clip.seconds, clip.loops)
    one, other = drawn_frame(clip, 0, SIZE), drawn_frame(there, 0, SIZE)
    assert np.abs(one[:, :-20] - other[:, 20:]).mean() < 0.01


def test_a_clip_that_does_not_loop_ends_where_it_ends(paints: Path, tmp_path: Path) -> None:
    clip = bending(paints, loops=False)
    write_animated_svg(clip, tmp_path / "a.svg")
    animate = ElementTree.parse(tmp_path / "a.svg").find(f".//{SVG}animate")  # noqa: S314
    assert animate is not None and animate.attrib["fill"] == "freeze" and "repeatCount" not in animate.attrib
    assert len(animate.attrib["values"].split(";")) == len(clip.order)


def test_the_archive_has_a_file_a_frame(clip: VectorClip, tmp_path: Path) -> None:
    write_svg_frames(clip, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        assert names == [f"a_{number:04d}.svg" for number in range(len(clip.order))]
        texts = [archive.read(name) for name in names]
    for text, frame in zip(texts, clip.order, strict=True):
        assert (drawn(text, SIZE) == drawn_frame(clip, frame, SIZE)).all()
    first = (tmp_path / "a.zip").read_bytes()
    write_svg_frames(clip, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == first


def test_a_name_cannot_become_markup(clip: VectorClip, tmp_path: Path) -> None:
    drawing = tmp_path / '"><script>.svg'
    drawing.write_text(PAINTS.replace("#f40", "red;}&lt;script&gt;"))
    write_animated_svg(bending(drawing), tmp_path / "a.svg")
    assert "script" not in (tmp_path / "a.svg").read_text()


def test_a_picture_cannot_become_curves(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40), "red").save(tmp_path / "a.png")
    with pytest.raises(StudioError, match="vector formats need an SVG"):
        bending(tmp_path / "a.png")


# ----------------------------------------------------------------------------------------------------- lottie


def test_lottie_holds_the_curves_of_every_frame(clip: VectorClip, tmp_path: Path) -> None:
    write_lottie(clip, tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["op"] / document["fr"] == pytest.approx(clip.seconds)
    assert (document["w"], document["h"]) == (CANVAS_PX, CANVAS_PX)
    (layer,) = document["layers"]
    groups = layer["shapes"][::-1]  # the first is on top
    assert layer["ty"] == 4 and len(groups) == len(clip.paths)
    for group, path in zip(groups, clip.paths, strict=True):
        shapes = [item["ks"] for item in group["it"] if item["ty"] == "sh"]
        for shape, frames, closed in zip(shapes, path.frames, path.rest.closed, strict=True):
            assert [key["t"] for key in shape["k"]] == list(range(len(clip.order) + 1))
            for key, frame in zip(shape["k"], (*clip.order, clip.order[0]), strict=True):
                torch.testing.assert_close(cubics(key["s"][0]), frames[frame], atol=2e-4, rtol=0)
                assert key["s"][0]["c"] is closed


def cubics(shape: dict[str, list[list[float]]]) -> Tensor:
    """A Lottie shape as Béziers."""
    vertices, arriving, leaving = (torch.tensor(shape[key]) for key in "vio")
    starts = vertices if shape["c"] else vertices[:-1]
    ends = vertices.roll(-1, 0)[: len(starts)]
    first = starts + leaving[: len(starts)]
    return torch.stack([starts, first, ends + arriving.roll(-1, 0)[: len(starts)], ends], 1)


def test_lottie_paints_as_the_drawing_does(clip: VectorClip, tmp_path: Path) -> None:
    write_lottie(clip, tmp_path / "a.json")
    shapes = json.loads((tmp_path / "a.json").read_text())["layers"][0]["shapes"]
    dashes, holes, ball, box = ({item["ty"]: item for item in group["it"]} for group in shapes)
    assert set(box) == {"sh", "st", "gf", "tr"} and box["gf"]["t"] == 1 and ball["gf"]["t"] == 2
    assert holes["fl"]["r"] == 2 and holes["fl"]["o"]["k"] == 80 and holes["fl"]["c"]["k"] == [1, 1, 0, 1]
    assert [dash["n"] for dash in dashes["st"]["d"]] == ["d", "g", "o"] and dashes["st"]["lc"] == 2
    assert box["gf"]["g"] == {
        "p": 2,
        "k": {
            "a": 0,
            "k": [0, 1, pytest.approx(4 / 15, abs=1e-4), 0, 1, 0, pytest.approx(4 / 15, abs=1e-4), 1],
        },
    }


def test_a_linear_gradient_of_lottie_is_exact_under_affine_maps(paints: Path) -> None:
    """At any point of a path the gradient has the offset that it had there at rest."""
    drawing = read_drawing(paints, texture_size=SIZE)
    sheet = sheet_of(drawing)
    linear, shift = torch.tensor([[0.8, 0.3], [-0.2, 1.1]]), torch.tensor([5.0, -9.0])
    frames = torch.stack([sheet.vertices, sheet.vertices @ linear.T + shift])
    clip = vector_clip(drawing, on_one_sheet(drawing, sheet, frames), [0, 1], 1.0)
    (fill,) = (item for item in lottie_of(clip)["layers"][0]["shapes"][-1]["it"] if item["ty"] == "gf")
    points = points_of(clip.paths[0], 0), points_of(clip.paths[0], 1)
    offsets = []
    for frame in (0, 1):
        start, end = (torch.tensor(fill[key]["k"][frame]["s"]) for key in "se")
        along = end - start
        offsets.append((points[frame] - start) @ along / along.square().sum())
    torch.testing.assert_close(offsets[0], offsets[1], atol=1e-4, rtol=0)
    assert float(offsets[0].amin()) == pytest.approx(0, abs=0.1)


def test_the_commands_do_not_depend_on_the_numbers() -> None:
    curves = torch.tensor([[[0.0, 1e-9], [1.0, -2.0], [3.5, 1e6], [-0.001, 7.0]]])
    assert path_data([curves], [True]) == "M0 0C1 -2 3.5 1000000 0 7Z"
