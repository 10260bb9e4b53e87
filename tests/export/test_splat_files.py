"""The splat formats, read back by other people's libraries."""

from __future__ import annotations

import struct
from pathlib import Path

import gsply
import numpy as np
import plyfile
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from studio.errors import StudioError
from studio.export.ply import write_ply
from studio.export.splat import write_splat
from studio.export.spz import write_spz
from studio.splats import half_turn_about_x, read_ply
from studio.types import Splats
from tests.export.shapes import SH_DEGREE_0, random_splats

# x right, y up, z towards the viewer -> x right, y down, z away.
TO_FILE = np.diag([1.0, -1.0, -1.0])


def matrices(quats_wxyz: np.ndarray) -> np.ndarray:
    return Rotation.from_quat(np.asarray(quats_wxyz)[:, [1, 2, 3, 0]]).as_matrix()


def colors(sh: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """What harmonics in the 3DGS order show along directions, from scipy's complex ones.

    The 3DGS basis keeps the Condon-Shortley phase: its degree 1 is -y, z, -x.
    """
    polar, azimuth = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
    basis = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            harmonic = sph_harm_y(degree, abs(order), polar, azimuth)
            part = harmonic.imag if order < 0 else harmonic.real
            basis.append(part * (1.0 if order == 0 else 2**0.5))
    return np.einsum("dk,nkc->dnc", np.stack(basis, axis=-1), sh)


def assert_turned(read: Splats, splats: Splats, tolerance: float) -> None:
    """``read`` is ``splats`` in the files' axes: places, shapes and colours."""
    np.testing.assert_allclose(read.means, splats.means @ torch.tensor(TO_FILE).float(), atol=tolerance)
    for mine, theirs in zip(matrices(splats.quats_wxyz), matrices(read.quats_wxyz), strict=True):
        np.testing.assert_allclose(theirs, TO_FILE @ mine, atol=max(tolerance, 1e-5))
    directions = np.random.default_rng(0).normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        colors(read.sh.numpy(), directions @ TO_FILE), colors(splats.sh.numpy(), directions), atol=1e-5
    )


def test_half_a_turn_moves_places_shapes_and_colours() -> None:
    splats = random_splats(30, coefficients=16)
    turned = half_turn_about_x(splats)
    assert_turned(turned, splats, 1e-6)
    back = half_turn_about_x(turned)
    torch.testing.assert_close(back.sh, splats.sh)
    # Half a turn twice is a whole one, which flips a quaternion's sign and nothing else.
    torch.testing.assert_close(back.quats_wxyz, -splats.quats_wxyz)


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_ply_as_plyfile_reads_it(tmp_path: Path, coefficients: int) -> None:
    splats = random_splats(50, coefficients)
    write_ply(splats, tmp_path / "a.ply")
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]

    def column(name: str) -> np.ndarray:
        return np.asarray(vertex[name])

    rest = 3 * (coefficients - 1)
    names = [*"xyz", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(rest))]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert [field.name for field in vertex.properties] == names
    # Channel-major: all coefficients of red, then of green, then of blue.
    sh = np.stack([column(f"f_dc_{i}") for i in range(3)], axis=-1)[:, None]
    if rest:
        flat = np.stack([column(f"f_rest_{i}") for i in range(rest)], axis=-1)
        sh = np.concatenate([sh, flat.reshape(50, 3, coefficients - 1).transpose(0, 2, 1)], axis=1)
    sh = np.pad(sh, ((0, 0), (0, 16 - coefficients), (0, 0)))
    read = Splats(
        torch.tensor(np.stack([column(axis) for axis in "xyz"], axis=-1)),
        torch.tensor(np.stack([column(f"rot_{i}") for i in range(4)], axis=-1)),
        torch.tensor(np.exp(np.stack([column(f"scale_{i}") for i in range(3)], axis=-1))),
        torch.tensor(1 / (1 + np.exp(-column("opacity")))),
        torch.tensor(sh),
    )
    padded = torch.nn.functional.pad(splats.sh, (0, 0, 0, 16 - coefficients))
    assert_turned(
        read, Splats(splats.means, splats.quats_wxyz, splats.scales, splats.opacities, padded), 1e-6
    )
    np.testing.assert_allclose(read.scales, splats.scales, rtol=1e-5)
    np.testing.assert_allclose(read.opacities, splats.opacities, atol=1e-6)


def test_ply_as_gsply_reads_it(tmp_path: Path) -> None:
    splats = random_splats(40, 16)
    write_ply(splats, tmp_path / "a.ply")
    data = gsply.plyread(str(tmp_path / "a.ply"))
    assert len(data) == 40 and data.get_sh_degree() == 3
    np.testing.assert_allclose(data.means, splats.means.numpy() @ TO_FILE, atol=1e-6)
    np.testing.assert_allclose(data.scales, splats.scales.log(), atol=1e-5)
    np.testing.assert_allclose(data.opacities.reshape(-1), splats.opacities.logit(), atol=1e-4)


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_ply_read_back_is_the_same_scene(tmp_path: Path, coefficients: int) -> None:
    splats = random_splats(30, coefficients)
    write_ply(splats, tmp_path / "a.ply")
    read = read_ply(tmp_path / "a.ply")
    torch.testing.assert_close(read.means, splats.means)
    torch.testing.assert_close(read.scales, splats.scales)
    torch.testing.assert_close(read.opacities, splats.opacities)
    torch.testing.assert_close(read.sh, splats.sh)
    np.testing.assert_allclose(matrices(read.quats_wxyz), matrices(splats.quats_wxyz), atol=1e-5)


def test_ply_keeps_opaque_and_flat_splats_finite(tmp_path: Path) -> None:
    splats = random_splats(3)
    extreme = Splats(
        splats.means, splats.quats_wxyz, torch.zeros(3, 3), torch.tensor([0.0, 1.0, 0.5]), splats.sh
    )
    write_ply(extreme, tmp_path / "a.ply")
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    assert all(np.isfinite(np.asarray(vertex[field.name])).all() for field in vertex.properties)
    torch.testing.assert_close(read_ply(tmp_path / "a.ply").opacities, extreme.opacities, atol=1e-6, rtol=0)


def test_ply_that_is_none_is_refused(tmp_path: Path) -> None:
    def refused(path: Path, why: str) -> None:
        with pytest.raises(StudioError, match=why) as caught:
            read_ply(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    refused(tmp_path / "missing.ply", "cannot read .*No such file.*expected a 3DGS .ply")
    (tmp_path / "text.ply").write_text("hello")
    refused(tmp_path / "text.ply", "not a .ply file")
    trimesh.creation.box().export(tmp_path / "mesh.ply", vertex_normal=False)
    refused(tmp_path / "mesh.ply", "no 3D Gaussians.*f_dc_0|no floats")
    trimesh.creation.box().export(tmp_path / "ascii.ply", encoding="ascii")
    refused(tmp_path / "ascii.ply", "not a binary little-endian")
    write_ply(random_splats(10), tmp_path / "whole.ply")
    (tmp_path / "cut.ply").write_bytes((tmp_path / "whole.ply").read_bytes()[:-100])
    refused(tmp_path / "cut.ply", "cut short")


def test_splat_rows(tmp_path: Path) -> None:
    splats = random_splats(25, 4)
    write_splat(splats, tmp_path / "a.splat")
    rows = list(struct.iter_unpack("<6f8B", (tmp_path / "a.splat").read_bytes()))
    importance = splats.scales.sort().values[:, 1:].prod(-1) * splats.opacities
    order = sorted(range(25), key=lambda i: -importance[i].item())
    rotations = matrices(splats.quats_wxyz)
    assert len(rows) == 25
    for row, i in zip(rows, order, strict=True):
        np.testing.assert_allclose(row[:3], TO_FILE @ splats.means[i].numpy(), rtol=1e-6)
        np.testing.assert_allclose(row[3:6], splats.scales[i], rtol=1e-6)
        rgb = (0.5 + SH_DEGREE_0 * splats.sh[i, 0]).clamp(0, 1)
        np.testing.assert_allclose(
            np.array(row[6:10]) / 255, [*rgb, splats.opacities[i]], atol=0.5 / 255 + 1e-6
        )
        quat = (np.array(row[10:14]) - 128) / 128
        np.testing.assert_allclose(matrices(quat[None])[0], TO_FILE @ rotations[i], atol=0.03)


@pytest.mark.parametrize("coefficients", [1, 16])
def test_spz_as_gsply_reads_it(tmp_path: Path, coefficients: int) -> None:
    splats = random_splats(60, coefficients)
    write_spz(splats, tmp_path / "a.spz")
    data = gsply.read_spz(str(tmp_path / "a.spz"))
    # The format has the studio's own axes; tolerances are its steps.
    np.testing.assert_allclose(data.means, splats.means, atol=2**-16)
    np.testing.assert_allclose(data.scales, splats.scales.log(), atol=1 / 32 + 1e-4)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-data.opacities.reshape(-1))), splats.opacities, atol=0.5 / 255 + 1e-4
    )
    np.testing.assert_allclose(matrices(data.quats), matrices(splats.quats_wxyz), atol=0.15)
    np.testing.assert_allclose(data.sh0, splats.sh[:, 0], atol=0.5 / (0.15 * 255) + 1e-4)
    if coefficients > 1:
        np.testing.assert_allclose(data.shN, splats.sh[:, 1:].clamp(-1, 127 / 128), atol=0.5 / 128 + 1e-4)
    assert (tmp_path / "a.spz").stat().st_size < 0.5 * 4 * 60 * (14 + 3 * coefficients)
