"""A mesh of fixed faces as an optimiser sees it: its texture, and its vertices where wished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from studio.errors import StudioError
from studio.interfaces import ParameterGroup
from studio.meshes import load_mesh, normalised, with_uvs
from studio.recipes.config import SurfaceConfig, TexturedMeshConfig
from studio.scenes.surface import COLOR_MARGIN, Surface
from studio.types import Material, Mesh

_BALL = SurfaceConfig(resolution=20, side=1.0, radius=0.35)


@dataclass(frozen=True)
class MeshTensors:
    """What a textured mesh is made of.

    Attributes:
        vertices: positions in the world. Vertices at one place are one vertex.
        faces: vertex indices, counter-clockwise seen from outside.
        uvs: texture coordinates of each face's corners, v up.
        texture_logits: colours before the sigmoid, row 0 at v = 1.
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "f 3 2"]
    texture_logits: Float[Tensor, "h w 3"]

    def named(self) -> dict[str, Tensor]:
        """The tensors by name, in a fixed order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class TexturedMesh:
    """The scene: implements ``Scene[Mesh]``.

    Args:
        tensors: where it starts; what is optimised is copied.
        config: learning rates.
    """

    def __init__(self, tensors: MeshTensors, config: TexturedMeshConfig) -> None:
        self.config = config
        optimised = {"texture_logits": config.texture_rate, "vertices": config.vertices_rate}
        self._rates = {name: rate for name, rate in optimised.items() if rate > 0.0}
        self.tensors = MeshTensors(
            **{
                name: torch.nn.Parameter(tensor.detach().clone()) if name in self._rates else tensor.detach()
                for name, tensor in tensors.named().items()
            }
        )

    def __len__(self) -> int:
        """Triangles."""
        return len(self.tensors.faces)

    def at(self, time: Float[Tensor, ""] | None = None) -> Mesh:
        """The mesh with its texture; it does not move with time."""
        tensors = self.tensors
        texture = F.pad(tensors.texture_logits.sigmoid(), (0, 1), value=1.0)
        return Mesh(tensors.vertices, tensors.faces, tensors.uvs, materials=(Material(texture=texture),))

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The texture, then the vertices if they move."""
        named = self.tensors.named()
        return tuple(
            ParameterGroup(name, tensor, rate)
            for name, rate in self._rates.items()
            if isinstance(tensor := named[name], torch.nn.Parameter)
        )

    def match_texture_size(self) -> None:
        """Bring the texture to the size that the recipe asks for."""
        logits, size = self.tensors.texture_logits.detach(), self.config.texture_size
        if logits.shape[:2] != (size, size):
            image = logits.permute(2, 0, 1)[None]
            sized = F.interpolate(image, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
            self.tensors = replace(self.tensors, texture_logits=torch.nn.Parameter(sized.contiguous()))

    def state(self) -> dict[str, Tensor]:
        """The tensors by name, detached: all that ``from_state`` needs."""
        return {name: tensor.detach() for name, tensor in self.tensors.named().items()}

    @staticmethod
    def from_state(state: Mapping[str, Tensor], config: TexturedMeshConfig) -> TexturedMesh:
        """The scene that ``state`` was taken of.

        Raises:
            StudioError: tensors are missing.
        """
        names = [field.name for field in fields(MeshTensors)]
        missing = [name for name in names if name not in state]
        if missing:
            raise StudioError(f"The saved mesh lacks {', '.join(missing)}; it is damaged or of another kind.")
        return TexturedMesh(MeshTensors(**{name: state[name] for name in names}), config)

    @staticmethod
    def of(mesh: Mesh, config: TexturedMeshConfig) -> TexturedMesh:
        """A mesh with texture coordinates; grey where it has no texture.

        Raises:
            StudioError: there are no texture coordinates, or several materials.
        """
        if mesh.uvs is None or len(mesh.materials) != 1:
            raise StudioError(
                f"A mesh to be textured came with {len(mesh.materials)} materials and "
                f"{'no ' if mesh.uvs is None else ''}texture coordinates, expected one material with them: "
                "unwrap it first."
            )
        size, texture = config.texture_size, mesh.materials[0].texture
        colors = mesh.vertices.new_full((size, size, 3), 0.5) if texture is None else texture[..., :3]
        logits = torch.logit(colors.to(mesh.vertices), COLOR_MARGIN)
        scene = TexturedMesh(MeshTensors(mesh.vertices, mesh.faces.long(), mesh.uvs, logits), config)
        scene.match_texture_size()
        return scene


def initial_textured_mesh(config: TexturedMeshConfig) -> TexturedMesh:
    """The grey mesh that a recipe starts from.

    Raises:
        StudioError: the file cannot be read.
    """
    if config.path is None:
        ball = Surface.ball(_BALL).at(None)
        shape = Mesh(ball.vertices.detach(), ball.faces)
    else:
        shape = _welded(normalised(load_mesh(Path(config.path))))
    return TexturedMesh.of(with_uvs(shape, config.texture_size), config)


def _welded(mesh: Mesh) -> Mesh:
    """The shape alone, vertices at one place as one, without faces that are then no triangles."""
    vertices, place = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    faces = place[mesh.faces.long()]
    a, b, c = faces.unbind(1)
    return Mesh(vertices, faces[(a != b) & (b != c) & (c != a)])
