"""Meshes in motion as .glb, played by an independent player and compared with their frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from studio.export.animation import shape_at
from studio.export.glb import MOST_TARGETS, write_glb
from studio.types import Animation, Material, Mesh
from tests.export.gltf_player import chunks, played, vector
from tests.export.shapes import bending_bar


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("kind", ["skin", "flip book"])
def test_a_played_glb_shows_the_frames(tmp_path: Path, kind: str, loops: bool) -> None:
    animation = bending_bar(loops=loops)
    write_glb(animation if kind == "skin" else replace(animation, rig=None), tmp_path / "bar.glb")
    document, _ = chunks(tmp_path / "bar.glb")
    assert ("skins" in document) == (kind == "skin")
    for time, frame in zip(animation.times, animation.frames, strict=True):
        shown = played(tmp_path / "bar.glb", 2.0 * float(time))
        np.testing.assert_allclose(shown.positions, frame.vertices[frame.faces], atol=1e-5)
        if kind == "flip book":
            assert frame.vertex_normals is not None
            np.testing.assert_allclose(shown.normals, frame.vertex_normals[frame.faces], atol=1e-5)
    assert shown.duration == 2.0  # of five frames, two a second; of a loop, back to the first
    (loaded,) = trimesh.load(tmp_path / "bar.glb").geometry.values()
    assert len(loaded.faces) == len(animation.rest.faces)
    if loops:
        first = played(tmp_path / "bar.glb", 2.0).positions
        np.testing.assert_allclose(first, animation.frames[0].vertices[animation.rest.faces], atol=1e-5)


def test_skinned_normals_are_those_of_the_bent_surface(tmp_path: Path) -> None:
    """Where one node carries all corners of a face, its normal turns with the node."""
    animation = bending_bar(carriers=1)
    assert animation.rig is not None
    write_glb(animation, tmp_path / "bar.glb")
    shown = played(tmp_path / "bar.glb", 0.5)
    rigid = (animation.rig.carriers[animation.rest.faces, 0] == 3).all(dim=1).numpy()
    assert rigid.sum() > 10
    w, x, y, z = animation.rig.quats_wxyz[1, 3].tolist()
    normals = animation.rest.vertex_normals
    assert normals is not None
    for seen, rest in zip(shown.normals[rigid], normals[animation.rest.faces[rigid]].numpy(), strict=True):
        axis = np.array([x, y, z])
        turned = rest + 2 * w * np.cross(axis, rest) + 2 * np.cross(axis, np.cross(axis, rest))
        np.testing.assert_allclose(seen, turned, atol=1e-5)


def test_between_two_frames_a_flip_book_goes_straight_on(tmp_path: Path) -> None:
    animation = replace(bending_bar(loops=True), rig=None)
    write_glb(animation, tmp_path / "bar.glb")
    for seconds in (0.1, 0.55, 1.9):  # the last between the last frame and the first
        shown = played(tmp_path / "bar.glb", seconds)
        shape = shape_at(animation, seconds / 2)
        assert isinstance(shape, Mesh)
        np.testing.assert_allclose(shown.positions, shape.vertices[shape.faces], atol=1e-5)


def test_more_carriers_than_a_skin_takes_make_a_flip_book(tmp_path: Path) -> None:
    animation = bending_bar(carriers=4)
    assert animation.rig is not None
    many = replace(
        animation.rig,
        carriers=animation.rig.carriers[:, [0, 1, 2, 3, 0]],
        weights=torch.cat([animation.rig.weights, torch.zeros(len(animation.rig.weights), 1)], dim=1),
    )
    write_glb(replace(animation, rig=many), tmp_path / "bar.glb")
    document, _ = chunks(tmp_path / "bar.glb")
    assert "skins" not in document and len(document["meshes"][0]["primitives"][0]["targets"]) == 4


def test_a_carrier_named_twice_counts_once(tmp_path: Path) -> None:
    animation = bending_bar(carriers=3)
    rig = animation.rig
    assert rig is not None
    halves = replace(
        rig,
        carriers=torch.cat([rig.carriers, rig.carriers[:, :1]], dim=1),
        weights=torch.cat([rig.weights[:, :1] / 2, rig.weights[:, 1:], rig.weights[:, :1] / 2], dim=1),
    )
    for name, each in (("once", rig), ("twice", halves)):
        write_glb(replace(animation, rig=each), tmp_path / f"{name}.glb")
    once, twice = (played(tmp_path / f"{name}.glb", 0.7).positions for name in ("once", "twice"))
    np.testing.assert_allclose(once, twice, atol=1e-6)


def test_long_animations_keep_frames_evenly_spread(tmp_path: Path) -> None:
    count = 2 * MOST_TARGETS + 1
    square = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    frames = tuple(replace(square, vertices=torch.eye(3) * (1 + i)) for i in range(count))
    animation = Animation(square, frames, torch.linspace(0, 1, count), seconds=4.0)
    write_glb(animation, tmp_path / "long.glb")
    assert len(chunks(tmp_path / "long.glb")[0]["meshes"][0]["weights"]) == MOST_TARGETS
    for index in (0, 2, 64, count - 1):
        shown = played(tmp_path / "long.glb", 4.0 * index / (count - 1))
        np.testing.assert_allclose(shown.positions[0], frames[index].vertices, rtol=1e-5)


def test_flat_faces_stay_flat_while_they_bend(tmp_path: Path) -> None:
    """Two triangles of one plane at first: their common corners must be split for what comes later."""
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    bent = flat.clone()
    bent[3, 2] = 1.0
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    frames = Mesh(flat, faces), Mesh(bent, faces)
    write_glb(Animation(frames[0], frames, torch.tensor([0.0, 1.0]), 1.0), tmp_path / "bent.glb")
    shown = played(tmp_path / "bent.glb", 1.0)
    edges = shown.positions[:, 1:] - shown.positions[:, :1]
    expected = np.cross(edges[:, 0], edges[:, 1])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(shown.normals, np.repeat(expected[:, None], 3, axis=1), atol=1e-6)


def test_one_frame_is_a_mesh_that_stands_still(tmp_path: Path) -> None:
    animation = replace(bending_bar(frames=1), rig=None)
    write_glb(animation, tmp_path / "still.glb")
    document, _ = chunks(tmp_path / "still.glb")
    assert "animations" not in document and "targets" not in document["meshes"][0]["primitives"][0]


def test_normal_maps_bend_with_their_surface(tmp_path: Path) -> None:
    """Each target leads to tangents of the frame's surface: unit, and at right angles to its normals."""
    animation = replace(bending_bar(), rig=None)
    flat = torch.zeros(64, 64, 3)
    flat[..., 2] = 1.0
    material = Material(texture=animation.rest.materials[0].texture, normal_map=flat)
    mapped = replace(animation, rest=replace(animation.rest, materials=(material,)))
    write_glb(mapped, tmp_path / "bar.glb")
    document, binary = chunks(tmp_path / "bar.glb")
    (primitive,) = document["meshes"][0]["primitives"]
    for target in primitive["targets"]:
        tangents, normals = (
            vector(document, binary, primitive["attributes"][name])[:, :3]
            + vector(document, binary, target[name])
            for name in ("TANGENT", "NORMAL")
        )
        np.testing.assert_allclose(np.linalg.norm(tangents, axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose((tangents * normals).sum(axis=1), 0.0, atol=1e-5)
    assert document["materials"][0]["normalTexture"] == {"index": 1} and "extensionsUsed" not in document
