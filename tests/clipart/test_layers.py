"""Layers of drawings: what they cover, what they hide, what they share, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from studio.cameras import front
from studio.clipart.drawing import Drawing, read_drawing
from studio.clipart.layers import REST, Group, layered, proposed
from studio.clipart.puppet import Puppet, to_world
from studio.clipart.sheet import sheet_of
from studio.clipart.vectors import Color
from studio.errors import StudioError
from studio.evaluate.metrics import psnr
from studio.renderers.cutouts import CutoutRenderer
from studio.resources import clipart
from studio.types import Cutout

SIZE = 128
# A body, an arm over it whose shoulder it shares, a badge of the body over the arm, and a far ball.
FIGURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
    '<rect x="20" y="10" width="30" height="80" fill="#2060c0"/>'
    '<rect x="35" y="20" width="55" height="14" fill="#e0a000"/>'
    '<circle cx="42" cy="27" r="5" fill="#c02020"/></svg>'
)
BODY, ARM = Group("body", (0, 2), (0, 1)), Group("arm", (1,), (1, 2))
RED = torch.tensor([0xC0, 0x20, 0x20]) / 255


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Drawing:
    path = tmp_path_factory.mktemp("drawings") / "figure.svg"
    path.write_text(FIGURE)
    return read_drawing(path, 512)


def at(x: float, y: float) -> tuple[float, float]:
    """Canvas pixels of a place in the figure, whose 80 units of height fill 208 pixels."""
    return 128 + (x - 55) * 2.6, 128 + (y - 50) * 2.6


@pytest.fixture(scope="module")
def puppet(figure: Drawing) -> Puppet:
    """Keypoints: the body's foot, the shoulder, the hand."""
    sheet = sheet_of(figure, torch.tensor([at(35, 80), at(42, 27), at(85, 27)]), edge_px=16.0)
    return Puppet.of(figure, sheet, layered(figure, sheet, [BODY, ARM], edge_px=16.0))


def drawn(puppet: Puppet, keypoints: Tensor, layers: tuple[int, ...] | None = None) -> Tensor:
    """Premultiplied rgba ``[4, h, w]`` of the puppet, or of some of its layers alone."""
    (cutout,) = puppet.posed(keypoints[None])
    if layers is not None:
        cutout = Cutout(tuple(cutout.layers[layer] for layer in layers))
    with torch.no_grad():
        seen = CutoutRenderer()(cutout, front(SIZE, SIZE), torch.zeros(1, 3))
    return torch.cat([seen.rgb, seen.alpha], 1)[0]


def raised(puppet: Puppet) -> Tensor:
    """The keypoints with the hand down beside the body."""
    keypoints = puppet.keypoints.clone()
    keypoints[2] = torch.tensor(at(55, 70))
    return keypoints


def test_a_layer_that_others_interrupt_is_split_and_moves_as_one(puppet: Puppet) -> None:
    assert [layer.paths.tolist() for layer in puppet.layers] == [[0], [1], [2]]
    assert [layer.sheet for layer in puppet.layers] == [0, 1, 0]
    assert [led.leads.tolist() for led in puppet.sheets] == [[0, 1], [1, 2]]
    counts = [len(led.sheet.vertices) for led in puppet.sheets]
    assert len(puppet.vertices) == sum(counts) and int(puppet.faces.max()) == sum(counts) - 1
    (cutout,) = puppet.posed(raised(puppet)[None])
    below, arm, badge = (layer.vertices for layer in cutout.layers)
    assert torch.equal(below, badge)
    moved = to_world(puppet.deform(raised(puppet)[None])[0])
    assert torch.equal(moved, torch.cat([below, arm]))


def test_layers_at_rest_are_the_drawing(figure: Drawing, puppet: Puppet) -> None:
    seen = drawn(puppet, puppet.keypoints)
    rgba = torch.nn.functional.avg_pool2d(figure.rgba.float().movedim(-1, 0)[None] / 255, 4)[0]
    expected = torch.cat([rgba[:3] * rgba[3:], rgba[3:]])
    assert float(psnr(seen[None], expected[None])) > 30


def test_moving_a_layer_leaves_all_pixels_beside_it_as_they_were(puppet: Puppet) -> None:
    """Bit for bit, outside of where the arm alone was and is."""
    before, after = drawn(puppet, puppet.keypoints), drawn(puppet, raised(puppet))
    arm = [drawn(puppet, keypoints, (1,))[3] > 0 for keypoints in (puppet.keypoints, raised(puppet))]
    changed = (before != after).any(0)
    assert int(changed.sum()) > 500
    assert not bool((changed & ~(arm[0] | arm[1])).any())


def test_layers_hide_each_other_in_the_order_of_drawing(puppet: Puppet) -> None:
    """Composited by hand, by Pillow; the badge stays over the arm that swings before the body."""
    keypoints = raised(puppet)
    image = Image.new("RGBA", (SIZE, SIZE))
    for layer in range(3):
        rgba = drawn(puppet, keypoints, (layer,))
        straight = torch.cat([rgba[:3] / rgba[3:].clamp(min=1e-6), rgba[3:]])
        pixels = straight.movedim(0, -1).mul(255).round().byte().numpy()
        image = Image.alpha_composite(image, Image.fromarray(pixels))
    seen = drawn(puppet, keypoints)
    ours = torch.cat([seen[:3] / seen[3:].clamp(min=1e-6), seen[3:]]).movedim(0, -1).mul(255)
    theirs, solid = np.asarray(image).astype(float), seen[3].numpy() > 0.1
    assert np.abs(ours.numpy() - theirs)[solid].max() < 6  # Pillow rounds at each layer
    x, y = (int(value * SIZE / 256) for value in at(42, 27))
    torch.testing.assert_close(seen[:3, y, x], RED, atol=0.02, rtol=0)


def test_layers_stay_together_at_the_joint_that_they_share(puppet: Puppet) -> None:
    """Both sheets have the shoulder where the keypoint is, wherever it goes."""
    keypoints = raised(puppet)
    keypoints[1] += torch.tensor([7.0, -5.0])
    (cutout,) = puppet.posed(keypoints[None])
    for layer, sheet in zip(puppet.layers, cutout.layers, strict=True):
        led = puppet.sheets[layer.sheet]
        vertex = led.sheet.keypoints[led.leads.tolist().index(1)]
        torch.testing.assert_close(sheet.vertices[vertex], to_world(keypoints[1]), atol=1e-4, rtol=0)


def test_paths_without_a_layer_are_one_and_keypoints_are_those_that_lie_on_it(figure: Drawing) -> None:
    sheet = sheet_of(figure, torch.tensor([at(25, 80), at(42, 27), at(85, 27)]), edge_px=16.0)
    (arm, rest), layers = layered(figure, sheet, [Group("arm", (1,))], edge_px=16.0)
    assert arm.leads.tolist() == [1, 2] and rest.leads.tolist() == [0, 1]
    assert [layer.sheet for layer in layers] == [1, 0, 1]


def test_a_puppet_comes_back_from_its_state(puppet: Puppet) -> None:
    again = Puppet.from_state(puppet.state())
    assert torch.equal(drawn(again, raised(puppet)), drawn(puppet, raised(puppet)))
    assert torch.equal(again.bones, puppet.bones)
    lacking = {name: tensor for name, tensor in puppet.state().items() if name != "layer1/picture"}
    with pytest.raises(StudioError, match="lacks layer1/picture"):
        Puppet.from_state(lacking)


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ([Group("arm", ())], "layer 'arm' has no paths"),
        ([Group("arm", (3,))], "layer 'arm' names path 3, expected 0-2: count the paths of figure from 0"),
        ([Group("arm", (-1,))], "names path -1, expected 0-2"),
        ([ARM, Group("hand", (1,))], "path 1 is in the layers 'arm' and 'hand'"),
        ([Group("arm", (1,), (9,))], "layer 'arm' names keypoint 9, expected 0-2"),
        ([Group("arm", (1,), (0, 1))], "keypoint 0 is .* pixels off layer 'arm', expected at most 16"),
        ([Group("badge", (2,)), Group("arm", (0, 1), (0,))], f"on layer '{REST}'|on layer 'badge'"),
    ],
)
def test_layers_that_do_not_fit_are_refused(figure: Drawing, groups: list[Group], says: str) -> None:
    sheet = sheet_of(figure, torch.tensor([at(35, 80), at(35, 60), at(85, 27)]), edge_px=24.0)
    with pytest.raises(StudioError, match=says):
        layered(figure, sheet, groups, edge_px=24.0)


def test_a_picture_has_no_layers(figure: Drawing) -> None:
    picture = Drawing(figure.rgba, (), "photo")
    sheet = sheet_of(picture, edge_px=24.0)
    for make in (lambda: layered(picture, sheet, [ARM]), lambda: proposed(picture, sheet)):
        with pytest.raises(StudioError, match="photo is a picture without paths"):
            make()


def test_proposed_layers_are_limbs_and_a_head() -> None:
    drawing = read_drawing(clipart("man-dancing"), 256)
    sheet = sheet_of(drawing, edge_px=24.0)
    groups = proposed(drawing, sheet)
    assert sorted(path for group in groups for path in group.paths) == list(range(len(drawing.paths)))
    assert len(groups) >= 5 and all(group.keypoints for group in groups)
    fills = [path.style.fill for path in drawing.paths]
    owner = {path: group for group in groups for path in group.paths}

    def where(color: str) -> list[int]:
        rgb = tuple(int(color[i : i + 2], 16) / 255 for i in (0, 2, 4))
        return [
            n for n, fill in enumerate(fills) if isinstance(fill, Color) and fill.rgb == pytest.approx(rgb)
        ]

    # The mouth, the eyes and the hair are the head's; either shoe is a part of its own, away from the head.
    head = owner[len(fills) - 1]
    assert set(range(22, len(fills))) <= set(head.paths)
    assert owner[0] is not owner[1] and head not in (owner[0], owner[1])
    # Its neck joins it to another layer.
    assert any(set(head.keypoints) & set(group.keypoints) for group in groups if group is not head)


def test_islands_of_a_path_are_paths_and_holes_are_not(tmp_path: Path) -> None:
    body = (
        '<path fill="red" fill-rule="evenodd" d="M10 10h30v30h-30zM15 15h20v20h-20z'  # a frame
        "M60 60h10v10h-10z"  # an island
        'M45 5h4v4h-4z"/>'  # another
    )
    path = tmp_path / "islands.svg"
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{body}</svg>')
    drawing = read_drawing(path, 64)
    assert [len(island.subpaths) for island in drawing.paths] == [2, 1, 1]
    assert len({id(island.style) for island in drawing.paths}) == 1
