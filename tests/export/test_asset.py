"""A whole export, once, of a scene with a known shape; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import gsply
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from studio.errors import StudioError
from studio.evaluate.metrics import check_mesh
from studio.export.asset import ExportReport, export_asset, export_files
from studio.export.formats import asset_paths, format_of
from studio.export.reconstruction import baked_cameras, fused_cameras, held_out_cameras, level_cameras
from studio.ops.surfaces import Light
from studio.recipes.config import FLAT, NEEDS_MOTION, AssetFormat, ExportConfig
from studio.renderers.meshes import RasterRenderer
from studio.renderers.raster import studio_light
from studio.renderers.splatting import SplatRenderer
from studio.types import Material, Mesh, Splats
from tests.export.conftest import export_quickly
from tests.export.gltf_player import chunks
from tests.export.shapes import random_splats, splats_on, stool

FORMATS: tuple[AssetFormat, ...] = tuple(
    name for name in get_args(AssetFormat) if name not in FLAT | NEEDS_MOTION
)
CONFIG = ExportConfig(
    formats=FORMATS, mesh_faces=6000, texture_size=512, turntable_frames=6, turntable_size=64
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, Path, list[str]]:
    folder = tmp_path_factory.mktemp("run") / "assets"
    parts: list[str] = []
    splats = splats_on(*stool(), count=12_000)
    with pytest.MonkeyPatch.context() as patch:
        export_quickly(patch, 96, 192)
        return export_asset(splats, SplatRenderer(), folder, CONFIG, parts.append), folder, parts


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    export_quickly(monkeypatch, 48, 128)


def test_every_format_is_written_and_nothing_else(exported: tuple[ExportReport, Path, list[str]]) -> None:
    report, folder, parts = exported
    assert report.paths == asset_paths(folder, FORMATS)
    names = {path.name for path in report.paths}
    assert {path.name for path in folder.iterdir()} == names | {"asset.mtl", "asset_0.png"}
    assert list(report.seconds) == parts and all(seconds >= 0 for seconds in report.seconds.values())


def test_the_mesh_looks_like_the_splats(exported: tuple[ExportReport, Path, list[str]]) -> None:
    likeness = exported[0].likeness
    assert likeness is not None
    assert likeness.psnr_db > 26
    assert likeness.silhouette_iou > 0.95
    assert 5000 < likeness.faces <= 6000


def test_the_likeness_is_measured_where_nothing_was_made() -> None:
    """No camera that the mesh is made from stands within five degrees of one that judges it."""
    judges = F.normalize(held_out_cameras().positions, dim=1)
    for makers in (fused_cameras(), baked_cameras(), level_cameras()):
        cosines = judges @ F.normalize(makers.positions, dim=1).T
        assert torch.rad2deg(cosines.clamp(-1, 1).acos()).min() > 5


def test_the_mesh_has_the_known_shape(exported: tuple[ExportReport, Path, list[str]]) -> None:
    """Thin legs and all: closed, one piece, and nowhere far from the stool that the splats were put on."""
    mesh = trimesh.load(exported[1] / "asset.glb", force="mesh")
    checks = check_mesh(Mesh(torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).long()))
    assert checks.watertight and checks.components == 1 and checks.degenerate_faces == 0
    assert mesh.volume > 0
    truth, _ = stool()
    np.testing.assert_allclose(mesh.bounds, truth.bounds, atol=0.02)
    on_truth, on_mesh = (trimesh.sample.sample_surface(shape, 20_000, seed=1)[0] for shape in (truth, mesh))
    assert np.quantile(cKDTree(on_truth).query(on_mesh)[0], 0.99) < 0.02
    # The legs' ends stand inside the seat, where no surface shows: some points of the truth are far from all.
    assert np.quantile(cKDTree(on_mesh).query(on_truth)[0], 0.95) < 0.02


def test_obj_and_stl_hold_the_same_mesh(exported: tuple[ExportReport, Path, list[str]]) -> None:
    folder = exported[1]
    glb, obj, stl = (
        trimesh.load(folder / f"asset.{suffix}", force="mesh") for suffix in ("glb", "obj", "stl")
    )
    assert len(glb.faces) == len(obj.faces) == len(stl.faces)
    np.testing.assert_allclose(obj.bounds, glb.bounds, atol=1e-5)
    assert stl.volume == pytest.approx(100**3 * glb.volume, rel=1e-3)


def test_pictures_have_their_sizes(exported: tuple[ExportReport, Path, list[str]]) -> None:
    folder = exported[1]
    assert imageio.imread(folder / "clip.mp4").shape == (6, 64, 64, 3)
    for suffix in ("gif", "webp", "apng"):
        with Image.open(folder / f"clip.{suffix}") as animation:
            assert animation.n_frames == 6 and animation.size == (64, 64)
    sheet = np.asarray(Image.open(folder / "contact_sheet.png"))
    assert sheet.shape[1] == 8 * 256
    # The mesh's row below the splats' shows the same.
    height = sheet.shape[0] // 2
    splats, mesh = sheet[:256].astype(float), sheet[height : height + 256].astype(float)
    assert splats.min() < 100 and np.abs(splats - mesh).mean() < 4


def test_splats_are_whole(exported: tuple[ExportReport, Path, list[str]]) -> None:
    folder = exported[1]
    assert len(gsply.plyread(str(folder / "asset.ply"))) == 12_000
    assert len(gsply.read_spz(str(folder / "asset.spz")).means) == 12_000
    assert (folder / "asset.splat").stat().st_size == 32 * 12_000


def test_without_a_mesh_there_is_no_likeness_and_one_row_less(tmp_path: Path) -> None:
    paths = [tmp_path / "view.png", tmp_path / "bear.ply"]
    report = export_files(random_splats(50), SplatRenderer(), paths, CONFIG)
    assert report.likeness is None and report.paths == tuple(paths)
    assert Image.open(paths[0]).size[0] == 4 * 256


SMALL = replace(CONFIG, texture_size=128)


def textured_ball(subdivisions: int) -> Mesh:
    """A ball in a texture of stripes, its texture coordinates around and along its axis."""
    ball = trimesh.creation.icosphere(subdivisions, radius=0.4)
    vertices, faces = torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long()
    around = torch.atan2(vertices[:, 0], vertices[:, 2]) / torch.pi
    uvs = torch.stack([around.abs(), vertices[:, 1] + 0.5], dim=-1)
    stripes = (torch.linspace(0, 20, 64).sin() > 0).float()[:, None, None].expand(64, 64, 4)
    texture = torch.where(torch.tensor([0.0, 0, 0, 1]) > 0, 1.0, 0.2 + 0.6 * stripes)
    return Mesh(vertices, faces, uvs[faces], materials=(Material(texture=texture),))


@pytest.mark.usefixtures("quick")
def test_a_textured_mesh_has_a_likeness_too_and_is_lit_where_its_scene_is(tmp_path: Path) -> None:
    ball = textured_ball(3)
    for name, light in (("plain", Light()), ("lit", studio_light())):
        report = export_files(ball, RasterRenderer(2, light), [tmp_path / f"{name}.glb"], CONFIG)
        assert report.likeness is not None and report.likeness.level == 0.0
        assert report.likeness.psnr_db > 30 and report.likeness.faces == len(ball.faces)
        document, _ = chunks(tmp_path / f"{name}.glb")
        assert ("extensions" in document["materials"][0]) == (name == "plain")


@pytest.mark.usefixtures("quick")
def test_a_mesh_over_its_budget_is_simplified_and_painted_anew(tmp_path: Path) -> None:
    ball = textured_ball(4)
    config = replace(SMALL, mesh_faces=1000, normal_map=True)
    report = export_files(ball, RasterRenderer(2), [tmp_path / "ball.glb"], config)
    assert report.likeness is not None and report.likeness.faces <= 1000
    assert report.likeness.psnr_db > 24 and report.likeness.silhouette_iou > 0.98
    document, _ = chunks(tmp_path / "ball.glb")
    assert "TANGENT" in document["meshes"][0]["primitives"][0]["attributes"]
    assert document["materials"][0]["normalTexture"] == {"index": 1}


@pytest.mark.usefixtures("quick")
def test_an_open_surface_is_simplified_as_it_is(tmp_path: Path) -> None:
    """Half a ball is no solid: nothing takes it for one."""
    ball = textured_ball(4)
    upper = ball.vertices[ball.faces][..., 1].amin(1) > 0
    half = Mesh(ball.vertices, ball.faces[upper], vertex_colors=torch.full_like(ball.vertices, 0.5))
    report = export_files(half, RasterRenderer(2), [tmp_path / "half.glb"], replace(SMALL, mesh_faces=500))
    assert report.likeness is not None and report.likeness.psnr_db > 20


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8192)])
def test_textures_of_any_size_are_written(height: int, width: int, tmp_path: Path) -> None:
    ball = textured_ball(1)
    texture = torch.full((height, width, 4), 0.5)
    texture[..., 3] = 1.0
    mesh = replace(ball, materials=(Material(texture=texture),))
    report = export_files(mesh, RasterRenderer(), [tmp_path / "ball.glb"], CONFIG)
    assert report.likeness is not None and report.likeness.psnr_db > 30
    written = trimesh.load(tmp_path / "ball.glb", force="mesh")
    assert written.visual.material.baseColorTexture.size == (width, height)


@pytest.mark.usefixtures("quick")
def test_texture_coordinates_without_area_are_written(tmp_path: Path) -> None:
    ball = textured_ball(1)
    paths = [tmp_path / f"ball.{suffix}" for suffix in ("glb", "obj", "usdz", "3mf")]
    assert ball.uvs is not None
    export_files(replace(ball, uvs=torch.zeros_like(ball.uvs)), RasterRenderer(), paths, CONFIG)
    assert all(path.stat().st_size > 0 for path in paths)


@pytest.mark.usefixtures("quick")
def test_one_splat_is_a_scene(tmp_path: Path) -> None:
    one = Splats(
        means=torch.zeros(1, 3),
        quats_wxyz=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        scales=torch.full((1, 3), 0.12),
        opacities=torch.ones(1),
        sh=torch.zeros(1, 1, 3),
    )
    config = replace(SMALL, mesh_faces=500)
    report = export_files(one, SplatRenderer(), [tmp_path / "one.glb", tmp_path / "one.ply"], config)
    assert report.likeness is not None and report.likeness.silhouette_iou > 0.8


def test_meshes_that_no_format_can_hold_are_refused(tmp_path: Path) -> None:
    ball = textured_ball(1)
    assert ball.uvs is not None
    torn = ball.vertices.where(ball.vertices < 0.39, torch.nan)
    stained = (Material(texture=torch.full((4, 4, 4), torch.nan)),)
    for mesh, says in (
        (replace(ball, faces=ball.faces[:0], uvs=ball.uvs[:0]), "0 faces and 0 vertices that are not finite"),
        (replace(ball, vertices=torn), "vertices that are not finite"),
        (replace(ball, uvs=ball.uvs * torch.inf), "texture coordinates are not finite"),
        (replace(ball, materials=stained), "64 numbers of the"),
    ):
        with pytest.raises(StudioError, match=says):
            export_files(mesh, RasterRenderer(), [tmp_path / "a.glb"], CONFIG)
    assert list(tmp_path.iterdir()) == []


def refused(message: str, splats: Splats, path: Path) -> None:
    """The export fails with this one line and writes nothing."""
    with pytest.raises(StudioError, match=message) as caught:
        export_files(splats, SplatRenderer(), [path.with_suffix(".ply"), path], CONFIG)
    assert "\n" not in str(caught.value)
    assert not path.exists()


def test_unknown_suffixes_are_refused_with_the_nearest(tmp_path: Path) -> None:
    refused(
        r"\.gbl is no known format.*Did you mean 'glb'.*\.glb, \.obj", random_splats(5), tmp_path / "a.gbl"
    )
    refused("a name without a suffix.*Expected one of", random_splats(5), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    assert format_of(Path("UPPER.GLB")) == "glb"


def test_unwritable_folders_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused("cannot write .*expected a writable folder", random_splats(5), tmp_path / "file" / "a.glb")


def test_scenes_that_no_format_can_hold_are_refused(tmp_path: Path) -> None:
    splats = random_splats(8)
    nothing = Splats(*(field[:0] for field in vars(splats).values()))
    refused("scene is empty: 0 splats.*Try more steps", nothing, tmp_path / "a.glb")
    means = splats.means.clone()
    means[3, 1] = torch.nan
    refused(
        "1 of 8 splats hold numbers that are not finite", replace(splats, means=means), tmp_path / "a.glb"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_a_mesh_of_fog_is_refused(tmp_path: Path) -> None:
    splats = random_splats(8)
    for opacity in (0.0, 0.06):
        fog = replace(splats, opacities=torch.full((8,), opacity), scales=torch.full((8, 3), 0.02))
        with pytest.raises(StudioError, match=r"found no surface.*covers 0\.\d\d of a pixel.*as \.ply"):
            export_files(fog, SplatRenderer(), [tmp_path / "a.glb"], CONFIG)
        assert list(tmp_path.iterdir()) == []
