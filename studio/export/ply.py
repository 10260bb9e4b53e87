"""The 3DGS ``.ply``: what every splat viewer reads.

Layout of Kerbl et al., "3D Gaussian Splatting" (2023): one little-endian float32 row a splat with
``x y z nx ny nz f_dc_* f_rest_* opacity scale_* rot_*``. Opacities are logits, scales are logarithms,
rotations are wxyz, and ``f_rest`` runs through all coefficients of red, then green, then blue. The axes are
those of ``studio.splats``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from studio.export.files import replacing_folder, write_bytes
from studio.splats import half_turn_about_x, ply_columns
from studio.types import Splats

_SMALLEST_SCALE = 1e-12
_OPACITY_MARGIN = 1e-7


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
        turned.sh[:, 1:].transpose(1, 2).flatten(1),
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
        *(f"property float {name}" for name in ply_columns(coefficients)),
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
