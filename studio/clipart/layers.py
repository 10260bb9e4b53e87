"""Layers of a drawing: groups of its paths that move on sheets of their own, one over the other.

Neighbours hang together by the keypoints that they share: a shoulder leads the arm's sheet and the body's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from studio.clipart.drawing import Drawing
from studio.clipart.raster import VISIBLE_ALPHA, draw_paths
from studio.clipart.sheet import NEAR_PX, Sheet, off_sheet_px, sheet_of
from studio.clipart.vectors import CANVAS_PX, Gradient, VectorPath
from studio.errors import StudioError
from studio.ops.arap import Arap, arap
from studio.ops.mesh_raster import texture_levels

REST = "the rest"
"""What the layer of paths that no other layer names is called."""
_LOOK_PX = CANVAS_PX
"""Side of the pictures by which layers are proposed."""
_DETAIL = 0.02
"""A path that shows less than this share of the drawing is a detail of what it lies on."""
_ALIKE = 0.1
"""Greatest distance in rgb of paths that touch and are of one layer."""
_TOUCH_PX = 4
"""Between paths that touch."""
MOST_PROPOSED = 256
"""Paths of a drawing whose layers are proposed."""


@dataclass(frozen=True)
class Group:
    """Which paths make a layer, and what leads it.

    Attributes:
        name: for what errors say.
        paths: numbers of the drawing's paths.
        keypoints: numbers of the keypoints that lead it; empty for those that lie on it.
    """

    name: str
    paths: tuple[int, ...]
    keypoints: tuple[int, ...] = ()


@dataclass(frozen=True)
class LedSheet:
    """A sheet and what leads it.

    Attributes:
        sheet: its mesh, at rest.
        deform: the sheet, ready to follow its keypoints; in canvas pixels.
        leads: which of the drawing's keypoints lead the sheet's.
    """

    sheet: Sheet
    deform: Arap
    leads: Int[Tensor, "k"]


@dataclass(frozen=True)
class Layer:
    """What is printed on a sheet between what is drawn before and after it.

    Attributes:
        sheet: which.
        paths: numbers of the drawing's paths, rising; none for a picture.
        picture: straight rgba.
        levels: the picture as ``CutoutLayer`` has it.
    """

    sheet: int
    paths: Int[Tensor, "_"]
    picture: UInt8[Tensor, "_ _ 4"]
    levels: tuple[Float[Tensor, "1 _h _w 4"], ...]

    @staticmethod
    def of(sheet: int, paths: Int[Tensor, "_"], picture: UInt8[Tensor, "_ _ 4"]) -> Layer:
        """A layer with its picture made ready to be drawn."""
        rgba = picture.float() / 255
        premultiplied = torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], dim=-1)
        return Layer(sheet, paths, picture, tuple(texture_levels(premultiplied[None])))


Layers = tuple[tuple[LedSheet, ...], tuple[Layer, ...]]
"""Sheets, and what is printed on them, the lowest first."""


def whole(drawing: Drawing, sheet: Sheet) -> Layers:
    """A drawing on one sheet."""
    led = LedSheet(sheet, _ready(sheet), torch.arange(len(sheet.keypoints)))
    return (led,), (Layer.of(0, torch.arange(len(drawing.paths)), drawing.rgba),)


def layered(
    drawing: Drawing, sheet: Sheet, groups: Sequence[Group], edge_px: float = 9.0, margin_px: float = 4.0
) -> Layers:
    """A drawing's groups on sheets of their own.

    What is drawn between paths of a group stays between them: the group has several layers on its sheet.
    Paths that no group names are one more. A drawing that has more than its paths, such as masks, is warned
    of: its layers are drawn without.

    Args:
        drawing: an SVG's.
        sheet: of the whole drawing, for its keypoints.
        groups: which paths; none for all on one sheet.
        edge_px, margin_px: as for ``sheet_of``.

    Raises:
        StudioError: a group without paths, a path that is none or is in two groups, a keypoint that is none
            or far from its group, a group on which no keypoint lies; a picture.
    """
    if not groups:
        return whole(drawing, sheet)
    owner = _owners(drawing, groups)
    if drawing.not_in_paths:
        warnings.warn(
            f"{drawing.name} has {', '.join(drawing.not_in_paths)}, and its layers are drawn without: what "
            "they hide shows. Leave the layers out, and the whole drawing keeps them.",
            stacklevel=2,
        )
    members = {int(number): np.flatnonzero(owner == number).tolist() for number in np.unique(owner)}
    runs = [(int(number), list(run)) for number, run in groupby(range(len(owner)), key=owner.__getitem__)]
    pictures = _pictures(drawing.paths, [*members.values(), *(paths for _, paths in runs)], len(drawing.rgba))
    sheets = []
    for (number, paths), picture in zip(members.items(), pictures, strict=False):
        wanted = groups[number] if number < len(groups) else Group(REST, ())
        part = replace(drawing, rgba=picture, paths=tuple(drawing.paths[path] for path in paths))
        sheets.append(_on_its_own_sheet(part, sheet, wanted, edge_px, margin_px))
    layers = [
        Layer.of(list(members).index(number), torch.tensor(paths), picture.clone())
        for (number, paths), picture in zip(runs, pictures[len(members) :], strict=True)
    ]
    return tuple(sheets), tuple(layers)


def proposed(drawing: Drawing, sheet: Sheet, margin_px: float = 4.0) -> tuple[Group, ...]:
    """A guess at what moves apart: paths of one colour that touch, with the details that lie on them.

    Groups on which no keypoint lies join the one that they touch most. Groups that touch share a keypoint:
    where none lies on both, the one nearest to where they touch.

    Args:
        drawing: an SVG's.
        sheet: of the whole drawing, for its keypoints.
        margin_px: as for ``sheet_of``.

    Raises:
        StudioError: the drawing is a picture, or has too many paths.
    """
    _refuse_picture(drawing)
    if len(drawing.paths) > MOST_PROPOSED:
        raise StudioError(
            f"{drawing.name} has {len(drawing.paths)} paths, expected at most {MOST_PROPOSED} for layers to "
            "be proposed: name the layers' paths."
        )
    alone = _pictures(drawing.paths, [[number] for number in range(len(drawing.paths))], _LOOK_PX)
    masks = alone[..., 3] > VISIBLE_ALPHA * 255
    grown = torch.nn.functional.max_pool2d(masks.float()[:, None], 2 * _TOUCH_PX + 1, 1, _TOUCH_PX)[:, 0] > 0
    contact = (grown.flatten(1).float() @ masks.flatten(1).float().T).numpy()
    contact += contact.T
    label = _of_one_kind(drawing.paths, masks, contact)
    keypoints = sheet.vertices[sheet.keypoints]
    off: dict[tuple[int, ...], Float[Tensor, "k"]] = {}
    while True:
        members = [tuple(np.flatnonzero(label == kind).tolist()) for kind in np.unique(label)]
        for paths in members:
            if paths not in off:
                seen = replace(drawing, rgba=alone[list(paths)].amax(0))
                off[paths] = _off_px(seen, keypoints, margin_px)
        leads = [set((off[paths] <= 0).nonzero().flatten().tolist()) for paths in members]
        apart = _joined(members, leads, keypoints, [off[paths] for paths in members], grown, contact)
        if apart is None or len(members) == 1:
            break
        kept, lost = (members[number] for number in apart)
        label[list(lost)] = label[kept[0]]
    return tuple(
        Group(f"part {number}", paths, tuple(sorted(own)))
        for number, (paths, own) in enumerate(zip(members, leads, strict=True))
    )


def _joined(
    members: Sequence[tuple[int, ...]],
    leads: Sequence[set[int]],
    keypoints: Float[Tensor, "k 2"],
    off: Sequence[Float[Tensor, "k"]],
    grown: Bool[Tensor, "n h w"],
    contact: npt.NDArray[np.float32],
) -> tuple[int, int] | None:
    """Lets groups that touch share a keypoint; where that is not possible, the two that have to be one."""
    for one, paths in enumerate(members):
        touching = [float(contact[np.ix_(paths, others)].sum()) for others in members]
        touching[one] = -1.0
        if not leads[one]:
            return int(np.argmax(touching)), one
        for other in range(one):
            if touching[other] == 0 or leads[one] & leads[other]:
                continue
            near = torch.maximum(off[one], off[other]) <= NEAR_PX - 2  # the pictures are coarse
            if not bool(near.any()):
                return other, one
            meeting = (grown[list(paths)].any(0) & grown[list(members[other])].any(0)).nonzero().float()
            middle = meeting.mean(0).flip(0) + 0.5
            away = torch.where(near, (keypoints - middle).norm(dim=1), torch.inf)
            for number in (one, other):
                leads[number].add(int(away.argmin()))
    return None


def _owners(drawing: Drawing, groups: Sequence[Group]) -> npt.NDArray[np.int64]:
    """Of each path the number of its group, one beyond the last where it has none."""
    _refuse_picture(drawing)
    count = len(drawing.paths)
    owner = np.full(count, len(groups))
    for number, group in enumerate(groups):
        if not group.paths:
            raise StudioError(f"layer {group.name!r} has no paths, expected some: name them or leave it out.")
        for path in group.paths:
            if not 0 <= path < count:
                raise StudioError(
                    f"layer {group.name!r} names path {path}, expected 0-{count - 1}: count the paths of "
                    f"{drawing.name} from 0, in the order of drawing."
                )
            if owner[path] not in (number, len(groups)):
                raise StudioError(
                    f"path {path} is in the layers {groups[owner[path]].name!r} and {group.name!r}, expected "
                    "it in one: take it out of the other."
                )
            owner[path] = number
    return owner


def _refuse_picture(drawing: Drawing) -> None:
    if not drawing.paths:
        raise StudioError(
            f"{drawing.name} is a picture without paths, and layers are made of an SVG's: animate an SVG, or "
            "leave the layers out."
        )


def _on_its_own_sheet(
    part: Drawing, sheet: Sheet, group: Group, edge_px: float, margin_px: float
) -> LedSheet:
    """A group's sheet, as if it were a drawing of its own."""
    points = sheet.vertices[sheet.keypoints]
    for number in group.keypoints:
        if not 0 <= number < len(points):
            raise StudioError(
                f"layer {group.name!r} names keypoint {number}, expected 0-{len(points) - 1}: count the "
                "keypoints from 0."
            )
    off = _off_px(part, points, margin_px)
    leads = torch.tensor(sorted(set(group.keypoints)), dtype=torch.long)
    if not group.keypoints:
        leads = (off <= 0).nonzero().flatten()
    if len(leads) == 0:
        raise StudioError(
            f"no keypoint lies on layer {group.name!r}, expected one at least: give it keypoints, or its "
            "paths to another layer."
        )
    away = off[leads]
    if float(away.max()) > NEAR_PX:
        raise StudioError(
            f"keypoint {int(leads[away.argmax()])} is {float(away.max()):.0f} pixels off layer "
            f"{group.name!r}, expected at most {NEAR_PX:.0f}: take it out, or move it."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a joint may lie a little beside one of its two layers
        own = sheet_of(part, points[leads], edge_px=edge_px, margin_px=margin_px)
    return LedSheet(own, _ready(own), leads)


def _ready(sheet: Sheet) -> Arap:
    return arap(sheet.vertices, sheet.faces, sheet.keypoints).to(sheet.vertices)


def _pictures(
    paths: Sequence[VectorPath], chosen: Sequence[Sequence[int]], size: int
) -> UInt8[Tensor, "n h w 4"]:
    """Pictures of some of the paths alone."""
    return torch.from_numpy(draw_paths([[paths[number] for number in numbers] for numbers in chosen], size))


def _off_px(part: Drawing, points: Float[Tensor, "k 2"], margin_px: float) -> Float[Tensor, "k"]:
    """As ``off_sheet_px``; infinite where the part shows nothing."""
    if not bool((part.rgba[..., 3] > VISIBLE_ALPHA * 255).any()):
        return torch.full((len(points),), torch.inf)
    return off_sheet_px(part, points, margin_px)


def _of_one_kind(
    paths: Sequence[VectorPath], masks: Bool[Tensor, "n h w"], contact: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Paths with the same number are alike and touch, or lie on one another as details."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    seen = masks & ~torch.stack([masks[number + 1 :].any(0) for number in range(len(masks))])
    is_detail = seen.flatten(1).sum(1) < _DETAIL * masks.any(0).sum()
    colors = [_color(path) for path in paths]
    links = []
    for number in range(len(paths)):
        below = contact[number] * ~np.eye(len(paths), dtype=bool)[number]
        if is_detail[number] and below.any():
            links.append((number, int(below.argmax())))
        for other in range(number):
            alike = float((colors[number] - colors[other]).norm()) < _ALIKE
            if alike and contact[number, other] and not is_detail[number] and not is_detail[other]:
                links.append((number, other))
    pairs = np.array(links, dtype=int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), (len(paths), len(paths)))
    kinds: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return kinds


def _color(path: VectorPath) -> Float[Tensor, "3"]:
    """Of the fill, or of the line where there is none; of a gradient the mean of its stops."""
    style = path.style
    paint = style.fill or (style.stroke.paint if style.stroke is not None else None)
    if isinstance(paint, Gradient):
        return torch.tensor([color.rgb for _, color in paint.stops]).mean(0)
    return torch.tensor(paint.rgb if paint is not None else (0.0, 0.0, 0.0))
