"""What any sheet must be: it covers the drawing, its triangles are sound and its bones are a tree."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from studio.clipart.drawing import CANVAS_PX, Drawing, read_drawing
from studio.clipart.sheet import Sheet, sheet_of
from studio.clipart.skeleton import skeleton_of
from studio.errors import StudioError
from studio.resources import assets_folder, clipart

NAMES = sorted(path.stem for path in (assets_folder() / "clipart").glob("*.svg"))


@functools.cache
def emoji(name: str) -> Drawing:
    return read_drawing(clipart(name), texture_size=512)


@functools.cache
def sheet(name: str) -> Sheet:
    return sheet_of(emoji(name))


def discs(*places: tuple[float, float, float]) -> Drawing:
    """Discs of a radius around points, in canvas pixels."""
    y, x = torch.meshgrid(torch.arange(CANVAS_PX) + 0.5, torch.arange(CANVAS_PX) + 0.5, indexing="ij")
    alpha = torch.zeros(CANVAS_PX, CANVAS_PX, dtype=torch.bool)
    for centre_x, centre_y, radius in places:
        alpha |= (x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2
    return Drawing(torch.stack([alpha * 255] * 4, -1).to(torch.uint8), (), "discs")


def covered(sheet: Sheet, size: int) -> Bool[np.ndarray, "h w"]:
    """The pixels that the triangles cover, as PIL fills polygons."""
    image = Image.new("1", (size, size))
    for triangle in (sheet.vertices[sheet.faces] * (size / CANVAS_PX)).tolist():
        ImageDraw.Draw(image).polygon([tuple(corner) for corner in triangle], fill=1)
    return np.asarray(image)


def smallest_angles_deg(sheet: Sheet) -> Float[Tensor, "f"]:
    corners = sheet.vertices[sheet.faces].double()
    one, other = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
    cosines = (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))
    return torch.rad2deg(cosines.clamp(-1, 1).arccos()).amin(-1)


def sides(sheet: Sheet) -> Tensor:
    """The pairs of vertices that triangles join."""
    return torch.cat([sheet.faces[:, :2], sheet.faces[:, 1:]])


def parts(nodes: int, pairs: Tensor) -> int:
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0].numpy(), pairs[:, 1].numpy())), (nodes, nodes))
    return int(connected_components(graph, directed=False)[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_sheet_of_an_emoji_is_sound(name: str) -> None:
    made = sheet(name)
    corners = made.vertices[made.faces].double()
    first, second = (corners[:, 1:] - corners[:, :1]).unbind(1)
    assert (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] > 0).all()
    angles = smallest_angles_deg(made)
    assert angles.amin() > 5 and angles.quantile(0.01) > 18 and angles.median() > 40
    assert torch.equal(made.faces.unique(), torch.arange(len(made.vertices)))
    assert parts(len(made.vertices), sides(made)) == 1
    assert 8 <= len(made.keypoints) <= 20
    assert len(made.bones) == len(made.keypoints) - 1 and parts(len(made.keypoints), made.bones) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_sheet_covers_the_drawing_and_little_else(name: str) -> None:
    visible = emoji(name).rgba[..., 3].numpy() > 25
    under = covered(sheet(name), len(visible))
    assert (visible & ~under).sum() <= 1e-3 * visible.sum()
    assert under.sum() < 1.6 * visible.sum()


@pytest.mark.parametrize("name", NAMES)
def test_keypoints_lie_on_the_drawing(name: str) -> None:
    points = sheet(name).vertices[sheet(name).keypoints]
    alpha = emoji(name).rgba[..., 3]
    column, row = (points * (len(alpha) / CANVAS_PX)).long().T
    near = torch.nn.functional.max_pool2d(alpha[None].float(), 9, 1, 4)[0]
    assert (near[row, column] > 25).all()


def test_the_same_drawing_gives_the_same_sheet() -> None:
    again = sheet_of(read_drawing(clipart("crab"), texture_size=512))
    for field in ("vertices", "faces", "keypoints", "bones"):
        assert torch.equal(getattr(again, field), getattr(sheet("crab"), field))


def test_islands_are_tied_together() -> None:
    made = sheet_of(discs((60, 60, 25), (180, 70, 30), (128, 200, 6)))
    assert parts(len(made.vertices), sides(made)) == 1
    assert parts(len(made.keypoints), made.bones) == 1


def test_strips_are_the_shortest_tree_between_the_parts() -> None:
    """Discs in a row: each hangs on the next, and none on the one after."""
    places = [(40.0 + 45 * index, 128.0 + 20 * (index % 2), 10.0) for index in range(5)]
    under = covered(sheet_of(discs(*places)), CANVAS_PX)
    for (x, y, _), (next_x, next_y, _) in itertools.pairwise(places):
        assert under[round((y + next_y) / 2), round((x + next_x) / 2)]
    assert not under[:100].any() and not under[175:].any()


def test_a_disc_gets_a_cross() -> None:
    assert len(sheet_of(discs((128, 128, 60))).keypoints) == 5


@pytest.mark.parametrize(("hole", "kept"), [(40, True), (85, False)])
def test_a_ring_keeps_its_hole_unless_it_is_a_line(hole: int, kept: bool) -> None:
    ring = Drawing(discs((128, 128, 90)).rgba - discs((128, 128, hole)).rgba, (), "ring")
    made = sheet_of(ring)
    assert covered(made, CANVAS_PX)[118:138, 118:138].any() != kept
    assert len(made.bones) == len(made.keypoints) - 1


@pytest.mark.parametrize("name", NAMES)
def test_triangles_hang_together_by_their_sides(name: str) -> None:
    faces = sheet(name).faces
    by_side: dict[tuple[int, ...], list[int]] = {}
    for face, corners in enumerate(faces.tolist()):
        for first, second in ((0, 1), (1, 2), (2, 0)):
            by_side.setdefault(tuple(sorted((corners[first], corners[second]))), []).append(face)
    assert max(map(len, by_side.values())) == 2
    assert parts(len(faces), torch.tensor([pair for pair in by_side.values() if len(pair) == 2])) == 1


def test_the_axis_of_a_plus_has_four_arms() -> None:
    mask = np.zeros((128, 128), dtype=bool)
    mask[56:72, 10:118] = mask[10:118, 56:72] = True
    skeleton = skeleton_of(mask)
    degrees = np.bincount(skeleton.bones.ravel())
    assert (degrees == 1).sum() == 4 and (degrees == 4).sum() == 1
    middle = skeleton.keypoints[degrees.argmax()]
    assert np.abs(middle - 64).max() <= 1.5


def test_given_keypoints_are_kept_and_joined() -> None:
    points = torch.tensor([[60.0, 128.0], [128.0, 120.0], [200.0, 128.0], [128.0, 60.0]])
    made = sheet_of(discs((128, 128, 80)), points)
    torch.testing.assert_close(made.vertices[made.keypoints], points)
    assert sorted(map(sorted, made.bones.tolist())) == [[0, 1], [1, 2], [1, 3]]
    bones = torch.tensor([[0, 3], [3, 2]])
    assert torch.equal(sheet_of(discs((128, 128, 80)), points, bones).bones, bones)


def test_a_keypoint_just_off_the_drawing_is_moved_onto_it() -> None:
    with pytest.warns(UserWarning, match="moved onto it: keypoint 1$"):
        made = sheet_of(discs((128, 128, 60)), torch.tensor([[128.0, 128.0], [196.0, 128.0]]))
    x, y = made.vertices[made.keypoints[1]].tolist()
    assert 186 < x < 193 and y == pytest.approx(128, abs=1)


@pytest.mark.parametrize(
    ("points", "bones", "says"),
    [
        ([[10.0, 10.0]], None, "off the drawing"),
        ([[128.0, 400.0]], None, "off the drawing"),
        ([[float("nan"), 1.0]], None, "not finite"),
        ([[128.0, 128.0], [128.2, 128.0]], None, "at the same place"),
        ([], None, "expected 1 to 64"),
        ([[128.0, 128.0], [140.0, 128.0]], [[0, 2]], "keypoint 2"),
        ([[40.0 + 2 * x, 128.0] for x in range(65)], None, "65 keypoints came"),
        ([[128.0, 128.0], [140.0, 128.0]], [[0, 1], [1, 0]], "form a loop"),
        (None, [[0, 1]], "bones came without keypoints"),
    ],
)
def test_wrong_keypoints_and_bones_are_refused(
    points: list[list[float]] | None, bones: list[list[int]] | None, says: str
) -> None:
    with pytest.raises(StudioError, match=says):
        sheet_of(
            discs((128, 128, 60)),
            None if points is None else torch.tensor(points).reshape(-1, 2),
            None if bones is None else torch.tensor(bones),
        )


def test_nothing_visible_is_refused() -> None:
    with pytest.raises(StudioError, match="no silhouette"):
        sheet_of(discs())
