"""glTF 2.0 in one binary file: y up, metres, texture inside, motion too.

A baked texture already holds its light, so materials are unlit (``KHR_materials_unlit``); viewers without
that extension fall back to a rough dielectric. A normal map says something in light only, so a material that
has one is lit. Base colours and textures are sRGB in the studio; glTF wants factors and vertex colours
linear, textures sRGB.

A mesh in motion is a skin where a rig of up to four nodes a vertex carries it. Otherwise it is a flip book of
morph targets, whose weights lead linearly from one frame to the next.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from studio.export.animation import keys_of, spread
from studio.export.corners import CornerMesh, posed, split_corners, tangents
from studio.export.files import write_bytes
from studio.export.gltf import GltfDocument, Json, linear
from studio.types import Animation, Mesh, Rig

MOST_CARRIERS = 4
MOST_TARGETS = 64
"""Morph targets that viewers are known to take; longer animations keep frames evenly spread."""


def write_glb(mesh: Mesh | Animation[Mesh], path: Path, *, unlit: bool = True) -> None:
    """Write a mesh, or a mesh in motion, as ``.glb``, one primitive a material.

    Args:
        mesh: at least one face.
        path: where to write.
        unlit: whether colours already hold their light.

    Raises:
        StudioError: the file cannot be written.
    """
    document = GltfDocument()
    match mesh:
        case Mesh():
            _add_mesh(document, mesh, split_corners(mesh), path.stem, unlit)
        case Animation(rig=Rig() as rig) if rig.carriers.shape[1] <= MOST_CARRIERS:
            _add_skin(document, mesh, rig, path.stem, unlit)
        case _:
            _add_flip_book(document, mesh, path.stem, unlit)
    write_bytes(path, document.encode())


def _add_mesh(
    document: GltfDocument,
    mesh: Mesh,
    corners: CornerMesh,
    name: str,
    unlit: bool,
    skin: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None,
) -> None:
    """Adds a mesh and its node; of a skin, the joints that carry each vertex and their weights."""
    used = np.unique(corners.face_materials)
    materials = [mesh.materials[index] for index in used]
    attributes = {"POSITION": document.vertices(corners.positions, "VEC3", bounds=True)}
    attributes["NORMAL"] = document.vertices(corners.normals, "VEC3")
    textured = corners.uvs is not None and any(
        material.texture is not None or material.normal_map is not None for material in materials
    )
    if textured and corners.uvs is not None:
        v_down = np.stack([corners.uvs[:, 0], 1 - corners.uvs[:, 1]], axis=-1)
        attributes["TEXCOORD_0"] = document.vertices(v_down, "VEC2")
        if any(material.normal_map is not None for material in materials):
            attributes["TANGENT"] = document.vertices(tangents(corners), "VEC4")
    if corners.colors is not None:
        attributes["COLOR_0"] = document.vertices(linear(corners.colors), "VEC3")
    if skin is not None:
        attributes["JOINTS_0"] = document.joints(skin[0])
        attributes["WEIGHTS_0"] = document.vertices(skin[1], "VEC4")
    primitives: list[Json] = [
        {
            "attributes": attributes,
            "indices": document.indices(corners.faces[corners.face_materials == index]),
            "material": document.material(
                material, textured=textured, unlit=unlit and material.normal_map is None
            ),
        }
        for index, material in zip(used, materials, strict=True)
    ]
    document.meshes.append({"name": name, "primitives": primitives})
    document.nodes.append({"name": name, "mesh": 0})


def _add_flip_book(document: GltfDocument, animation: Animation[Mesh], name: str, unlit: bool) -> None:
    """Adds the first frame as a mesh, what the others differ in from it, and when each is shown."""
    count = len(animation.frames)
    shown = spread(count, MOST_TARGETS + 1)
    frames = [animation.frames[index] for index in shown]
    first = replace(frames[0], materials=animation.rest.materials)
    corners = split_corners(first, frames[1:])
    _add_mesh(document, first, corners, name, unlit)
    if count == 1:
        return

    book = document.meshes[0]
    with_tangents = "TANGENT" in book["primitives"][0]["attributes"]
    targets = [_target(document, corners, frame, with_tangents) for frame in frames[1:]]
    book["weights"] = [0.0] * len(targets)
    for primitive in book["primitives"]:
        primitive["targets"] = targets

    seconds, order = keys_of(animation, shown)
    weights = np.eye(len(frames), dtype=np.float32)[order, 1:]
    times = document.keys(seconds, "SCALAR", times=True)
    document.animate(0, "weights", times, document.keys(weights.ravel(), "SCALAR"))


def _target(document: GltfDocument, corners: CornerMesh, frame: Mesh, with_tangents: bool) -> Json:
    """What a frame differs in from the mesh that was split."""
    at = posed(corners, frame)
    target = {
        "POSITION": document.vertices(at.positions - corners.positions, "VEC3", bounds=True),
        "NORMAL": document.vertices(at.normals - corners.normals, "VEC3"),
    }
    if with_tangents:
        target["TANGENT"] = document.vertices((tangents(at) - tangents(corners))[:, :3], "VEC3")
    return target


def _add_skin(document: GltfDocument, animation: Animation[Mesh], rig: Rig, name: str, unlit: bool) -> None:
    """Adds the mesh at rest, the nodes that carry it as joints, and their motion.

    A joint stands at ``node + translation`` turned by R; its inverse bind matrix moves by ``-node``: the sum
    over joints of weight times joint times inverse bind matrix is the rig's formula.
    """
    corners = split_corners(animation.rest)
    carriers, weights = _four(rig)
    skin = carriers[corners.vertices], weights[corners.vertices]
    _add_mesh(document, animation.rest, corners, name, unlit, skin)

    nodes = _array(rig.nodes)
    first = len(document.nodes) + 1
    joints = list(range(first, first + len(nodes)))
    document.nodes.append({"name": f"{name} rig", "children": joints})
    document.nodes += [{"name": f"node {i}", "translation": place} for i, place in enumerate(nodes.tolist())]
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (len(nodes), 1, 1))
    inverse_bind[:, 3, :3] = -nodes  # columns of the matrix are rows here
    document.nodes[0]["skin"] = 0
    matrices = document.keys(inverse_bind.reshape(-1, 16), "MAT4")
    document.skins.append({"joints": joints, "skeleton": first - 1, "inverseBindMatrices": matrices})

    seconds, order = keys_of(animation, range(len(animation.frames)))
    times = document.keys(seconds, "SCALAR", times=True)
    places = (nodes + _array(rig.translations))[order]
    turns = _steady(_array(rig.quats_wxyz)[order])[..., [1, 2, 3, 0]]
    for index, joint in enumerate(joints):
        document.animate(joint, "translation", times, document.keys(places[:, index], "VEC3"))
        document.animate(joint, "rotation", times, document.keys(turns[:, index], "VEC4"))


def _four(rig: Rig) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Four carriers of each point, 0 where the weight is 0, and weights that sum to 1 as float32."""
    missing = (0, MOST_CARRIERS - rig.carriers.shape[1])
    carriers = torch.nn.functional.pad(rig.carriers.detach().cpu(), missing).numpy().copy()
    weights = torch.nn.functional.pad(rig.weights.detach().cpu().double(), missing).numpy()
    weights = np.where(weights < 1e-7, 0.0, weights)
    for later in range(1, MOST_CARRIERS):
        for earlier in range(later):
            again = carriers[:, later] == carriers[:, earlier]
            weights[again, earlier] += weights[again, later]
            weights[again, later] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    carriers[weights == 0] = 0
    rounded = weights.astype(np.float32)
    heaviest = np.arange(len(rounded)), rounded.argmax(axis=1)
    rounded[heaviest] += (1 - rounded.sum(axis=1, dtype=np.float64)).astype(np.float32)
    return carriers.astype(np.int64), rounded


def _steady(quats: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit quaternions ``[t, k, 4]``, each with the sign nearer to the one before it."""
    flips = np.where((quats[1:] * quats[:-1]).sum(axis=-1) < 0, -1.0, 1.0).cumprod(axis=0)
    return quats * np.concatenate([np.ones_like(quats[:1, :, 0]), flips])[..., None].astype(np.float32)


def _array(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().cpu().float().numpy()
    return found
