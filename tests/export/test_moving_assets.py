"""Scenes in motion, exported whole: what each format shows at which instant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gsply
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from studio.errors import StudioError
from studio.evaluate.metrics import psnr
from studio.export.animation import shape_at, turntable_times
from studio.export.asset import ExportReport, export_files
from studio.export.motion import moving
from studio.ops.rotations import quat_product
from studio.ops.skinning import carried, skin_weights
from studio.recipes.config import ExportConfig
from studio.renderers.raster import MeshRenderer
from studio.renderers.splatting import SplatRenderer
from studio.splats import read_ply
from studio.types import Animation, Mesh, Rig, Splats
from tests.export.conftest import export_quickly
from tests.export.gltf_player import chunks, played
from tests.export.shapes import bending_bar, random_splats, splats_on

Exported = tuple[Animation[Splats], ExportReport]
CONFIG = ExportConfig(mesh_faces=1500, texture_size=128, turntable_frames=24, turntable_size=48)


def nodding(frames: int = 4) -> Animation[Splats]:
    """A red capsule of splats whose upper end two nodes bend to the side, and back."""
    shape = trimesh.creation.capsule(height=0.5, radius=0.14, count=(24, 24))
    shape.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    colors = np.where(shape.triangles_center[:, 1:2] > 0, (0.9, 0.2, 0.1), (0.2, 0.3, 0.9))
    rest = splats_on(shape, colors, 2500)
    nodes = torch.tensor([[0.0, -0.15, 0.0], [0.0, 0.25, 0.0]])
    carriers, weights = skin_weights(rest.means, nodes, 2)
    turn = 0.9 * torch.sin(2 * torch.pi * torch.arange(frames) / frames)
    quats = torch.zeros(frames, 2, 4)
    quats[:, 0, 0] = 1.0
    quats[:, 1, 0], quats[:, 1, 3] = torch.cos(turn / 2), torch.sin(turn / 2)
    shifts = torch.zeros(frames, 2, 3)
    shifts[:, 1, 0] = -0.2 * turn
    rig = Rig(nodes, carriers, weights, quats, shifts)
    moved = []
    for instant in range(frames):
        means, turns = carried(rest.means, rig, instant)
        moved.append(replace(rest, means=means, quats_wxyz=quat_product(turns, rest.quats_wxyz)))
    return Animation(rest, tuple(moved), torch.arange(frames) / frames, 0.5, loops=True, rig=rig)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder, animation = tmp_path_factory.mktemp("moving"), nodding()
    paths = [folder / name for name in ("a.glb", "a.ply", "a.usdz", "a.mp4", "a.gif", "a.webp", "a.png")]
    with pytest.MonkeyPatch.context() as patch:
        export_quickly(patch, 64, 128)
        return animation, export_files(animation, SplatRenderer(), paths, CONFIG)


def test_every_file_is_there_and_a_sequence_is_a_folder(
    exported: Exported,
) -> None:
    _, report = exported
    folder = report.paths[0].parent
    assert report.paths[1] == folder / "a_ply"
    assert sorted(folder.iterdir()) == sorted(report.paths)


def test_a_sequence_has_each_frame_exactly(exported: Exported) -> None:
    animation, report = exported
    files = sorted(report.paths[1].iterdir())
    assert [file.name for file in files] == [f"a_{number:04d}.ply" for number in (1, 2, 3, 4)]
    for file, frame in zip(files, animation.frames, strict=True):
        assert len(gsply.plyread(str(file))) == len(frame.means)
        torch.testing.assert_close(read_ply(file).means, frame.means)


def test_the_mesh_of_moving_splats_moves_as_they_do(exported: Exported) -> None:
    """It is skinned, stays near its splats and looks like them, at rest and bent."""
    animation, report = exported
    assert report.likeness is not None
    assert report.likeness.psnr_db > 24 and report.likeness.silhouette_iou > 0.93
    document, _ = chunks(report.paths[0])
    assert len(document["skins"][0]["joints"]) == 2
    truth = [frame.means.numpy() for frame in animation.frames]
    for instant in (1, 3):
        shown = played(report.paths[0], 0.5 * instant / 4)
        assert shown.duration == 0.5
        middle = shown.positions.reshape(-1, 3)
        np.testing.assert_allclose(middle.min(0), truth[instant].min(0), atol=0.03)
        np.testing.assert_allclose(middle.max(0), truth[instant].max(0), atol=0.03)
    top = animation.rest.means[:, 1] > 0.3
    assert truth[1][top, 0].mean() - truth[3][top, 0].mean() < -0.3  # it does move


def test_videos_last_whole_repetitions_and_show_them(
    exported: Exported,
) -> None:
    """Two repetitions of half a second at 24 frames a second, while the camera turns once."""
    animation, report = exported
    assert turntable_times(animation, 1.0) == [i / 12 % 1.0 for i in range(24)]
    video = imageio.imread(report.paths[3])
    assert video.shape == (24, 48, 48, 3) and imageio.immeta(report.paths[3])["fps"] == 24
    for path in report.paths[4:6]:
        with Image.open(path) as pictures:
            assert pictures.n_frames == 24
    # Upright in frames 0 and 6; bent to one side and to the other in frames 3 and 21, seen from the front.
    mass = (255 - video.astype(float)).sum(-1)
    sideways = (mass * np.arange(48)).sum((1, 2)) / mass.sum((1, 2)) - 23.5
    assert abs(sideways[0]) < 0.1 and abs(sideways[6]) < 0.1
    assert sideways[3] < -0.3 and sideways[21] > 0.3


def test_the_sheet_has_a_row_an_instant(exported: Exported) -> None:
    sheet = np.asarray(Image.open(exported[1].paths[6])).astype(float)
    assert sheet.shape[1] == 8 * 256
    height = sheet.shape[0] // 8  # four instants of the splats, then of the mesh
    rows = [sheet[row * height : row * height + 256] for row in range(8)]
    for instant in range(4):
        assert np.abs(rows[instant] - rows[4 + instant]).mean() < 4
    assert np.abs(rows[1] - rows[3]).mean() > 4


def test_without_a_rig_the_nearest_splats_carry_the_mesh() -> None:
    """A rigid motion of all splats is that of the mesh, to rounding."""
    rest = random_splats(200)
    turn = torch.tensor([0.8, 0.0, 0.6, 0.0])
    matrix = torch.tensor([[0.28, 0.0, 0.96], [0.0, 1.0, 0.0], [-0.96, 0.0, 0.28]])
    moved = replace(
        rest,
        means=rest.means @ matrix.T + 0.1,
        quats_wxyz=quat_product(turn.expand(200, 4), rest.quats_wxyz),
    )
    ball = trimesh.creation.icosphere(1, radius=0.3)
    mesh = Mesh(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long())
    result = moving(mesh, Animation(rest, (rest, moved), torch.tensor([0.0, 1.0]), 1.0))
    assert result.rig is None
    torch.testing.assert_close(result.frames[0].vertices, mesh.vertices, atol=1e-5, rtol=0)
    expected = mesh.vertices @ matrix.T + 0.1
    torch.testing.assert_close(result.frames[1].vertices, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rigged", [True, False])
def test_splats_that_are_hardly_seen_carry_nothing(rigged: bool) -> None:
    """Half of the splats rise with their node; the others stay behind, too faint to hold anything."""
    rest = random_splats(200)
    solid = torch.arange(200) % 2 == 0
    rest = replace(rest, opacities=torch.where(solid, 0.5, 0.02))
    rise = torch.tensor([0.0, 0.1, 0.0])
    moved = replace(rest, means=rest.means + rise * solid[:, None])
    rig = Rig(
        nodes=torch.zeros(2, 3),
        carriers=torch.where(solid, 0, 1)[:, None],
        weights=torch.ones(200, 1),
        quats_wxyz=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(2, 2, 4),
        translations=torch.stack([torch.zeros(2, 3), torch.stack([rise, 0 * rise])]),
    )
    ball = trimesh.creation.icosphere(1, radius=0.3)
    mesh = Mesh(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long())
    times = torch.tensor([0.0, 1.0])
    result = moving(mesh, Animation(rest, (rest, moved), times, 1.0, rig=rig if rigged else None))
    torch.testing.assert_close(result.frames[1].vertices, mesh.vertices + rise, atol=1e-6, rtol=0)


def test_a_textured_mesh_in_motion_is_written_as_it_is(tmp_path: Path) -> None:
    animation = bending_bar()
    report = export_files(animation, MeshRenderer(), [tmp_path / "bar.glb"], CONFIG)
    assert report.likeness is not None and report.likeness.psnr_db > 30
    document, _ = chunks(tmp_path / "bar.glb")
    assert "extensionsUsed" not in document  # the renderer shows it in light
    shown = played(tmp_path / "bar.glb", 0.5)
    frame = animation.frames[1]
    np.testing.assert_allclose(shown.positions, frame.vertices[frame.faces], atol=1e-5)


def test_a_mesh_in_motion_over_its_budget_is_simplified_and_carried(tmp_path: Path) -> None:
    animation = bending_bar()
    config = replace(CONFIG, mesh_faces=100)
    report = export_files(animation, MeshRenderer(), [tmp_path / "bar.glb"], config)
    assert report.likeness is not None and report.likeness.faces < 110
    assert report.likeness.silhouette_iou > 0.95
    shown = played(tmp_path / "bar.glb", 0.5)
    np.testing.assert_allclose(
        shown.positions.reshape(-1, 3).max(0), animation.frames[1].vertices.amax(0), atol=0.02
    )


def test_shapes_between_frames_are_on_the_way() -> None:
    animation = nodding()
    halfway, first = shape_at(animation, 0.125), shape_at(animation, 0.25)
    assert isinstance(halfway, Splats) and first is animation.frames[1]
    mean = (animation.frames[0].means + animation.frames[1].means) / 2
    torch.testing.assert_close(halfway.means, mean)
    around = shape_at(animation, 0.875)  # between the last frame and the first again
    assert isinstance(around, Splats)
    torch.testing.assert_close(around.means, (animation.frames[3].means + animation.frames[0].means) / 2)
    once = replace(animation, loops=False)
    assert shape_at(once, 0.9) is animation.frames[3]


def test_one_frame_stands_still_in_every_format(tmp_path: Path) -> None:
    still = replace(bending_bar(frames=1), rig=None)
    paths = [tmp_path / name for name in ("a.glb", "a.gif", "a.png")]
    export_files(still, MeshRenderer(), paths, CONFIG)
    assert "animations" not in chunks(paths[0])[0]
    with Image.open(paths[1]) as turn:
        assert turn.n_frames == 48


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": ()}, "0 frames and 4 times"),
        ({"times": torch.tensor([0.0, 0.5, 0.5, 1.0])}, "a time in 0-1 after the one before"),
        ({"times": torch.tensor([0.0, 0.5, 0.7, 1.5])}, "a time in 0-1 after the one before"),
        ({"seconds": 0.0}, "takes 0 s, expected more than 0"),
        ({"seconds": float("nan")}, "takes nan s"),
        ({"rest": random_splats(5)}, "frames have 5 to 2500 points, expected one number"),
    ],
)
def test_motion_that_does_not_fit_is_refused(change: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=says):
        export_files(replace(nodding(), **change), SplatRenderer(), [tmp_path / "a.glb"], CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_other_faces_counts_or_numbers_are_refused(tmp_path: Path) -> None:
    bar = bending_bar()
    assert bar.rig is not None
    turned = replace(bar.frames[2], faces=bar.frames[2].faces.flip(1))
    broken = replace(bar.frames[2], vertices=bar.frames[2].vertices * torch.nan)
    rig = bar.rig
    short = Rig(rig.nodes, rig.carriers, rig.weights, rig.quats_wxyz[:3], rig.translations[:3])
    for animation, says in (
        (replace(bar, frames=(*bar.frames[:4], turned)), "other faces"),
        (replace(bar, frames=(*bar.frames[:4], broken)), "vertices that are not finite"),
        (replace(bar, rig=short), "through 3 instants, expected .* through 5"),
    ):
        with pytest.raises(StudioError, match=says):
            export_files(animation, MeshRenderer(), [tmp_path / "a.glb"], CONFIG)


@pytest.mark.parametrize("suffix", ["obj", "stl", "3mf", "splat", "spz"])
def test_formats_of_one_instant_are_refused_for_what_moves(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(
        StudioError, match=rf"\.{suffix} holds one instant .*one of \.glb, \.usdz, \.ply, \.skinned"
    ):
        export_files(nodding(), SplatRenderer(), [tmp_path / f"a.{suffix}"], CONFIG)


def test_a_new_sequence_takes_the_place_of_a_longer_one(tmp_path: Path) -> None:
    animation = nodding(frames=3)
    export_files(nodding(frames=5), SplatRenderer(), [tmp_path / "a.ply"], CONFIG)
    export_files(animation, SplatRenderer(), [tmp_path / "a.ply"], CONFIG)
    assert len(list((tmp_path / "a_ply").iterdir())) == 3 and len(list(tmp_path.iterdir())) == 1


def test_interpolated_pictures_lie_between(tmp_path: Path) -> None:
    """A splat scene a tenth of the way to the next frame is nearer to the frame before it."""
    animation = nodding()
    from studio.cameras import turntable
    from studio.export.views import pictures

    view = turntable(1, 64, 64)
    draw = SplatRenderer()
    before, between, after = (
        pictures(draw, shape_at(animation, time), view, 1.0).rgb for time in (0.0, 0.025, 0.25)
    )
    assert psnr(between, before) > psnr(between, after) + 3
