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
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from studio.errors import StudioError
from studio.evaluate.metrics import check_mesh
from studio.export.asset import ExportReport, export_asset, export_files
from studio.export.formats import asset_paths, format_of
from studio.recipes.config import AssetFormat, ExportConfig
from studio.renderers.splatting import SplatRenderer
from studio.types import Mesh, Splats
from tests.export.shapes import random_splats, splats_on, stool

FORMATS: tuple[AssetFormat, ...] = get_args(AssetFormat)
CONFIG = ExportConfig(
    formats=FORMATS, mesh_faces=6000, texture_size=512, turntable_frames=6, turntable_size=64
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, Path, list[str]]:
    folder = tmp_path_factory.mktemp("run") / "assets"
    parts: list[str] = []
    splats = splats_on(*stool(), count=12_000)
    return export_asset(splats, SplatRenderer(), folder, CONFIG, parts.append), folder, parts


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
    assert imageio.imread(folder / "turntable.mp4").shape == (6, 64, 64, 3)
    for suffix in ("gif", "webp"):
        with Image.open(folder / f"turntable.{suffix}") as animation:
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


def test_a_mesh_of_fog_is_refused(tmp_path: Path) -> None:
    splats = random_splats(8)
    for opacity in (0.0, 0.06):
        fog = replace(splats, opacities=torch.full((8,), opacity), scales=torch.full((8, 3), 0.02))
        with pytest.raises(StudioError, match=r"found no surface.*covers 0\.\d\d of a pixel.*as \.ply"):
            export_files(fog, SplatRenderer(), [tmp_path / "a.glb"], CONFIG)
        assert list(tmp_path.iterdir()) == []
