"""What is asked of a scene beside guidance: small losses, each one line of reason."""

from __future__ import annotations

from dataclasses import fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from studio.errors import StudioError
from studio.meshes import face_normals, unit
from studio.ops.mesh_raster import face_neighbours
from studio.recipes.config import RegularizersConfig
from studio.recipes.ramps import value_at
from studio.scenes.clipart import Clipart
from studio.scenes.deformation import Deformable
from studio.scenes.field import RadianceField
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene
from studio.scenes.mesh import TexturedMesh
from studio.scenes.surface import Surface
from studio.types import Cameras, Mesh, RenderOutput

_MARGIN = 1e-5


def regularization(
    config: RegularizersConfig, scene: AnyScene, render: RenderOutput, cameras: Cameras, progress: float
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms that a recipe asks for, by name; those of weight 0 are left out and cost nothing.

    Args:
        render: what ``cameras`` see of the scene.

    Raises:
        StudioError: a term means nothing to this kind of scene.
    """
    weights = {field.name: value_at(getattr(config, field.name), progress) for field in fields(config)}
    wanted = {name: weight for name, weight in weights.items() if weight != 0.0}
    return {name: weight * _term(name, scene, render, cameras) for name, weight in wanted.items()}


def _term(name: str, scene: AnyScene, render: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    match name, scene:
        case "sparsity", _:
            return render.alpha.mean()
        case "entropy", _:
            return binary_entropy(render.alpha)
        case "orientation", RadianceField() if render.facing_away is not None:
            return render.facing_away.mean()
        case "opacity", Gaussians():
            return scene.opacities.mean()
        case "scale", Gaussians():
            return scene.scales.mean()
        case "normal_consistency", Gaussians() if render.depth is not None and render.normal is not None:
            return normal_inconsistency(render.alpha, render.depth, render.normal, cameras)
        case "smoothness", Surface() | TexturedMesh():
            return roughness(scene.at(None))
        case "sdf", Surface():
            return scene.sign_entropy()
        case "deviation", Surface() if scene.tensors.cube_weights is not None:
            return scene.deviation()
        case "rigidity", Deformable() if cameras.time is not None:
            return scene.rigidity(cameras.time)
        case "acceleration", Deformable() if cameras.time is not None:
            return scene.acceleration(cameras.time)
        case "rest", Deformable():
            return scene.motion_at_rest()
        case "bones", Clipart() if cameras.time is not None:
            return scene.bone_stretch(cameras.time)
        case "flips", Clipart() if cameras.time is not None:
            return scene.flips(cameras.time)
        case (("opacity" | "scale" | "normal_consistency" | "smoothness"), Deformable()):
            return _term(name, scene.shape, render, cameras)
        case _:
            raise StudioError(
                f"regularizers.{name} means nothing to a scene of kind '{scene.config.kind}'; expected 0."
            )


def roughness(mesh: Mesh) -> Float[Tensor, ""]:
    """Mean over the inner edges of 1 minus the cosine between their faces' normals: 0 flat to 2 folded."""
    neighbours = face_neighbours(mesh.faces)
    face, corner = torch.nonzero(neighbours >= 0).unbind(-1)
    beyond = neighbours[face, corner].long()
    other = torch.div(beyond, 2, rounding_mode="floor")
    normals = unit(face_normals(mesh.vertices, mesh.faces))
    # index_select, as its backward adds up in a fixed order.
    cosine = (normals.index_select(0, face) * normals.index_select(0, other)).sum(1)
    alike = torch.where(beyond % 2 == 1, -cosine, cosine)  # of two faces that wind alike, one is turned
    return (1 - alike).sum() / len(face) if len(face) else alike.sum()


def normal_inconsistency(
    alpha: Float[Tensor, "b 1 h w"],
    depth: Float[Tensor, "b 1 h w"],
    normal: Float[Tensor, "b 3 h w"],
    cameras: Cameras,
) -> Float[Tensor, ""]:
    """Mean over the pixels of ``Σ w (1 - n . N)``, with N the normal of the surface that the depth forms.

    Huang et al. 2024 ("2D Gaussian splatting", eq. 14). The sum is ``alpha - normal . N`` where images hold
    sums over the splats, as ``RenderOutput``'s do. Pixels at an outline count as 0.
    """
    surface, known = normals_of_depth(depth / alpha.clamp_min(_MARGIN), cameras)
    solid = (alpha.detach() > 0.5).float()
    known = known & (torch.nn.functional.avg_pool2d(solid, 3, 1, 1) > 1 - 1e-3)
    unlike = alpha - (normal * surface).sum(1, keepdim=True)
    return torch.where(known, unlike, 0.0).mean()


def normals_of_depth(
    depth: Float[Tensor, "b 1 h w"], cameras: Cameras
) -> tuple[Float[Tensor, "b 3 h w"], Bool[Tensor, "b 1 h w"]]:
    """World-space unit normals, towards the camera, of a map of camera-space z; and where there is one.

    Each comes from the pixel's four neighbours, so that pixels at the border have none.
    """
    fx, fy, cx, cy = (cameras.intrinsics[:, i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    columns = torch.arange(cameras.width, device=depth.device)[None, None, :] + 0.5
    rows = torch.arange(cameras.height, device=depth.device)[None, :, None] + 0.5
    z = depth[:, 0]
    points = torch.stack([(columns - cx) / fx * z, (rows - cy) / fy * z, z], 1)
    along_x = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2]
    along_y = points[:, :, 2:, 1:-1] - points[:, :, :-2, 1:-1]
    across = torch.linalg.cross(along_y, along_x, dim=1)
    length = across.norm(dim=1, keepdim=True)
    world = torch.einsum(
        "bji,bjhw->bihw", cameras.world_to_camera[:, :3, :3], across / length.clamp_min(1e-20)
    )
    around = (1, 1, 1, 1)
    return torch.nn.functional.pad(world, around), torch.nn.functional.pad(length > 1e-20, around)


def binary_entropy(alpha: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean of ``-a ln a - (1 - a) ln(1 - a)``, in nats: 0 where coverage is decided, ln 2 at one half."""
    a = alpha.clamp(_MARGIN, 1 - _MARGIN)
    return -(a * torch.log(a) + (1 - a) * torch.log1p(-a)).mean()
