"""Where scenes start: even balls, neighbours' distances, surfaces with their colours, fitted point clouds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch.nn.functional import normalize

from studio.errors import StudioError
from studio.export.ply import write_ply
from studio.ops.rotations import quats_to_rotations
from studio.recipes.config import BallConfig, GaussiansConfig, MeshConfig, PointCloudConfig, SplatFileConfig
from studio.scenes.initialise import (
    ball,
    from_points,
    initial_gaussians,
    neighbour_distances,
    read_point_cloud,
    surface_samples,
)
from studio.types import Material, Mesh, Splats


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_ball_is_evenly_filled() -> None:
    points = ball(20_000, 0.45, rng())
    radii = points.norm(dim=-1)
    assert float(radii.max()) <= 0.45
    assert float((radii < 0.45 / 2).float().mean()) == pytest.approx(1 / 8, abs=0.01)
    assert float(points.mean(0).abs().max()) < 0.01


def test_neighbour_distances_against_all_pairs() -> None:
    points = ball(50, 1.0, rng())
    nearest = torch.cdist(points.double(), points.double()).sort(1).values[:, 1:4]
    expected = nearest.square().mean(1).sqrt().float()
    torch.testing.assert_close(neighbour_distances(points), expected)
    assert neighbour_distances(points[:2]).shape == (2,)


def test_splats_begin_as_spheres_of_their_color() -> None:
    points = ball(10, 1.0, rng())
    tensors = from_points(points, torch.full((10, 3), 0.25), opacity=0.3, sh_degree=2)
    torch.testing.assert_close(tensors.log_scales[:, 0].exp(), neighbour_distances(points))
    torch.testing.assert_close(tensors.opacity_logits.sigmoid(), torch.full((10,), 0.3))
    assert tensors.sh_rest.shape == (10, 8, 3)
    assert torch.equal(tensors.quats_wxyz[0], torch.tensor([1.0, 0.0, 0.0, 0.0]))


def test_surface_samples_are_even_and_carry_all_colors() -> None:
    """Two triangles, one of three times the area; its material is red, the other's texture is blue."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [3, 0, 0]])
    texture = torch.zeros(2, 2, 4)
    texture[..., 2:] = 1.0
    mesh = Mesh(
        vertices=vertices,
        faces=torch.tensor([[0, 1, 2], [0, 3, 2]]),
        uvs=torch.rand(2, 3, 2, generator=rng()),
        face_materials=torch.tensor([0, 1]),
        materials=(Material(texture=texture), Material(base_color=(1.0, 0.0, 0.0, 1.0))),
    )
    points, colors = surface_samples(mesh, 8000, rng())
    assert float(points[:, 2].abs().max()) == 0.0
    red = colors[:, 0] == 1.0
    assert float(red.float().mean()) == pytest.approx(3 / 4, abs=0.02)
    assert torch.equal(colors[~red], torch.tensor([0.0, 0.0, 1.0]).expand(int((~red).sum()), 3))
    torch.testing.assert_close(points[~red].mean(0), vertices[:3].mean(0), atol=0.02, rtol=0)


def test_textures_are_read_with_v_up() -> None:
    texture = torch.zeros(2, 1, 4)
    texture[0, 0] = torch.tensor([1.0, 0.0, 0.0, 1.0])  # The top row, v near 1.
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    mesh = Mesh(
        vertices, torch.tensor([[0, 1, 2]]), uvs=vertices[None, :, :2], materials=(Material(texture=texture),)
    )
    points, colors = surface_samples(mesh, 500, rng())
    assert torch.equal(colors[:, 0] == 1.0, points[:, 1] >= 0.5)


def test_a_mesh_without_area_is_refused() -> None:
    with pytest.raises(StudioError, match="no surface"):
        surface_samples(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), 5, rng())


def test_a_point_cloud_is_fitted_and_thinned(tmp_path: Path) -> None:
    points = np.array([[10.0, 0, 0], [14, 0, 0], [12, 1, 0], [12, 0, 1]])
    colors = np.array([[255, 0, 0, 255]] * 4, dtype=np.uint8)
    trimesh.PointCloud(points, colors).export(tmp_path / "points.ply")
    read, rgb = read_point_cloud(tmp_path / "points.ply")
    torch.testing.assert_close(read, torch.from_numpy(points).float())
    assert torch.equal(rgb, torch.tensor([1.0, 0.0, 0.0]).expand(4, 3))
    config = GaussiansConfig(initial=PointCloudConfig(path=str(tmp_path / "points.ply"), count=3))
    scene = initial_gaussians(config, rng())
    assert len(scene) == 3
    assert float(scene.at().means.detach().norm(dim=-1).max()) <= 0.5 + 1e-6


def test_point_clouds_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.ply").write_text("not a ply")
    trimesh.PointCloud(np.zeros((1, 3))).export(tmp_path / "one.ply")
    trimesh.PointCloud(np.full((3, 3), np.nan)).export(tmp_path / "nan.ply")
    for name, said in {"text.ply": "Cannot read points", "absent.ply": "Cannot read points"}.items():
        with pytest.raises(StudioError, match=said):
            read_point_cloud(tmp_path / name)
    for name in ("one.ply", "nan.ply"):
        with pytest.raises(StudioError, match="at least two, all finite"):
            read_point_cloud(tmp_path / name)


def test_a_scene_starts_on_a_mesh(tmp_path: Path) -> None:
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=7.0)
    sphere.visual.vertex_colors = np.array([0, 255, 0, 255], dtype=np.uint8)
    sphere.export(tmp_path / "sphere.ply")
    config = GaussiansConfig(initial=MeshConfig(path=str(tmp_path / "sphere.ply"), count=200))
    scene = initial_gaussians(config, rng())
    assert len(scene) == 200
    radii = scene.tensors.means.detach().norm(dim=-1)
    torch.testing.assert_close(radii, torch.full_like(radii, 0.5), atol=0.01, rtol=0)


@pytest.mark.parametrize(("sh_degree", "shape"), [(1, "ellipsoids"), (0, "ellipsoids"), (2, "surfels")])
def test_the_splats_of_a_file_are_taken_as_they_are(tmp_path: Path, sh_degree: int, shape: str) -> None:
    draws = torch.rand(30, 23, generator=rng())
    means, quats, scales, colors = (draws[:, :3], draws[:, 3:7], draws[:, 7:10] + 0.1, draws[:, 10:22])
    written = Splats(means, normalize(quats, dim=-1), scales, draws[:, 22], colors.reshape(30, 4, 3))
    write_ply(written, tmp_path / "asset.ply")

    def begun(fit: bool) -> Splats:
        file = SplatFileConfig(path=str(tmp_path / "asset.ply"), fit=fit)
        return initial_gaussians(GaussiansConfig(initial=file, sh_degree=sh_degree, shape=shape), rng()).at()

    splats = begun(fit=False)
    torch.testing.assert_close(splats.means, written.means)
    torch.testing.assert_close(splats.opacities, written.opacities, atol=1e-5, rtol=0)
    coefficients = min(4, (sh_degree + 1) ** 2)
    torch.testing.assert_close(splats.sh[:, :coefficients], written.sh[:, :coefficients])
    assert splats.sh.shape[1] == (sh_degree + 1) ** 2 and not splats.sh[:, 4:].any()
    if shape == "ellipsoids":
        torch.testing.assert_close(splats.scales, written.scales)
        fitted = begun(fit=True)
        assert float(fitted.means.detach().norm(dim=1).max()) == pytest.approx(0.5)
        factor = (fitted.means[0] - fitted.means[1]).norm() / (means[0] - means[1]).norm()
        torch.testing.assert_close(fitted.scales, factor * written.scales)
    else:
        assert not splats.scales[:, 2].any()


def test_files_without_splats_are_refused(tmp_path: Path) -> None:
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    with pytest.raises(StudioError, match="holds no 3D Gaussians"):
        initial_gaussians(GaussiansConfig(initial=SplatFileConfig(path=str(tmp_path / "points.ply"))), rng())
    nothing = Splats(*(torch.zeros(0, *size) for size in ((3,), (4,), (3,), (), (1, 3))))
    write_ply(nothing, tmp_path / "nothing.ply")
    with pytest.raises(StudioError, match="expected at least one"):
        initial_gaussians(GaussiansConfig(initial=SplatFileConfig(path=str(tmp_path / "nothing.ply"))), rng())


def test_starts_are_the_generators_alone() -> None:
    config = GaussiansConfig(initial=BallConfig(count=20))
    first, second = (initial_gaussians(config, rng()) for _ in range(2))
    assert torch.equal(first.tensors.means, second.tensors.means)


def test_surfels_begin_as_discs_that_face_all_ways() -> None:
    config = GaussiansConfig(shape="surfels", initial=BallConfig(count=400))
    splats = initial_gaussians(config, rng()).at()
    assert not splats.scales[:, 2].any() and torch.equal(splats.scales[:, 0], splats.scales[:, 1])
    normals = quats_to_rotations(splats.quats_wxyz.detach())[..., 2]
    # A uniform direction has mean 0 and mean square 1/3 along each axis.
    torch.testing.assert_close(normals.mean(0), torch.zeros(3), atol=0.1, rtol=0)
    torch.testing.assert_close(normals.square().mean(0), torch.full((3,), 1 / 3), atol=0.06, rtol=0)
