"""As-rigid-as-possible deformation against what must hold exactly, and against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay
from torch import Tensor

from studio.errors import StudioError
from studio.ops.arap import HANDLE_WEIGHT, Arap, arap


def blob(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points in a disc of radius 100 around (128, 128), and the triangles between them."""
    rng = np.random.default_rng(seed)
    radius, angle = 100 * np.sqrt(rng.random(count)), 2 * np.pi * rng.random(count)
    points = 128 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return torch.from_numpy(points), torch.from_numpy(Delaunay(points).simplices.astype(np.int64))


@pytest.fixture(scope="module")
def prepared() -> tuple[Tensor, Tensor, Tensor, Arap]:
    vertices, faces = blob(300)
    handles = torch.tensor([3, 50, 99, 120, 200, 250, 280])
    return vertices, faces, handles, arap(vertices, faces, handles)


def test_handles_at_rest_leave_the_mesh_at_rest(prepared: tuple[Tensor, Tensor, Tensor, Arap]) -> None:
    vertices, _, handles, deform = prepared
    assert float((deform(vertices[handles][None])[0] - vertices).abs().max()) < 1e-6


def test_a_rigid_motion_of_the_handles_is_one_of_the_mesh(
    prepared: tuple[Tensor, Tensor, Tensor, Arap],
) -> None:
    vertices, _, handles, deform = prepared
    angle = math.radians(37)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    moved = vertices @ turn.T + torch.tensor([11.0, -7.0])
    assert float((deform(moved[handles][None])[0] - moved).abs().max()) < 1e-4
    single = deform.to(torch.zeros(1))(moved[handles][None].float())[0]
    assert float((single - moved).abs().max()) < 2e-3


def test_handles_are_hit_and_faces_keep_their_shape(prepared: tuple[Tensor, Tensor, Tensor, Arap]) -> None:
    vertices, _, handles, deform = prepared
    wanted = vertices[handles] + 8 * torch.rand(7, 2, generator=torch.Generator().manual_seed(0)) - 4
    moved = deform(wanted[None])[0]
    assert float((moved[handles] - wanted).abs().max()) < 1e-3
    # Growth is taken out: lengths change far less than if the handles' own similarity were followed.
    edges, now = deform.edges, moved
    assert float((now - vertices).norm(dim=1).max()) < 12
    assert edges.shape[1] == 2


def by_definition(vertices: Tensor, faces: Tensor, handles: Tensor, places: Tensor) -> Tensor:
    """Igarashi's two steps solved as they are written, by least squares with the handles' rows in it."""
    points, count = vertices.numpy(), len(vertices)
    pairs = sorted({tuple(sorted((int(f[i]), int(f[(i + 1) % 3])))) for f in faces for i in range(3)})
    rows: list[np.ndarray] = []
    turns = []
    for i, j in pairs:
        around = [i, j, *(v for f in faces.tolist() if i in f and j in f for v in f if v not in (i, j))]
        g = np.array([row for x, y in points[around] for row in ([x, y, 1, 0], [y, -x, 0, 1])])
        picked = np.zeros((2 * len(around), 2 * count))
        for k, v in enumerate(around):
            picked[2 * k, 2 * v] = picked[2 * k + 1, 2 * v + 1] = 1
        turn = (np.linalg.pinv(g) @ picked)[:2]
        ex, ey = points[j] - points[i]
        row = -np.array([[ex, ey], [ey, -ex]]) @ turn
        row[0, 2 * j] += 1
        row[1, 2 * j + 1] += 1
        row[0, 2 * i] -= 1
        row[1, 2 * i + 1] -= 1
        rows.append(row)
        turns.append(turn)
    held = np.zeros((2 * len(handles), 2 * count))
    for k, h in enumerate(handles.tolist()):
        held[2 * k, 2 * h] = held[2 * k + 1, 2 * h + 1] = HANDLE_WEIGHT
    system = np.concatenate([*rows, held])
    right = np.concatenate([np.zeros(2 * len(pairs)), HANDLE_WEIGHT * places.numpy().reshape(-1)])
    first = np.linalg.lstsq(system, right, rcond=None)[0]
    rows, told = [], []
    for (i, j), turn in zip(pairs, turns, strict=True):
        a, b = turn @ first
        ex, ey = points[j] - points[i]
        row = np.zeros((2, 2 * count))
        row[0, 2 * j] = row[1, 2 * j + 1] = 1
        row[0, 2 * i] = row[1, 2 * i + 1] = -1
        rows.append(row)
        told.append(np.array([a * ex + b * ey, a * ey - b * ex]) / math.hypot(a, b))
    system = np.concatenate([*rows, held])
    right = np.concatenate([*told, HANDLE_WEIGHT * places.numpy().reshape(-1)])
    return torch.from_numpy(np.linalg.lstsq(system, right, rcond=None)[0].reshape(-1, 2))


def test_it_is_what_igarashi_wrote() -> None:
    vertices, faces = blob(40, seed=1)
    handles = torch.tensor([0, 11, 25, 39])
    places = vertices[handles] + torch.tensor([[30.0, 5], [-12, 20], [4, -28], [0, 9]])
    ours = arap(vertices, faces, handles)(places[None])[0]
    assert float((ours - by_definition(vertices, faces, handles, places)).abs().max()) < 1e-5


def test_gradients_are_right() -> None:
    vertices, faces = blob(40, seed=2)
    handles = torch.tensor([0, 11, 25, 39])
    deform = arap(vertices, faces, handles)
    places = (vertices[handles] + torch.randn(2, 4, 2, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(deform, places, eps=1e-4, atol=1e-5)


def test_a_part_with_one_handle_goes_with_it() -> None:
    vertices, faces = blob(30)
    apart, more = blob(12, seed=5)
    both = torch.cat([vertices, apart + 400])
    deform = arap(both, torch.cat([faces, more + 30]), torch.tensor([2, 20, 31]))
    places = both[[2, 20, 31]] + torch.tensor([[0.0, 0], [0, 0], [5, -3]])
    moved = deform(places[None])[0]
    torch.testing.assert_close(moved[:30], vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[30:], both[30:] + torch.tensor([5.0, -3]), atol=1e-6, rtol=0)


def test_what_cannot_be_deformed_is_refused() -> None:
    vertices, faces = blob(20)
    with pytest.raises(StudioError, match="Two handles are the same vertex"):
        arap(vertices, faces, torch.tensor([1, 1]))
    with pytest.raises(StudioError, match="Face 0 of the mesh has no area"):
        arap(vertices, torch.cat([torch.tensor([[0, 0, 1]]), faces]), torch.tensor([1, 2]))
    with pytest.raises(StudioError, match="belong to no face"):
        arap(torch.cat([vertices, vertices[:1]]), faces, torch.tensor([1, 2]))
    with pytest.raises(StudioError, match="1 of the 2 parts of the mesh have no handle"):
        arap(torch.cat([vertices, vertices + 900]), torch.cat([faces, faces + 20]), torch.tensor([1, 2]))
