"""The mesh operators against DEODR, the differentiable rasterizer with a CPU wheel, and PyTorch3D; and the
drawing of meshes against plain torch.

A ball of ten thousand faces with coloured vertices is seen from four sides and compared with a target;
gradients on vertices and colours. DEODR draws in double precision, one view at a time, front faces only,
without perspective correction in the backward pass; its overdrawn edges are another antialiasing. PyTorch3D
rasterizes one face a pixel and interpolates, and then has no soft outlines: ours are timed with them, and
compared without.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from contest import Contest, NotRun
from numpy.typing import NDArray
from torch import Tensor

from studio.cameras import orbit
from studio.ops.library import Backend
from studio.ops.mesh_raster import antialias, clip_matrices, face_neighbours, interpolate, rasterize
from studio.ops.rasterize import MeshImages
from studio.ops.rasterize import rasterize as draw_surface
from studio.ops.surfaces import Light, Surface, pack_textures
from studio.types import Cameras

RINGS, SECTORS, VIEWS = 50, 102, 4
CAMERAS = torch.arange(VIEWS) * (360.0 / VIEWS), torch.tensor([15.0, 0, 30, -20])


def ball() -> tuple[Tensor, Tensor]:
    """Vertices and faces, counter-clockwise from outside, of a closed ball of radius 0.5."""
    theta = torch.linspace(0, math.pi, RINGS + 1)[1:-1, None]
    phi = torch.arange(SECTORS)[None] * (2 * math.pi / SECTORS)
    rings = torch.stack(
        [theta.sin() * phi.sin(), theta.cos().expand(-1, SECTORS), theta.sin() * phi.cos()], dim=-1
    )
    vertices = 0.5 * torch.cat([rings.reshape(-1, 3), torch.tensor([[0.0, 1, 0], [0, -1, 0]])])
    i, j = torch.meshgrid(torch.arange(RINGS - 2), torch.arange(SECTORS), indexing="ij")
    a, b = i * SECTORS + j, i * SECTORS + (j + 1) % SECTORS
    bands = [torch.stack([a, a + SECTORS, b], -1), torch.stack([b, a + SECTORS, b + SECTORS], -1)]
    first, last = torch.stack([a[0], b[0]], -1), torch.stack([b[-1], a[-1]], -1) + SECTORS
    north, south = len(vertices) - 2, len(vertices) - 1
    caps = [
        torch.nn.functional.pad(first, (1, 0), value=north),
        torch.nn.functional.pad(last, (1, 0), value=south),
    ]
    return vertices, torch.cat([*(band.reshape(-1, 3) for band in bands), *caps])


@dataclass(frozen=True)
class Task:
    """Images of a ball, and their gradients for one gradient on the images."""

    vertices: Tensor  # [v 3]
    faces: Tensor  # [f 3]
    colors: Tensor  # [v 3]
    cameras: Cameras
    v_images: Tensor  # [b h w 3]


def task_of(resolution: int) -> Task:
    rng = torch.Generator().manual_seed(0)
    vertices, faces = ball()
    cameras = orbit(*CAMERAS, resolution, resolution, 2.0, 41.0)
    # Smooth pictures: gradients of noise would be noise.
    wave = torch.linspace(0, 9, resolution)
    phases = torch.rand(VIEWS, 3, 2, generator=rng) * 6
    v_images = (wave[:, None, None] + phases[:, None, None, :, 0]).sin() * (
        wave[None, :, None] + phases[:, None, None, :, 1]
    ).cos()
    return Task(vertices, faces, 0.5 + vertices[:, [1, 2, 0]], cameras, v_images)


class Studio:
    """Our operators: [b h w 3] images, then gradients on vertices and colours."""

    def __init__(
        self,
        task: Task,
        dtype: torch.dtype = torch.float32,
        backend: Backend = "native",
        outlines: bool = True,
    ) -> None:
        self.backend: Backend = backend
        self.outlines = outlines
        self.vertices = task.vertices.to(dtype, copy=True).requires_grad_()
        self.colors = task.colors.to(dtype, copy=True).requires_grad_()
        self.faces = task.faces.int()
        self.neighbours = face_neighbours(self.faces)
        cameras = task.cameras
        self.size = cameras.width, cameras.height
        self.matrices = clip_matrices(cameras.world_to_camera, cameras.intrinsics, *self.size).to(dtype)
        self.v_images = task.v_images.permute(0, 3, 1, 2).to(dtype).contiguous()
        self.images = self.positions = torch.empty(0)

    def forward(self) -> None:
        self.positions = torch.nn.functional.pad(self.vertices, (0, 1), value=1.0) @ self.matrices.mT
        fragments = rasterize(self.positions, self.faces, *self.size, cull=True, backend=self.backend)
        colors = interpolate(self.colors, self.faces, fragments, backend=self.backend)
        self.images = colors
        if self.outlines:
            self.images = antialias(
                colors, self.positions, self.faces, fragments, self.neighbours, backend=self.backend
            )

    def step(self) -> None:
        self.forward()
        self.backward()

    def backward(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.images, (self.vertices, self.colors), self.v_images)

    def on_screen(self) -> tuple[Tensor, Tensor]:
        """Gradients on the projected vertices in pixels [b v 2], and on colours."""
        v_positions, v_colors = torch.autograd.grad(self.images, (self.positions, self.colors), self.v_images)
        w = self.positions.detach()[..., 3:]
        return v_positions[..., :2] * w * torch.tensor([2.0, -2.0]) / torch.tensor(self.size), v_colors


class Deodr:
    """DEODR's scenes, one for each view."""

    def __init__(self, task: Task) -> None:
        from deodr.differentiable_renderer import Camera, Scene3D
        from deodr.triangulated_mesh import ColoredTriMesh

        self.scenes: list[Any] = []
        self.cameras: list[Any] = []
        self.v_images = [image.double().numpy() for image in task.v_images]
        vertices, colors = task.vertices.double().numpy(), task.colors.double().numpy()
        for world_to_camera, lens in zip(
            task.cameras.world_to_camera.double().numpy(),
            task.cameras.intrinsics.double().numpy(),
            strict=True,
        ):
            scene = Scene3D(sigma=1, integer_pixel_centers=False)
            scene.set_mesh(ColoredTriMesh(task.faces.numpy(), vertices=vertices, colors=colors))
            scene.set_light(light_directional=None, light_ambient=1.0)
            scene.set_background_color(np.zeros(3))
            self.scenes.append(scene)
            self.cameras.append(Camera(world_to_camera[:3], lens, task.cameras.height, task.cameras.width))
        self.images: list[NDArray[np.float64]] = []

    def forward(self) -> None:
        self.images = [scene.render(camera) for scene, camera in zip(self.scenes, self.cameras, strict=True)]

    def backward(self) -> None:
        for scene, v_image in zip(self.scenes, self.v_images, strict=True):
            scene.clear_gradients()
            scene.render_backward(v_image.copy())  # it writes into its argument

    def step(self) -> None:
        self.forward()
        self.backward()

    def on_screen(self) -> tuple[Tensor, Tensor]:
        """As ``Studio.on_screen``. DEODR turns gradients on vertices by the wrong rotation: not compared."""
        self.backward()
        v_points = np.stack([scene.scene_2d.ij_b for scene in self.scenes])
        v_colors = sum(scene.mesh.vertices_colors_b for scene in self.scenes)
        return torch.from_numpy(v_points), torch.from_numpy(v_colors)


class PyTorch3d:
    """PyTorch3D's rasterizer and interpolation, of all views at once."""

    def __init__(self, task: Task) -> None:
        self.vertices = task.vertices.clone().requires_grad_()
        self.colors = task.colors.clone().requires_grad_()
        self.faces = task.faces.expand(VIEWS, -1, -1)
        cameras = task.cameras
        self.size = cameras.width
        self.matrices = clip_matrices(cameras.world_to_camera, cameras.intrinsics, self.size, self.size)
        self.v_images = task.v_images
        self.images = torch.empty(0)

    def forward(self) -> None:
        from pytorch3d.ops import interpolate_face_attributes
        from pytorch3d.renderer.mesh import rasterize_meshes
        from pytorch3d.structures import Meshes

        x, y, _, w = (torch.nn.functional.pad(self.vertices, (0, 1), value=1.0) @ self.matrices.mT).unbind(-1)
        on_screen = torch.stack([-x / w, y / w, w], dim=-1)  # its x runs to the left
        face, _, weights, _ = rasterize_meshes(
            Meshes(on_screen, self.faces), self.size, faces_per_pixel=1, perspective_correct=True,
            cull_backfaces=True,
        )  # fmt: skip
        corners = self.colors[self.faces.flatten(0, 1)]
        self.images = interpolate_face_attributes(face, weights, corners)[..., 0, :]

    def backward(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.images, (self.vertices, self.colors), self.v_images)

    def step(self) -> None:
        self.forward()
        self.backward()


def differ_from_reference(task: Task, studio: Studio) -> float:
    """Ours against the reference in double."""
    truth = Studio(task, torch.float64, "torch")
    truth.forward(), studio.forward()
    # An edge exactly on a pixel may fall to either side: some pixels in a thousand.
    off = float(((studio.images - truth.images).detach().abs().amax(1) > 1e-3).float().mean())
    errors = [
        float((ours - theirs).norm() / theirs.norm())
        for ours, theirs in zip(studio.on_screen(), truth.on_screen(), strict=True)
    ]
    if off > 2e-3 or max(errors) > 1e-2:
        raise SystemExit(
            f"The native mesh operators are wrong: {off} of the pixels, {errors} of the gradients."
        )
    return max(errors)


def differ_from_deodr(studio: Studio, deodr: Deodr) -> float:
    """Images, on average; gradients have to point the same way."""
    studio.forward(), deodr.forward()
    images = torch.from_numpy(np.stack(deodr.images)).permute(0, 3, 1, 2)
    apart = float((studio.images.detach() - images).abs().mean())
    alike = [
        float(torch.nn.functional.cosine_similarity(ours.double().flatten(), theirs.flatten(), dim=0))
        for ours, theirs in zip(studio.on_screen(), deodr.on_screen(), strict=True)
    ]
    if apart > 1e-2 or min(alike) < 0.9:
        raise SystemExit(
            f"DEODR draws something else: {apart} in the images, cosines {alike} of the gradients."
        )
    return apart


def differ_from_pytorch3d(task: Task, pytorch3d: PyTorch3d) -> float:
    """Images, and gradients on vertices and colours, without ours of the outlines."""
    studio = Studio(task, outlines=False)
    studio.forward(), pytorch3d.forward()
    theirs = pytorch3d.images.detach().permute(0, 3, 1, 2)
    # An edge exactly on a pixel may fall to either side: some pixels in a thousand.
    off = float(((studio.images.detach() - theirs).abs().amax(1) > 1e-3).float().mean())
    errors = [
        float((ours - theirs).norm() / theirs.norm())
        for ours, theirs in zip(studio.backward(), pytorch3d.backward(), strict=True)
    ]
    if off > 2e-3 or max(errors) > 1e-2:
        raise SystemExit(f"PyTorch3D draws something else: {off} of the pixels, {errors} of the gradients.")
    return max(errors)


def drawing(textured: bool, supersample: int) -> Contest:
    """Shaded pictures as the catalogue and turntables draw them, forward only."""
    vertices, faces = ball()
    rng = torch.Generator().manual_seed(0)
    surface = Surface(
        vertices=vertices,
        faces=faces.int(),
        face_materials=torch.zeros(len(faces), dtype=torch.int32),
        base_colors=torch.ones(1, 4),
        textures=pack_textures([torch.rand(512, 512, 4, generator=rng).clamp(min=0.5) if textured else None]),
        uvs=vertices[faces][..., :2] + 0.5 if textured else None,
    )
    cameras = orbit(*CAMERAS, 128, 128, 2.0, 41.0)
    light = Light(0.5, 0.2, torch.tensor([[0.2, 0.2, 0.1], [-0.1, 0.1, 0.0]]))

    def draw(backend: Backend) -> MeshImages:
        return draw_surface(
            surface, cameras.world_to_camera, cameras.intrinsics, torch.ones(VIEWS, 3), 128, 128,
            light=light, supersample=supersample, backend=backend,
        )  # fmt: skip

    def differ() -> float:
        off = float(((draw("native").rgb - draw("torch").rgb).abs().amax(1) > 1e-3).float().mean())
        if off > 2e-3:
            raise SystemExit(f"The native picture differs from the reference's in {off} of its pixels.")
        return off

    work = f"drawing {'a texture' if textured else 'plain'}, {supersample**2} samples, 4 views of 128^2"
    native, torch_ = functools.partial(draw, "native"), functools.partial(draw, "torch")
    return Contest(work, native, f"torch {torch.__version__}", torch_, differ)


def contests() -> Iterator[Contest | NotRun]:
    """DEODR and PyTorch3D at two sizes, forward alone and with backward; then shaded pictures."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # numpy's, from DEODR
    for resolution in (128, 256):
        task = task_of(resolution)
        studio = Studio(task)
        work = f"mesh, {len(task.faces)} faces, {VIEWS} views of {resolution}^2"
        differ_from_reference(task, studio)
        try:
            peer = f"DEODR {importlib.metadata.version('deodr')}"
        except importlib.metadata.PackageNotFoundError:
            yield NotRun(work, "DEODR", "not installed: pip install '.[bench]'")
        else:
            deodr = Deodr(task)
            differ = functools.partial(differ_from_deodr, studio, deodr)
            yield Contest(f"{work}, forward", studio.forward, peer, deodr.forward, differ)
            yield Contest(work, studio.step, peer, deodr.step, differ, 3)
        try:
            peer = f"PyTorch3D {importlib.metadata.version('pytorch3d')}"
        except importlib.metadata.PackageNotFoundError:
            yield NotRun(work, "PyTorch3D", "not installed: PyPI has no wheel of it, and it takes compiling")
        else:
            other = PyTorch3d(task)
            differ = functools.partial(differ_from_pytorch3d, task, other)
            yield Contest(f"{work}, forward", studio.forward, peer, other.forward, differ)
            yield Contest(work, studio.step, peer, other.step, differ)
    for textured in (False, True):
        for supersample in (1, 2):
            yield drawing(textured, supersample)
