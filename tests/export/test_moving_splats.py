"""Splats in motion as files, read by others: Numpy by hand, plyfile, fourdgs, Pixar's library, ffmpeg."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import fourdgs
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from plyfile import PlyData
from pxr import Usd, UsdGeom, UsdVol

from studio.cameras import turntable
from studio.errors import StudioError
from studio.export.asset import export_files
from studio.export.film import film_of_views
from studio.export.images import to_pixels
from studio.export.skinned import read_skinned
from studio.export.views import pictures
from studio.ops.rotations import quats_to_rotations
from studio.recipes.config import (
    DeformableConfig,
    ExportConfig,
    GaussiansConfig,
    KeyframesConfig,
    NodesConfig,
    PerceptronConfig,
)
from studio.renderers.raster import MeshRenderer
from studio.renderers.splatting import SplatRenderer
from studio.scenes.deformation import Deformable
from studio.scenes.gaussians import Gaussians, GaussianTensors
from studio.types import Animation, Splats
from tests.export.shapes import SH_DEGREE_0, bending_bar, random_splats

FRAMES, SECONDS = 5, 2.0
CONFIG = ExportConfig(turntable_size=32)


def moving_scene(carriers: int = 4) -> Deformable:
    """Splats with view-dependent colours that a dozen nodes throw about."""
    rng = torch.Generator().manual_seed(1)
    splats = random_splats(100, 4)
    tensors = GaussianTensors(
        means=splats.means,
        log_scales=splats.scales.log(),
        quats_wxyz=splats.quats_wxyz,
        opacity_logits=splats.opacities.logit(),
        sh_dc=splats.sh[:, :1],
        sh_rest=splats.sh[:, 1:],
    )
    shape = GaussiansConfig(sh_degree=1)
    motion = NodesConfig(count=12, carriers=carriers, track=KeyframesConfig(count=4))
    scene = Deformable.of(
        Gaussians(tensors, shape), DeformableConfig(shape=shape, motion=motion), torch.Generator()
    )
    with torch.no_grad():
        for group in scene.motion.parameter_groups():
            group.parameter.add_(0.3 * torch.randn(group.parameter.shape, generator=rng))
    return scene


@pytest.fixture(scope="module")
def scene() -> Deformable:
    return moving_scene()


@pytest.fixture(scope="module")
def animation(scene: Deformable) -> Animation[Splats]:
    with torch.no_grad():
        moves = scene.animation(FRAMES, SECONDS)
    assert isinstance(moves.rest, Splats)
    return moves


@pytest.fixture(scope="module")
def files(animation: Animation[Splats], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The animation in every format that holds splats in motion, by suffix."""
    folder = tmp_path_factory.mktemp("splats")
    suffixes = ("ply", "skinned.zip", "4dgs", "usdc", "front.mp4", "views.mp4")
    paths = [folder / f"a.{suffix}" for suffix in suffixes]
    return dict(zip(suffixes, export_files(animation, SplatRenderer(), paths, CONFIG).paths, strict=True))


def states(scene: Deformable) -> list[Splats]:
    """The scene itself, asked at each frame's time."""
    with torch.no_grad():
        shapes = [scene.at(torch.tensor(index / (FRAMES - 1))) for index in range(FRAMES)]
    return [shape for shape in shapes if isinstance(shape, Splats)]


def turned(quats_wxyz: torch.Tensor) -> torch.Tensor:
    return quats_to_rotations(torch.nn.functional.normalize(quats_wxyz, dim=-1))


@pytest.mark.parametrize("loops", [False, True])
def test_a_bundle_read_back_moves_as_the_scene_does(scene: Deformable, loops: bool, tmp_path: Path) -> None:
    with torch.no_grad():
        moves = scene.animation(FRAMES, SECONDS, loops)
        export_files(moves, SplatRenderer(), [tmp_path / "a.skinned.zip"], CONFIG)
        back = read_skinned(tmp_path / "a.skinned.zip")
        assert len(back.frames) == FRAMES and back.seconds == SECONDS and back.loops is loops
        torch.testing.assert_close(back.times, moves.times)
        for time, baked in zip(moves.times, back.frames, strict=True):
            truth = scene.at(time)
            assert isinstance(truth, Splats)
            torch.testing.assert_close(baked.means, truth.means, atol=1e-5, rtol=0)
            torch.testing.assert_close(turned(baked.quats_wxyz), turned(truth.quats_wxyz), atol=1e-5, rtol=0)
            torch.testing.assert_close(baked.scales, truth.scales, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(baked.opacities, truth.opacities, atol=1e-5, rtol=0)
            torch.testing.assert_close(baked.sh, truth.sh, atol=1e-5, rtol=0)


def test_another_reader_can_play_a_bundle(files: dict[str, Path]) -> None:
    """From its description alone, splat by splat: its frames are those of the ``.ply`` sequence."""
    with zipfile.ZipFile(files["skinned.zip"]) as archive:
        assert archive.testzip() is None
        rest = PlyData.read(archive.open("canonical.ply"))["vertex"]
        skin, nodes = archive.read("skin.bin"), json.loads(archive.read("nodes.json"))
    count = len(rest.data)
    carriers = np.frombuffer(skin[: 8 * count], "<u2").reshape(count, 4)
    weights = np.frombuffer(skin[8 * count :], "<f4").reshape(count, 4)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert weights.min() >= 0 and nodes["fps"] == (FRAMES - 1) / SECONDS and nodes["loop"] is False
    assert [frame["t"] for frame in nodes["frames"]] == [0.0, 0.5, 1.0, 1.5, 2.0]
    at_rest = np.array(nodes["rest"])
    points = np.stack([rest[axis] for axis in "xyz"], axis=-1).astype(float)
    for frame, file in zip(nodes["frames"], sorted(files["ply"].iterdir()), strict=True):
        quats, places, moved = np.array(frame["q"]), np.array(frame["p"]), np.zeros_like(points)
        for splat in range(count):
            for node, weight in zip(carriers[splat], weights[splat], strict=True):
                (x, y, z, w), arm = quats[node], points[splat] - at_rest[node]
                axis = np.array([x, y, z])
                arm = arm + 2 * w * np.cross(axis, arm) + 2 * np.cross(axis, np.cross(axis, arm))
                moved[splat] += weight * (arm + places[node])
        shown = PlyData.read(file)["vertex"]
        np.testing.assert_allclose(moved, np.stack([shown[axis] for axis in "xyz"], -1), atol=1e-5)


def test_a_sequence_has_every_field_of_the_scene_at_its_times(
    scene: Deformable, files: dict[str, Path]
) -> None:
    """N files of equal counts: plyfile finds the numbers of the scene itself, in the axes of 3DGS."""
    sequence = sorted(files["ply"].iterdir())
    assert [file.name for file in sequence] == [f"a_000{number}.ply" for number in range(1, FRAMES + 1)]
    flip = torch.tensor([1.0, -1.0, -1.0])
    for file, truth in zip(sequence, states(scene), strict=True):
        read = PlyData.read(file)["vertex"]
        assert len(read.data) == len(truth.means)

        def columns(*names: str, read: PlyData = read) -> torch.Tensor:
            return torch.from_numpy(np.stack([read[name] for name in names], axis=-1).copy())

        torch.testing.assert_close(columns("x", "y", "z"), truth.means * flip, atol=1e-6, rtol=0)
        rotations = turned(columns("rot_0", "rot_1", "rot_2", "rot_3"))
        torch.testing.assert_close(rotations, flip[:, None] * turned(truth.quats_wxyz), atol=1e-5, rtol=0)
        scales = columns("scale_0", "scale_1", "scale_2")
        torch.testing.assert_close(scales, truth.scales.log(), atol=1e-5, rtol=1e-5)
        opacities = columns("opacity")[:, 0]
        torch.testing.assert_close(opacities, truth.opacities.logit(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(columns("f_dc_0", "f_dc_1", "f_dc_2"), truth.sh[:, 0])
        # The basis of degree 1 is y, z, x; f_rest runs through red, then green, then blue.
        rest = columns(*(f"f_rest_{number}" for number in range(9))).reshape(-1, 3, 3).mT
        turned_over = truth.sh[:, 1:] * torch.tensor([-1.0, -1.0, 1.0])[:, None]
        torch.testing.assert_close(rest, turned_over)


@pytest.mark.parametrize("loops", [False, True])
def test_4dgs_is_within_the_bounds_that_it_declares(scene: Deformable, loops: bool, tmp_path: Path) -> None:
    with torch.no_grad():
        moves = scene.animation(FRAMES, SECONDS, loops)
    export_files(moves, SplatRenderer(), [tmp_path / "a.4dgs"], CONFIG)
    read = fourdgs.read(str(tmp_path / "a.4dgs"))
    assert read.header.duration_sec == SECONDS and read.header.gaussian_count == 100 * FRAMES
    median = float(torch.cat([frame.scales for frame in moves.frames]).median())
    bounds = fourdgs.Bounds.for_profile("default", median_scale=median)
    steps = (torch.arange(FRAMES) / (FRAMES if loops else FRAMES - 1)).tolist()
    for index, time in enumerate(steps):
        now, truth = read.gaussians.state_at(SECONDS * time), moves.frames[index]
        seen, chosen = now["indices"], _nearest(now["centers"], truth)
        np.testing.assert_allclose(now["centers"], truth.means[chosen], atol=1.01 * bounds.pos)
        np.testing.assert_allclose(now["opacity"], truth.opacities[chosen], atol=1.01 * bounds.alpha)
        scales, rgb = read.gaussians.scales[seen], read.gaussians.colors[seen, :3]
        np.testing.assert_allclose(scales, truth.scales[chosen], rtol=1.01 * bounds.scale_rel)
        colors = (truth.sh[:, 0] * SH_DEGREE_0 + 0.5).clamp(0, 1)
        np.testing.assert_allclose(rgb, colors[chosen], atol=1.01 * bounds.rgb)
        wxyz = torch.tensor(now["orientations"]).roll(1, dims=-1)
        error = turned(wxyz) - turned(truth.quats_wxyz[chosen].double())
        assert float(error.abs().max()) < 8 * bounds.rot  # of four components, each within the bound
        codes = read.gaussians.sh[seen].reshape(-1, 3, 3) / 255 * 8 - 4
        expected = truth.sh[chosen, 1:].mT.clamp(-4, 4)
        np.testing.assert_allclose(codes, expected, atol=4.01 / 255)
    # Between two frames it goes straight on; at the end of a loop, towards the first frame.
    half = 0.5 * steps[1]
    for time, start, end in ((half, 0, 1), *([(1 - half, FRAMES - 1, 0)] if loops else [])):
        means = (moves.frames[start].means + moves.frames[end].means) / 2
        chosen = _nearest(
            read.gaussians.state_at(SECONDS * time)["centers"], replace(moves.rest, means=means)
        )
        assert len(set(chosen.tolist())) == 100


def _nearest(centers: np.ndarray, truth: Splats) -> np.ndarray:
    """Which splat is at each place: a file has its own order."""
    away = np.linalg.norm(centers[:, None] - truth.means.numpy(), axis=-1)
    assert away.min(1).max() < 2e-3
    return away.argmin(1)


def test_usd_has_a_sample_a_frame(scene: Deformable, files: dict[str, Path]) -> None:
    stage = Usd.Stage.Open(str(files["usdc"]))
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and stage.GetDefaultPrim().GetName() == "a"
    assert stage.GetStartTimeCode() == 0 and stage.GetEndTimeCode() == 24 * SECONDS
    (prim,) = (prim for prim in stage.Traverse() if prim.IsA(UsdVol.ParticleField3DGaussianSplat))
    field = UsdVol.ParticleField3DGaussianSplat(prim)
    samples = field.GetPositionsAttr().GetTimeSamples()
    assert samples == [0.0, 12.0, 24.0, 36.0, 48.0]
    assert field.GetRadianceSphericalHarmonicsDegreeAttr().Get() == 1
    before = None
    for sample, truth in zip(samples, states(scene), strict=True):
        np.testing.assert_allclose(field.GetPositionsAttr().Get(sample), truth.means, atol=1e-6)
        quats = [[q.GetReal(), *q.GetImaginary()] for q in field.GetOrientationsAttr().Get(sample)]
        torch.testing.assert_close(turned(torch.tensor(quats)), turned(truth.quats_wxyz), atol=1e-5, rtol=0)
        assert before is None or (np.sum(before * np.array(quats), axis=-1) >= 0).all()
        before = np.array(quats)
        np.testing.assert_allclose(field.GetScalesAttr().Get(sample), truth.scales, rtol=1e-5)
        np.testing.assert_allclose(field.GetOpacitiesAttr().Get(sample), truth.opacities, atol=1e-6)
        coefficients = np.array(field.GetRadianceSphericalHarmonicsCoefficientsAttr().Get(sample))
        np.testing.assert_allclose(coefficients.reshape(-1, 4, 3), truth.sh, atol=1e-6)
        low, high = np.array(field.GetExtentAttr().Get(sample))
        assert (low < truth.means.numpy().min(0)).all() and (high > truth.means.numpy().max(0)).all()


def test_splats_at_rest_are_a_still_usd(tmp_path: Path) -> None:
    splats = random_splats(50, 9)
    export_files(splats, SplatRenderer(), [tmp_path / "1.usdc"], CONFIG)
    read = fourdgs.from_usd(str(tmp_path / "1.usdc")).gaussians
    np.testing.assert_allclose(read.positions, splats.means, atol=1e-6)
    np.testing.assert_allclose(read.scales, splats.scales, rtol=1e-6)
    assert read.sh_degree == 2


def test_films_have_a_picture_a_frame(animation: Animation[Splats], files: dict[str, Path]) -> None:
    for name, shape in (("front.mp4", (32, 32, 3)), ("views.mp4", (64, 128, 3))):
        video = imageio.imread(files[name])
        assert video.shape == (FRAMES, *shape)
        assert imageio.immeta(files[name])["fps"] == (FRAMES - 1) / SECONDS
    still = SplatRenderer()
    film = film_of_views(animation, still, 32)
    for index, frame in enumerate(animation.frames):
        views = to_pixels(pictures(still, frame, turntable(8, 32, 32), 1.0).rgb)
        for view in range(8):
            row, column = divmod(view, 4)
            tile = film[index, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            np.testing.assert_array_equal(tile, views[view])


def test_what_a_bundle_cannot_hold_is_refused(animation: Animation[Splats], tmp_path: Path) -> None:
    path = tmp_path / "a.skinned.zip"
    with torch.no_grad():
        crowded = moving_scene(carriers=5).animation(2, 1.0)
    shape = GaussiansConfig(sh_degree=1)
    free = Deformable.of(
        moving_scene().shape, DeformableConfig(shape=shape, motion=PerceptronConfig()), torch.Generator()
    )
    for asset, says in (
        (replace(animation, rig=None), "these move each by itself.*Try .ply or .4dgs"),
        (free.animation(2, 1.0), "these move each by itself"),
        (crowded, "carried by 5 of 11 nodes, expected at most 4"),
        (animation.rest, r"\.skinned\.zip holds motion and the scene is at rest.*\.ply, \.splat"),
    ):
        with pytest.raises(StudioError, match=says):
            export_files(asset, SplatRenderer(), [path], CONFIG)
    with pytest.raises(StudioError, match=r"\.skinned\.zip holds splats and the scene has none"):
        export_files(bending_bar(), MeshRenderer(), [path], CONFIG)
    for name in ("a.4dgs", "a.front.mp4"):
        with pytest.raises(StudioError, match="holds motion and the scene is at rest"):
            export_files(animation.rest, SplatRenderer(), [tmp_path / name], CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_bundle_says_so(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["skinned.zip"]
    with zipfile.ZipFile(whole) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    nodes = json.loads(members["nodes.json"])
    short = {**nodes, "frames": [{**frame, "q": frame["q"][:-1]} for frame in nodes["frames"]]}
    path = tmp_path / "a.skinned.zip"
    for change, says in (
        ({"skin.bin": members["skin.bin"][:-4]}, "skin.bin has 2396 bytes for 100 splats, not 2400"),
        ({"skin.bin": b"\xff" * 2400}, "names node 65535 of 11"),
        ({"nodes.json": b"{"}, "no bundle of skinned splats"),
        ({"nodes.json": json.dumps(short).encode()}, "other numbers of nodes"),
        ({"canonical.ply": b"ply"}, "is not a .ply"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (members | change).items():
                archive.writestr(name, content)
        with pytest.raises(StudioError, match=says):
            read_skinned(path)
    path.write_bytes(whole.read_bytes()[:300])
    with pytest.raises(StudioError, match="no bundle of skinned splats"):
        read_skinned(path)
    with pytest.raises(StudioError, match="No such file"):
        read_skinned(tmp_path / "none.skinned.zip")
