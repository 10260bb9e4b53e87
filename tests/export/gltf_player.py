"""A small glTF player, written from the specification: what a .glb shows at an instant."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_KINDS = {5126: "<f4", 5125: "<u4", 5123: "<u2"}


def chunks(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary of a .glb, taken apart as the specification says."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    text_length, text_kind = struct.unpack_from("<I4s", data, 12)
    assert text_kind == b"JSON" and text_length % 4 == 0
    start = 20 + text_length
    binary_length, binary_kind = struct.unpack_from("<I4s", data, start)
    assert binary_kind == b"BIN\0" and binary_length % 4 == 0 and start + 8 + binary_length == len(data)
    return json.loads(data[20:start]), data[start + 8 :]


def vector(document: dict[str, Any], binary: bytes, accessor: int) -> np.ndarray:
    """The rows of an accessor."""
    about = document["accessors"][accessor]
    view = document["bufferViews"][about["bufferView"]]
    width, kind = _WIDTHS[about["type"]], np.dtype(_KINDS[about["componentType"]])
    assert view["byteOffset"] % 4 == 0 and view["byteLength"] == about["count"] * width * kind.itemsize
    return np.frombuffer(binary, kind, about["count"] * width, view["byteOffset"]).reshape(-1, width)


@dataclass(frozen=True)
class Played:
    """Corners of all triangles at an instant, [f, 3, 3]; normals are not unit between frames."""

    positions: np.ndarray
    normals: np.ndarray
    duration: float


def played(path: Path, seconds: float) -> Played:
    """What the file's one mesh shows when its one animation has run for some seconds."""
    document, binary = chunks(path)
    (animation,) = document["animations"]
    values: dict[tuple[int, str], np.ndarray] = {}
    ends = []
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        assert sampler["interpolation"] == "LINEAR"
        times = vector(document, binary, sampler["input"])[:, 0].astype(float)
        about = document["accessors"][sampler["input"]]
        assert about["min"] == [times[0]] and about["max"] == [times[-1]] and (np.diff(times) > 0).all()
        keys = vector(document, binary, sampler["output"]).astype(float).reshape(len(times), -1)
        target = channel["target"]
        values[target["node"], target["path"]] = _between(times, keys, seconds, target["path"] == "rotation")
        ends.append(times[-1])
    mesh_node = next(i for i, node in enumerate(document["nodes"]) if "mesh" in node)
    (mesh,) = document["meshes"]
    matrices = None
    if "skin" in document["nodes"][mesh_node]:
        skin = document["skins"][document["nodes"][mesh_node]["skin"]]
        binds = vector(document, binary, skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        matrices = np.stack(
            [
                _local(document["nodes"][joint], joint, values) @ bind
                for joint, bind in zip(skin["joints"], binds.astype(float), strict=True)
            ]
        )
    positions, normals = [], []
    for primitive in mesh["primitives"]:
        attributes = {
            k: vector(document, binary, v).astype(float) for k, v in primitive["attributes"].items()
        }
        place, normal = attributes["POSITION"], attributes["NORMAL"]
        if "targets" in primitive:
            weights = values[mesh_node, "weights"]
            assert len(weights) == len(primitive["targets"]) == len(mesh["weights"])
            for weight, target in zip(weights, primitive["targets"], strict=True):
                place = place + weight * vector(document, binary, target["POSITION"])
                normal = normal + weight * vector(document, binary, target["NORMAL"])
        if matrices is not None:
            joints = attributes["JOINTS_0"].astype(int)
            blended = (attributes["WEIGHTS_0"][..., None, None] * matrices[joints]).sum(axis=1)
            place = (blended @ np.pad(place, ((0, 0), (0, 1)), constant_values=1.0)[..., None])[:, :3, 0]
            normal = (np.linalg.inv(blended[:, :3, :3]).transpose(0, 2, 1) @ normal[..., None])[..., 0]
        index = vector(document, binary, primitive["indices"])[:, 0].reshape(-1, 3)
        positions.append(place[index])
        normals.append(normal[index])
    assert len(set(ends)) == 1
    return Played(np.concatenate(positions), np.concatenate(normals), ends[0])


def _between(times: np.ndarray, keys: np.ndarray, seconds: float, rotates: bool) -> np.ndarray:
    later = int(np.clip(np.searchsorted(times, seconds, side="right"), 1, len(times) - 1))
    share = np.clip((seconds - times[later - 1]) / (times[later] - times[later - 1]), 0.0, 1.0)
    before, after = keys[later - 1], keys[later]
    if not rotates:
        return before + share * (after - before)
    cosine = float(before @ after)
    angle = np.arccos(np.clip(abs(cosine), -1.0, 1.0))
    if angle < 1e-6:
        return before
    parts = np.sin((1 - share) * angle) * before + np.sign(cosine) * np.sin(share * angle) * after
    return parts / np.sin(angle)


def _local(node: dict[str, Any], index: int, values: dict[tuple[int, str], np.ndarray]) -> np.ndarray:
    """A joint's matrix; its parents stand still at the origin."""
    x, y, z, w = values.get((index, "rotation"), np.array(node.get("rotation", [0.0, 0.0, 0.0, 1.0])))
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = values.get((index, "translation"), np.array(node.get("translation", [0.0, 0.0, 0.0])))
    return matrix
