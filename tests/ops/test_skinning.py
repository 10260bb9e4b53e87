"""Linear blend skinning against rigid motions, a naive loop and finite differences."""

from __future__ import annotations

import pytest
import torch

from studio.errors import StudioError
from studio.ops.neighbours import farthest_points, nearest
from studio.ops.rotations import quats_to_rotations
from studio.ops.skinning import carried, skin_weights
from studio.recipes.config import NodesConfig
from studio.types import Rig


def cloud(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, generator=rng, dtype=torch.float64).to(dtype) - 0.5


def unit_quats(*size: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*size, 4, generator=rng, dtype=torch.float64), dim=-1)


def some_rig(points: torch.Tensor, nodes: int = 12, instants: int = 2) -> Rig:
    places = points[farthest_points(points, nodes)]
    carriers, weights = skin_weights(points, places, 4)
    quats = unit_quats(instants, nodes, seed=1).to(points)
    return Rig(
        places, carriers, weights, quats, 0.2 * cloud(instants * nodes, 2).reshape(-1, nodes, 3).to(points)
    )


def test_farthest_points_spread_like_the_naive_rule() -> None:
    points = cloud(60)
    chosen = [int((points - points.mean(0)).norm(dim=1).argmax())]
    for _ in range(9):
        from_chosen = torch.cdist(points, points[chosen]).amin(1)
        chosen.append(int(from_chosen.argmax()))
    assert farthest_points(points, 10).tolist() == chosen
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(points[shuffled][farthest_points(points[shuffled], 10)], points[chosen])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_weights_are_not_negative_and_sum_to_one(dtype: torch.dtype, tolerance: float) -> None:
    carriers, weights = skin_weights(cloud(500, dtype=dtype), cloud(60, 5, dtype), NodesConfig().carriers)
    assert carriers.shape == weights.shape == (500, 4)
    assert (weights >= 0).all()
    assert (weights.sum(1) - 1).abs().max() <= tolerance


def test_weights_are_shares_of_the_nearest_nodes() -> None:
    points, nodes = cloud(50), cloud(9, seed=5)
    carriers, weights = skin_weights(points, nodes, 4)
    distances = torch.cdist(points, nodes)
    assert torch.equal(carriers, distances.topk(4, largest=False).indices)
    gaps = (torch.cdist(nodes, nodes) + torch.eye(9) * 9).amin(1)
    falls = (-distances.square() / (2 * gaps.square().mean())).exp().gather(1, carriers)
    torch.testing.assert_close(weights, falls / falls.sum(1, keepdim=True))


def test_far_away_points_and_lone_nodes_have_weights_too() -> None:
    _, weights = skin_weights(cloud(3) + 1e4, cloud(5), 4)
    assert weights.isfinite().all() and torch.allclose(weights.sum(1), weights.new_ones(3))
    carriers, weights = skin_weights(cloud(3), cloud(1), 4)
    assert carriers.tolist() == [[0]] * 3 and weights.tolist() == [[1.0]] * 3
    _, weights = skin_weights(cloud(3), torch.zeros(4, 3, dtype=torch.float64), 2)  # all nodes at one place
    torch.testing.assert_close(weights, torch.full((3, 2), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nodes_that_move_as_one_carry_rigidly(dtype: torch.dtype) -> None:
    points = cloud(200, dtype=dtype)
    rig = some_rig(points)
    quat, shift = unit_quats(seed=7).to(dtype), torch.tensor([0.3, -0.1, 0.2], dtype=dtype)
    rotation = quats_to_rotations(quat)
    as_one = Rig(
        rig.nodes,
        rig.carriers,
        rig.weights,
        quat.expand(1, 12, 4),
        (rig.nodes @ rotation.T + shift - rig.nodes)[None],
    )
    moved, turns = carried(points, as_one, 0)
    torch.testing.assert_close(moved, points @ rotation.T + shift, atol=1e-6, rtol=0)
    torch.testing.assert_close(quats_to_rotations(turns), rotation.expand(200, 3, 3), atol=1e-6, rtol=0)


def test_points_are_carried_as_the_formula_says() -> None:
    points = cloud(20)
    rig = some_rig(points)
    moved, turns = carried(points, rig, 1)
    rotations = quats_to_rotations(rig.quats_wxyz[1])
    for i, point in enumerate(points):
        expected, turn = torch.zeros(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        first = rig.quats_wxyz[1, rig.carriers[i, 0]]  # the nearest, so the heaviest
        for k, weight in zip(rig.carriers[i].tolist(), rig.weights[i], strict=True):
            node, quat = rig.nodes[k], rig.quats_wxyz[1, k]
            expected += weight * (rotations[k] @ (point - node) + node + rig.translations[1, k])
            turn += weight * (quat if quat @ first >= 0 else -quat)
        torch.testing.assert_close(moved[i], expected)
        torch.testing.assert_close(turns[i], turn / turn.norm())


def test_neither_the_nodes_order_nor_the_quaternions_signs_matter() -> None:
    points = cloud(80)
    rig = some_rig(points)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    nodes = rig.nodes[order]
    carriers, weights = skin_weights(points, nodes, 4)
    signs = torch.where(torch.arange(12) % 2 == 0, 1.0, -1.0)[:, None]
    other = Rig(nodes, carriers, weights, signs * rig.quats_wxyz[:, order], rig.translations[:, order])
    for mine, theirs in zip(carried(points, rig, 0), carried(points, other, 0), strict=True):
        torch.testing.assert_close(mine.abs(), theirs.abs())


def test_gradients_are_those_of_finite_differences() -> None:
    points = cloud(7).requires_grad_()
    rig = some_rig(points.detach(), nodes=5, instants=1)
    quats, translations, weights = (
        tensor.clone().requires_grad_() for tensor in (rig.quats_wxyz, rig.translations, rig.weights)
    )

    def move(*moving: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return carried(moving[0], Rig(rig.nodes, rig.carriers, moving[1], moving[2], moving[3]), 0)

    assert torch.autograd.gradcheck(move, (points, weights, quats, translations))


def test_points_that_cannot_be_spread_over_are_refused() -> None:
    with pytest.raises(StudioError, match="5 of 4 points were asked for; expected 1 to 4"):
        farthest_points(cloud(4), 5)
    with pytest.raises(StudioError, match="expected 1 to 0"):
        farthest_points(cloud(0), 1)
    broken = cloud(4)
    broken[2, 1] = torch.nan
    with pytest.raises(StudioError, match="1 of 4 points are not finite"):
        farthest_points(broken, 2)


def test_nearest_gives_no_more_than_there_are() -> None:
    indices, distances = nearest(cloud(3), cloud(2, seed=1), 7)
    assert indices.shape == distances.shape == (3, 2)
    assert (distances[:, 0] <= distances[:, 1]).all()
