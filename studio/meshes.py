"""Reading textured meshes from files, and putting them where the studio expects its assets."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from studio.errors import StudioError, nearest
from studio.types import Material, Mesh

GUTTER_PX = 4
"""Texels between two charts of a texture."""
SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")
# What trimesh and PIL raise on broken files.
MOST_FACES = 10_000_000
_UNREADABLE = (
    AttributeError, LookupError, NameError, NotImplementedError, OSError, TypeError, ValueError, struct.error,
)  # fmt: skip
"""What trimesh raises for a file that is not whole."""
_PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tga", ".tif", ".tiff", ".webp")


def load_mesh(path: str | Path, max_texture_size: int = 1024) -> Mesh:
    """Reads a mesh with all its parts in place, their materials, textures and normals.

    Units and place are the file's; see ``normalised``. Colours are sRGB: glTF's factors and vertex colours,
    which are linear, are encoded. In OBJ a texture replaces ``Kd``, which exporters leave at arbitrary greys;
    opacity is ``d`` or 1 - ``Tr``, and the alpha of a texture is that of its image or of ``map_d``.

    Args:
        path: an OBJ (with its MTL and pictures beside it), glTF, PLY or STL file.
        max_texture_size: larger textures are shrunk so that no side is longer, in texels.

    Raises:
        StudioError: an unknown suffix; a file that is missing or cannot be read; a material library or
            texture that is missing; no faces, or more than ``MOST_FACES``; numbers that are not finite;
            indices out of range.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise StudioError(
            f"{path.name} has the suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}."
            f"{nearest(path.suffix, SUFFIXES)} Or convert the file first, in Blender for instance."
        )
    if not path.is_file():
        raise StudioError(f"There is no file {path}: check the path.")
    import trimesh

    files = _Files(path.parent)
    linear = path.suffix.lower() in (".glb", ".gltf")
    pieces = []
    try:
        scene = trimesh.load_scene(path, resolver=files, process=False)
        placed = [
            (scene.geometry[name], transform)
            for transform, name in (scene.graph[node] for node in scene.graph.nodes_geometry)
            if isinstance(scene.geometry[name], trimesh.Trimesh) and len(scene.geometry[name].faces)
        ]
        # Counted before they are made: a small file may place one mesh a million times.
        count = sum(len(shape.faces) for shape, _ in placed)
        if count > MOST_FACES:
            raise StudioError(f"{path} has {count} faces, expected at most {MOST_FACES}: simplify the mesh.")
        pieces = [_piece(shape, transform, files, linear, max_texture_size) for shape, transform in placed]
    except _UNREADABLE as error:
        if not files.complaints:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise StudioError(
                f"{path} cannot be read as {path.suffix[1:].upper()} ({reason}): "
                "check that the file is whole and that its face indices exist, or export it again."
            ) from error
    if files.complaints:
        raise StudioError(f"{path.name} names the file {files.complaints[0]}.")
    if not pieces:
        raise StudioError(f"{path} has no faces, expected a triangle mesh: export it with its surfaces.")
    mesh = _joined(pieces)
    if not bool(mesh.vertices.isfinite().all()):
        count = int((~mesh.vertices.isfinite().all(-1)).sum())
        raise StudioError(
            f"{path} has {count} vertices that are not finite numbers, expected none: repair the mesh."
        )
    return mesh


def normalised(mesh: Mesh, radius: float = 0.5) -> Mesh:
    """The mesh with the centre of its bounding box at the origin and its farthest vertex ``radius`` away.

    Vertices that no face uses do not count. A mesh that is a single point stays one, at the origin.
    """
    return normalised_as(mesh, mesh, radius)


def normalised_as(mesh: Mesh, first: Mesh, radius: float = 0.5) -> Mesh:
    """The mesh moved and scaled as ``normalised`` does with ``first``: the frames of an animation."""
    used = first.vertices[torch.unique(first.faces.long())]
    centre = (used.amin(0) + used.amax(0)) / 2
    farthest = (used - centre).norm(dim=-1).amax()
    scale = radius / farthest if farthest > 0 else torch.ones_like(farthest)
    return replace(mesh, vertices=(mesh.vertices - centre) * scale)


def with_uvs(mesh: Mesh, texture_size: int) -> Mesh:
    """The shape alone, unwrapped by xatlas: texture coordinates whose charts lie a gutter apart.

    Corners keep their vertex, so seams stay closed and smoothly shaded. Faces come in another order.

    Args:
        mesh: at least one face.
        texture_size: in texels, to pack the charts for.
    """
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.cpu().numpy(), mesh.faces.cpu().numpy().astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = texture_size, GUTTER_PX, True
    atlas.generate(pack_options=packing)
    original, indices, uvs = atlas[0]
    return Mesh(
        vertices=mesh.vertices,
        faces=torch.from_numpy(original[indices].astype(np.int64)).to(mesh.faces.device),
        uvs=torch.from_numpy(np.ascontiguousarray(uvs[indices])).float().to(mesh.vertices.device),
    )


def face_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    """Normals as long as twice the face's area; zero for degenerate faces. Differentiable."""
    # index_select, as its backward adds up in a fixed order.
    a, b, c = vertices.index_select(0, faces.flatten()).reshape(-1, 3, 3).unbind(1)
    normals: Tensor = torch.linalg.cross(b - a, c - a)
    return normals


def smooth_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Unit vertex normals, the faces around each weighted by their areas; +y where they cancel out.

    Differentiable.
    """
    weighted = face_normals(vertices, faces).repeat_interleave(3, dim=0)
    return unit(torch.zeros_like(vertices).index_add(0, faces.flatten(), weighted))


def unit(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """The vectors at length 1; +y for those without a direction."""
    lengths = vectors.norm(dim=-1, keepdim=True)
    up = torch.arange(3, device=vectors.device) == 1  # copied from the host, it would not go into a graph
    return torch.where(lengths > 1e-12, vectors / lengths.clamp_min(1e-12), up.to(vectors))


def vertex_normals(mesh: Mesh) -> Float[Tensor, "v 3"]:
    """Unit normals for smooth shading, weighted by the area of the faces around.

    Vertices at one place share one normal, so that seams of a texture do not show. It is zero where no face
    has area.
    """
    _, place = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    corners = mesh.vertices[mesh.faces.long()]
    area_normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = torch.zeros_like(mesh.vertices)
    sums.index_add_(0, place[mesh.faces.long()].flatten(), area_normals.repeat_interleave(3, dim=0))
    length = sums.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, sums / length.clamp(min=torch.finfo(sums.dtype).tiny), 0.0)[place]


@dataclass(frozen=True)
class MeshStatistics:
    """A mesh in numbers.

    Attributes:
        extent: size of the bounding box along x, y and z.
        surface_area: of all faces.
        is_watertight: each edge joins two faces, where vertices at one place count as one.
    """

    vertex_count: int
    face_count: int
    material_count: int
    texture_count: int
    extent: tuple[float, float, float]
    surface_area: float
    is_watertight: bool


def mesh_statistics(mesh: Mesh) -> MeshStatistics:
    """Counts and measures a mesh."""
    faces = mesh.faces.long()
    corners = mesh.vertices[faces]
    area = (
        torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1).sum()
        / 2
    )
    _, place = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    welded = place[faces]
    edges = torch.cat([welded[:, [0, 1]], welded[:, [1, 2]], welded[:, [2, 0]]]).sort(dim=-1).values
    _, uses = torch.unique(edges, dim=0, return_counts=True)
    x, y, z = (corners.amax((0, 1)) - corners.amin((0, 1))).tolist()
    return MeshStatistics(
        vertex_count=len(mesh.vertices),
        face_count=len(faces),
        material_count=len(mesh.materials),
        texture_count=sum(material.texture is not None for material in mesh.materials),
        extent=(x, y, z),
        surface_area=float(area),
        is_watertight=bool((uses == 2).all()),
    )


class _Files:
    """The files that a mesh names, looked for in its folder as leniently as exporters are careless.

    They write another case, backslashes, options before the name, or an absolute path on their author's disk.

    trimesh goes on without a file that it cannot have, so that is noted here.

    Attributes:
        complaints: what was asked for in vain, why and what to try.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.complaints: list[str] = []

    def __getitem__(self, name: str) -> bytes:
        """The contents of a file; what trimesh calls."""
        found = self._find(name)
        if found is None:
            self.complaints.append(
                f"{name!r}, which is not in {self._folder}: put it there, or remove the line that names it"
            )
            raise FileNotFoundError(name)
        data = found.read_bytes()
        if found.suffix.lower() in _PICTURE_SUFFIXES:
            try:
                _picture(data)
            except OSError:
                self.complaints.append(f"{name!r}, which cannot be read as a picture: save it as PNG or JPEG")
                raise
        return data

    get = __getitem__

    def _find(self, name: str) -> Path | None:
        written = Path(name.strip().strip('"').replace("\\", "/"))
        for candidate in (
            written,
            Path(written.name),
            Path(written.name.split()[-1] if written.name else ""),
        ):
            if (self._folder / candidate).is_file():
                return self._folder / candidate
            for file in self._folder.iterdir():
                if file.name.lower() == candidate.name.lower() and file.is_file():
                    return file
        return None


@dataclass(frozen=True)
class _Piece:
    """One part of a scene: a mesh of one material, and the identity of that material."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    uvs: NDArray[np.float32] | None
    colors: NDArray[np.float32] | None
    normals: NDArray[np.float64] | None
    material: Material
    material_key: int


def _piece(
    geometry: Any, transform: NDArray[np.float64], files: _Files, linear: bool, max_texture_size: int
) -> _Piece:
    if geometry.visual.kind == "face":
        geometry.unmerge_vertices()
    vertices, faces = np.asarray(geometry.vertices), np.asarray(geometry.faces, dtype=np.int64)
    # trimesh computes normals on demand; only those that lie ready came with the file.
    normals = np.asarray(geometry.vertex_normals) if "vertex_normals" in geometry._cache else None
    if normals is not None:
        normals = normals @ np.linalg.inv(transform[:3, :3])
        normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    uv = getattr(geometry.visual, "uv", None)
    material = getattr(geometry.visual, "material", None)
    with np.errstate(invalid="ignore"):  # what is not finite is reported by load_mesh
        vertices = vertices @ transform[:3, :3].T + transform[:3, 3]
    return _Piece(
        vertices=vertices,
        faces=faces,
        uvs=None if uv is None or len(uv) != len(vertices) else np.asarray(uv, dtype=np.float32)[faces],
        colors=_vertex_colors(geometry.visual, linear),
        normals=normals,
        material=Material() if material is None else _material(material, files, max_texture_size),
        material_key=id(material),
    )


def _vertex_colors(visual: Any, linear: bool) -> NDArray[np.float32] | None:
    """rgb in 0-1, where the file has colours."""
    if visual.kind in ("vertex", "face"):
        colors = np.asarray(visual.vertex_colors)
    elif "color" in getattr(visual, "vertex_attributes", {}):
        colors = np.asarray(visual.vertex_attributes["color"])
    else:
        return None
    scale = 1.0 if colors.dtype.kind == "f" else float(np.iinfo(colors.dtype).max)
    rgb = colors[:, :3] / scale
    return np.asarray(_encoded(rgb) if linear else rgb, dtype=np.float32)


def _material(material: Any, files: _Files, max_texture_size: int) -> Material:
    from trimesh.visual.material import PBRMaterial

    if isinstance(material, PBRMaterial):
        factor = material.baseColorFactor
        rgba = np.ones(4) if factor is None else np.asarray(factor, dtype=np.float64) / 255
        picture, opaque = material.baseColorTexture, material.alphaMode in (None, "OPAQUE")
        r, g, b = _encoded(rgba[:3]).tolist()
        return Material(
            (r, g, b, 1.0 if opaque else float(rgba[3])), _texture(picture, None, opaque, max_texture_size)
        )
    opacity = 1.0
    if "d" in material.kwargs:
        opacity = float(material.kwargs["d"][-1])
    elif "tr" in material.kwargs:
        opacity = 1 - float(material.kwargs["tr"][-1])
    mask = _picture(files[" ".join(material.kwargs["map_d"])]) if "map_d" in material.kwargs else None
    texture = _texture(material.image, mask, False, max_texture_size)
    r, g, b = (1.0, 1.0, 1.0) if texture is not None else material.kwargs.get("kd", (1.0, 1.0, 1.0))
    return Material((r, g, b, min(max(opacity, 0.0), 1.0)), texture)


def _picture(data: bytes) -> Any:
    """A PIL image."""
    from PIL import Image

    return Image.open(io.BytesIO(data))


def _encoded(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear light to sRGB, IEC 61966-2-1."""
    high = 1.055 * np.maximum(linear, 0.0) ** (1 / 2.4) - 0.055
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, high), dtype=np.float64)


def _texture(picture: Any, mask: Any, opaque: bool, max_size: int) -> Float[Tensor, "h w 4"] | None:
    """A PIL image, and another that holds its alpha or None, as rgba in 0-1."""
    if picture is None:
        return None
    rgba = picture.convert("RGBA")
    if opaque:
        rgba.putalpha(255)
    elif mask is not None:
        alpha = mask.getchannel("A") if "A" in mask.getbands() else mask.convert("L")
        rgba.putalpha(alpha.resize(rgba.size))
    if max(rgba.size) > max_size:
        scale = max_size / max(rgba.size)
        rgba = rgba.resize([max(1, round(side * scale)) for side in rgba.size])
    return torch.from_numpy(np.array(rgba)).float() / 255


def _joined(pieces: list[_Piece]) -> Mesh:
    """One mesh of all pieces, without the vertices that no face uses."""
    materials: dict[int, Material] = {}
    for piece in pieces:
        materials.setdefault(piece.material_key, piece.material)
    index = {key: number for number, key in enumerate(materials)}
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    faces = np.concatenate([piece.faces + start for piece, start in zip(pieces, starts, strict=False)])
    used, faces = np.unique(faces, return_inverse=True)

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    def collected(values: list[NDArray[Any] | None], missing: list[NDArray[Any]]) -> NDArray[Any] | None:
        if all(value is None for value in values):
            return None
        return np.concatenate([b if a is None else a for a, b in zip(values, missing, strict=True)])

    uvs = collected([p.uvs for p in pieces], [np.zeros((len(p.faces), 3, 2)) for p in pieces])
    colors = collected([p.colors for p in pieces], [np.ones((len(p.vertices), 3)) for p in pieces])
    normals = collected([p.normals for p in pieces], [np.zeros((len(p.vertices), 3)) for p in pieces])
    return Mesh(
        vertices=tensor(np.concatenate([piece.vertices for piece in pieces])[used]),
        faces=torch.from_numpy(faces.reshape(-1, 3)),
        uvs=None if uvs is None else tensor(uvs),
        face_materials=torch.from_numpy(
            np.repeat([index[p.material_key] for p in pieces], [len(p.faces) for p in pieces])
        ),
        materials=tuple(materials.values()),
        vertex_colors=None if colors is None else tensor(colors[used]),
        vertex_normals=None if normals is None else tensor(normals[used]),
    )
