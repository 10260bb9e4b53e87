"""Keypoints that were drawn: where the circles are on the drawing, whatever the units and wherever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from studio.clipart.drawing import read_drawing
from studio.clipart.markers import read_markers
from studio.clipart.raster import MARGIN_PX
from studio.clipart.vectors import CANVAS_PX
from studio.errors import StudioError

PAGE = 'viewBox="0 0 100 50"'


def svg(path: Path, body: str, page: str = PAGE) -> Path:
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {page}>{body}</svg>')
    return path


def on_canvas(x: float, y: float) -> tuple[float, float]:
    """Where a point of the page is: the bar, 80 wide around (50, 25), fills the canvas but for its margin."""
    scale = (CANVAS_PX - 2 * MARGIN_PX) / 80
    return CANVAS_PX / 2 + (x - 50) * scale, CANVAS_PX / 2 + (y - 25) * scale


@pytest.fixture
def bar(tmp_path: Path) -> Path:
    return svg(tmp_path / "bar.svg", '<rect x="10" y="20" width="80" height="10"/>')


def places(keypoints: tuple[tuple[float, float], ...]) -> torch.Tensor:
    return torch.tensor(keypoints)


def expected(*points: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([on_canvas(*point) for point in points])


def test_circles_are_keypoints_and_lines_are_bones(bar: Path, tmp_path: Path) -> None:
    """Circles, also moved, as ellipses and as paths of arcs; lines, one with a corner on the way."""
    body = (
        '<circle cx="15" cy="25" r="1"/>'
        '<g transform="translate(20 5)"><ellipse cx="10" cy="20" rx="2" ry="1"/></g>'
        '<path d="M60 25a2 2 0 1 0 4 0a2 2 0 1 0 -4 0z"/><circle cx="85" cy="22" r=".1"/>'
        '<g fill="none" stroke="red"><polyline points="15,25 30,25 45,20 62,25.5"/><line x1="62" y1="24" '
        'x2="84" y2="23"/><path d="M30 25L15 25"/></g>'
    )
    found = read_markers(svg(tmp_path / "points.svg", body), bar)
    torch.testing.assert_close(
        places(found.keypoints), expected((15, 25), (30, 25), (62, 25), (85, 22)), atol=0.6, rtol=0
    )
    assert found.bones == ((0, 1), (1, 2), (2, 3))


def test_the_pages_lie_on_one_another_in_any_units(bar: Path, tmp_path: Path) -> None:
    """Twenty times as large and elsewhere; no lines, no bones."""
    larger = svg(tmp_path / "l.svg", '<circle cx="310" cy="550" r="9"/>', 'viewBox="10 50 2000 1000"')
    found = read_markers(larger, bar)
    torch.testing.assert_close(places(found.keypoints), expected((15, 25)), atol=0.6, rtol=0)
    assert found.bones is None


def test_a_picture_is_marked_as_it_is_seen(tmp_path: Path) -> None:
    """On the pixel that the circle is over, before the picture is cut free."""
    picture = Image.new("RGB", (100, 50), "white")
    picture.paste("black", (10, 20, 90, 30))
    picture.putpixel((15, 25), (255, 0, 0))
    picture.save(tmp_path / "bar.png")
    marked = svg(tmp_path / "points.svg", '<circle cx="15.5" cy="25.5" r="1"/>')
    ((x, y),) = read_markers(marked, tmp_path / "bar.png").keypoints
    rgba = read_drawing(tmp_path / "bar.png", CANVAS_PX).rgba
    assert rgba[int(y), int(x), 0] > 150 and rgba[int(y), int(x) + 20, 0] < 20


@pytest.mark.parametrize(
    ("body", "page", "says"),
    [
        ("", PAGE, "points.svg shows no circle, expected one at each keypoint"),
        ('<path d="M1 1L9 9" stroke="red"/>', PAGE, "shows no circle"),
        (
            '<circle cx="5" cy="5" r="1"/>',
            'viewBox="0 0 100 100"',
            r"page of 100 x 100, expected the shape of bar.svg's, 100 x 50: draw the circles on a copy",
        ),
        (
            '<circle cx="15" cy="25" r="1"/><line x1="15" y1="25" x2="50" y2="25" stroke="red"/>',
            PAGE,
            r"a line that ends at \(128, 128\) of the canvas, beside all circles",
        ),
    ],
)
def test_what_marks_nothing_is_refused(bar: Path, tmp_path: Path, body: str, page: str, says: str) -> None:
    with pytest.raises(StudioError, match=says):
        read_markers(svg(tmp_path / "points.svg", body, page), bar)
    with pytest.raises(StudioError, match="no file"):
        read_markers(tmp_path / "nowhere.svg", bar)
