"""The mesh formats, read back by trimesh."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from studio.export.corners import split_corners
from studio.export.glb import write_glb
from studio.export.obj import write_obj
from studio.export.stl import write_stl
from studio.meshes import smooth_normals
from studio.types import Material, Mesh
from tests.export.gltf_player import chunks, vector
from tests.export.shapes import textured_quads


def corner_positions(
    document: dict[str, Any], binary: bytes, primitive: dict[str, Any], name: str
) -> np.ndarray:
    """An attribute at each corner of each triangle, [f, 3, width]."""
    values = vector(document, binary, primitive["attributes"][name])
    return values[vector(document, binary, primitive["indices"])[:, 0]].reshape(-1, 3, values.shape[1])


def test_glb_holds_the_mesh(tmp_path: Path) -> None:
    mesh = textured_quads()
    write_glb(mesh, tmp_path / "quads.glb")
    document, binary = chunks(tmp_path / "quads.glb")
    assert document["asset"] == {"version": "2.0", "generator": "Studio"}
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]
    assert document["buffers"] == [{"byteLength": len(binary)}]
    assert mesh.uvs is not None and mesh.materials[0].texture is not None
    primitives = document["meshes"][0]["primitives"]
    assert len(primitives) == 2
    for index, primitive in enumerate(primitives):
        chosen = mesh.face_materials == index
        positions = corner_positions(document, binary, primitive, "POSITION")
        np.testing.assert_array_equal(positions, mesh.vertices[mesh.faces[chosen]])
        uvs = corner_positions(document, binary, primitive, "TEXCOORD_0")
        np.testing.assert_allclose(uvs * [1, -1] + [0, 1], mesh.uvs[chosen], atol=1e-7)
        normals = corner_positions(document, binary, primitive, "NORMAL")
        edges = positions[:, 1:] - positions[:, :1]
        expected = np.cross(edges[:, 0], edges[:, 1])
        expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
        np.testing.assert_allclose(normals, np.repeat(expected[:, None], 3, axis=1), atol=1e-6)
        bounds = document["accessors"][primitive["attributes"]["POSITION"]]
        assert bounds["min"] == [0, 0, 0] and bounds["max"] == [2, 1, 0.5]

    textured, plain = document["materials"]
    for material in (textured, plain):
        assert material["extensions"] == {"KHR_materials_unlit": {}}
        assert material["pbrMetallicRoughness"]["metallicFactor"] == 0.0
        assert material["pbrMetallicRoughness"]["roughnessFactor"] == 1.0
    assert "alphaMode" not in textured and plain["alphaMode"] == "BLEND"
    # sRGB 0.5 is 0.2140 in linear light, 0.25 is 0.0509.
    factor = plain["pbrMetallicRoughness"]["baseColorFactor"]
    np.testing.assert_allclose(factor, [0.2140, 0.0509, 1.0, 0.5], atol=1e-4)

    image = document["images"][0]
    view = document["bufferViews"][image["bufferView"]]
    assert image["mimeType"] == "image/png"
    png = Image.open(io.BytesIO(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
    assert png.mode == "RGB"
    np.testing.assert_allclose(np.asarray(png) / 255, mesh.materials[0].texture[..., :3], atol=0.51 / 255)


def test_glb_opens_in_trimesh(tmp_path: Path) -> None:
    write_glb(textured_quads(), tmp_path / "quads.glb")
    scene = trimesh.load(tmp_path / "quads.glb", force="scene")
    parts = list(scene.geometry.values())
    assert sum(len(part.faces) for part in parts) == 4
    assert sum(part.area for part in parts) == pytest.approx(1 + 1.25**0.5)
    textured = next(part for part in parts if part.visual.material.baseColorTexture is not None)
    assert textured.visual.material.baseColorTexture.size == (16, 8)


def test_glb_cut_out_and_vertex_colours(tmp_path: Path) -> None:
    texture = torch.ones(4, 4, 4)
    texture[0, 0, 3] = 0.0
    quads = textured_quads()
    colors = torch.linspace(0, 1, 18).reshape(6, 3)
    mesh = Mesh(quads.vertices, quads.faces, quads.uvs, None, (Material(texture=texture),), colors)
    write_glb(mesh, tmp_path / "cut.glb", unlit=False)
    document, binary = chunks(tmp_path / "cut.glb")
    assert document["materials"][0]["alphaMode"] == "MASK"
    assert "extensionsUsed" not in document and "extensions" not in document["materials"][0]
    stored = corner_positions(document, binary, document["meshes"][0]["primitives"][0], "COLOR_0")
    srgb = np.where(stored <= 0.0031308, 12.92 * stored, 1.055 * stored ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb, colors[mesh.faces], atol=1e-5)


def test_corners_are_split_only_where_they_differ() -> None:
    quads = textured_quads()
    smooth = Mesh(
        quads.vertices,
        quads.faces,
        quads.uvs,
        quads.face_materials,
        quads.materials,
        vertex_normals=smooth_normals(quads.vertices, quads.faces),
    )
    # 6 vertices; the two on the seam have one texture coordinate on each side.
    assert len(split_corners(smooth).positions) == 8
    flat = Mesh(quads.vertices, quads.faces)
    # Without texture the seam still has two normals.
    assert len(split_corners(flat).positions) == 8
    assert len(split_corners(Mesh(quads.vertices, quads.faces[:2])).positions) == 4


def test_degenerate_faces_still_have_unit_normals() -> None:
    corners = split_corners(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])))
    np.testing.assert_allclose(np.linalg.norm(corners.normals, axis=-1), 1.0)


def test_smooth_normals_of_a_ball_point_outwards() -> None:
    ball = trimesh.creation.icosphere(3)
    normals = smooth_normals(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long())
    np.testing.assert_allclose(normals, ball.vertices, atol=0.02)


def test_obj_opens_in_trimesh(tmp_path: Path) -> None:
    mesh = textured_quads()
    write_obj(mesh, tmp_path / "quads.obj")
    assert {path.name for path in tmp_path.iterdir()} == {"quads.obj", "quads.mtl", "quads_0.png"}
    scene = trimesh.load(tmp_path / "quads.obj", force="scene", process=False)
    parts = list(scene.geometry.values())
    assert sum(len(part.faces) for part in parts) == 4
    textured = next(part for part in parts if part.visual.material.image is not None)
    assert mesh.uvs is not None and mesh.materials[0].texture is not None
    order = np.lexsort(textured.vertices.T)
    np.testing.assert_allclose(textured.vertices[order], [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    np.testing.assert_allclose(textured.visual.uv[order], [[0, 0], [1, 0], [0, 1], [1, 1]])
    pixels = np.asarray(textured.visual.material.image.convert("RGB")) / 255
    np.testing.assert_allclose(pixels, mesh.materials[0].texture[..., :3], atol=0.51 / 255)
    plain = next(part for part in parts if part.visual.material.image is None)
    np.testing.assert_allclose(plain.visual.material.main_color[:3] / 255, [0.5, 0.25, 1.0], atol=1 / 255)


def test_stl_stands_upright_in_millimetres(tmp_path: Path) -> None:
    """A pole along y, the studio's up, stands along z, the printer's."""
    pole = trimesh.creation.box((0.1, 0.8, 0.2))
    write_stl(
        Mesh(torch.tensor(pole.vertices).float(), torch.tensor(pole.faces).long()), tmp_path / "pole.stl"
    )
    read = trimesh.load(tmp_path / "pole.stl")
    np.testing.assert_allclose(read.extents, [10, 20, 80], rtol=1e-5)
    assert read.is_watertight and read.volume == pytest.approx(100**3 * pole.volume, rel=1e-5)
