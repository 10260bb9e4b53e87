"""Drawings against what was drawn: places and colours that are known, and files that must be refused."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio.clipart import resvg
from studio.clipart.drawing import CANVAS_PX, Drawing, read_drawing
from studio.clipart.raster import MARGIN_PX
from studio.clipart.vectors import Color, Gradient, PathStyle, Stroke
from studio.errors import StudioError
from studio.resources import clipart

RED = (1.0, 0.0, 0.0)


def written(tmp_path: Path, body: str, attributes: str = 'viewBox="0 0 100 100"', before: str = "") -> Path:
    path = tmp_path / "drawing.svg"
    path.write_text(f'{before}<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{body}</svg>')
    return path


def drawn(tmp_path: Path, body: str, attributes: str = 'viewBox="0 0 100 100"', before: str = "") -> Drawing:
    return read_drawing(written(tmp_path, body, attributes, before), texture_size=CANVAS_PX)


def refused(path: Path) -> str:
    with pytest.raises(StudioError) as caught:
        read_drawing(path, texture_size=CANVAS_PX)
    return str(caught.value)


def test_a_square_fills_the_canvas_but_for_its_margin(tmp_path: Path) -> None:
    drawing = drawn(tmp_path, '<rect x="70" y="10" width="6" height="6" fill="red"/>')
    inner = slice(MARGIN_PX + 1, CANVAS_PX - MARGIN_PX - 1)
    assert (drawing.rgba[inner, inner] == torch.tensor([255, 0, 0, 255])).all()
    assert (drawing.rgba[: MARGIN_PX - 1, :, 3] == 0).all() and (
        drawing.rgba[:, -MARGIN_PX + 1 :, 3] == 0
    ).all()
    (path,) = drawing.paths
    (curves,) = path.subpaths
    assert path.closed == (True,) and path.style == PathStyle(Color(RED))
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    expected = MARGIN_PX + corners * (CANVAS_PX - 2 * MARGIN_PX)
    torch.testing.assert_close(curves[:, 0], expected, atol=0.6, rtol=0)
    torch.testing.assert_close(curves[:, 3], curves[:, 0].roll(-1, 0))


def test_a_wide_drawing_keeps_its_aspect(tmp_path: Path) -> None:
    drawing = drawn(tmp_path, '<rect x="0" y="0" width="80" height="20"/>', 'width="80" height="20"')
    points = torch.cat(drawing.paths[0].subpaths).reshape(-1, 2)
    width, height = (points.amax(0) - points.amin(0)).tolist()
    assert width == pytest.approx(4 * height, rel=1e-3)
    torch.testing.assert_close(
        (points.amax(0) + points.amin(0)) / 2, torch.full((2,), CANVAS_PX / 2), atol=0.5, rtol=0
    )


def test_arcs_and_quadratics_become_cubics(tmp_path: Path) -> None:
    circle = drawn(tmp_path, '<circle cx="50" cy="50" r="20"/>').paths[0].subpaths[0]
    t = torch.linspace(0, 1, 9)[:, None]
    bernstein = torch.cat([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], -1)
    radius = (torch.einsum("tk,nkd->ntd", bernstein, circle) - CANVAS_PX / 2).norm(dim=-1)
    torch.testing.assert_close(radius, torch.full_like(radius, CANVAS_PX / 2 - MARGIN_PX), atol=0.6, rtol=0)
    curve = drawn(tmp_path, '<path d="M0 0Q50 100 100 0"/>').paths[0].subpaths[0]
    x, y = ((curve - curve[0, 0])[0] / (curve[0, 3, 0] - curve[0, 0, 0])).T
    torch.testing.assert_close(x, torch.tensor([0, 1 / 3, 2 / 3, 1]))
    torch.testing.assert_close(y, torch.tensor([0, 2 / 3, 2 / 3, 0]))


def test_style_is_inherited_overridden_and_scaled(tmp_path: Path) -> None:
    body = """<style>.thick { stroke-width: 4; stroke: #00f } #last { fill: none }</style>
    <g fill="red" opacity=".5" transform="translate(10 10) scale(2)"><g fill-rule="evenodd">
      <path class="thick" fill-opacity=".5" stroke-dasharray="1,2" d="M0 0h30v30z"/>
      <path id="last" stroke="lime" style="stroke-width:1" stroke-linecap="round" d="M0 0h30"/></g></g>"""
    first, last = (path.style for path in drawn(tmp_path, body).paths)
    scale = last.stroke.width_px if last.stroke else 0.0
    assert first.fill == Color(RED, 0.25) and first.fill_rule == "evenodd"
    assert first.stroke is not None and first.stroke.paint == Color((0.0, 0.0, 1.0), 0.5)
    assert first.stroke.width_px == pytest.approx(4 * scale)
    assert first.stroke.dashes_px == pytest.approx((scale, 2 * scale))
    assert last == PathStyle(None, Stroke(Color((0.0, 1.0, 0.0), 0.5), scale, cap="round"), "evenodd")


def test_a_gradient_runs_across_the_shape(tmp_path: Path) -> None:
    body = """<linearGradient id="a"><stop stop-color="red"/><stop offset="100%" stop-opacity=".2"/>
    </linearGradient><linearGradient id="b" href="#a" x1="25%" x2="75%"/>
    <rect width="60" height="60" fill="url(#b)"/>"""
    gradient = drawn(tmp_path, body).paths[0].style.fill
    assert isinstance(gradient, Gradient) and gradient.focus is None
    assert gradient.stops == ((0.0, Color(RED)), (1.0, Color((0.0, 0.0, 0.0), 0.2)))
    side = CANVAS_PX - 2 * MARGIN_PX
    assert gradient.matrix[::4] == pytest.approx((side / 2, MARGIN_PX + side / 4), abs=0.5)


def test_what_is_used_twice_is_drawn_twice_in_its_place(tmp_path: Path) -> None:
    body = (
        '<defs><rect id="r" width="10" height="10"/></defs><use href="#r"/><use href="#r" x="30" fill="red"/>'
    )
    first, second = drawn(tmp_path, body).paths
    width = first.subpaths[0][:, 0, 0].amax() - first.subpaths[0][:, 0, 0].amin()
    torch.testing.assert_close(second.subpaths[0], first.subpaths[0] + torch.stack([3 * width, 0 * width]))
    assert second.style.fill == Color(RED)


@pytest.mark.parametrize("name", ["crab", "man-dancing"])
def test_emoji_have_all_their_paths(name: str) -> None:
    drawing = read_drawing(clipart(name), texture_size=CANVAS_PX)
    paths = [list(islands) for _, islands in groupby(drawing.paths, key=lambda path: id(path.style))]
    assert len(paths) == clipart(name).read_text().count("<path")
    assert drawing.name == name and drawing.left_out == ()


def test_points_and_millimetres_are_as_wide_in_the_picture_as_in_the_paths(tmp_path: Path) -> None:
    drawing = drawn(tmp_path, '<path d="M20 50h40" stroke="red" stroke-width="12pt"/>')
    stroke = drawing.paths[0].style.stroke
    units = drawing.paths[0].subpaths[0][0, 3, 0] - drawing.paths[0].subpaths[0][0, 0, 0]
    assert stroke is not None and stroke.width_px == pytest.approx(float(units) * 16 / 40)
    assert int((drawing.rgba[:, CANVAS_PX // 2, 3] > 127).sum()) == pytest.approx(stroke.width_px, abs=1)


def test_hidden_things_and_text_are_left_out(tmp_path: Path) -> None:
    hidden = '<text>words</text><g display="none"><path d="M0 0h9v9"/></g><path d="M0 0"/>'
    body = hidden + '<rect width="9" height="9"/>'
    drawing = drawn(tmp_path, body)
    assert len(drawing.paths) == 1 and drawing.left_out == ("text",)


# --------------------------------------------------------------------------------------------------- pictures


def picture(path: Path, background: tuple[int, ...], mode: str) -> Path:
    image = Image.new("RGBA", (200, 100), background)
    image.paste((200, 30, 30, 255), (100, 20, 160, 80))
    image.paste(background, (120, 40, 140, 60))  # an inner part of the background's colour stays
    image.convert(mode).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "background", "mode"),
    [
        ("a.png", (0, 0, 0, 0), "RGBA"),
        ("a.webp", (9, 200, 9, 255), "RGB"),
        ("a.jpg", (255, 255, 255, 255), "RGB"),
    ],
)
def test_a_picture_is_cut_free_and_centred(
    tmp_path: Path, name: str, background: tuple[int, ...], mode: str
) -> None:
    drawing = read_drawing(picture(tmp_path / name, background, mode), texture_size=CANVAS_PX)
    alpha = drawing.rgba[..., 3]
    middle = CANVAS_PX // 2
    assert (alpha[: MARGIN_PX - 1] == 0).all() and (
        alpha[MARGIN_PX + 16 : 80, MARGIN_PX + 16 : -MARGIN_PX - 16] == 255
    ).all()
    assert int(alpha[middle, middle]) == (0 if mode == "RGBA" else 255)
    assert (drawing.rgba[50, 50, :3].int() - torch.tensor([200, 30, 30])).abs().amax() < 12
    assert drawing.paths == ()


def test_a_photo_stays_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    alpha = read_drawing(tmp_path / "a.png", texture_size=CANVAS_PX).rgba[..., 3]
    assert (alpha[:, MARGIN_PX + 2 : -MARGIN_PX - 2] == 255).any(0).all()


# ---------------------------------------------------------------------------------------------------- refused


def nested_uses() -> str:
    levels = "".join(f'<g id="n{n}">' + f'<use href="#n{n + 1}"/>' * 10 + "</g>" for n in range(9))
    return f'{levels}<rect id="n9" width="9" height="9"/>'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "shows nothing"),
        ("<text x='5' y='50'>words</text>", "convert the text to paths"),
        ("<path d='M0 0h50v50z", "check that the file is whole"),
        ("<image href='http://example.org/a.png'/>", "refers to another file"),
        ("<image href='/etc/passwd'/>", "refers to another file"),
        ("<rect width='9' height='9' fill='url(http://example.org/a.svg#b)'/>", "refers to another file"),
        ("<style>@import 'a.css';</style><rect width='9' height='9'/>", "refers to another file"),
        ("<use id='a' href='#b'/><use id='b' href='#a'/>", "contains itself"),
        ("<g>" * 200 + "</g>" * 200, "ungroup them"),
        (nested_uses(), "more than 20000 elements"),
        (f"<path d='M0 0{'h9v9' * 125_001}'/>", "a path of 500008 characters"),
        ("<path d='M1e400 nanL0 1e999'/>", "shows nothing"),
    ],
)
def test_hostile_and_empty_svg_is_refused(tmp_path: Path, body: str, says: str) -> None:
    assert says in refused(written(tmp_path, body))


@pytest.mark.parametrize(
    "declaration",
    [
        '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
        '<!ENTITY % a SYSTEM "http://example.org/a.dtd"> %a;',
        f'<!ENTITY a "{"a" * 1000}">',
    ],
)
def test_entities_are_refused(tmp_path: Path, declaration: str) -> None:
    path = written(
        tmp_path, "<rect width='9' height='9' class='&a;'/>", before=f"<!DOCTYPE svg [{declaration}]>"
    )
    assert "XML entity" in refused(path)


def test_the_doctype_that_drawing_programs_write_is_read(tmp_path: Path) -> None:
    address = '"-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd"'
    before = f'<!DOCTYPE svg PUBLIC {address} [<!ENTITY c "red">]>'
    (path,) = drawn(tmp_path, "<rect width='9' height='9' fill='&c;'/>", before=before).paths
    assert path.style.fill == Color(RED)


BLURRED = (
    "<filter id='f' x='-10' y='-10' width='30' height='30'><feGaussianBlur stdDeviation='20'/></filter>"
    + "<rect width='90' height='90' filter='url(#f)'/>" * 2000
)


def test_a_drawing_that_takes_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resvg, "MOST_CPU_S", 1)
    assert "takes more than 1 s to draw" in refused(written(tmp_path, BLURRED))


def test_a_drawing_that_takes_too_much_memory_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    svg = (
        "<svg xmlns='http://www.w3.org/2000/svg' width='{0}' height='{0}'><rect width='9' height='9'/></svg>"
    )
    assert resvg.png_of(svg.format(64)).startswith(b"\x89PNG")
    monkeypatch.setattr(resvg, "MOST_BYTES", 2**29)
    with pytest.raises(StudioError, match="cannot be drawn"):
        resvg.png_of(svg.format(20_000))


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return start + struct.pack(">I", 1 << 20) + b"IDAT"


def broken_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), "red").save(file, "PNG")
    return file.getvalue()[:90]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.svg", b"", "is empty"),
        ("a.svg", b"\x00\xff" * 50, "cannot be read as SVG"),
        ("a.svg", b"<html/>", "is XML but not SVG"),
        ("a.svg", b"<svg>" + b" " * 5_000_001, "at most 5 MB"),
        ("a.png", b"", "is empty"),
        ("a.png", b"no picture", "cannot be read as a picture"),
        ("a.png", broken_png(), "cannot be read as a picture"),
        ("a.png", png_header(30_000, 30_000), "more than 64 million"),
        ("a.jpg", png_header(5, 5), "cannot be read as a picture"),
        ("a.gif", b"GIF89a", "expected one of .svg"),
        ("a.svgz", b"\x1f\x8b", "Did you mean '.svg'?"),
    ],
)
def test_files_that_are_no_drawings_are_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert says in refused(tmp_path / name)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert "pip install 'studio[clipart]'" in refused(written(tmp_path, "<path d='M0 0h9v9'/>"))


def test_missing_and_invisible_files_are_refused(tmp_path: Path) -> None:
    assert "check the path" in refused(tmp_path / "a.svg")
    assert "check the path" in refused(tmp_path / ("a" * 300 + ".svg"))
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    assert "shows nothing" in refused(tmp_path / "a.png")
