"""USD and 3MF packages, read back by Pixar's and the consortium's libraries, and taken apart as zips."""

from __future__ import annotations

import builtins
import io
import locale
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from lib3mf import get_wrapper
from PIL import Image
from pxr import Usd, UsdGeom, UsdShade, UsdValidation

from studio.errors import StudioError
from studio.export.three_mf import same_locale, write_3mf
from studio.export.usdz import write_usdz
from studio.types import Material, Mesh
from tests.export.shapes import bending_bar, textured_quads


def mesh_of(path: Path) -> tuple[Usd.Stage, UsdGeom.Mesh]:
    """The package's stage, which has to be kept as long as its mesh."""
    stage = Usd.Stage.Open(str(path))
    (shape,) = (UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh))
    return stage, shape


def usd_corners(shape: UsdGeom.Mesh, name: str, time: float | None = None) -> np.ndarray:
    """The values of an attribute at each corner, [f, 3, width]."""
    code = Usd.TimeCode.Default() if time is None else Usd.TimeCode(time)
    values = np.asarray(shape.GetPrim().GetAttribute(name).Get(code))
    return values[np.asarray(shape.GetFaceVertexIndicesAttr().Get())].reshape(-1, 3, values.shape[1])


def check_rules(path: Path) -> None:
    """Every rule that Pixar's validator has, those for packages among them."""
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    errors = UsdValidation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))
    assert len(validators) > 20 and [(error.GetName(), error.GetMessage()) for error in errors] == []


def test_usdz_holds_the_mesh(tmp_path: Path) -> None:
    mesh = textured_quads()
    write_usdz(mesh, tmp_path / "2 quads.usdz")
    stage, shape = mesh_of(tmp_path / "2 quads.usdz")
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    assert stage.GetDefaultPrim().GetName() == "_2_quads"
    np.testing.assert_array_equal(usd_corners(shape, "points"), mesh.vertices[mesh.faces])
    assert mesh.uvs is not None and mesh.materials[0].texture is not None
    np.testing.assert_array_equal(usd_corners(shape, "primvars:st"), mesh.uvs)
    parts = UsdShade.MaterialBindingAPI(shape).GetMaterialBindSubsets()
    assert [list(part.GetIndicesAttr().Get()) for part in parts] == [[0, 1], [2, 3]]
    with zipfile.ZipFile(tmp_path / "2 quads.usdz") as package:
        names = package.namelist()
        assert names[0].endswith(".usdc") and {info.compress_type for info in package.infolist()} == {0}
        picture = Image.open(io.BytesIO(package.read(next(name for name in names if name.endswith(".png")))))
    np.testing.assert_allclose(np.asarray(picture) / 255, mesh.materials[0].texture[..., :3], atol=0.51 / 255)
    check_rules(tmp_path / "2 quads.usdz")


def test_usdz_colours_and_normal_map(tmp_path: Path) -> None:
    bar = bending_bar().rest
    bumps = torch.nn.functional.normalize(torch.tensor([0.5, -0.25, 1.0]), dim=0).expand(64, 64, 3)
    texture = bar.materials[0].texture
    write_usdz(replace(bar, materials=(Material(texture=texture, normal_map=bumps),)), tmp_path / "bar.usdz")
    _kept, shape = mesh_of(tmp_path / "bar.usdz")
    material, _ = UsdShade.MaterialBindingAPI(shape).ComputeBoundMaterial()
    surface = material.ComputeSurfaceSource()[0]
    reads = {
        name: UsdShade.Shader(surface.GetInput(name).GetConnectedSources()[0][0].source.GetPrim())
        for name in ("diffuseColor", "normal")
    }
    spaces = {name: shader.GetInput("sourceColorSpace").Get() for name, shader in reads.items()}
    assert spaces == {"diffuseColor": "sRGB", "normal": "raw"}
    scale, bias = (np.array(reads["normal"].GetInput(name).Get())[:3] for name in ("scale", "bias"))
    with zipfile.ZipFile(tmp_path / "bar.usdz") as package:
        (name,) = (name for name in package.namelist() if name.endswith("normal.png"))
        pixels = np.asarray(Image.open(io.BytesIO(package.read(name)))) / 255
    np.testing.assert_allclose(pixels * scale + bias, bumps, atol=0.005)
    check_rules(tmp_path / "bar.usdz")

    colors = torch.tensor([[0.5, 0.25, 1.0]]).expand(len(bar.vertices), 3)
    write_usdz(Mesh(bar.vertices, bar.faces, vertex_colors=colors), tmp_path / "plain.usdz")
    _kept, shape = mesh_of(tmp_path / "plain.usdz")
    linear = usd_corners(shape, "primvars:displayColor").reshape(-1, 3)
    np.testing.assert_allclose(linear, np.tile([0.2140, 0.0509, 1.0], (len(linear), 1)), atol=1e-4)


@pytest.mark.parametrize("loops", [False, True])
def test_usdz_holds_the_motion(tmp_path: Path, loops: bool) -> None:
    animation = bending_bar(loops=loops)
    write_usdz(animation, tmp_path / "bar.usdz")
    stage, shape = mesh_of(tmp_path / "bar.usdz")
    seconds = (stage.GetEndTimeCode() - stage.GetStartTimeCode()) / stage.GetTimeCodesPerSecond()
    assert seconds == pytest.approx(2.0)
    assert len(shape.GetPointsAttr().GetTimeSamples()) == len(animation.frames) + loops
    for time, frame in zip(animation.times, animation.frames, strict=True):
        code = float(time) * 2.0 * stage.GetTimeCodesPerSecond()
        np.testing.assert_allclose(usd_corners(shape, "points", code), frame.vertices[frame.faces], atol=1e-6)
        extent = np.asarray(shape.GetExtentAttr().Get(code))
        np.testing.assert_allclose(extent[0], frame.vertices.amin(0), atol=1e-6)


def three_mf(path: Path) -> tuple[Any, ElementTree.Element]:
    """The package in the consortium's reader, and its model as XML."""
    model = get_wrapper().CreateModel()
    reader = model.QueryReader("3mf")
    reader.SetStrictModeActive(True)
    with same_locale():
        reader.ReadFromFile(str(path))
    assert reader.GetWarningCount() == 0
    with zipfile.ZipFile(path) as package:
        return model, ElementTree.fromstring(package.read("3D/3dmodel.model"))  # noqa: S314


def body_of(model: Any) -> Any:
    bodies = model.GetMeshObjects()
    assert bodies.MoveNext()
    return bodies.GetCurrentMeshObject()


def test_3mf_holds_the_body_upright_in_millimetres(tmp_path: Path) -> None:
    bar, before = bending_bar().rest, locale.setlocale(locale.LC_ALL)
    write_3mf(bar, tmp_path / "bar.3mf")
    assert locale.setlocale(locale.LC_ALL) == before
    model, xml = three_mf(tmp_path / "bar.3mf")
    body = body_of(model)
    assert xml.get("unit") == "millimeter" and body.IsManifoldAndOriented()
    vertices = np.array([list(place.Coordinates) for place in body.GetVertices()])
    x, y, z = (100 * bar.vertices.numpy()).T
    np.testing.assert_allclose(vertices, np.stack([x, -z, y], axis=1), atol=1e-4)
    faces = np.array([list(face.Indices) for face in body.GetTriangleIndices()])
    np.testing.assert_array_equal(faces, bar.faces)


def test_3mf_keeps_the_texture_where_it_was(tmp_path: Path) -> None:
    bar = bending_bar().rest
    write_3mf(bar, tmp_path / "bar.3mf")
    model, _ = three_mf(tmp_path / "bar.3mf")
    properties = body_of(model).GetAllTriangleProperties()
    group = model.GetTexture2DGroupByID(properties[0].ResourceID)
    places = np.array(
        [
            [(at := group.GetTex2Coord(corner)).U, at.V]
            for triangle in properties
            for corner in triangle.PropertyIDs
        ]
    )
    assert bar.uvs is not None and bar.materials[0].texture is not None
    np.testing.assert_allclose(places.reshape(-1, 3, 2), bar.uvs, atol=1e-5)
    with zipfile.ZipFile(tmp_path / "bar.3mf") as package:
        picture = Image.open(io.BytesIO(package.read("3D/Textures/texture.png")))
    np.testing.assert_allclose(np.asarray(picture) / 255, bar.materials[0].texture[..., :3], atol=0.51 / 255)


def test_3mf_keeps_colours_of_vertices_and_of_the_whole(tmp_path: Path) -> None:
    bar = bending_bar().rest
    colors = torch.rand(len(bar.vertices), 3, generator=torch.Generator().manual_seed(0))
    write_3mf(Mesh(bar.vertices, bar.faces, vertex_colors=colors), tmp_path / "many.3mf")
    whole = Mesh(bar.vertices, bar.faces, materials=(Material(base_color=(1.0, 0.5, 0.25, 1.0)),))
    write_3mf(whole, tmp_path / "one.3mf")
    for name, expected in (("many", colors[bar.faces]), ("one", torch.tensor([1.0, 0.5, 0.25]))):
        model, _ = three_mf(tmp_path / f"{name}.3mf")
        properties = body_of(model).GetAllTriangleProperties()
        group = model.GetColorGroupByID(properties[0].ResourceID)
        read = [group.GetColor(corner) for triangle in properties for corner in triangle.PropertyIDs]
        rgb = np.array([[color.Red, color.Green, color.Blue] for color in read]).reshape(-1, 3, 3) / 255
        np.testing.assert_allclose(rgb, np.broadcast_to(expected, rgb.shape), atol=0.51 / 255)


@pytest.mark.parametrize(
    ("write", "library", "command"),
    [(write_usdz, "pxr", "pip install usd-core"), (write_3mf, "lib3mf", "pip install lib3mf")],
)
def test_a_missing_library_is_named_with_its_command(
    write: Any, library: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == library:
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StudioError, match=command):
        write(textured_quads(), tmp_path / "a.x")
    assert list(tmp_path.iterdir()) == []
