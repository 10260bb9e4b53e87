"""Quaternions against scipy's rotations."""

from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation

from studio.ops.rotations import aligned, quat_product, quats_to_rotations

RNG = torch.Generator().manual_seed(3)
FIRST, SECOND = torch.randn(2, 5, 7, 4, generator=RNG, dtype=torch.float64)


def scipys(quats_wxyz: torch.Tensor) -> Rotation:
    return Rotation.from_quat(quats_wxyz.reshape(-1, 4).numpy(), scalar_first=True)


def matrices(rotation: Rotation) -> torch.Tensor:
    return torch.from_numpy(rotation.as_matrix()).reshape(5, 7, 3, 3)


def test_matrices_of_quaternions_of_any_length() -> None:
    torch.testing.assert_close(quats_to_rotations(FIRST), matrices(scipys(FIRST)))


def test_a_product_is_the_first_rotation_and_then_the_second() -> None:
    both = quats_to_rotations(quat_product(SECOND, FIRST))
    torch.testing.assert_close(both, matrices(scipys(SECOND) * scipys(FIRST)))


def test_aligned_changes_the_sign_only() -> None:
    towards = aligned(FIRST, SECOND)
    assert ((towards * SECOND).sum(-1) >= 0).all()
    torch.testing.assert_close(quats_to_rotations(towards), quats_to_rotations(FIRST))
    assert not torch.equal(towards, FIRST)
