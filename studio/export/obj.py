"""Wavefront ``.obj`` with its ``.mtl`` and one ``.png`` a texture beside it. Y up, v up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studio.export.corners import split_corners
from studio.export.files import write_bytes
from studio.export.images import normal_map_png, texture_png
from studio.types import Mesh


def write_obj(mesh: Mesh, path: Path) -> None:
    """Write a mesh as ``.obj``; the ``.obj`` itself comes last, when everything it names is there.

    Raises:
        StudioError: the files cannot be written.
    """
    corners = split_corners(mesh)
    library = [f"# Studio\n# materials of {path.name}"]
    for index, material in enumerate(mesh.materials):
        red, green, blue, alpha = material.base_color
        library.append(f"newmtl material_{index}")
        library.append(f"Ka 0 0 0\nKd {red:.6g} {green:.6g} {blue:.6g}\nKs 0 0 0\nd {alpha:.6g}\nillum 1")
        if material.texture is not None:
            texture_path = path.with_name(f"{path.stem}_{index}.png")
            write_bytes(texture_path, texture_png(material.texture))
            library.append(f"map_Kd {texture_path.name}")
        if material.normal_map is not None:
            map_path = path.with_name(f"{path.stem}_{index}_normal.png")
            write_bytes(map_path, normal_map_png(material.normal_map))
            library.append(f"norm {map_path.name}")
    library_path = path.with_suffix(".mtl")
    write_bytes(library_path, ("\n".join(library) + "\n").encode())

    vertices = corners.positions
    if corners.colors is not None:
        vertices = np.concatenate([vertices, corners.colors], axis=1)
    blocks = ["# Studio: y up, one unit is about the asset's size", f"mtllib {library_path.name}"]
    blocks += [_lines("v", vertices), _lines("vn", corners.normals)]
    pattern = "f {0}//{0} {1}//{1} {2}//{2}"
    if corners.uvs is not None:
        blocks.append(_lines("vt", corners.uvs))
        pattern = "f {0}/{0}/{0} {1}/{1}/{1} {2}/{2}/{2}"
    for material_index in np.unique(corners.face_materials):
        blocks.append(f"usemtl material_{material_index}")
        faces = corners.faces[corners.face_materials == material_index] + 1
        blocks.append("\n".join(pattern.format(*face) for face in faces.tolist()))
    write_bytes(path, ("\n".join(blocks) + "\n").encode())


def _lines(keyword: str, rows: NDArray[np.float32]) -> str:
    return "\n".join(keyword + "".join(f" {value:.7g}" for value in row) for row in rows.tolist())
