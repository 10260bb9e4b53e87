"""Vector clips as Lottie, the JSON that app and web players and After Effects read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.clipart.vectors import CANVAS_PX, Color, Gradient, Stroke
from studio.export.files import replacing
from studio.export.vector import MovingPath, VectorClip

FORMAT_VERSION = "5.7.0"
_CAPS = {"butt": 1, "round": 2, "square": 3}
_JOINS = {"miter": 1, "round": 2, "bevel": 3}
# Straight from each key to the next.
_EASE = {"o": {"x": [0], "y": [0]}, "i": {"x": [1], "y": [1]}}

Json = dict[str, Any]
Key = tuple[float, int]


def write_lottie(clip: VectorClip, path: Path) -> None:
    """Writes one shape layer with a group a path; a group's shapes have the same vertices in every frame.

    A gradient follows the affine motion that is nearest to its path's, a radial one as a circle; ``spread``
    is the players' own, which is "pad".

    Raises:
        StudioError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(lottie_of(clip), separators=(",", ":"), allow_nan=False))


def lottie_of(clip: VectorClip) -> Json:
    """A clip as a Lottie document: coordinates in canvas pixels, one frame of time for each frame shown."""
    count = len(clip.order) if clip.loops else max(len(clip.order) - 1, 1)
    keys = [(round(share * count, 6), frame) for share, frame in clip.keys()]
    groups = [_group(moving, keys, number) for number, moving in enumerate(clip.paths)]
    place = {"p": _still([0, 0, 0]), "a": _still([0, 0, 0]), "s": _still([100, 100, 100])}
    layer = {
        "ty": 4,  # a shape layer
        "ind": 1,
        "nm": "drawing",
        "ip": 0,
        "op": count,
        "st": 0,
        "ks": place | {"r": _still(0), "o": _still(100)},
        "shapes": groups[::-1],
    }
    return {
        "v": FORMAT_VERSION,
        "nm": clip.name,
        "fr": round(count / clip.seconds, 6),
        "ip": 0,
        "op": count,
        "w": CANVAS_PX,
        "h": CANVAS_PX,
        "assets": [],
        "layers": [layer],
    }


def _group(moving: MovingPath, keys: Sequence[Key], number: int) -> Json:
    """What is drawn of one path; in a group, as everywhere in Lottie, the first is on top."""
    style = moving.rest.style
    items: list[Json] = [
        {"ty": "sh", "nm": f"subpath {index}", "ks": _moving(keys, _shape_in(frames, closed))}
        for index, (frames, closed) in enumerate(zip(moving.frames, moving.rest.closed, strict=True))
    ]
    if style.stroke is not None:
        items.append(_painted("st", style.stroke.paint, moving, keys) | _line(style.stroke))
    if style.fill is not None:
        rule = 1 if style.fill_rule == "nonzero" else 2
        items.append(_painted("fl", style.fill, moving, keys) | {"r": rule})
    transform = {
        "p": _still([0, 0]),
        "a": _still([0, 0]),
        "s": _still([100, 100]),
        "r": _still(0),
        "o": _still(100),
    }
    items.append({"ty": "tr", **transform})
    return {"ty": "gr", "nm": f"path {number}", "it": items}


def _line(stroke: Stroke) -> Json:
    line: Json = {"w": _still(round(stroke.width_px, 4)), "lc": _CAPS[stroke.cap], "lj": _JOINS[stroke.join]}
    if stroke.join == "miter":
        line["ml"] = stroke.miter_limit
    if stroke.dashes_px:
        # SVG repeats an odd list to make it even. Players tell dashes apart by their names.
        dashes = stroke.dashes_px * (1 + len(stroke.dashes_px) % 2)
        kinds = [("dg"[index % 2], dash) for index, dash in enumerate(dashes)] + [
            ("o", stroke.dash_offset_px)
        ]
        line["d"] = [
            {"n": kind, "nm": f"dash {index}", "v": _still(round(value, 4))}
            for index, (kind, value) in enumerate(kinds)
        ]
    return line


def _painted(kind: str, paint: Color | Gradient, moving: MovingPath, keys: Sequence[Key]) -> Json:
    """A fill ("fl") or stroke ("st"), or its form for gradients ("gf", "gs")."""
    if isinstance(paint, Color):
        return {"ty": kind, "c": _still([*_rounded(paint.rgb), 1]), "o": _still(_percent(paint.opacity))}
    colors = [value for offset, color in paint.stops for value in (offset, *color.rgb)]
    alphas = [value for offset, color in paint.stops for value in (offset, color.opacity)]
    opaque = all(color.opacity == 1 for _, color in paint.stops)
    numbers = _rounded(colors if opaque else colors + alphas)
    affines = _affine_motion(moving)
    ends = torch.stack([_ends(paint, affine) for affine in affines])
    gradient: Json = {
        "ty": {"fl": "gf", "st": "gs"}[kind],
        "g": {"p": len(paint.stops), "k": _still(numbers)},
        "t": 1 if paint.focus is None else 2,
        "s": _moving(keys, lambda frame: _rounded(ends[frame, 0].tolist())),
        "e": _moving(keys, lambda frame: _rounded(ends[frame, 1].tolist())),
        "o": _still(100),
    }
    if paint.focus is not None:
        x, y = paint.focus
        across = torch.tensor(paint.matrix[:2])
        turn = torch.tensor(
            [paint.matrix[0] * x + paint.matrix[2] * y, paint.matrix[1] * x + paint.matrix[3] * y]
        )
        angle = torch.atan2(turn[1], turn[0]) - torch.atan2(across[1], across[0])
        gradient["h"] = _still(_percent(min(0.99, (x * x + y * y) ** 0.5)))
        gradient["a"] = _still(round(float(torch.rad2deg(angle)), 3))
    return gradient


def _ends(gradient: Gradient, affine: Float[Tensor, "2 3"]) -> Float[Tensor, "2 2"]:
    """Where a gradient starts and ends once the plane has moved: Lottie knows no other skew of it.

    Along a linear one the colour must stay what it is on the lines across, which do not stay at right angles
    to it: the end is moved along its own line until they do.
    """
    a, b, c, d, e, f = gradient.matrix
    linear = affine[:, :2] @ torch.tensor([[a, c], [b, d]], dtype=affine.dtype)
    start = affine[:, :2] @ torch.tensor([e, f], dtype=affine.dtype) + affine[:, 2]
    if gradient.focus is None:
        along, across = linear[:, 0], linear[:, 1]
        normal = torch.stack([-across[1], across[0]])
        size = normal.square().sum().clamp(min=1e-12)
        return torch.stack([start, start + normal * ((along * normal).sum() / size)])
    radius = torch.linalg.det(linear).abs().sqrt()
    direction = linear[:, 0] / linear[:, 0].norm().clamp(min=1e-12)
    return torch.stack([start, start + radius * direction])


def _affine_motion(moving: MovingPath) -> Float[Tensor, "t 2 3"]:
    """The affine maps of the plane that come nearest to what a path does in each frame (least squares)."""
    rest = torch.cat([subpath.reshape(-1, 2) for subpath in moving.rest.subpaths]).double()
    moved = torch.cat([frames.reshape(len(frames), -1, 2) for frames in moving.frames], 1).double()
    # A little of the identity makes it whole where all points lie on a line.
    centre = rest.mean(0)
    offsets, steps = rest - centre, moved - rest
    spread = offsets.mT @ offsets
    spread = spread + 1e-6 * (spread.trace() + 1e-6) * torch.eye(2, dtype=spread.dtype)
    drift = steps.mean(1)
    bend = torch.linalg.solve(spread, offsets.mT @ (steps - drift[:, None])).mT
    linear = torch.eye(2, dtype=bend.dtype) + bend
    shift = centre + drift - (linear @ centre)
    return torch.cat([linear, shift[..., None]], -1)


# --------------------------------------------------------------------------------------------------- values


def _still(value: Any) -> Json:
    return {"a": 0, "k": value}


def _moving(keys: Sequence[Key], value: Callable[[int], Any]) -> Json:
    """A property with a key for each frame shown, or a still one where nothing moves."""
    values = {frame: value(frame) for _, frame in keys}
    first = values[keys[0][1]]
    if all(other == first for other in values.values()):
        return _still(first[0] if len(first) == 1 else first)  # a single value stands in a list in keys only
    return {"a": 1, "k": [{"t": time, "s": values[frame]} | _EASE for time, frame in keys]}


def _shape_in(frames: Float[Tensor, "t n 4 2"], closed: bool) -> Callable[[int], list[Json]]:
    """The shape in a frame, in a list as Lottie's keys want it."""

    def shape(frame: int) -> list[Json]:
        curves = frames[frame].double()
        starts, ends = curves[:, 0], curves[:, 3]
        leaving, arriving = curves[:, 1] - starts, curves[:, 2] - ends
        if closed:
            vertices, arriving = starts, arriving.roll(1, 0)
        else:
            nothing = torch.zeros_like(starts[:1])
            vertices = torch.cat([starts, ends[-1:]])
            leaving, arriving = torch.cat([leaving, nothing]), torch.cat([nothing, arriving])
        bezier = {
            "v": [_rounded(point) for point in vertices.tolist()],
            "i": [_rounded(point) for point in arriving.tolist()],
            "o": [_rounded(point) for point in leaving.tolist()],
            "c": closed,
        }
        return [bezier]

    return shape


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) + 0.0 for value in values]


def _percent(share: float) -> float:
    return round(100 * share, 3)
