"""What is asked of a scene beside guidance: small losses, each one line of reason."""

from __future__ import annotations

from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.meshes import face_normals, unit
from studio.ops.mesh_raster import face_neighbours
from studio.recipes.config import RegularizersConfig
from studio.recipes.ramps import value_at
from studio.scenes.deformation import Deformable
from studio.scenes.field import RadianceField
from studio.scenes.gaussians import Gaussians
from studio.scenes.kinds import AnyScene
from studio.scenes.mesh import TexturedMesh
from studio.scenes.surface import Surface
from studio.types import Mesh, RenderOutput

_MARGIN = 1e-5


def regularization(
    config: RegularizersConfig,
    scene: AnyScene,
    render: RenderOutput,
    progress: float,
    times: Float[Tensor, "b"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms that a recipe asks for, by name; those of weight 0 are left out and cost nothing.

    Args:
        times: of the pictures, where the scene moves.

    Raises:
        StudioError: a term means nothing to this kind of scene.
    """
    weights = {field.name: value_at(getattr(config, field.name), progress) for field in fields(config)}
    wanted = {name: weight for name, weight in weights.items() if weight != 0.0}
    return {name: weight * _term(name, scene, render, times) for name, weight in wanted.items()}


def _term(
    name: str, scene: AnyScene, render: RenderOutput, times: Float[Tensor, "b"] | None
) -> Float[Tensor, ""]:
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
        case "smoothness", Surface() | TexturedMesh():
            return roughness(scene.at(None))
        case "sdf", Surface():
            return scene.sign_entropy()
        case "deviation", Surface() if scene.tensors.cube_weights is not None:
            return scene.deviation()
        case "rigidity", Deformable() if times is not None:
            return scene.rigidity(times)
        case "acceleration", Deformable() if times is not None:
            return scene.acceleration(times)
        case "rest", Deformable():
            return scene.motion_at_rest()
        case (("opacity" | "scale" | "smoothness"), Deformable()):
            return _term(name, scene.shape, render, times)
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


def binary_entropy(alpha: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean of ``-a ln a - (1 - a) ln(1 - a)``, in nats: 0 where coverage is decided, ln 2 at one half."""
    a = alpha.clamp(_MARGIN, 1 - _MARGIN)
    return -(a * torch.log(a) + (1 - a) * torch.log1p(-a)).mean()
