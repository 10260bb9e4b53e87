"""From any scene to a textured mesh, with its likeness measured from views that took no part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from studio.cameras import fibonacci_sphere
from studio.errors import StudioError
from studio.evaluate.metrics import psnr, silhouette_iou
from studio.export.density import opacity_grid
from studio.export.manifold import manifold
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
from studio.types import Mesh, Splats

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
_VISIBLE_OPACITY = 0.05


@dataclass(frozen=True)
class Likeness:
    """How well a mesh stands for the scene that it was made from.

    Attributes:
        psnr_db: mean over held-out views, drawn without light over white.
        silhouette_iou: mean over the same views, 0-1.
        level: of hiddenness at which the surface was taken, 0-1; 0.25 is usual, and 0 says that the scene
            had a surface of its own. Of a field, the opacity of 0.02 world units of it.
        faces: how many the mesh has.
    """

    psnr_db: float
    silhouette_iou: float
    level: float
    faces: int


def textured_mesh(
    splats: Splats,
    renderer: Renderer[Splats],
    most_faces: int,
    texture_size: int,
    progress: Callable[[str], None],
) -> tuple[Mesh, Likeness]:
    """A closed, textured mesh that looks like the splats.

    Args:
        splats: finite, at least one.
        renderer: draws them.
        most_faces: the mesh's budget.
        texture_size: width and height of the texture.
        progress: is told what begins.

    Raises:
        StudioError: the splats hide nothing anywhere, so there is no surface.
    """
    device = splats.means.device
    cameras = fibonacci_sphere(_FUSED_VIEWS, _PICTURE_SIZE, _PICTURE_SIZE, _FUSED_ELEVATIONS_DEG)
    progress("depth")
    with torch.no_grad():
        moments = [depth_moments(splats, renderer, cameras[[i]].to(device)) for i in range(len(cameras))]
    progress("surface")
    grid = occupancy_grid(moments, cameras, *_box(splats), _GRID_RESOLUTION)
    return _textured_level(grid, _LEVELS, splats, renderer, device, most_faces, texture_size, progress)


def textured_field(
    field: Field,
    renderer: Renderer[Field],
    most_faces: int,
    texture_size: int,
    progress: Callable[[str], None],
) -> tuple[Mesh, Likeness]:
    """A closed, textured mesh that looks like the field.

    Args:
        field: without gradients.
        renderer, most_faces, texture_size, progress: as ``textured_mesh``.

    Raises:
        StudioError: the field hides nothing anywhere, so there is no surface.
    """
    progress("surface")
    grid = opacity_grid(field, _GRID_RESOLUTION)
    if grid is None:
        raise _no_surface(0.0)
    device = field.table.device
    return _textured_level(grid, _FIELD_LEVELS, field, renderer, device, most_faces, texture_size, progress)


def _textured_level(
    grid: OccupancyGrid,
    levels: Sequence[float],
    primitives: Primitives,
    renderer: Renderer[Primitives],
    device: torch.device,
    most_faces: int,
    texture_size: int,
    progress: Callable[[str], None],
) -> tuple[Mesh, Likeness]:
    """The grid's surface at the level that suits the scene best, in the scene's colours."""
    debris = _DEBRIS_SHARE * grid.voxel * torch.tensor(grid.values.shape).float().norm().item()
    surface, level = _best_surface(grid, levels, debris, primitives, renderer, device)
    surface = smoothed(surface, _SMOOTHING_ITERATIONS)
    mesh, likeness = textured_surface(
        surface, primitives, renderer, device, most_faces, texture_size, progress, debris, 2 * grid.voxel
    )
    return mesh, replace(likeness, level=level)


def textured_surface(
    surface: Mesh,
    primitives: Primitives,
    renderer: Renderer[Primitives],
    device: torch.device,
    most_faces: int,
    texture_size: int,
    progress: Callable[[str], None],
    debris: float = 0.02,
    tolerance: float = 0.015,
) -> tuple[Mesh, Likeness]:
    """A scene's surface with a texture that looks like the scene.

    Args:
        surface: closed, without seams, on the CPU.
        primitives: the scene, on ``device``.
        renderer: draws them.
        most_faces: the mesh's budget.
        texture_size: width and height of the texture.
        progress: is told what begins.
        debris: parts of a smaller extent are left out, in world units.
        tolerance: how far from the drawn depth a texel may lie and still count as seen, in world units.

    Raises:
        StudioError: nothing of the surface is larger than debris, or no view sees it.
    """
    # Edge collapse pinches slivers off.
    surface = without_debris(manifold(simplified(surface, most_faces)), debris)
    if len(surface.faces) == 0:
        raise StudioError(
            f"The scene's surface has no part that is {debris:.3f} wide, expected at least one. "
            "Try more steps, or a lower learning rate."
        )

    progress("texture")
    views = list(range(0, _FUSED_VIEWS, _FUSED_VIEWS // _BAKED_VIEWS))
    seen_by = fibonacci_sphere(_FUSED_VIEWS, _PICTURE_SIZE, _PICTURE_SIZE, _FUSED_ELEVATIONS_DEG)[views]
    scene = pictures(renderer, primitives, seen_by, brightness=0.0, device=device)
    one_sample = MeshRenderer(supersample=1, light=Light())
    unwrapped_surface = unwrapped(surface, texture_size)
    mesh = baked(unwrapped_surface, scene, seen_by, one_sample, texture_size, tolerance)

    progress("likeness")
    held_out = fibonacci_sphere(
        _HELD_OUT_VIEWS, _PICTURE_SIZE, _PICTURE_SIZE, _JUDGED_ELEVATIONS_DEG, offset=0.75
    )
    truth = pictures(renderer, primitives, held_out, brightness=1.0, device=device)
    # Three samples: with an even number many pixels would be covered by exactly one half.
    copy = pictures(MeshRenderer(supersample=3, light=Light()), mesh, held_out, brightness=1.0)
    return mesh, Likeness(
        psnr_db=psnr(copy.rgb, truth.rgb).mean().item(),
        silhouette_iou=silhouette_iou(copy.alpha, truth.alpha).mean().item(),
        level=0.0,
        faces=len(mesh.faces),
    )


def _box(splats: Splats) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Two corners of the box around all splats that can be seen."""
    visible = splats.opacities > _VISIBLE_OPACITY
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
    judged = fibonacci_sphere(_LEVEL_VIEWS, _PICTURE_SIZE, _PICTURE_SIZE, _JUDGED_ELEVATIONS_DEG, offset=0.25)
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
