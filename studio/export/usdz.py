"""USD in one package, for Apple's viewers and film tools: y up, metres, texture inside, motion as samples.

USD's preview materials know no unlit surface, so colours stand on a rough dielectric, as in viewers of .glb
without ``KHR_materials_unlit``. A mesh in motion has its points at each instant (24 time codes a second);
tools for film play that, Apple's Quick Look shows the first.
Specification: openusd.org/release/spec_usdz.html; the files are written by Pixar's own library.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.export.animation import keys_of
from studio.export.corners import CornerMesh, posed, split_corners
from studio.export.files import replacing
from studio.export.gltf import linear
from studio.export.images import normal_map_png, texture_png
from studio.types import Animation, Material, Mesh

CODES_PER_SECOND = 24.0


def write_usdz(mesh: Mesh | Animation[Mesh], path: Path) -> None:
    """Write a mesh, or a mesh in motion, as ``.usdz``.

    Raises:
        StudioError: usd-core is not installed, or the file cannot be written.
    """
    try:
        from pxr import Sdf, UsdUtils
    except ImportError as error:
        raise StudioError(
            f"cannot write {path}: .usdz needs Pixar's library. Try: pip install usd-core"
        ) from error

    with replacing(path) as temporary, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        root = Path(folder) / "asset.usdc"
        _write_stage(mesh, path.stem, root)
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(root)), str(temporary)):
            raise StudioError(f"cannot write {path}: packing failed. Try another output folder.")


def new_stage(path: Path, name: str) -> tuple[Any, str]:
    """A new layer in the studio's axes and units, and where in it the asset goes."""
    from pxr import Kind, Usd, UsdGeom

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    # A prim's name is an identifier.
    top = f"/{re.sub(r'[^A-Za-z0-9_]', '_', name) or 'asset'}"
    top = top if not top[1].isdigit() else f"/_{top[1:]}"
    parent = UsdGeom.Xform.Define(stage, top).GetPrim()
    stage.SetDefaultPrim(parent)
    Usd.ModelAPI(parent).SetKind(Kind.Tokens.component)
    return stage, top


def set_duration(stage: Any, seconds: NDArray[np.float32]) -> None:
    """Let a stage play from the first of some instants to the last."""
    stage.SetTimeCodesPerSecond(CODES_PER_SECOND)
    stage.SetStartTimeCode(float(seconds[0]) * CODES_PER_SECOND)
    stage.SetEndTimeCode(float(seconds[-1]) * CODES_PER_SECOND)


def _write_stage(mesh: Mesh | Animation[Mesh], name: str, path: Path) -> None:
    """The layer that the package holds, with its textures beside it."""
    from pxr import Sdf, Usd, UsdGeom, UsdShade

    first = mesh.frames[0] if isinstance(mesh, Animation) else mesh
    materials = mesh.rest.materials if isinstance(mesh, Animation) else mesh.materials
    corners = split_corners(first, mesh.frames[1:] if isinstance(mesh, Animation) else ())

    stage, top = new_stage(path, name)
    shape = UsdGeom.Mesh.Define(stage, f"{top}/mesh")
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    shape.CreateDoubleSidedAttr(True)
    shape.CreateFaceVertexCountsAttr(_ints(np.full(len(corners.faces), 3)))
    shape.CreateFaceVertexIndicesAttr(_ints(corners.faces.ravel()))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    primvars = UsdGeom.PrimvarsAPI(shape)
    if corners.uvs is not None:
        st = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
        st.Set(vectors(corners.uvs))
    if corners.colors is not None:
        color = primvars.CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray, UsdGeom.Tokens.vertex)
        color.Set(vectors(linear(corners.colors)))
    _set_points(shape, corners, Usd.TimeCode.Default())
    if isinstance(mesh, Animation):
        seconds, order = keys_of(mesh, range(len(mesh.frames)))
        set_duration(stage, seconds)
        for second, index in zip(seconds.tolist(), order, strict=True):
            _set_points(shape, posed(corners, mesh.frames[index]), Usd.TimeCode(second * CODES_PER_SECOND))

    used = np.unique(corners.face_materials)
    if len(used) > 1:
        UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).SetMaterialBindSubsetsFamilyType(
            UsdGeom.Tokens.partition
        )
    for index in used:
        part = shape.GetPrim()
        if len(used) > 1:
            chosen = np.nonzero(corners.face_materials == index)[0]
            subset = UsdGeom.Subset.CreateGeomSubset(
                shape, f"part_{index}", UsdGeom.Tokens.face, _ints(chosen), UsdShade.Tokens.materialBind
            )
            part = subset.GetPrim()
        material = _material(stage, f"{top}/material_{index}", materials[index], corners, path.parent)
        UsdShade.MaterialBindingAPI.Apply(part).Bind(material)
    stage.GetRootLayer().Save()


def _set_points(shape: Any, corners: CornerMesh, time: Any) -> None:
    shape.GetPointsAttr().Set(vectors(corners.positions), time)
    shape.GetNormalsAttr().Set(vectors(corners.normals), time)
    extent = np.stack([corners.positions.min(axis=0), corners.positions.max(axis=0)])
    shape.GetExtentAttr().Set(vectors(extent), time)


def _material(stage: Any, at: str, material: Material, corners: CornerMesh, folder: Path) -> Any:
    """A preview surface; its textures are written into ``folder``."""
    from pxr import Gf, Sdf, UsdShade

    kinds = Sdf.ValueTypeNames
    whole = UsdShade.Material.Define(stage, at)
    surface = UsdShade.Shader.Define(stage, f"{at}/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("roughness", kinds.Float).Set(1.0)
    surface.CreateInput("metallic", kinds.Float).Set(0.0)
    surface.CreateInput("opacity", kinds.Float).Set(material.base_color[3])
    whole.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    color = surface.CreateInput("diffuseColor", kinds.Color3f)
    base = linear(np.array(material.base_color[:3], dtype=np.float32)).tolist()
    color.Set(Gf.Vec3f(*base))

    def reader(name: str, result: Any) -> Any:
        shader = UsdShade.Shader.Define(stage, f"{at}/{name}")
        shader.CreateIdAttr("UsdPrimvarReader_float2" if name == "st" else "UsdPrimvarReader_float3")
        varname = shader.CreateInput("varname", kinds.String)
        varname.Set("st" if name == "st" else "displayColor")
        shader.CreateOutput("result", result)
        return shader

    if corners.colors is not None:
        color.ConnectToSource(reader("colors", kinds.Float3).ConnectableAPI(), "result")
    if corners.uvs is None:
        return whole
    pictures: dict[str, bytes] = {}
    if material.texture is not None:
        pictures["color"] = texture_png(material.texture)
    if material.normal_map is not None:
        pictures["normal"] = normal_map_png(material.normal_map)
    place = reader("st", kinds.Float2)
    for name, png in pictures.items():
        file = folder / f"{at.rsplit('/', 1)[-1]}_{name}.png"
        file.write_bytes(png)
        texture = UsdShade.Shader.Define(stage, f"{at}/{name}_texture")
        texture.CreateIdAttr("UsdUVTexture")
        texture.CreateInput("file", kinds.Asset).Set(f"./{file.name}")
        texture.CreateInput("sourceColorSpace", kinds.Token).Set("sRGB" if name == "color" else "raw")
        for wrap in ("wrapS", "wrapT"):
            texture.CreateInput(wrap, kinds.Token).Set("repeat")
        texture.CreateInput("st", kinds.Float2).ConnectToSource(place.ConnectableAPI(), "result")
        texture.CreateOutput("rgb", kinds.Float3)
        if name == "color":
            texture.CreateInput("scale", kinds.Float4).Set(Gf.Vec4f(*base, 1.0))
            color.ConnectToSource(texture.ConnectableAPI(), "rgb")
        else:
            # Bytes are read as 0 to 1, normals reach from -1.
            texture.CreateInput("scale", kinds.Float4).Set(Gf.Vec4f(2.0, 2.0, 2.0, 1.0))
            texture.CreateInput("bias", kinds.Float4).Set(Gf.Vec4f(-1.0, -1.0, -1.0, 0.0))
            normal = surface.CreateInput("normal", kinds.Normal3f)
            normal.ConnectToSource(texture.ConnectableAPI(), "rgb")
    return whole


def vectors(rows: NDArray[np.float32]) -> Any:
    """Rows of two or three numbers as USD's own array."""
    from pxr import Vt

    kind = Vt.Vec2fArray if rows.shape[1] == 2 else Vt.Vec3fArray
    return kind.FromNumpy(np.ascontiguousarray(rows, dtype=np.float32))


def _ints(values: NDArray[np.int64]) -> Any:
    from pxr import Vt

    return Vt.IntArray.FromNumpy(np.ascontiguousarray(values, dtype=np.int32))
