"""Reading meshes: files written by hand and by trimesh, and messages for those that are broken."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from studio.cameras import orbit
from studio.errors import StudioError
from studio.meshes import load_mesh, mesh_statistics, normalised, vertex_normals
from studio.ops.surfaces import Light
from studio.renderers.raster import MeshRenderer
from studio.types import Mesh

# Red, green over blue, yellow
PICTURE = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)

OBJ = """\
mtllib two.mtl
v -1 -1 0
v 1 -1 0
v 1 1 0
v -1 1 0
v 9 9 9
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl painted
f 1/1 2/2 3/3 4/4
usemtl glass
f 1 3 2
"""
MTL = """\
newmtl painted
Kd 0.1 0.1 0.1
map_Kd Picture.PNG
newmtl glass
Kd 0.2 0.4 0.6
d 0.3
"""


@pytest.fixture
def obj(tmp_path: Path) -> Path:
    """A textured square in the plane z = 0 and a triangle of glass; the texture's name differs in case."""
    (tmp_path / "two.obj").write_text(OBJ)
    (tmp_path / "two.mtl").write_text(MTL)
    Image.fromarray(PICTURE).resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "picture.png")
    return tmp_path / "two.obj"


def shown_from_the_front(mesh: Mesh) -> torch.Tensor:
    """The colours at the middle of the four quarters of a square around the origin, as two rows of two."""
    cameras = orbit(torch.tensor([0.0]), torch.tensor([0.0]), 32, 32)
    rgb = MeshRenderer(light=Light())(normalised(mesh), cameras, torch.full((1, 3), 0.5)).rgb[0]
    return rgb[:, [[13, 13], [19, 19]], [[13, 19], [13, 19]]].permute(1, 2, 0)


def test_obj_keeps_materials_textures_and_opacity(obj: Path) -> None:
    mesh = load_mesh(obj)
    assert len(mesh.faces) == 3 and mesh.face_materials is not None and mesh.uvs is not None
    (glass,) = (material for material in mesh.materials if material.texture is None)
    (painted,) = (material for material in mesh.materials if material.texture is not None)
    assert glass.base_color == (0.2, 0.4, 0.6, 0.3)
    assert painted.base_color == (1.0, 1.0, 1.0, 1.0)  # the texture replaces Kd
    assert float(mesh.vertices.max()) == 1  # the vertex that no face uses is gone
    by_material = [len(mesh.faces[mesh.face_materials == i]) for i in range(2)]
    assert by_material[mesh.materials.index(painted)] == 2


def test_obj_pictures_stand_upright(obj: Path) -> None:
    obj.write_text(OBJ.split("usemtl glass")[0])
    shown = shown_from_the_front(load_mesh(obj))
    torch.testing.assert_close(shown, torch.from_numpy(PICTURE).float() / 255, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "name",
    ["picture.png", "PICTURE.png", "textures\\picture.png", "-s 1 1 1 picture.png", "C:/a b/picture.png"],
)
def test_textures_are_found_under_careless_names(obj: Path, name: str) -> None:
    (obj.parent / "two.mtl").write_text(MTL.replace("Picture.PNG", name))
    assert mesh_statistics(load_mesh(obj)).texture_count == 1


def test_map_d_and_tr_give_transparency(obj: Path) -> None:
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(obj.parent / "mask.png")
    (obj.parent / "two.mtl").write_text(
        MTL.replace("map_Kd Picture.PNG", "map_Kd Picture.PNG\nmap_d mask.png").replace("d 0.3", "Tr 0.3")
    )
    materials = load_mesh(obj).materials
    (texture,) = (material.texture for material in materials if material.texture is not None)
    assert texture[0, 0, 3] == 0 and texture[0, -1, 3] == 1
    assert sorted(material.base_color[3] for material in materials) == [0.7, 1.0]


def test_large_textures_are_shrunk(obj: Path) -> None:
    textures = [m.texture for m in load_mesh(obj, max_texture_size=16).materials if m.texture is not None]
    assert [tuple(texture.shape) for texture in textures] == [(16, 16, 4)]


def test_glb_round_trip_with_a_texture_and_placed_parts(tmp_path: Path) -> None:
    """What trimesh writes: a square and a box that the scene graph turns, moves and scales."""
    square = trimesh.Trimesh(
        [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False
    )
    picture = Image.fromarray(PICTURE).resize((64, 64), Image.Resampling.NEAREST)
    square.visual = trimesh.visual.TextureVisuals(
        uv=[[0, 0], [1, 0], [1, 1], [0, 1]],
        material=trimesh.visual.material.PBRMaterial(baseColorTexture=picture, baseColorFactor=[255] * 4),
    )
    box = trimesh.creation.box(extents=(1, 2, 4))
    # glTF's factors are linear: 0.5 shows as sRGB 0.735.
    box.visual = trimesh.visual.TextureVisuals(
        material=trimesh.visual.material.PBRMaterial(baseColorFactor=[0.5, 0.0, 1.0, 1.0])
    )
    transform = trimesh.transformations.rotation_matrix(math.pi / 2, [0, 1, 0])
    transform[:3, :3] *= 0.5
    transform[:3, 3] = [0, 0, -7]
    scene = trimesh.Scene()
    scene.add_geometry(square)
    scene.add_geometry(box, transform=transform)
    scene.export(tmp_path / "scene.glb")

    mesh = load_mesh(tmp_path / "scene.glb")
    assert len(mesh.faces) == 14 and len(mesh.materials) == 2 and mesh.face_materials is not None
    (plain,) = (i for i, material in enumerate(mesh.materials) if material.texture is None)
    part = mesh.vertices[mesh.faces[mesh.face_materials == plain].unique()]
    # Half the size, its z turned to x.
    torch.testing.assert_close(part.amax(0) - part.amin(0), torch.tensor([2.0, 1.0, 0.5]))
    torch.testing.assert_close((part.amax(0) + part.amin(0)) / 2, torch.tensor([0.0, 0.0, -7.0]))
    np.testing.assert_allclose(mesh.materials[plain].base_color, [0.735, 0, 1, 1], atol=3e-3)
    front = replace(
        mesh, faces=mesh.faces[mesh.face_materials != plain], uvs=mesh.uvs[mesh.face_materials != plain],
        face_materials=mesh.face_materials[mesh.face_materials != plain], vertex_normals=None,
    )  # fmt: skip
    shown = shown_from_the_front(front)
    torch.testing.assert_close(shown, torch.from_numpy(PICTURE).float() / 255, rtol=0, atol=1e-3)


def test_ply_and_stl_round_trips(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=1)
    colors = np.random.default_rng(0).integers(0, 256, (len(ball.vertices), 4), dtype=np.uint8)
    colors[:, 3] = 255
    trimesh.Trimesh(ball.vertices, ball.faces, vertex_colors=colors, process=False).export(
        tmp_path / "ball.ply"
    )
    ball.export(tmp_path / "ball.stl")
    ply, stl = load_mesh(tmp_path / "ball.ply"), load_mesh(tmp_path / "ball.stl")
    assert ply.vertex_colors is not None
    order = [int(np.linalg.norm(ball.vertices - v, axis=1).argmin()) for v in ply.vertices.numpy()]
    np.testing.assert_allclose(ply.vertex_colors.numpy(), colors[order, :3] / 255, atol=1e-6)
    for mesh in (ply, stl):
        corners = mesh.vertices[mesh.faces].numpy()
        np.testing.assert_allclose(corners, ball.vertices[ball.faces], atol=1e-6)


def test_statistics_of_a_box_and_of_an_open_one() -> None:
    box = trimesh.creation.box(extents=(1, 2, 3))
    mesh = Mesh(torch.tensor(box.vertices, dtype=torch.float32), torch.tensor(box.faces))
    whole = mesh_statistics(mesh)
    assert (whole.vertex_count, whole.face_count, whole.material_count, whole.texture_count) == (8, 12, 1, 0)
    assert whole.extent == (1, 2, 3) and whole.is_watertight
    assert abs(whole.surface_area - 22) < 1e-5
    assert not mesh_statistics(replace(mesh, faces=mesh.faces[1:])).is_watertight
    split = Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), torch.arange(36).reshape(-1, 3))
    assert mesh_statistics(split).is_watertight


def test_normalised_fills_the_ball_around_the_origin() -> None:
    vertices = torch.tensor([[1.0, 2, 3], [2, 2, 3], [1, 5, 3], [99, 99, 99]])
    mesh = normalised(Mesh(vertices, torch.tensor([[0, 1, 2]])), radius=0.5)
    used = mesh.vertices[:3]
    torch.testing.assert_close(used.amax(0) + used.amin(0), torch.zeros(3), rtol=0, atol=1e-6)
    assert abs(float(used.norm(dim=-1).max()) - 0.5) < 1e-6
    assert abs(float((used[1] - used[0]).norm() / (used[2] - used[0]).norm()) - 1 / 3) < 1e-6
    point = normalised(Mesh(torch.ones(3, 3), torch.tensor([[0, 1, 2]])))
    assert torch.equal(point.vertices, torch.zeros(3, 3))


def test_vertex_normals_of_a_ball_point_outwards_across_seams() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3)
    split = torch.tensor(ball.vertices[ball.faces].reshape(-1, 3), dtype=torch.float32)
    normals = vertex_normals(Mesh(split, torch.arange(len(split)).reshape(-1, 3)))
    assert float((normals * split).sum(-1).min()) > math.cos(math.radians(1.5))
    assert not bool(vertex_normals(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))).any())


def test_normals_of_the_file_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0.6 0.8\nf 1//1 2//1 3//1\n")
    (tmp_path / "b.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    normals = load_mesh(tmp_path / "a.obj").vertex_normals
    assert normals is not None
    torch.testing.assert_close(normals, torch.tensor([0.0, 0.6, 0.8]).expand(3, 3))
    assert load_mesh(tmp_path / "b.obj").vertex_normals is None


TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.objj", TRIANGLE, r"'\.objj', expected one of .*Did you mean '\.obj'\?"),
        ("a.obj", TRIANGLE, "has no faces"),
        ("a.obj", "", "has no faces"),
        ("a.obj", TRIANGLE + "f 1 2 7\n", "cannot be read as OBJ.*face indices exist"),
        ("a.obj", TRIANGLE.replace("1 0 0", "nan 0 0") + "f 1 2 3\n", "1 vertices that are not finite"),
        ("a.obj", TRIANGLE.replace("1 0 0", "inf 0 0") + "f 1 2 3\n", "1 vertices that are not finite"),
        ("a.obj", "mtllib a.mtl\n" + TRIANGLE + "f 1 2 3\n", "names the file 'a.mtl', which is not in"),
        ("a.glb", "not a glb at all", "cannot be read as GLB"),
        ("a.ply", "ply\nformat ascii 1.0\nelement vertex 3\n", "cannot be read as PLY|has no faces"),
        ("a.stl", "solid nothing\nendsolid nothing\n", "has no faces|cannot be read as STL"),
    ],
)
def test_broken_files_are_named_in_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(StudioError, match=message) as caught:
        load_mesh(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_missing_texture_and_a_broken_one_are_named(obj: Path) -> None:
    (obj.parent / "picture.png").write_bytes(b"no picture")
    with pytest.raises(StudioError, match=r"'Picture\.PNG', which cannot be read as a picture"):
        load_mesh(obj)
    (obj.parent / "picture.png").unlink()
    with pytest.raises(StudioError, match=r"two\.obj names the file 'Picture\.PNG', which is not in"):
        load_mesh(obj)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"no file .*cat\.glb"):
        load_mesh(tmp_path / "cat.glb")
