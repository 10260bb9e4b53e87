"""The 3DGS ``.ply``: what every splat viewer reads.

Layout of Kerbl et al., "3D Gaussian Splatting" (2023): one little-endian float32 row a splat with
``x y z nx ny nz f_dc_* f_rest_* opacity scale_* rot_*``. Opacities are logits, scales are logarithms,
rotations are wxyz, and ``f_rest`` runs through all coefficients of red, then green, then blue. The axes are
those of ``orientation.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.export.files import replacing_folder, write_bytes
from studio.export.orientation import half_turn_about_x
from studio.types import Splats

_SMALLEST_SCALE = 1e-12
_OPACITY_MARGIN = 1e-7


def _properties(coefficients: int) -> list[str]:
    rest = 3 * (coefficients - 1)
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def write_ply(splats: Splats, path: Path) -> None:
    """Write splats as a binary 3DGS ``.ply``.

    Raises:
        StudioError: the file cannot be written.
    """
    write_bytes(path, ply_bytes(splats))


def ply_bytes(splats: Splats) -> bytes:
    """What a ``.ply`` of splats consists of."""
    turned = half_turn_about_x(splats)
    count, coefficients = turned.sh.shape[:2]
    # logit(1) is infinite and some readers choke on it.
    opacities = turned.opacities.double().clamp(_OPACITY_MARGIN, 1 - _OPACITY_MARGIN)
    columns = [
        turned.means,
        torch.zeros_like(turned.means),
        turned.sh[:, 0],
        turned.sh[:, 1:].transpose(1, 2).reshape(count, -1),
        torch.logit(opacities)[:, None],
        turned.scales.clamp_min(_SMALLEST_SCALE).log(),
        torch.nn.functional.normalize(turned.quats_wxyz, dim=-1),
    ]
    rows = torch.cat([column.detach().cpu().float() for column in columns], dim=1).numpy().astype("<f4")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment Studio: x right, y down, z away from the viewer",
        f"element vertex {count}",
        *(f"property float {name}" for name in _properties(coefficients)),
        "end_header",
    ]
    return ("\n".join(header) + "\n").encode("ascii") + rows.tobytes()


def write_ply_sequence(frames: Sequence[Splats], path: Path) -> Path:
    """Write splats in motion as numbered files in a folder: ``bear.ply`` becomes ``bear_ply/bear_0001.ply``.

    Viewers play such a sequence. Each splat keeps its row.

    Returns:
        The folder.

    Raises:
        StudioError: the folder cannot be written.
    """
    target = path.with_name(f"{path.stem}_ply")
    with replacing_folder(target) as folder:
        for number, splats in enumerate(frames, start=1):
            write_ply(splats, folder / f"{path.stem}_{number:04d}.ply")
    return target


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
    missing = [name for name in _properties(coefficients) if name not in table and name[0] != "n"]
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
