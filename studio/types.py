"""The frozen values that cross the studio's borders.

Conventions, everywhere:

* Images are ``[B, 3, H, W]``, linear in memory layout, sRGB-encoded values in 0-1.
* The world is right-handed, +y up, +z towards the viewer at azimuth 0. Azimuth grows counter-clockwise seen
  from above: a camera at azimuth 90 stands on +x.
* A camera looks along its own +z, with +x right and +y down (the OpenCV axes). Pixel (column, row) covers the
  unit square around (column + 0.5, row + 0.5).
* Quaternions are wxyz.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras that share one image size.

    Attributes:
        world_to_camera: rigid transforms from the world to the camera's OpenCV axes.
        intrinsics: fx, fy, cx, cy in pixels, as 3x3 matrices.
        width, height: image size in pixels.
        azimuth_deg, elevation_deg: where the camera stands on its orbit; what view-dependent prompts read.
        time: the instant of a 4D scene, in 0-1, or None.
    """

    world_to_camera: Float[Tensor, "b 4 4"]
    intrinsics: Float[Tensor, "b 3 3"]
    width: int
    height: int
    azimuth_deg: Float[Tensor, "b"]
    elevation_deg: Float[Tensor, "b"]
    time: Float[Tensor, "b"] | None = None

    def __len__(self) -> int:
        return self.world_to_camera.shape[0]

    @property
    def positions(self) -> Float[Tensor, "b 3"]:
        """Camera centres in the world."""
        rotation, translation = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3:]
        return -(rotation.mT @ translation).squeeze(-1)

    def __getitem__(self, index: slice | list[int] | Int[Tensor, "k"]) -> Cameras:
        """The cameras at ``index`` (a slice, a list or an index tensor), as a batch."""
        return replace(
            self,
            world_to_camera=self.world_to_camera[index],
            intrinsics=self.intrinsics[index],
            azimuth_deg=self.azimuth_deg[index],
            elevation_deg=self.elevation_deg[index],
            time=None if self.time is None else self.time[index],
        )

    def resized(self, width: int, height: int) -> Cameras:
        """The same views at another image size."""
        scaled = self.intrinsics.clone()
        scaled[:, 0] *= width / self.width
        scaled[:, 1] *= height / self.height
        return replace(self, intrinsics=scaled, width=width, height=height)

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device."""
        return replace(
            self,
            world_to_camera=self.world_to_camera.to(device),
            intrinsics=self.intrinsics.to(device),
            azimuth_deg=self.azimuth_deg.to(device),
            elevation_deg=self.elevation_deg.to(device),
            time=None if self.time is None else self.time.to(device),
        )


@dataclass(frozen=True)
class SplatFootprints:
    """What the topology rules need to know of the splats that a render touched.

    Attributes:
        radii_px: screen radius of each splat in each view, 0 where it was not drawn.
        means2d_probe: a zero tensor that took part in the render as an offset of the projected means;
            after backward its ``.grad`` is the gradient on the screen positions, in 1/pixels.
    """

    radii_px: Float[Tensor, "b n"]
    means2d_probe: Float[Tensor, "b n 2"]


@dataclass(frozen=True)
class RenderOutput:
    """What a renderer shows of a scene.

    Attributes:
        rgb: colour composited over the background, 0-1.
        alpha: coverage, 0-1.
        depth: camera-space z times its weight, summed (divide by alpha for the expected depth), or None.
        normal: world-space unit normals towards the camera times their weight, summed, or None.
        footprints: per-splat screen statistics, for renderers of splats.
        facing_away: ``max(0, normal . ray)²`` times the samples' weight, summed, for renderers of fields that
            draw normals.
    """

    rgb: Float[Tensor, "b 3 h w"]
    alpha: Float[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"] | None = None
    normal: Float[Tensor, "b 3 h w"] | None = None
    footprints: SplatFootprints | None = None
    facing_away: Float[Tensor, "b 1 h w"] | None = None


@dataclass(frozen=True)
class PromptEmbedding:
    """A batch of prompts as a prior understands them.

    Only the prior that made it reads its numbers; ``b`` is 1 (shared by the batch) or the batch size.

    Attributes:
        tokens: one row a token.
        pooled: one vector a prompt, for priors with a second encoder.
    """

    tokens: Float[Tensor, "b l d"]
    pooled: Float[Tensor, "b p"] | None = None

    def expanded(self, batch: int) -> PromptEmbedding:
        """The embedding with one row for each of ``batch`` images."""
        if self.tokens.shape[0] == batch:
            return self
        pooled = None if self.pooled is None else self.pooled.expand(batch, -1)
        return PromptEmbedding(self.tokens.expand(batch, -1, -1), pooled)


@dataclass(frozen=True)
class Condition:
    """Everything a prior is told about one branch of one batch of images.

    Attributes:
        prompt: the text.
        cameras: the views, or None for the camera-free branch.
        background: colour behind each image, where the caller knows it.
        image: reference images in 0-1, for image-conditioned priors.
        control: what a ControlNet is shown of each image (landmarks, depth, edges), in 0-1.
    """

    prompt: PromptEmbedding
    cameras: Cameras | None = None
    background: Float[Tensor, "b 3"] | None = None
    image: Float[Tensor, "b 3 h w"] | None = None
    control: Float[Tensor, "b 3 h w"] | None = None


@dataclass(frozen=True)
class NegativePrompt:
    """A text that guidance steers away from.

    Attributes:
        text: the prompt, or what is added to it.
        extends_prompt: ``text`` is appended to the (view-dependent) prompt instead of standing alone.
        front_only: views that are not from the front get the prompt itself instead.
    """

    text: str
    extends_prompt: bool = False
    front_only: bool = False


@dataclass(frozen=True)
class Repulsion:
    """The wrong views of each image, from which Perp-Neg steers away.

    Attributes:
        conditions: one branch a wrong view.
        weights: how strongly each image avoids each of them; 0 or negative.
    """

    conditions: tuple[Condition, ...]
    weights: Float[Tensor, "n b"]


@dataclass(frozen=True)
class Conditioning:
    """The named branches that guidance may ask a prior for. ``positive`` follows each image's view.

    Attributes:
        plain: the prompt without words for the view, with the cameras: what a critic is told. None where it
            is the same as ``positive``.
        second: the same branches as a second prior understands them, for methods that ask two.
        alpha: the renders' coverage, 0-1, where the caller knows it.
    """

    positive: Condition
    null: Condition
    negatives: tuple[Condition, ...] = ()
    repulsion: Repulsion | None = None
    plain: Condition | None = None
    second: Conditioning | None = None
    alpha: Float[Tensor, "b 1 h w"] | None = None


@dataclass(frozen=True)
class GuidanceOutput:
    """What guidance says of one batch of renders.

    Attributes:
        loss: scalar whose gradient on the rendered images is the guidance; its value means nothing else.
        gradient: the descent direction on the prior's own variable, before reduction.
        timesteps: the noise levels used, in the schedule's own index.
        denoiser_calls: images sent through the denoiser.
        terms: figures worth logging, by name.
    """

    loss: Float[Tensor, ""]
    gradient: Float[Tensor, "b c h w"]
    timesteps: Float[Tensor, "b"]
    denoiser_calls: int
    terms: Mapping[str, float]


@dataclass(frozen=True)
class Material:
    """One surface of a mesh: a base colour, times a texture where there is one.

    Attributes:
        base_color: rgba in 0-1, sRGB.
        texture: rgba in 0-1, row 0 at v = 1 (the top of the image), or None. It repeats beyond 0-1.
        normal_map: unit normals in the surface's own frame, or None: x along growing u, y along growing v,
            z outwards. Laid out like the texture.
    """

    base_color: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    texture: Float[Tensor, "h w 4"] | None = None
    normal_map: Float[Tensor, "rows columns 3"] | None = None


@dataclass(frozen=True)
class Mesh:
    """A textured triangle mesh.

    Attributes:
        vertices: positions in the world.
        faces: vertex indices, counter-clockwise seen from outside.
        uvs: texture coordinates of each face's corners, v up, or None.
        face_materials: index into ``materials`` of each face, or None when there is one material.
        materials: the surfaces; never empty.
        vertex_colors: rgb in 0-1, multiplied in, or None.
        vertex_normals: unit normals for smooth shading, or None for flat.
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "f 3 2"] | None = None
    face_materials: Int[Tensor, "f"] | None = None
    materials: tuple[Material, ...] = (Material(),)
    vertex_colors: Float[Tensor, "v 3"] | None = None
    vertex_normals: Float[Tensor, "v 3"] | None = None


FAINT = 0.05
"""Opacity up to which a splat is hardly seen."""


@dataclass(frozen=True)
class Splats:
    """3D Gaussians ready to draw: activated values, not parameters.

    Attributes:
        means: centres in the world.
        quats_wxyz: rotations; need not be unit.
        scales: standard deviations along the rotated axes.
        opacities: 0-1.
        sh: spherical-harmonic colour coefficients, degree 0-3 for k = 1, 4, 9, 16; colour is
            ``0.5 + sum(Y_k * sh_k)`` clamped at 0 from below.
    """

    means: Float[Tensor, "n 3"]
    quats_wxyz: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, "n"]
    sh: Float[Tensor, "n k 3"]

    def seen(self) -> Int[Tensor, "k"]:
        """Which of them make the shape: those that are no fainter than ``FAINT``, or all where none is."""
        solid = self.opacities > FAINT
        return (solid if bool(solid.any()) else torch.ones_like(solid)).nonzero().squeeze(1)


@dataclass(frozen=True)
class CutoutLayer:
    """A flat picture on a planar mesh, which may overlap itself.

    Attributes:
        vertices: places in the world's x-y plane; the unit square around the origin is the canvas.
        faces: vertex indices.
        uvs: texture coordinates of each vertex, v up.
        levels: the picture, finest first, each level half the one before; rgba in 0-1, premultiplied, row 0
            on top. Transparent along the mesh's edge, so that outlines have gradients.
    """

    vertices: Float[Tensor, "v 2"]
    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "v 2"]
    levels: tuple[Float[Tensor, "1 _h _w 4"], ...]


@dataclass(frozen=True)
class Cutout:
    """Flat pictures one over the other: clipart.

    Attributes:
        layers: the lowest first; one at least.
    """

    layers: tuple[CutoutLayer, ...]

    @property
    def vertices(self) -> Float[Tensor, "v 2"]:
        """Of all layers."""
        return torch.cat([layer.vertices for layer in self.layers])


@dataclass(frozen=True)
class Rig:
    """Nodes in motion that carry a shape along, by linear blend skinning.

    A point x at rest goes to ``sum_j weights_j (R_k (x - nodes_k) + nodes_k + translations_k)`` with
    k = carriers_j; the rotation of a splat or normal there is blended from the same R_k.

    Attributes:
        nodes: their places at rest, in the world.
        carriers: the nodes that carry each of the shape's ``n`` points.
        weights: how much each of them counts; not negative, each row sums to 1.
        quats_wxyz: unit rotations R of the nodes at each of ``t`` instants.
        translations: of the nodes at each instant, in the world.
    """

    nodes: Float[Tensor, "k 3"]
    carriers: Int[Tensor, "n j"]
    weights: Float[Tensor, "n j"]
    quats_wxyz: Float[Tensor, "t k 4"]
    translations: Float[Tensor, "t k 3"]


Shape = TypeVar("Shape", Mesh, Splats, Cutout)


@dataclass(frozen=True)
class Animation(Generic[Shape]):
    """A shape in motion: a mesh, splats or a cutout at a row of instants.

    Attributes:
        rest: the shape at rest.
        frames: the shape at each instant: the same points in the same order, the same faces and materials.
        times: the instants in 0-1, rising: i / t where the animation loops, else i / (t - 1).
        seconds: how long it takes from time 0 to time 1.
        loops: whether time 1 is time 0 again.
        rig: what carries the shape from rest to ``frames``, where nodes do.
    """

    rest: Shape
    frames: tuple[Shape, ...]
    times: Float[Tensor, "t"]
    seconds: float
    loops: bool = False
    rig: Rig | None = None
