"""glTF 2.0 in one binary file: y up, metres, texture inside.

A baked texture already holds its light, so materials are unlit (``KHR_materials_unlit``); viewers without
that extension fall back to a rough dielectric. Base colours and textures are sRGB in the studio; glTF wants
factors and vertex colours linear, textures sRGB.
Specification: registry.khronos.org/glTF/specs/2.0.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.export.corners import split_corners
from studio.export.files import write_bytes
from studio.export.images import texture_png
from studio.types import Material, Mesh

_FLOAT, _UNSIGNED_INT = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _REPEAT = 9729, 9987, 10497
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942

# JSON objects of the glTF schema: the one place where a dict of anything is the format itself.
_Json = dict[str, Any]


def write_glb(mesh: Mesh, path: Path, *, unlit: bool = True) -> None:
    """Write a mesh as ``.glb``, one primitive a material.

    Args:
        mesh: at least one face.
        path: where to write.
        unlit: whether colours already hold their light.

    Raises:
        StudioError: the file cannot be written.
    """
    write_bytes(path, _Document(path.stem).encode(mesh, unlit))


def _linear(srgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB to linear light, IEC 61966-2-1."""
    low, high = srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4
    return np.where(srgb <= 0.04045, low, high).astype(np.float32)


class _Document:
    """Collects buffer views and accessors while the JSON grows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.binary = bytearray()
        self.views: list[_Json] = []
        self.accessors: list[_Json] = []
        self.images: list[_Json] = []

    def encode(self, mesh: Mesh, unlit: bool) -> bytes:
        corners = split_corners(mesh)
        used = np.unique(corners.face_materials)
        textured = corners.uvs is not None and any(mesh.materials[i].texture is not None for i in used)
        attributes = {"POSITION": self.accessor(corners.positions, "VEC3", bounds=True)}
        attributes["NORMAL"] = self.accessor(corners.normals, "VEC3")
        if textured and corners.uvs is not None:
            v_down = np.stack([corners.uvs[:, 0], 1 - corners.uvs[:, 1]], axis=-1)
            attributes["TEXCOORD_0"] = self.accessor(v_down, "VEC2")
        if corners.colors is not None:
            attributes["COLOR_0"] = self.accessor(_linear(corners.colors), "VEC3")
        primitives = [
            {
                "attributes": attributes,
                "indices": self.indices(corners.faces[corners.face_materials == material]),
                "material": index,
            }
            for index, material in enumerate(used)
        ]
        materials = [self.material(mesh.materials[i], textured, unlit) for i in used]

        document: _Json = {
            "asset": {"version": "2.0", "generator": "Studio"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"name": self.name, "mesh": 0}],
            "meshes": [{"name": self.name, "primitives": primitives}],
            "materials": materials,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.binary)}],
        }
        if unlit:
            document["extensionsUsed"] = ["KHR_materials_unlit"]
        if self.images:
            document["images"] = self.images
            document["textures"] = [{"source": i, "sampler": 0} for i in range(len(self.images))]
            sampler = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR}
            document["samplers"] = [sampler | {"wrapS": _REPEAT, "wrapT": _REPEAT}]
        return self.container(document)

    def container(self, document: _Json) -> bytes:
        """Header and the two chunks, each padded to four bytes."""
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + len(self.binary)
        return b"".join(
            [
                struct.pack("<4sII", b"glTF", 2, total),
                struct.pack("<II", len(text), _JSON_CHUNK),
                text,
                struct.pack("<II", len(self.binary), _BINARY_CHUNK),
                bytes(self.binary),
            ]
        )

    def view(self, data: bytes, target: int | None = None) -> int:
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.views.append(view if target is None else view | {"target": target})
        self.binary += data + bytes(-len(data) % 4)
        return len(self.views) - 1

    def accessor(self, values: NDArray[np.float32], kind: str, *, bounds: bool = False) -> int:
        packed = np.ascontiguousarray(values, dtype="<f4")
        accessor: _Json = {
            "bufferView": self.view(packed.tobytes(), _ARRAY_BUFFER),
            "componentType": _FLOAT,
            "count": len(packed),
            "type": kind,
        }
        if bounds:
            accessor |= {"min": packed.min(axis=0).tolist(), "max": packed.max(axis=0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def indices(self, faces: NDArray[np.int64]) -> int:
        view = self.view(faces.astype("<u4").tobytes(), _ELEMENT_ARRAY_BUFFER)
        self.accessors.append(
            {"bufferView": view, "componentType": _UNSIGNED_INT, "count": faces.size, "type": "SCALAR"}
        )
        return len(self.accessors) - 1

    def material(self, material: Material, textured: bool, unlit: bool) -> _Json:
        *rgb, alpha = material.base_color
        factor = [*_linear(np.array(rgb, dtype=np.float32)).tolist(), alpha]
        surface: _Json = {"baseColorFactor": factor, "metallicFactor": 0.0, "roughnessFactor": 1.0}
        opaque = alpha >= 1
        if textured and material.texture is not None:
            self.images.append(
                {"bufferView": self.view(texture_png(material.texture)), "mimeType": "image/png"}
            )
            surface["baseColorTexture"] = {"index": len(self.images) - 1}
            opaque = opaque and bool((material.texture[..., 3] >= 1 - 0.5 / 255).all())
        # Loaded models are not always wound consistently, so both sides are drawn.
        encoded: _Json = {"pbrMetallicRoughness": surface, "doubleSided": True}
        if not opaque:
            encoded["alphaMode"] = "MASK" if alpha >= 1 else "BLEND"
        if unlit:
            encoded["extensions"] = {"KHR_materials_unlit": {}}
        return encoded
