"""Binary ``.stl`` for printing: shape only, z up, in millimetres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from studio.export.files import write_bytes
from studio.meshes import face_normals
from studio.types import Mesh

MILLIMETRES_PER_UNIT = 100.0
_ROW = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def printed(mesh: Mesh) -> Float[Tensor, "v 3"]:
    """Where the vertices lie for a printer: z up, in millimetres."""
    x, y, z = (MILLIMETRES_PER_UNIT * mesh.vertices.detach().cpu().float()).unbind(-1)
    return torch.stack([x, -z, y], dim=-1)


def write_stl(mesh: Mesh, path: Path) -> None:
    """Write a mesh as binary ``.stl``: slicers read z up and millimetres, so the asset stands 10 cm tall.

    Raises:
        StudioError: the file cannot be written.
    """
    vertices = printed(mesh)
    faces = mesh.faces.cpu()
    normals = torch.nn.functional.normalize(face_normals(vertices, faces), dim=-1)
    rows = np.zeros(len(faces), dtype=_ROW)
    rows["normal"] = normals.numpy()
    rows["corners"] = vertices[faces].numpy()
    header = b"Studio: z up, millimetres".ljust(80) + np.uint32(len(rows)).astype("<u4").tobytes()
    write_bytes(path, header + rows.tobytes())
