"""One .glb of every kind that there is, for the Khronos validator: python -m tests.export.glb_kinds FOLDER"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from studio.export.glb import write_glb
from studio.types import Animation, Material, Mesh
from tests.export.shapes import bending_bar, textured_quads


def glb_kinds() -> dict[str, tuple[Mesh | Animation[Mesh], bool]]:
    """A mesh, or a mesh in motion, and whether it is unlit, by what is special about it."""
    quads, bar = textured_quads(), bending_bar()
    texture = bar.rest.materials[0].texture
    assert texture is not None
    bumps = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 1.0]), dim=0).expand(64, 64, 3)
    bumpy = replace(bar.rest, materials=(Material(texture=texture, normal_map=bumps),))
    holes = texture.clone()
    holes[:8, :8, 3] = 0.0
    colored = Mesh(quads.vertices, quads.faces, vertex_colors=torch.rand_like(quads.vertices))
    frames = tuple(replace(colored, vertices=colored.vertices * (1 + i)) for i in range(3))
    no_area = replace(bumpy, uvs=torch.zeros(len(bar.rest.faces), 3, 2))
    flip_book = replace(bar, rig=None)
    return {
        "textured-unlit": (bar.rest, True),
        "textured-lit": (bar.rest, False),
        "two-materials": (quads, True),
        "cut-out": (replace(bar.rest, materials=(Material(texture=holes),)), True),
        "vertex-colours": (colored, True),
        "vertex-colours-lit": (colored, False),
        "normal-map": (bumpy, True),
        "normal-map-without-area": (no_area, True),
        "morph": (flip_book, True),
        "morph-loop": (replace(bending_bar(loops=True), rig=None), True),
        "morph-lit": (flip_book, False),
        "morph-normal-map": (replace(flip_book, rest=bumpy), True),
        "morph-vertex-colours": (Animation(colored, frames, torch.linspace(0, 1, 3), 1.0), True),
        "skin": (bar, True),
        "skin-loop": (bending_bar(loops=True, carriers=4), True),
        "skin-one-carrier": (bending_bar(carriers=1), True),
        "skin-normal-map": (replace(bar, rest=bumpy), True),
        "one-frame": (replace(bending_bar(frames=1), rig=None), True),
        "one-frame-skin": (bending_bar(frames=1), True),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, (mesh, unlit) in glb_kinds().items():
        write_glb(mesh, folder / f"{name}.glb", unlit=unlit)
