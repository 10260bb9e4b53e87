"""The ``.splat`` of web viewers: 32 bytes a splat, no view-dependent colour.

Layout of antimatter15's viewer: position and scale as float32, then rgba and the rotation (wxyz, 128 + 128 q)
as bytes. The most visible splats come first, so that a viewer shows the asset while it still loads. The axes
are those of ``studio.splats``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from studio.export.files import write_bytes
from studio.export.images import to_bytes
from studio.splats import half_turn_about_x
from studio.types import Splats

SH_DEGREE_0 = 0.28209479177387814
_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat_wxyz", "u1", 4)])


def write_splat(splats: Splats, path: Path) -> None:
    """Write splats as a ``.splat``; colours keep only their degree 0.

    Raises:
        StudioError: the file cannot be written.
    """
    turned = half_turn_about_x(splats)
    areas = turned.scales.topk(2, dim=-1).values.prod(-1)
    order = torch.argsort(areas * turned.opacities, descending=True, stable=True)
    rgba = torch.cat([0.5 + SH_DEGREE_0 * turned.sh[:, 0], turned.opacities[:, None]], dim=-1)
    quats_wxyz = torch.nn.functional.normalize(turned.quats_wxyz, dim=-1)

    rows = np.empty(len(order), dtype=_ROW)
    rows["mean"] = turned.means[order].detach().cpu().numpy()
    rows["scale"] = turned.scales[order].detach().cpu().numpy()
    rows["rgba"] = to_bytes(255 * rgba[order])
    rows["quat_wxyz"] = to_bytes(128 + 128 * quats_wxyz[order])
    write_bytes(path, rows.tobytes())
