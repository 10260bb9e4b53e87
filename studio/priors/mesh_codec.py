"""Meshes in few bytes: quantised, ordered for small differences, and compressed.

A mesh becomes a table of *wedges*, one row for each distinct (position, texture coordinate, normal) that its
faces' corners use, in the order in which the faces first use them. Then

* positions are 12-bit (or more) steps across the bounding box, texture coordinates steps of 1/2048, and
  normals octahedral with 7 bits an axis (Cigolle et al. 2014, "A survey of efficient representations for
  independent unit vectors"); each is stored as the difference to the row before;
* faces are stored as how far each corner lies behind the newest wedge, with 0 for a new one (the
  "high-water mark" coding of Google's webgl-loader), so most numbers are tiny;
* textures are small WebP images.

All arrays lie in one safetensors block, which LZMA compresses as a whole.
"""

from __future__ import annotations

import io
import json
import lzma

import numpy as np
import numpy.typing as npt
import torch

from studio.types import Material, Mesh

_UV_STEPS = 2048
_NORMAL_STEPS = 127

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def encode_mesh(mesh: Mesh, position_bits: int = 12, texture_quality: int = 80) -> bytes:
    """A mesh as bytes that ``decode_mesh`` reads. Loses what the module's text says, and vertex colours.

    Args:
        mesh: with at least one face.
        position_bits: steps across the longest side of the bounding box, as a power of two; at most 16.
        texture_quality: WebP's, 0-100.

    Raises:
        ValueError: vertex colours, or numbers out of range.
    """
    from safetensors.numpy import save

    if mesh.vertex_colors is not None:
        raise ValueError("the packed form has no vertex colours; bake them into a texture first")
    faces = mesh.faces.numpy()
    face_materials = np.zeros(len(faces), np.int64)
    if mesh.face_materials is not None:
        face_materials = mesh.face_materials.numpy().astype(np.int64)
    order = np.argsort(face_materials, kind="stable")
    corners = faces[order].reshape(-1)

    vertices = mesh.vertices.double().numpy()
    low = vertices.min(0)
    step = float((vertices - low).max()) / (2**position_bits - 1) or 1.0
    columns = [np.rint((vertices - low) / step).astype(np.int64)[corners]]
    if mesh.uvs is not None:
        uvs = mesh.uvs.double().numpy()[order].reshape(-1, 2)
        columns.append(np.rint(uvs * _UV_STEPS).astype(np.int64))
    if mesh.vertex_normals is not None:
        columns.append(_octahedral(mesh.vertex_normals.double().numpy())[corners])

    wedges, wedge_of_corner = np.unique(np.concatenate(columns, 1), axis=0, return_inverse=True)
    wedge_faces, used = _in_order_of_use(wedge_of_corner.reshape(-1, 3))
    wedges = wedges[used]

    arrays: dict[str, npt.NDArray[np.uint8]] = {
        "faces": _as_bytes(_high_water_codes(wedge_faces.reshape(-1))),
        "wedges": _as_bytes(_zigzag(np.diff(wedges, axis=0, prepend=0)).T.reshape(-1)),
        "materials": np.bincount(face_materials, minlength=len(mesh.materials)).astype("<i4").view(np.uint8),
    }
    for index, material in enumerate(mesh.materials):
        if material.texture is not None:
            arrays[f"texture{index}"] = _image_bytes(material.texture, texture_quality)
    header = {
        "low": low.tolist(),
        "step": step,
        "wedges": len(wedges),
        "uvs": mesh.uvs is not None,
        "normals": mesh.vertex_normals is not None,
        "colors": [[round(value, 4) for value in material.base_color] for material in mesh.materials],
    }
    return lzma.compress(save(arrays, {"mesh": json.dumps(header)}), format=lzma.FORMAT_ALONE, preset=9)


def decode_mesh(packed: bytes) -> Mesh:
    """The mesh in ``encode_mesh``'s bytes; its vertices are the wedges."""
    from safetensors.numpy import load

    block = lzma.decompress(packed, format=lzma.FORMAT_ALONE)
    arrays = load(block)
    header = json.loads(_metadata(block)["mesh"])
    rows = int(header["wedges"])

    faces = _from_high_water_codes(_from_bytes(arrays["faces"])).reshape(-1, 3)
    wedges = np.cumsum(_from_zigzag(_from_bytes(arrays["wedges"])).reshape(-1, rows).T, axis=0)
    counts = arrays["materials"].view("<i4")
    positions = wedges[:, :3] * header["step"] + np.array(header["low"])
    uvs = wedges[:, 3:5][faces] / _UV_STEPS if header["uvs"] else None
    normals = _from_octahedral(wedges[:, -2:]) if header["normals"] else None
    materials = tuple(
        Material(tuple(color), _image(arrays.get(f"texture{index}")))
        for index, color in enumerate(header["colors"])
    )
    return Mesh(
        vertices=torch.from_numpy(positions).float(),
        faces=torch.from_numpy(faces),
        uvs=None if uvs is None else torch.from_numpy(uvs).float(),
        face_materials=torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
        materials=materials,
        vertex_normals=None if normals is None else torch.from_numpy(normals).float(),
    )


def _metadata(block: bytes) -> dict[str, str]:
    """The text that a safetensors block carries beside its arrays (its header is 8 bytes of length, JSON)."""
    length = int.from_bytes(block[:8], "little")
    metadata: dict[str, str] = json.loads(block[8 : 8 + length])["__metadata__"]
    return metadata


def _in_order_of_use(faces: IntArray) -> tuple[IntArray, IntArray]:
    """Faces over vertices renumbered by first use, and the old numbers in the new order."""
    used, first_use = np.unique(faces, return_index=True)
    order = used[np.argsort(first_use)]
    renumbered = np.empty(int(faces.max()) + 1, np.int64)
    renumbered[order] = np.arange(len(order))
    return renumbered[faces], order


def _high_water_codes(indices: IntArray) -> IntArray:
    """How far each index lies behind the next unused one; indices must come in order of first use."""
    next_new = np.concatenate([[0], np.maximum.accumulate(indices)[:-1] + 1])
    return next_new - indices


def _from_high_water_codes(codes: IntArray) -> IntArray:
    next_new = np.concatenate([[0], np.cumsum(codes == 0)[:-1]])
    return next_new - codes


def _zigzag(values: IntArray) -> IntArray:
    """Signed to unsigned, small magnitudes first: 0, -1, 1, -2 … become 0, 1, 2, 3 …"""
    return np.where(values < 0, -2 * values - 1, 2 * values)


def _from_zigzag(codes: IntArray) -> IntArray:
    return np.where(codes % 2 == 1, -(codes + 1) // 2, codes // 2)


def _as_bytes(values: IntArray) -> npt.NDArray[np.uint8]:
    """Unsigned 24-bit numbers as three planes of bytes: low bytes first, the nearly constant ones last."""
    if values.min() < 0 or values.max() >= 2**24:
        raise ValueError("a mesh has coordinates out of the packed form's range")
    return np.concatenate([values >> shift & 255 for shift in (0, 8, 16)]).astype(np.uint8)


def _from_bytes(planes: npt.NDArray[np.uint8]) -> IntArray:
    low, middle, high = planes.astype(np.int64).reshape(3, -1)
    return low | middle << 8 | high << 16


def _octahedral(normals: FloatArray) -> IntArray:
    """Unit vectors onto an octahedron unfolded to a square, as signed steps."""
    flat = normals / np.abs(normals).sum(1, keepdims=True).clip(1e-12)
    folded = (1 - np.abs(flat[:, 1::-1])) * np.where(flat[:, :2] >= 0, 1.0, -1.0)
    square = np.where(flat[:, 2:] >= 0, flat[:, :2], folded)
    steps: IntArray = np.rint(square * _NORMAL_STEPS / 2).astype(np.int64)
    return steps


def _from_octahedral(steps: IntArray) -> FloatArray:
    square = steps / (_NORMAL_STEPS / 2)
    height = 1 - np.abs(square).sum(1)
    fold = np.clip(-height, 0, None)[:, None]
    flat = square - np.where(square >= 0, fold, -fold)
    vectors = np.concatenate([flat, height[:, None]], 1)
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _image_bytes(texture: torch.Tensor, quality: int) -> npt.NDArray[np.uint8]:
    """An rgba texture in 0-1 as a WebP file, without its alpha where that is 1 throughout."""
    from PIL import Image

    pixels = (texture.clamp(0, 1) * 255).round().byte().numpy()
    image = Image.fromarray(pixels if (pixels[..., 3] < 255).any() else pixels[..., :3])
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _image(data: npt.NDArray[np.uint8] | None) -> torch.Tensor | None:
    from PIL import Image

    if data is None:
        return None
    image = Image.open(io.BytesIO(data.tobytes())).convert("RGBA")
    return torch.from_numpy(np.array(image)).float() / 255
