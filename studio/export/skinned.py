"""Splats that a few nodes move, as a bundle: the splats at rest, what carries each, and the nodes' motion.

It is exact where a sequence of ``.ply`` is, and about as large as one of its files. A ``.skinned.zip`` holds:

- ``canonical.ply``: the splats at rest, as ``ply.py`` writes them.
- ``skin.bin``: little-endian, four node numbers (u16) for each splat, then four weights (f32) for each splat,
  in the order of the ``.ply``. Weights are not negative and sum to 1; where there are fewer than four, 0.
- ``nodes.json``: ``{"rest": [[x, y, z], …], "fps": 12.0, "seconds": 2.0, "loop": false, "frames": [{"t": 0.0,
  "q": [[x, y, z, w], …], "p": [[x, y, z], …]}, …]}`` with a node a row; ``t`` in seconds, ``q`` its rotation
  since it was at rest, ``p`` where it is.

All in the axes of the ``.ply``. At a frame a splat at x is at ``sum_k weight_k (q_k (x - rest_k) + p_k)`` and
turned by the normalized ``sum_k weight_k q_k``, each q_k with the sign that is nearer to the heaviest one's.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from studio.errors import StudioError
from studio.export.animation import rate_of
from studio.export.files import replacing
from studio.export.ply import ply_bytes
from studio.ops.skinning import carried_splats
from studio.splats import splats_of_ply
from studio.types import Animation, Rig, Splats

CARRIERS = 4
"""Nodes that a splat of a bundle may have; players on graphics hardware know no more."""
_PLY, _SKIN, _NODES = "canonical.ply", "skin.bin", "nodes.json"
_DATE = (1980, 1, 1, 0, 0, 0)
_MOST_NODES = 2**16


def write_skinned(animation: Animation[Splats], path: Path) -> None:
    """Write splats in motion, with the rig that moves them, as a bundle.

    Raises:
        StudioError: there is no rig, or it is larger than a bundle holds; the file cannot be written.
    """
    rig = refuse_unskinned(animation.rig, path)
    count, carriers = rig.carriers.shape
    numbers = np.zeros((count, CARRIERS), dtype="<u2")
    weights = np.zeros((count, CARRIERS), dtype="<f4")
    numbers[:, :carriers] = rig.carriers.cpu().numpy()
    weights[:, :carriers] = rig.weights.detach().cpu().numpy()
    seconds = animation.times.double().cpu() * animation.seconds
    quats_xyzw = _over(rig.quats_wxyz).detach().cpu().roll(-1, dims=-1)
    places = _over(rig.nodes + rig.translations).detach().cpu()
    nodes = {
        "rest": _over(rig.nodes).detach().cpu().tolist(),
        "fps": rate_of(animation),
        "seconds": animation.seconds,
        "loop": animation.loops,
        "frames": [
            {"t": t, "q": q, "p": p}
            for t, q, p in zip(seconds.tolist(), quats_xyzw.tolist(), places.tolist(), strict=True)
        ],
    }
    members = {
        _PLY: ply_bytes(animation.rest),
        _SKIN: numbers.tobytes() + weights.tobytes(),
        _NODES: json.dumps(nodes, separators=(",", ":"), allow_nan=False).encode(),
    }
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)


def read_skinned(path: Path) -> Animation[Splats]:
    """Read a bundle into the studio's world; its frames are baked by the studio's own skinning.

    Raises:
        StudioError: the file is missing, damaged or no such bundle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            ply, skin, text = (archive.read(name) for name in (_PLY, _SKIN, _NODES))
        nodes = json.loads(text)
        rest = splats_of_ply(ply, path)
        rig, seconds = _rig(skin, nodes, len(rest.means))
        length, loops = float(nodes["seconds"]), bool(nodes["loop"])
    except OSError as error:
        raise StudioError(f"cannot read {path}: {error.strerror}; expected a .skinned.zip.") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise StudioError(
            f"{path} is no bundle of skinned splats ({error}); expected {_PLY}, {_SKIN} and {_NODES} as "
            "`studio export` writes them."
        ) from error
    frames = tuple(carried_splats(rest, rig, instant) for instant in range(len(seconds)))
    return Animation(rest, frames, (seconds / length).float(), length, loops, rig)


def refuse_unskinned(rig: Rig | None, path: Path) -> Rig:
    """The rig of splats in motion, where a bundle can hold it.

    Raises:
        StudioError: there is none, or it is larger than a bundle holds.
    """
    if rig is None:
        raise StudioError(
            f"cannot export to {path}: .skinned.zip holds splats that nodes carry, and these move each by "
            "itself. Try .ply or .4dgs, or a scene whose motion.kind is 'nodes'."
        )
    if rig.carriers.shape[1] > CARRIERS or len(rig.nodes) > _MOST_NODES:
        raise StudioError(
            f"cannot export to {path}: each splat is carried by {rig.carriers.shape[1]} of {len(rig.nodes)} "
            f"nodes, expected at most {CARRIERS} of at most {_MOST_NODES}. Try .ply or .4dgs."
        )
    return rig


def _rig(skin: bytes, nodes: Any, count: int) -> tuple[Rig, Float[Tensor, "t"]]:
    """The rig, and the seconds of its frames.

    Raises:
        KeyError, ValueError, TypeError, RuntimeError: what came is not a bundle's.
    """
    size = count * CARRIERS
    if len(skin) != 6 * size:
        raise ValueError(f"{_SKIN} has {len(skin)} bytes for {count} splats, not {6 * size}")
    numbers: NDArray[np.uint16] = np.frombuffer(skin, "<u2", size)
    weights: NDArray[np.float32] = np.frombuffer(skin, "<f4", size, 2 * size)
    frames = nodes["frames"]
    rest, quats_xyzw, places = (
        torch.tensor(rows, dtype=torch.float32)
        for rows in (nodes["rest"], [frame["q"] for frame in frames], [frame["p"] for frame in frames])
    )
    if size and int(numbers.max()) >= len(rest):
        raise ValueError(f"{_SKIN} names node {int(numbers.max())} of {len(rest)}")
    if quats_xyzw.shape != (len(frames), len(rest), 4) or places.shape != (len(frames), len(rest), 3):
        raise ValueError(f"the frames of {_NODES} have other numbers of nodes than its rest")
    at_rest = _over(rest)
    rig = Rig(
        nodes=at_rest,
        carriers=torch.from_numpy(numbers.astype(np.int64)).reshape(count, CARRIERS),
        weights=torch.from_numpy(weights.astype(np.float32)).reshape(count, CARRIERS),
        quats_wxyz=_over(quats_xyzw.roll(1, dims=-1)),
        translations=_over(places) - at_rest,
    )
    return rig, torch.tensor([float(frame["t"]) for frame in frames], dtype=torch.float64)


def _over(values: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Points, or rotations as wxyz, from the studio's axes to those of a ``.ply``, and back."""
    return torch.cat([values[..., :-2], -values[..., -2:]], dim=-1)
