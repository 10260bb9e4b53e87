"""OpenSplat's CPU rasterizer as a peer of ours, where ``STUDIO_OPENSPLAT`` names a library that holds it.

It is AGPL-3, so nothing of it is here. To build the library, outside of this repository::

    git clone https://github.com/pierotofy/OpenSplat
    export TORCH=$(python -c "import torch, pathlib; print(pathlib.Path(torch.__file__).parent)")
    g++ -O3 -march=native -DNDEBUG -std=c++17 -fPIC -shared -w -I$TORCH/include \
        -I$TORCH/include/torch/csrc/api/include -IOpenSplat/rasterizer/gsplat-cpu \
        benchmarks/peers/opensplat.cpp OpenSplat/rasterizer/gsplat-cpu/gsplat_cpu.cpp \
        -L$TORCH/lib -ltorch -ltorch_cpu -lc10 -o libopensplat.so
    export STUDIO_OPENSPLAT=$PWD/libopensplat.so

OpenSplat's own build leaves ``-march=native`` out, which makes it a little slower.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from studio.ops.splatting_reference import project


def missing() -> str | None:
    """Why OpenSplat cannot be timed here, or None where it can."""
    path = os.environ.get("STUDIO_OPENSPLAT", "")
    if not path:
        return "not built: STUDIO_OPENSPLAT names no library; benchmarks/peers/opensplat.py says how"
    if not Path(path).is_file():
        return f"STUDIO_OPENSPLAT={path} is not a file"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"{path} does not load: {error}"
    return None


class OpenSplat:
    """One cloud before several cameras, which OpenSplat draws one after the other with one thread.

    Projection is left out: OpenSplat leaves it to torch's operators, and the studio's reference does it here
    beforehand. The times are those of its rasterizer alone.

    Args:
        parameters: means, quats_wxyz, scales, opacities, sh (degree 0), as ``studio.ops.splatting.splat`` has
            them.
        world_to_camera, intrinsics, background: of each camera.
        width, height: in pixels.
    """

    def __init__(
        self,
        parameters: tuple[Tensor, ...],
        world_to_camera: Tensor,
        intrinsics: Tensor,
        background: Tensor,
        width: int,
        height: int,
    ) -> None:
        self.size = (width, height)
        self.views: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            nowhere = torch.zeros(len(parameters[0]), 2)
            for view, camera, behind in zip(world_to_camera, intrinsics, background, strict=True):
                splats = project(*parameters, nowhere, view, camera, width, height, antialias=False)
                xx, xy, yy = splats.conics.unbind(-1)
                covariances = torch.stack([yy, -xy, -xy, xx], -1) / (xx * yy - xy * xy)[:, None]
                arguments = (
                    splats.means2d - 0.5,  # its pixels have whole-numbered centres
                    *(splats.conics, splats.colors, splats.opacities[:, None], behind),
                    *(covariances.reshape(-1, 2, 2), splats.depths),
                )
                self.views.append(tuple(tensor.contiguous() for tensor in arguments))

    def draw(self, v_rgb: Tensor, v_alpha: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Forward and backward.

        Args:
            v_rgb, v_alpha: the loss's gradient on the pictures, ``[b 3 h w]`` and ``[b 1 h w]``.

        Returns:
            The pictures, and for each view the gradients on means in pixels, conics, colours and opacities.
        """
        pictures, gradients = [], []
        for view, v_picture, v_coverage in zip(self.views, v_rgb.permute(0, 2, 3, 1), v_alpha, strict=True):
            picture, light, pixels = torch.ops.opensplat.forward(*self.size, *view)
            gradients.append(
                torch.ops.opensplat.backward(
                    *self.size, *view, light, pixels, v_picture.contiguous(), v_coverage[0]
                )
            )
            pictures.append(picture.permute(2, 0, 1))
        return torch.stack(pictures), gradients
