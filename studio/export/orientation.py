"""From the studio's world to the one that splat files are written in.

3DGS tools inherit the axes of photogrammetry: x right, y down, z away from the viewer ("RDF"), and viewers
turn a ``.ply`` or ``.splat`` over when they load it. The studio's world is x right, y up, z towards the
viewer ("RUB"). Half a turn about x leads from one to the other, and back.
"""

from __future__ import annotations

from dataclasses import replace

import torch

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
