"""Clipart in motion as an optimiser sees it: a drawing whose keypoints travel along curves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.clipart.drawing import CANVAS_PX, read_drawing
from studio.clipart.layers import Group, layered, proposed
from studio.clipart.puppet import Puppet
from studio.clipart.sheet import KEYPOINT_DIGITS, sheet_of
from studio.errors import StudioError
from studio.interfaces import ParameterGroup
from studio.recipes.config import ClipartConfig, LayerConfig
from studio.recipes.project import Project, ProjectMesh, ProjectMotion
from studio.resources import clipart
from studio.types import Animation, Cutout

_CURVES = "curves"


class Clipart:
    """The scene: implements ``Scene[Cutout]`` and ``TendedScene``.

    Each keypoint goes along a curve with three control points beside its place at rest, where time 0 is: a
    cubic Bézier curve (AniClipart, Wu et al. 2024), or of cyclic motion a closed Catmull-Rom spline.

    Args:
        puppet: the drawing on its strings.
        curves: control points beside the keypoints' places at rest, in canvas pixels.
        config: rates, and what happens at the end of the curves.
    """

    def __init__(self, puppet: Puppet, curves: Float[Tensor, "k 3 2"], config: ClipartConfig) -> None:
        self.config = config
        self.puppet = puppet
        self.curves = torch.nn.Parameter(curves.detach().clone())

    @staticmethod
    def initial(config: ClipartConfig) -> Clipart:
        """The drawing at rest, or with the curves that the recipe gives.

        Raises:
            StudioError: the file is no drawing, or shows nothing; keypoints, bones or curves that do not fit.
        """
        puppet = puppet_of(config)
        curves = (
            torch.zeros(len(puppet.keypoints), 3, 2) if config.curves is None else torch.tensor(config.curves)
        )
        if len(curves) != len(puppet.keypoints):
            raise StudioError(
                f"{len(curves)} curves came for {len(puppet.keypoints)} keypoints, expected one for each: "
                "give the keypoints that they belong to, too, or leave the curves out."
            )
        return Clipart(puppet, curves, config)

    def __len__(self) -> int:
        """Triangles."""
        return len(self.puppet.faces)

    def keypoints(self, times: Float[Tensor, "t"]) -> Float[Tensor, "t k 2"]:
        """Where the keypoints are, in canvas pixels."""
        basis = _closed(times) if self.config.loop == "cyclic" else _bezier(times)
        return self.puppet.keypoints + torch.einsum("tc,kcd->tkd", basis.to(self.curves), self.curves)

    def at(self, time: Float[Tensor, ""] | None = None) -> Cutout:
        """The drawing at an instant in 0-1, or at rest."""
        times = torch.zeros(1) if time is None else time.reshape(1)
        return self.puppet.posed(self.keypoints(times.to(self.curves)))[0]

    def animation(self, frames: int, seconds: float) -> Animation[Cutout]:
        """The motion as a row of frames, as it is played: there and back, round and round, or once."""
        match self.config.loop:
            case "there_and_back":
                there = (frames + 2) // 2
                order = [*range(there), *range(frames - there, 0, -1)]
                times = torch.arange(there, dtype=torch.float32) / max(there - 1, 1)
            case "cyclic":
                order = list(range(frames))
                times = torch.arange(frames, dtype=torch.float32) / frames
            case "once":
                order = list(range(frames))
                times = torch.linspace(0, 1, frames)
            case _:
                assert_never(self.config.loop)
        posed = self.puppet.posed(self.keypoints(times.to(self.curves)))
        loops = self.config.loop != "once"
        played = torch.arange(frames, dtype=torch.float32) / max(frames if loops else frames - 1, 1)
        return Animation(self.at(None), tuple(posed[place] for place in order), played, seconds, loops)

    def project(self, prompt: str, seed: int, film: Animation[Cutout]) -> Project:
        """What it can be animated from again.

        Args:
            prompt, seed: what it was animated as.
            film: as ``animation`` gives it.
        """

        def rounded(points: Tensor) -> Any:
            return (
                (points.detach().cpu().double() * 10**KEYPOINT_DIGITS)
                .round()
                .div(10**KEYPOINT_DIGITS)
                .tolist()
            )

        return Project(
            drawing=self.config.path,
            texture_size=self.config.texture_size,
            prompt=prompt,
            seed=seed,
            keypoints=tuple(map(tuple, rounded(self.puppet.keypoints))),
            bones=tuple(map(tuple, self.puppet.bones.tolist())),
            layers=self.config.layers or _named(self.puppet),
            motion=ProjectMotion(
                delta=tuple((tuple(a), tuple(b), tuple(c)) for a, b, c in rounded(self.curves)),
                loop=self.config.loop,
                frames=len(film.frames),
                fps=len(film.frames) / film.seconds,
            ),
            mesh=ProjectMesh(edge_px=self.config.edge_px, margin_px=self.config.margin_px),
        )

    def bone_stretch(self, times: Float[Tensor, "t"]) -> Float[Tensor, ""]:
        """Mean squared change of the bones' lengths, as shares of the canvas (AniClipart)."""
        bones = self.puppet.bones
        if len(bones) == 0:
            return self.curves.sum() * 0.0
        now, rest = self.keypoints(times) / CANVAS_PX, self.puppet.keypoints / CANVAS_PX
        lengths = (now[:, bones[:, 0]] - now[:, bones[:, 1]]).square().sum(-1).clamp_min(1e-12).sqrt()
        at_rest = (rest[bones[:, 0]] - rest[bones[:, 1]]).norm(dim=-1)
        stretch: Tensor = (lengths - at_rest).square().mean()
        return stretch

    def flips(self, times: Float[Tensor, "t"]) -> Float[Tensor, ""]:
        """Mean of max(0, 1/5 - area / area at rest)² over the triangles: 0 where none is near to flipping."""
        return (0.2 - self.area_shares(times)).clamp(min=0.0).square().mean()

    def area_shares(self, times: Float[Tensor, "t"]) -> Float[Tensor, "t f"]:
        """The triangles' signed areas as shares of those at rest; negative where one is flipped."""
        puppet, faces = self.puppet, self.puppet.faces
        return _areas(puppet.deform(self.keypoints(times)), faces) / _areas(puppet.vertices[None], faces)

    def upkeep(self, step: int, rng: torch.Generator) -> None:
        """Keeps the control points within ``reach_px``, and with them the curves, which lie among them."""
        if self.config.reach_px is not None:
            with torch.no_grad():
                length = self.curves.norm(dim=-1, keepdim=True).clamp_min(1e-9)
                self.curves.mul_((self.config.reach_px / length).clamp(max=1.0))

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The curves."""
        return (ParameterGroup(_CURVES, self.curves, self.config.curves_rate_px),)

    def state(self) -> dict[str, Tensor]:
        """The puppet and its curves."""
        return self.puppet.state() | {_CURVES: self.curves.detach()}

    @staticmethod
    def from_state(state: Mapping[str, Tensor], config: ClipartConfig) -> Clipart:
        """The scene that ``state`` was taken of.

        Raises:
            StudioError: tensors are missing.
        """
        if _CURVES not in state:
            raise StudioError("The saved clipart lacks its curves; it is damaged or of another kind.")
        return Clipart(Puppet.from_state(state), state[_CURVES], config)


def drawing_file(name: str) -> Path:
    """Where a drawing is that a recipe names.

    Raises:
        StudioError: it is no path, and no drawing that ships with the studio.
    """
    path = Path(name)
    return path if path.suffix else clipart(name)


def puppet_of(config: ClipartConfig) -> Puppet:
    """The drawing of a recipe on its strings.

    Raises:
        StudioError: the file is no drawing, or shows nothing; keypoints or bones that do not fit.
    """
    path = drawing_file(config.path)
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    at_rest = ClipartConfig(
        path=str(path),
        texture_size=config.texture_size,
        edge_px=config.edge_px,
        margin_px=config.margin_px,
        keypoints=config.keypoints,
        bones=config.bones,
        layers=config.layers,
        propose_layers=config.propose_layers,
    )
    return _puppet(at_rest, stamp)


@lru_cache(maxsize=4)
def _puppet(config: ClipartConfig, stamp: int) -> Puppet:
    drawing = read_drawing(Path(config.path), config.texture_size)
    if drawing.left_out:
        warnings.warn(
            f"{drawing.name} is drawn without its {', '.join(drawing.left_out)}: export it as PNG to keep "
            "all, or convert text to paths in a drawing program.",
            stacklevel=2,
        )
    keypoints = None if config.keypoints is None else torch.tensor(config.keypoints).reshape(-1, 2)
    bones = None if config.bones is None else torch.tensor(config.bones, dtype=torch.long).reshape(-1, 2)
    sheet = sheet_of(drawing, keypoints, bones, config.edge_px, config.margin_px)
    groups = tuple(Group(layer.name, layer.paths, layer.keypoints) for layer in config.layers)
    if config.propose_layers and not groups:
        groups = proposed(drawing, sheet, config.margin_px)
    return Puppet.of(drawing, sheet, layered(drawing, sheet, groups, config.edge_px, config.margin_px))


def _named(puppet: Puppet) -> tuple[LayerConfig, ...]:
    """The layers of a puppet as a recipe names them; none where it has one."""
    if len(puppet.sheets) == 1:
        return ()
    return tuple(
        LayerConfig(name=group.name, paths=group.paths, keypoints=group.keypoints) for group in puppet.groups
    )


def _bezier(t: Float[Tensor, "t"]) -> Float[Tensor, "t 3"]:
    """Weights of the three control points that follow the frozen first one."""
    return torch.stack([3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], dim=-1)


def _closed(t: Float[Tensor, "t"]) -> Float[Tensor, "t 3"]:
    """Weights of the last three of four points that a closed Catmull-Rom spline goes through in turn."""
    place = 4 * (t % 1.0)
    piece = place.floor().clamp(max=3)
    u = place - piece
    weights = torch.stack(
        [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, -(u**2) + u**3], dim=-1
    )
    points = (piece[:, None].long() + torch.arange(-1, 3, device=t.device)) % 4
    return torch.zeros(len(t), 4).to(t).scatter_add(1, points, weights / 2)[:, 1:]


def _areas(vertices: Float[Tensor, "t v 2"], faces: Tensor) -> Float[Tensor, "t f"]:
    a, b, c = (vertices.index_select(1, faces[:, corner]) for corner in range(3))
    u, v = b - a, c - a
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
