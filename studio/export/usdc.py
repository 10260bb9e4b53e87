"""Splats in USD, as its own primitive for them: y up, metres, motion as samples.

``ParticleField3DGaussianSplat`` holds linear scales, activated opacities and the coefficients of 3DGS, in
the studio's axes. What moves has a sample at each instant (24 time codes a second), and readers go straight
from one to the next. Schema: openusd.org, UsdVol, since USD 26.03.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from studio.errors import StudioError
from studio.export.animation import keys_of
from studio.export.files import replacing
from studio.export.usdz import CODES_PER_SECOND, new_stage, set_duration, vectors
from studio.ops.rotations import aligned
from studio.types import Animation, Splats

_REACH = 3.0
"""Of a splat beyond its middle, in scales."""


def write_usdc(splats: Splats | Animation[Splats], path: Path) -> None:
    """Write splats, or splats in motion, as ``.usdc``.

    Raises:
        StudioError: usd-core is not installed or too old, or the file cannot be written.
    """
    try:
        from pxr import Usd, UsdVol

        kind = UsdVol.ParticleField3DGaussianSplat
    except (ImportError, AttributeError) as error:
        raise StudioError(
            f"cannot write {path}: .usdc needs Pixar's library, 26.3 or later. "
            "Try: pip install 'usd-core>=26.3'"
        ) from error

    with replacing(path) as temporary:
        stage, top = new_stage(temporary, path.stem)
        field = kind.Define(stage, f"{top}/splats")
        # The studio's colours are those that the screen shows, as all splats' are.
        Usd.ColorSpaceAPI.Apply(field.GetPrim()).CreateColorSpaceNameAttr("srgb_rec709_scene")
        first = splats.frames[0] if isinstance(splats, Animation) else splats
        field.CreateRadianceSphericalHarmonicsDegreeAttr(round(first.sh.shape[1] ** 0.5) - 1)
        _set(field, first, Usd.TimeCode.Default())
        if isinstance(splats, Animation):
            seconds, order = keys_of(splats, range(len(splats.frames)))
            set_duration(stage, seconds)
            shown = first
            for second, index in zip(seconds.tolist(), order, strict=True):
                frame = splats.frames[index]
                shown = replace(frame, quats_wxyz=aligned(frame.quats_wxyz, shown.quats_wxyz))
                _set(field, shown, Usd.TimeCode(second * CODES_PER_SECOND))
        stage.GetRootLayer().Save()


def _set(field: Any, splats: Splats, time: Any) -> None:
    """All that the splats are at an instant; a file holds what does not change only once."""
    from pxr import Vt

    reach = _REACH * splats.scales.amax(dim=1, keepdim=True)
    extent = torch.stack([(splats.means - reach).amin(0), (splats.means + reach).amax(0)])
    quats = torch.nn.functional.normalize(splats.quats_wxyz, dim=-1)
    field.CreatePositionsAttr().Set(vectors(_rows(splats.means)), time)
    # A Quatf lies in memory, and in Numpy's eyes, with its real part last.
    field.CreateOrientationsAttr().Set(Vt.QuatfArray.FromNumpy(_rows(quats.roll(-1, dims=-1))), time)
    field.CreateScalesAttr().Set(vectors(_rows(splats.scales)), time)
    field.CreateOpacitiesAttr().Set(Vt.FloatArray.FromNumpy(_rows(splats.opacities)), time)
    coefficients = field.CreateRadianceSphericalHarmonicsCoefficientsAttr()
    coefficients.Set(vectors(_rows(splats.sh.flatten(0, 1))), time)
    field.CreateExtentAttr().Set(vectors(_rows(extent)), time)


def _rows(values: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(values.detach().cpu().numpy(), dtype=np.float32)
