"""Small meshes in clip space, and the assertions that every backend of the mesh operators must pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from studio.cameras import orbit
from studio.ops.library import Backend
from studio.ops.mesh_raster import antialias, clip_matrices, interpolate, rasterize
from studio.ops.mesh_raster.rasterize_reference import fragments_reference


def ball(columns: int = 12, rows: int = 6, radius: float = 0.5) -> tuple[Tensor, Tensor]:
    """Vertices [v 3] and faces [f 3], counter-clockwise from outside; closed, one vertex at each pole."""
    theta = torch.linspace(0, math.pi, rows + 1)[1:-1, None]
    phi = torch.arange(columns)[None] * (2 * math.pi / columns)
    rings = torch.stack(
        [theta.sin() * phi.sin(), theta.cos().expand(-1, columns), theta.sin() * phi.cos()], dim=-1
    )
    vertices = radius * torch.cat([rings.reshape(-1, 3), torch.tensor([[0.0, 1, 0], [0, -1, 0]])])
    north, south = len(vertices) - 2, len(vertices) - 1
    j = torch.arange(columns)
    k, last = (j + 1) % columns, (rows - 2) * columns
    faces = [torch.stack([torch.full_like(j, north), j, k], -1)]
    for ring in range(rows - 2):
        a, b = ring * columns + j, ring * columns + k
        faces += [torch.stack([a, a + columns, b], -1), torch.stack([b, a + columns, b + columns], -1)]
    faces.append(torch.stack([torch.full_like(j, south), last + k, last + j], -1))
    return vertices, torch.cat(faces)


def seen(vertices: Tensor, views: int = 2, width: int = 40, height: int = 29) -> Tensor:
    """Positions in clip space [b v 4], from an orbit."""
    cameras = orbit(13.0 + 70.0 * torch.arange(views), torch.linspace(-30, 50, views), width, height)
    matrices = clip_matrices(cameras.world_to_camera, cameras.intrinsics, width, height).to(vertices)
    return torch.nn.functional.pad(vertices, (0, 1), value=1.0) @ matrices.mT


def soup(faces: int, views: int = 2, seed: int = 0, size: float = 0.6) -> tuple[Tensor, Tensor]:
    """Loose triangles in clip space [b 3f 4], some through the camera's plane."""
    rng = torch.Generator().manual_seed(seed)
    centre = torch.randn(views, faces, 1, 3, generator=rng) * torch.tensor([0.7, 0.7, 0.4])
    corners = centre + size * torch.randn(views, faces, 3, 3, generator=rng)
    w = 1 + 0.6 * torch.randn(views, faces, 3, 1, generator=rng)
    return torch.cat([corners, w], dim=-1).reshape(views, -1, 4), torch.arange(3 * faces).reshape(-1, 3)


def random_like(values: Tensor, seed: int = 7) -> Tensor:
    """The same numbers for the same shape, whatever the type."""
    return torch.randn(values.shape, generator=torch.Generator().manual_seed(seed)).to(values)


def assert_agrees(positions: Tensor, faces: Tensor, width: int, height: int, backend: Backend) -> None:
    """Rasterization, interpolation and antialiasing by ``backend`` are the reference's in double."""
    expected = rasterize(positions.double(), faces, width, height, slopes=True)
    moved, truth = positions.clone().requires_grad_(), positions.double().requires_grad_()
    fragments = rasterize(moved, faces, width, height, slopes=True, backend=backend)
    # A pixel on an edge may fall to either side.
    assert (fragments.face != expected.face).float().mean() <= 1e-3
    made = fragments_reference(truth, faces.int(), fragments.face, True)
    close_with_gradients(fragments[1:], made, [moved], [truth])

    attributes = random_like(positions[0, :, :1].expand(-1, 5))
    colors = [attributes.clone().requires_grad_(), attributes.double().requires_grad_()]
    weights = [fragments.weights.detach().to(color.dtype).requires_grad_() for color in colors]
    images = [
        interpolate(color, faces, fragments._replace(weights=weight), backend=chosen)
        for color, weight, chosen in zip(colors, weights, (backend, "torch"), strict=True)
    ]
    close_with_gradients(images[:1], images[1:], [colors[0], weights[0]], [colors[1], weights[1]])

    image = random_like(images[0])
    inputs = [[values.clone().requires_grad_() for values in (image, positions)]]
    inputs.append([values.detach().double().requires_grad_() for values in inputs[0]])
    depth = [fragments.depth.detach(), fragments.depth.detach().double()]
    smooth = [
        antialias(leaves[0], leaves[1], faces, fragments._replace(depth=z), backend=chosen)
        for leaves, z, chosen in zip(inputs, depth, (backend, "torch"), strict=True)
    ]
    close_with_gradients(smooth[:1], smooth[1:], *inputs)


def close_with_gradients(
    got: Sequence[Tensor], expected: Sequence[Tensor], leaves: list[Tensor], truths: list[Tensor]
) -> None:
    """Values and gradients of a random weighting of them: within 1e-4 and 1e-3 of the largest."""
    v = [random_like(values) for values in got]
    pairs = [
        *zip(got, expected, strict=True),
        *zip(
            torch.autograd.grad(list(got), leaves, v, allow_unused=True, materialize_grads=True),
            torch.autograd.grad(
                list(expected), truths, [x.double() for x in v], allow_unused=True, materialize_grads=True
            ),
            strict=True,
        ),
    ]
    for index, (value, truth) in enumerate(pairs):
        tolerance = 1e-4 if index < len(got) else 1e-3
        size = max(float(truth.detach().abs().max()), 1.0) if truth.numel() else 1.0
        assert truth.numel() == 0 or float((value.double() - truth).detach().abs().max()) <= tolerance * size
