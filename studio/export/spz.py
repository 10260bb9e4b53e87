"""Niantic's ``.spz``, version 2: about a tenth of the ``.ply``, with all spherical harmonics.

One gzip stream: a 16-byte header, then one array an attribute. Positions are 24-bit fixed point; opacity,
colour, log-scale, rotation (xyz of the quaternion with w >= 0) and harmonics are bytes. Its axes are the
studio's own.
Specification: github.com/nianticlabs/spz (MIT).
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import torch

from studio.export.files import write_bytes
from studio.export.images import to_bytes
from studio.types import Splats

_MAGIC, _VERSION = 0x5053474E, 2
_MOST_FRACTIONAL_BITS = 16
_COLOR_SCALE = 0.15
_FLAG_ANTIALIASED = 1


def write_spz(splats: Splats, path: Path) -> None:
    """Write splats as an ``.spz``.

    Positions are kept to 2^-16 or, in worlds wider than 128 units, as finely as 24 bits allow.

    Raises:
        StudioError: the file cannot be written.
    """
    extent = splats.means.abs().max().item()
    fractional_bits = int(np.clip(22 - np.ceil(np.log2(max(extent, 1e-6))), 0, _MOST_FRACTIONAL_BITS))
    fixed = (splats.means.detach().cpu().double() * 2**fractional_bits).round().int().numpy().astype("<i4")
    quats = torch.nn.functional.normalize(splats.quats_wxyz, dim=-1)
    quats = torch.where(quats[:, :1] < 0, -quats, quats)
    degree = int(splats.sh.shape[1] ** 0.5) - 1
    sections = [
        fixed.view(np.uint8).reshape(-1, 4)[:, :3],
        to_bytes(255 * splats.opacities),
        to_bytes(255 * (0.5 + _COLOR_SCALE * splats.sh[:, 0])),
        to_bytes(16 * (splats.scales.clamp_min(1e-12).log() + 10)),
        to_bytes(127.5 * (quats[:, 1:] + 1)),
        to_bytes(128 * (splats.sh[:, 1:] + 1)),
    ]
    header = struct.pack(
        "<IIIBBBB", _MAGIC, _VERSION, len(fixed), degree, fractional_bits, _FLAG_ANTIALIASED, 0
    )
    # A fixed time stamp: the same splats always give the same file.
    write_bytes(path, gzip.compress(header + b"".join(part.tobytes() for part in sections), mtime=0))
