"""Splats from files, and the axes that splat files are written in.

3DGS tools inherit the axes of photogrammetry: x right, y down, z away from the viewer ("RDF"), and viewers
turn a ``.ply`` or ``.splat`` over when they load it. The studio's world is x right, y up, z towards the
viewer ("RUB"). Half a turn about x leads from one to the other, and back.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.types import Splats

# Signs of the real spherical harmonics of degree 0-3, in the 3DGS order, when y and z change theirs.
_HALF_TURN_SIGNS = (1, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1)


def half_turn_about_x(splats: Splats) -> Splats:
    """The splats turned by 180 degrees about the x axis, colours and all. Its own inverse."""
    signs = torch.tensor([1.0, -1.0, -1.0]).to(splats.means)
    w, x, y, z = splats.quats_wxyz.unbind(-1)
    sh_signs = torch.tensor(_HALF_TURN_SIGNS[: splats.sh.shape[1]]).to(splats.sh)
    return replace(
        splats,
        means=splats.means * signs,
        # (0, 1, 0, 0) times the quaternion.
        quats_wxyz=torch.stack([-x, w, -z, y], dim=-1),
        sh=splats.sh * sh_signs[:, None],
    )


def ply_columns(coefficients: int) -> list[str]:
    """The columns of a 3DGS ``.ply`` whose colours have so many coefficients."""
    rest = 3 * (coefficients - 1)
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def read_ply(path: Path) -> Splats:
    """Read a binary 3DGS ``.ply``, the studio's or another tool's, into the studio's world.

    Raises:
        StudioError: the file is missing, cut short, not a ``.ply``, or holds no 3D Gaussians.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StudioError(f"cannot read {path}: {error.strerror}; expected a 3DGS .ply file.") from error
    return splats_of_ply(content, path)


def splats_of_ply(content: bytes, path: Path) -> Splats:
    """The splats of a ``.ply``, given whole.

    Args:
        path: where it is from, for what errors say.

    Raises:
        StudioError: as ``read_ply``.
    """
    table = _read_vertices(content, path)

    rest = sum(name.startswith("f_rest_") for name in table)
    coefficients = 1 + rest // 3
    missing = [name for name in ply_columns(coefficients) if name not in table and name[0] != "n"]
    if missing or coefficients not in (1, 4, 9, 16) or rest % 3:
        wrong = (
            f"it lacks {missing[0]!r}" if missing else f"it has {rest} f_rest_* columns, not 0, 9, 24 or 45"
        )
        raise StudioError(
            f"{path} holds no 3D Gaussians: {wrong}. Expected the 3DGS layout; a mesh or a plain point cloud "
            "cannot be read as splats."
        )

    def columns(*names: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([table[name] for name in names], axis=-1).astype(np.float32))

    sh = columns(*(f"f_dc_{i}" for i in range(3)))[:, None]
    if rest:
        higher = columns(*(f"f_rest_{i}" for i in range(rest))).reshape(-1, 3, coefficients - 1)
        sh = torch.cat([sh, higher.transpose(1, 2)], dim=1)
    return half_turn_about_x(
        Splats(
            means=columns("x", "y", "z"),
            quats_wxyz=columns(*(f"rot_{i}" for i in range(4))),
            scales=columns(*(f"scale_{i}" for i in range(3))).exp(),
            opacities=columns("opacity")[:, 0].sigmoid(),
            sh=sh,
        )
    )


def _read_vertices(content: bytes, path: Path) -> dict[str, NDArray[np.float32]]:
    """The columns of the file's first element, which must be ``vertex`` with float properties."""
    end = content.find(b"end_header\n")
    if not content.startswith(b"ply") or end < 0:
        raise StudioError(f"{path} is not a .ply file; expected the 3DGS .ply that `studio export` writes.")
    lines = [line.split() for line in content[:end].decode("ascii", "replace").splitlines()]
    if ["format", "binary_little_endian", "1.0"] not in lines:
        raise StudioError(f"{path} is not a binary little-endian .ply; try converting it with another tool.")
    elements = [line for line in lines if line and line[0] == "element"]
    if not elements or elements[0][1] != "vertex":
        raise StudioError(f"{path} does not begin with vertices; expected the 3DGS layout.")

    count = int(elements[0][2])
    start = lines.index(elements[0]) + 1
    stop = lines.index(elements[1]) if len(elements) > 1 else len(lines)
    fields = [line for line in lines[start:stop] if line and line[0] == "property"]
    if any(len(field) != 3 or field[1] not in ("float", "float32") for field in fields):
        raise StudioError(
            f"{path} has properties that are no floats; expected the 3DGS layout of float columns."
        )
    row = np.dtype([(name, "<f4") for _, _, name in fields])
    body = content[end + len(b"end_header\n") :]
    if len(body) < count * row.itemsize:
        raise StudioError(
            f"{path} is cut short: {len(body)} of {count * row.itemsize} bytes; try exporting again."
        )
    rows = np.frombuffer(body, dtype=row, count=count)
    return {name: rows[name] for name in row.names or ()}
