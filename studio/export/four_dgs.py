"""The ``.4dgs`` container: splats in motion in one compact file, rounded within bounds that it declares.

Each frame's splats live until the next frame and go straight on to where they are then, turned as in their
frame. The format's own library rounds them: places to a twentieth of the median scale, colours to 1/255.
Specification: 4dgs.dev/docs/spec.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.export.animation import keys_of
from studio.export.files import replacing
from studio.export.splat import SH_DEGREE_0
from studio.types import Animation, Splats

_HEADER = {"coordinate_system": "y-up-right-handed", "color_space": "srgb-rec709-display"}
_SH_REACH = 4.0
"""View-dependent coefficients are stored as bytes from -4 to 4."""


def write_4dgs(animation: Animation[Splats], path: Path) -> None:
    """Write splats in motion as ``.4dgs``; colours outside 0-1 are clamped.

    Raises:
        StudioError: fourdgs is not installed, or the file cannot be written.
    """
    try:
        import fourdgs
    except ImportError as error:
        raise StudioError(
            f"cannot write {path}: .4dgs needs a library of its own. Try: pip install fourdgs"
        ) from error
    with replacing(path) as temporary:
        options = fourdgs.WriteOptions(metadata=_HEADER)
        fourdgs.write(str(temporary), _gaussians(animation), animation.seconds, options=options)


def _gaussians(animation: Animation[Splats]) -> Any:
    """The splats of all frames, one frame after the other."""
    import fourdgs

    seconds, order = keys_of(animation, range(len(animation.frames)))
    count, frames = len(animation.rest.means), animation.frames
    velocities = [
        (frames[after].means - frame.means) / float(seconds[index + 1] - seconds[index])
        for index, (frame, after) in enumerate(zip(frames, order[1:], strict=False))
    ]
    starts = seconds[: len(frames)]
    ends = np.append(seconds[1:], np.inf)[: len(frames)]
    if len(velocities) < len(frames):
        velocities.append(torch.zeros_like(frames[-1].means))
    quats = torch.nn.functional.normalize(torch.cat([frame.quats_wxyz for frame in frames]), dim=-1)
    sh = torch.cat([frame.sh for frame in frames])
    opacities = torch.cat([frame.opacities for frame in frames])
    rgb = sh[:, 0] * SH_DEGREE_0 + 0.5
    rest = sh[:, 1:].transpose(1, 2).flatten(1)  # all coefficients of red, then green, then blue
    codes = ((rest.clamp(-_SH_REACH, _SH_REACH) + _SH_REACH) * (255 / (2 * _SH_REACH))).round()
    degree = {1: 0, 4: 1, 9: 2, 16: 3}[sh.shape[1]]
    return fourdgs.GaussianSet(
        positions=_array(torch.cat([frame.means for frame in frames])),
        scales=_array(torch.cat([frame.scales for frame in frames])),
        rotations=_array(quats.roll(-1, dims=-1)),
        colors=_array(torch.cat([rgb, opacities[:, None]], dim=1).clamp(0, 1)),
        motions=_array(torch.cat(velocities)),
        mu_t=np.repeat(starts, count),
        sigma_t=np.full(len(sh), np.inf, np.float32),
        win_lo=np.repeat(starts, count),
        win_hi=np.repeat(ends, count),
        sh=_array(codes).astype(np.uint8) if degree else None,
        sh_degree=degree,
    )


def _array(values: Tensor) -> Any:
    return values.detach().cpu().float().numpy()
