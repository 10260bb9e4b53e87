"""The parts that a glTF 2.0 document is put together from, and its binary container.

Specification: registry.khronos.org/glTF/specs/2.0.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from studio.export.images import normal_map_png, texture_png
from studio.types import Material

_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _REPEAT = 9729, 9987, 10497
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942

# JSON objects of the glTF schema: the one place where a dict of anything is the format itself.
Json = dict[str, Any]


class GltfDocument:
    """Collects what a file holds, each part named by its index, while the binary grows.

    Attributes:
        nodes, meshes, skins, materials: of the glTF schema.
    """

    def __init__(self) -> None:
        self.nodes: list[Json] = []
        self.meshes: list[Json] = []
        self.skins: list[Json] = []
        self.materials: list[Json] = []
        self._binary = bytearray()
        self._views: list[Json] = []
        self._accessors: list[Json] = []
        self._images: list[Json] = []
        self._samplers: list[Json] = []
        self._channels: list[Json] = []
        self._unlit = False

    def vertices(
        self, values: NDArray[np.float32], kind: Literal["VEC2", "VEC3", "VEC4"], *, bounds: bool = False
    ) -> int:
        """An accessor of an attribute; positions need their bounds."""
        return self._accessor(values.astype("<f4"), _FLOAT, kind, _ARRAY_BUFFER, bounds)

    def joints(self, nodes: NDArray[np.int64]) -> int:
        """An accessor of the joints that carry each vertex, ``[v, 4]``."""
        return self._accessor(nodes.astype("<u2"), _UNSIGNED_SHORT, "VEC4", _ARRAY_BUFFER)

    def indices(self, faces: NDArray[np.int64]) -> int:
        """An accessor of a primitive's vertices."""
        return self._accessor(faces.astype("<u4").ravel(), _UNSIGNED_INT, "SCALAR", _ELEMENT_ARRAY_BUFFER)

    def keys(
        self,
        values: NDArray[np.float32],
        kind: Literal["SCALAR", "VEC3", "VEC4", "MAT4"],
        *,
        times: bool = False,
    ) -> int:
        """An accessor of numbers that no vertex has: an animation's times or values, a skin's matrices."""
        return self._accessor(values.astype("<f4"), _FLOAT, kind, None, times)

    def animate(self, node: int, path: str, times: int, values: int) -> None:
        """Lead a node's ``path`` linearly from key to key; both are accessors."""
        self._channels.append({"sampler": len(self._samplers), "target": {"node": node, "path": path}})
        self._samplers.append({"input": times, "output": values, "interpolation": "LINEAR"})

    def material(self, material: Material, *, textured: bool, unlit: bool) -> int:
        """A rough dielectric, or plain colour; base colours become linear, as glTF has them."""
        *rgb, alpha = material.base_color
        factor = [*linear(np.array(rgb, dtype=np.float32)).tolist(), alpha]
        surface: Json = {"baseColorFactor": factor, "metallicFactor": 0.0, "roughnessFactor": 1.0}
        opaque = alpha >= 1
        if textured and material.texture is not None:
            surface["baseColorTexture"] = {"index": self._texture(texture_png(material.texture))}
            opaque = opaque and bool((material.texture[..., 3] >= 1 - 0.5 / 255).all())
        # Loaded models are not always wound consistently, so both sides are drawn.
        encoded: Json = {"pbrMetallicRoughness": surface, "doubleSided": True}
        if textured and material.normal_map is not None:
            encoded["normalTexture"] = {"index": self._texture(normal_map_png(material.normal_map))}
        if not opaque:
            encoded["alphaMode"] = "MASK" if alpha >= 1 else "BLEND"
        if unlit:
            self._unlit = True
            encoded["extensions"] = {"KHR_materials_unlit": {}}
        self.materials.append(encoded)
        return len(self.materials) - 1

    def encode(self) -> bytes:
        """The file, with all nodes in its scene."""
        below = {child for node in self.nodes for child in node.get("children", ())}
        document: Json = {
            "asset": {"version": "2.0", "generator": "Studio"},
            "scene": 0,
            "scenes": [{"nodes": [index for index in range(len(self.nodes)) if index not in below]}],
            "nodes": self.nodes,
            "meshes": self.meshes,
            "materials": self.materials,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": len(self._binary)}],
        }
        # Empty lists are not allowed.
        if self.skins:
            document["skins"] = self.skins
        if self._channels:
            motion = {"name": "motion", "samplers": self._samplers, "channels": self._channels}
            document["animations"] = [motion]
        if self._unlit:
            document["extensionsUsed"] = ["KHR_materials_unlit"]
        if self._images:
            document["images"] = self._images
            document["textures"] = [{"source": i, "sampler": 0} for i in range(len(self._images))]
            sampler = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR}
            document["samplers"] = [sampler | {"wrapS": _REPEAT, "wrapT": _REPEAT}]
        return _container(document, bytes(self._binary))

    def _view(self, data: bytes, target: int | None) -> int:
        view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        self._views.append(view if target is None else view | {"target": target})
        self._binary += data + bytes(-len(data) % 4)
        return len(self._views) - 1

    def _accessor(
        self, values: NDArray[Any], component: int, kind: str, target: int | None, bounds: bool = False
    ) -> int:
        accessor: Json = {
            "bufferView": self._view(np.ascontiguousarray(values).tobytes(), target),
            "componentType": component,
            "count": len(values),
            "type": kind,
        }
        if bounds:
            columns = values.reshape(len(values), -1)
            accessor |= {"min": columns.min(axis=0).tolist(), "max": columns.max(axis=0).tolist()}
        self._accessors.append(accessor)
        return len(self._accessors) - 1

    def _texture(self, png: bytes) -> int:
        self._images.append({"bufferView": self._view(png, None), "mimeType": "image/png"})
        return len(self._images) - 1


def linear(srgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB to linear light, IEC 61966-2-1."""
    low, high = srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4
    return np.where(srgb <= 0.04045, low, high).astype(np.float32)


def _container(document: Json, binary: bytes) -> bytes:
    """Header and the two chunks, each padded to four bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, total),
            struct.pack("<II", len(text), _JSON_CHUNK),
            text,
            struct.pack("<II", len(binary), _BINARY_CHUNK),
            binary,
        ]
    )
