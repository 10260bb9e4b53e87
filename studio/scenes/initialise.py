"""Where a scene of Gaussians starts: a ball, a point cloud, the surface of a mesh.

Splats begin as spheres as wide as the distance to their neighbours, so that they close the gaps and no more;
surfels as discs of that width, which face all ways.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from studio.errors import StudioError
from studio.meshes import load_mesh, normalised
from studio.ops.neighbours import nearest
from studio.recipes.config import BallConfig, GaussiansConfig, MeshConfig, PointCloudConfig, SplatFileConfig
from studio.scenes.gaussians import (
    Gaussians,
    GaussianTensors,
    as_surfels,
    color_to_sh,
    rest_coefficients,
)
from studio.splats import read_ply
from studio.types import Mesh

NEIGHBOURS = 3
ASSET_RADIUS = 0.5
_SMALLEST_SCALE = 1e-4
_FLAT = 1e-12


def initial_gaussians(config: GaussiansConfig, rng: torch.Generator) -> Gaussians:
    """The scene that a recipe starts from.

    Raises:
        StudioError: a file cannot be read or holds no points.
    """
    if isinstance(config.initial, SplatFileConfig):
        return _from_file(config.initial, config)
    points, colors = _points(config.initial, rng)
    tensors = from_points(points, colors, config.initial.opacity, config.sh_degree)
    if config.shape == "surfels":
        facing = torch.randn(len(points), 4, generator=rng)
        tensors = replace(as_surfels(tensors), quats_wxyz=facing)
    return Gaussians(tensors, config)


def _from_file(initial: SplatFileConfig, config: GaussiansConfig) -> Gaussians:
    """The splats of a file, with the spherical harmonics and of the shape that the recipe asks for."""
    path = Path(initial.path)
    splats = read_ply(path)
    known = (splats.means, splats.quats_wxyz, splats.scales, splats.opacities, splats.sh)
    if len(splats.means) == 0 or not all(bool(tensor.isfinite().all()) for tensor in known):
        raise StudioError(f"{path} holds no splats, or some that are not finite; expected at least one.")
    scale = 1.0
    means = splats.means
    if initial.fit:
        means, scale = _fitted(means)
    tensors = GaussianTensors(
        means=means,
        log_scales=(scale * splats.scales).clamp_min(_FLAT).log(),
        quats_wxyz=torch.nn.functional.normalize(splats.quats_wxyz, dim=-1),
        opacity_logits=torch.logit(splats.opacities, eps=1e-6),
        sh_dc=splats.sh[:, :1],
        sh_rest=splats.sh[:, 1:],
    )
    scene = Gaussians(tensors, config)
    scene.match_shape()
    scene.match_sh_degree()
    return scene


def from_points(
    points: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], opacity: float, sh_degree: int = 0
) -> GaussianTensors:
    """A sphere at each point, as wide as the root mean square distance to its three nearest neighbours.

    Args:
        points: in the world; at least two.
        colors: 0-1.
        opacity: of all of them.
        sh_degree: 0-3; coefficients beyond the first start at zero.
    """
    count = len(points)
    quats_wxyz = torch.zeros(count, 4)
    quats_wxyz[:, 0] = 1.0
    return GaussianTensors(
        means=points,
        log_scales=neighbour_distances(points).clamp_min(_SMALLEST_SCALE).log()[:, None].repeat(1, 3),
        quats_wxyz=quats_wxyz,
        opacity_logits=torch.full((count,), math.log(opacity / (1 - opacity))),
        sh_dc=color_to_sh(colors),
        sh_rest=torch.zeros(count, rest_coefficients(sh_degree), 3),
    )


def neighbour_distances(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """Root mean square distance from each point to its nearest others, three where there are so many."""
    _, distances = nearest(points.double(), points.double(), NEIGHBOURS + 1)
    # The nearest point is the point itself.
    return distances[:, 1:].square().mean(1).sqrt().float()


def ball(count: int, radius: float, rng: torch.Generator) -> Float[Tensor, "n 3"]:
    """Points spread evenly through a ball around the origin."""
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=rng), dim=-1)
    # The volume within r grows with r³.
    return radius * torch.rand(count, 1, generator=rng) ** (1 / 3) * directions


def surface_samples(
    mesh: Mesh, count: int, rng: torch.Generator
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Points spread evenly over a mesh, and the mesh's colours there.

    Raises:
        StudioError: the mesh has no area.
    """
    corners = mesh.vertices[mesh.faces.long()]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1) / 2
    if not float(areas.sum()) > 0:
        raise StudioError("The mesh has no surface; expected triangles with an area. Try another file.")
    faces = torch.multinomial(areas, count, replacement=True, generator=rng)
    # Square root, so that the density does not grow towards the first corner.
    first, second = torch.rand(2, count, generator=rng)
    root = first.sqrt()
    weights = torch.stack([1 - root, root * (1 - second), root * second], dim=-1)
    points = (weights[..., None] * corners[faces]).sum(1)
    return points, _surface_colors(mesh, faces, weights)


def _surface_colors(mesh: Mesh, faces: Tensor, weights: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Base colour times texture times vertex colour at barycentric places on faces."""
    material_of = torch.zeros(len(faces), dtype=torch.long)
    if mesh.face_materials is not None:
        material_of = mesh.face_materials[faces].long()
    base = torch.tensor([material.base_color[:3] for material in mesh.materials])
    colors = base[material_of]
    if mesh.vertex_colors is not None:
        colors = colors * (weights[..., None] * mesh.vertex_colors[mesh.faces[faces].long()]).sum(1)
    if mesh.uvs is not None:
        uvs = (weights[..., None] * mesh.uvs[faces]).sum(1)
        for index, material in enumerate(mesh.materials):
            here = material_of == index
            if material.texture is not None and bool(here.any()):
                colors[here] = colors[here] * _texels(material.texture, uvs[here])
    return colors


def _texels(texture: Float[Tensor, "h w 4"], uvs: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    """The texture's nearest colours; it repeats, with v up."""
    height, width = texture.shape[:2]
    columns = (uvs[:, 0].remainder(1.0) * width).long().clamp(max=width - 1)
    rows = ((1.0 - uvs[:, 1]).remainder(1.0) * height).long().clamp(max=height - 1)
    return texture[rows, columns, :3]


def read_point_cloud(path: Path) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """The points of a PLY file and their colours in 0-1, grey where it has none.

    Raises:
        StudioError: the file cannot be read, or holds fewer than two finite points.
    """
    import numpy as np
    import trimesh

    try:
        cloud = trimesh.load(path, file_type=path.suffix.lstrip(".").lower(), process=False)
        points: Tensor = torch.from_numpy(np.asarray(cloud.vertices, dtype=np.float32))
    except (OSError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise StudioError(f"Cannot read points from {path} ({error}); expected a PLY file.") from error
    if len(points) < 2 or not bool(points.isfinite().all()):
        raise StudioError(f"{path} holds {len(points)} points; expected at least two, all finite.")
    rgba = np.asarray(getattr(cloud.visual if hasattr(cloud, "visual") else cloud, "vertex_colors", []))
    if len(rgba) != len(points):
        return points, torch.full_like(points, 0.5)
    return points, torch.from_numpy(rgba[:, :3].astype(np.float32) / 255)


def _points(
    initial: BallConfig | PointCloudConfig | MeshConfig, rng: torch.Generator
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    match initial:
        case BallConfig():
            points = ball(initial.count, initial.radius, rng)
            return points, torch.full_like(points, 0.5)
        case PointCloudConfig():
            points, colors = read_point_cloud(Path(initial.path))
            if len(points) > initial.count:
                chosen = torch.randperm(len(points), generator=rng)[: initial.count].sort().values
                points, colors = points[chosen], colors[chosen]
            return _fitted(points)[0], colors
        case MeshConfig():
            return surface_samples(normalised(load_mesh(Path(initial.path))), initial.count, rng)
        case _:
            assert_never(initial)


def _fitted(points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 3"], float]:
    """Points moved and scaled so that their bounding box is centred and they fit the asset's ball; how much
    they are scaled."""
    centred: Tensor = points - (points.amin(0) + points.amax(0)) / 2
    scale = ASSET_RADIUS / max(float(centred.norm(dim=-1).max()), 1e-12)
    return centred * scale, scale
