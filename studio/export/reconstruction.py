"""From any scene to a textured mesh; and its likeness, measured from views that took no part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import fibonacci_sphere
from studio.errors import StudioError
from studio.evaluate.metrics import psnr, silhouette_iou
from studio.export.density import opacity_grid
from studio.export.manifold import is_closed, manifold
from studio.export.normal_map import with_normal_map
from studio.export.surface import (
    OccupancyGrid,
    depth_moments,
    isosurface,
    occupancy_grid,
    simplified,
    smoothed,
    without_debris,
)
from studio.export.texture import baked, unwrapped
from studio.export.views import pictures
from studio.interfaces import Renderer
from studio.ops.field import Field
from studio.ops.surfaces import Light
from studio.renderers.raster import MeshRenderer
from studio.types import FAINT, Cameras, Mesh, Splats

Primitives = TypeVar("Primitives")
_PICTURE_SIZE = 320
_GRID_RESOLUTION = 144
_FUSED_VIEWS, _BAKED_VIEWS, _LEVEL_VIEWS, _HELD_OUT_VIEWS = 64, 32, 8, 16
_FUSED_ELEVATIONS_DEG, _JUDGED_ELEVATIONS_DEG = (-30.0, 75.0), (-20.0, 60.0)
_LEVELS = (0.08, 0.12, 0.16, 0.2, 0.23, 0.26, 0.3, 0.36, 0.44)
_FIELD_LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SMOOTHING_ITERATIONS = 10
_DEBRIS_SHARE = 0.03
# Assets fit the ball of radius 0.5 and the cameras see little more.
_WORLD_LIMIT = 0.6


@dataclass(frozen=True)
class Likeness:
    """How well a mesh stands for the scene that it was made from.

    Attributes:
        psnr_db: mean over held-out views, drawn without light over white. No other camera that the export
            looks through stands within five degrees of theirs.
        silhouette_iou: mean over the same views, 0-1.
        level: of hiddenness at which the surface was taken, 0-1; 0.25 is usual, and 0 says that the scene
            had a surface of its own. Of a field, the opacity of 0.02 world units of it.
        faces: how many the mesh has.
    """

    psnr_db: float
    silhouette_iou: float
    level: float
    faces: int


@dataclass(frozen=True)
class MeshBudget:
    """What a mesh may cost that has to be made.

    Attributes:
        faces: at most so many.
        texture_size: width and height of its texture.
        normal_map: whether it gets a normal map of the surface before it was simplified.
    """

    faces: int
    texture_size: int
    normal_map: bool = False


def textured_mesh(
    splats: Splats, renderer: Renderer[Splats], budget: MeshBudget, progress: Callable[[str], None]
) -> tuple[Mesh, float]:
    """A closed, textured mesh that looks like the splats, and the level at which its surface was taken.

    Args:
        splats: finite, at least one.
        renderer: draws them.
        budget: of the mesh.
        progress: is told what begins.

    Raises:
        StudioError: the splats hide nothing anywhere, so there is no surface.
    """
    device = splats.means.device
    cameras = fused_cameras()
    progress("depth")
    with torch.no_grad():
        moments = [depth_moments(splats, renderer, cameras[[i]].to(device)) for i in range(len(cameras))]
    progress("surface")
    grid = occupancy_grid(moments, cameras, *_box(splats), _GRID_RESOLUTION)
    return _textured_level(grid, _LEVELS, splats, renderer, device, budget, progress)


def textured_field(
    field: Field, renderer: Renderer[Field], budget: MeshBudget, progress: Callable[[str], None]
) -> tuple[Mesh, float]:
    """A closed, textured mesh that looks like the field, and the level at which its surface was taken.

    Args:
        field: without gradients.
        renderer, budget, progress: as ``textured_mesh``.

    Raises:
        StudioError: the field hides nothing anywhere, so there is no surface.
    """
    progress("surface")
    grid = opacity_grid(field, _GRID_RESOLUTION)
    if grid is None:
        raise _no_surface(0.0)
    device = field.table.device
    return _textured_level(grid, _FIELD_LEVELS, field, renderer, device, budget, progress)


def _textured_level(
    grid: OccupancyGrid,
    levels: Sequence[float],
    primitives: Primitives,
    renderer: Renderer[Primitives],
    device: torch.device,
    budget: MeshBudget,
    progress: Callable[[str], None],
) -> tuple[Mesh, float]:
    """The grid's surface at the level that suits the scene best, in the scene's colours; and that level."""
    debris = _DEBRIS_SHARE * grid.voxel * torch.tensor(grid.values.shape).float().norm().item()
    surface, level = _best_surface(grid, levels, debris, primitives, renderer, device)
    surface = smoothed(surface, _SMOOTHING_ITERATIONS)
    tolerance = 2 * grid.voxel
    return textured_surface(surface, primitives, renderer, device, budget, progress, debris, tolerance), level


def textured_surface(
    surface: Mesh,
    primitives: Primitives,
    renderer: Renderer[Primitives],
    device: torch.device,
    budget: MeshBudget,
    progress: Callable[[str], None],
    debris: float = 0.02,
    tolerance: float = 0.015,
) -> Mesh:
    """A scene's surface with a texture that looks like the scene.

    Args:
        surface: without seams, on the CPU. If it is closed, so is the mesh.
        primitives: the scene, on ``device``.
        renderer: draws them.
        budget: of the mesh.
        progress: is told what begins.
        debris: parts of a smaller extent are left out, in world units.
        tolerance: how far from the drawn depth a texel may lie and still count as seen, in world units.

    Raises:
        StudioError: nothing of the surface is larger than debris, or no view sees it.
    """
    simple = simplified(surface, budget.faces)
    if is_closed(simple):
        # Edge collapse pinches slivers off.
        simple = without_debris(manifold(simple), debris)
    if len(simple.faces) == 0:
        raise StudioError(
            f"The scene's surface has no part that is {debris:.3f} wide, expected at least one. "
            "Try more steps, or a lower learning rate."
        )

    progress("texture")
    seen_by = baked_cameras()
    scene = pictures(renderer, primitives, seen_by, brightness=0.0, device=device)
    one_sample = MeshRenderer(supersample=1, light=Light())
    mesh = baked(
        unwrapped(simple, budget.texture_size), scene, seen_by, one_sample, budget.texture_size, tolerance
    )
    if budget.normal_map:
        mesh = with_normal_map(mesh, surface, budget.texture_size)
    return mesh


def likeness(
    instants: Sequence[tuple[Primitives, Mesh]],
    renderer: Renderer[Primitives],
    device: torch.device,
    level: float = 0.0,
) -> Likeness:
    """How well a mesh stands for a scene, at one instant or several, among which the views are dealt out.

    Args:
        instants: the scene, on ``device``, and the mesh; at most sixteen.
        renderer: draws the scene.
        level: at which the surface was taken.
    """
    cameras = held_out_cameras()
    # Three samples: with an even number many pixels would be covered by exactly one half.
    draw = MeshRenderer(supersample=3, light=Light())
    decibels, overlaps = [], []
    for index, (primitives, mesh) in enumerate(instants):
        own = cameras[index :: len(instants)]
        truth = pictures(renderer, primitives, own, brightness=1.0, device=device)
        copy = pictures(draw, mesh, own, brightness=1.0)
        decibels.append(psnr(copy.rgb, truth.rgb))
        overlaps.append(silhouette_iou(copy.alpha, truth.alpha))
    return Likeness(
        psnr_db=torch.cat(decibels).mean().item(),
        silhouette_iou=torch.cat(overlaps).mean().item(),
        level=level,
        faces=len(instants[0][1].faces),
    )


def fused_cameras() -> Cameras:
    """Where the surface of splats is looked for from."""
    return fibonacci_sphere(_FUSED_VIEWS, _PICTURE_SIZE, _PICTURE_SIZE, _FUSED_ELEVATIONS_DEG)


def baked_cameras() -> Cameras:
    """Where textures are taken from: some of the former."""
    return fused_cameras()[list(range(0, _FUSED_VIEWS, _FUSED_VIEWS // _BAKED_VIEWS))]


def level_cameras() -> Cameras:
    """Where the silhouettes that choose a surface's level are taken from."""
    return fibonacci_sphere(_LEVEL_VIEWS, _PICTURE_SIZE, _PICTURE_SIZE, _JUDGED_ELEVATIONS_DEG, offset=0.25)


def held_out_cameras() -> Cameras:
    """Where the finished mesh is judged from."""
    return fibonacci_sphere(
        _HELD_OUT_VIEWS, _PICTURE_SIZE, _PICTURE_SIZE, _JUDGED_ELEVATIONS_DEG, offset=0.75
    )


def _box(splats: Splats) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Two corners of the box around all splats that can be seen."""
    visible = splats.opacities > FAINT
    if not visible.any():
        raise _no_surface(splats.opacities.max().item())
    means, reach = splats.means[visible], 2 * splats.scales[visible].amax(dim=-1, keepdim=True)
    lowest, highest = (means - reach).amin(dim=0), (means + reach).amax(dim=0)
    return lowest.clamp_min(-_WORLD_LIMIT).cpu(), highest.clamp_max(_WORLD_LIMIT).cpu()


def _best_surface(
    grid: OccupancyGrid,
    levels: Sequence[float],
    debris: float,
    primitives: Primitives,
    renderer: Renderer[Primitives],
    device: torch.device,
) -> tuple[Mesh, float]:
    """The surface at the level whose silhouettes are most like the scene's, and that level."""
    judged = level_cameras()
    scene = pictures(renderer, primitives, judged, brightness=0.0, device=device)
    draw = MeshRenderer(supersample=1)
    best, best_iou, best_level = None, 0.0, 0.0
    for level in levels:
        surface = without_debris(isosurface(grid, level), debris)
        if len(surface.faces) == 0:
            continue
        copy = pictures(draw, surface, judged, brightness=0.0)
        iou = silhouette_iou(copy.alpha, scene.alpha).mean().item()
        if iou > best_iou:
            best, best_iou, best_level = surface, iou, level
    if best is None:
        raise _no_surface(scene.alpha.max().item())
    return best, best_level


def _no_surface(coverage: float) -> StudioError:
    return StudioError(
        f"found no surface to export: the densest place covers {coverage:.2f} of a pixel, expected most of "
        "one. Try more steps, or export the scene itself: splats as .ply, anything as .mp4."
    )
