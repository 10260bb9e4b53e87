from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from skimage.metrics import peak_signal_noise_ratio

from studio.evaluate.metrics import (
    alpha_statistics,
    check_mesh,
    clipped_fraction,
    front_back_similarity,
    mode_coverage,
    psnr,
    resembles_front,
    saturation,
    sharpness,
    silhouette_iou,
    temporal_flicker,
    view_variance,
)
from studio.types import Mesh


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_agrees_with_skimage() -> None:
    a, b = noise(3, 3, 9, 7), noise(3, 3, 9, 7, seed=1)
    expected = [peak_signal_noise_ratio(b[i].numpy(), a[i].numpy(), data_range=1.0) for i in range(3)]
    np.testing.assert_allclose(psnr(a, b), expected, rtol=1e-5)


def test_psnr_at_its_ends() -> None:
    black = torch.zeros(1, 3, 4, 4)
    assert psnr(black, black).item() == math.inf
    assert psnr(black, torch.ones_like(black)).item() == 0.0
    assert psnr(black, torch.full_like(black, 0.1)).item() == pytest.approx(20.0, abs=1e-4)


def test_silhouette_iou_by_counting() -> None:
    """Two bars of 4 pixels that share 2: 2 of 6. Two empty pictures agree."""
    a, b = torch.zeros(2, 1, 1, 8), torch.zeros(2, 1, 1, 8)
    a[0, 0, 0, 0:4], b[0, 0, 0, 2:6] = 0.9, 0.6
    a[1], b[1] = 0.4, 0.1
    assert silhouette_iou(a, b).tolist() == pytest.approx([1 / 3, 1.0])
    assert silhouette_iou(a, b, threshold=0.3).tolist() == pytest.approx([1 / 3, 0.0])


def test_saturation_of_known_colours() -> None:
    rgb = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.8, 0.6, 0.4], [0.0, 0.0, 0.0]]).T.reshape(
        1, 3, 2, 2
    )
    everywhere = torch.ones(1, 1, 2, 2)
    assert saturation(rgb, everywhere).item() == pytest.approx((1.0 + 0.0 + 0.5 + 0.0) / 4)
    only_third = torch.tensor([0.0, 0.0, 0.3, 0.0]).reshape(1, 1, 2, 2)
    assert saturation(rgb, only_third).item() == pytest.approx(0.5)
    assert saturation(rgb, 0 * everywhere).item() == 0.0


def test_clipped_fraction_by_counting() -> None:
    rgb = torch.full((1, 3, 2, 2), 0.5)
    rgb[0, 1, 0, 0], rgb[0, 2, 1, 1] = 1.0, 0.0
    assert clipped_fraction(rgb, torch.ones(1, 1, 2, 2)).item() == pytest.approx(0.5)


def test_sharpness_at_its_ends() -> None:
    y, x = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    board = ((x + y) % 2).float().expand(1, 3, 10, 10)
    ramp = (x / 9.0).expand(1, 3, 10, 10)
    # Inside a chequerboard the Laplacian is +-4: a variance of 16.
    assert sharpness(board).item() == pytest.approx(16.0, rel=1e-4)
    assert sharpness(ramp).item() == pytest.approx(0.0, abs=1e-10)


def test_alpha_statistics_by_counting() -> None:
    alpha = torch.zeros(1, 1, 4, 4)
    alpha[0, 0, 1, 1], alpha[0, 0, 1, 2], alpha[0, 0, 0, 0] = 1.0, 0.5, 0.6
    found = alpha_statistics(alpha)
    assert found.mean == pytest.approx(2.1 / 16)
    assert found.undecided == pytest.approx(2 / 3)
    assert found.border == pytest.approx(0.6 / 12)
    assert alpha_statistics(torch.zeros(1, 1, 4, 4)).undecided == 0.0


def test_view_variance_at_its_ends() -> None:
    picture = noise(1, 3, 5, 5)
    assert view_variance(picture.repeat(4, 1, 1, 1)) == pytest.approx(0.0, abs=1e-12)
    assert view_variance(torch.cat([torch.zeros(2, 3, 5, 5), torch.ones(2, 3, 5, 5)])) == pytest.approx(0.25)


def test_front_back_similarity_knows_copies_mirrors_and_negatives() -> None:
    front = noise(1, 3, 16, 16)
    assert front_back_similarity(front, front).item() == pytest.approx(1.0, abs=1e-5)
    assert front_back_similarity(front, 0.3 + 0.5 * front.flip(-1)).item() == pytest.approx(1.0, abs=1e-5)
    assert abs(front_back_similarity(front, noise(1, 3, 16, 16, seed=3)).item()) < 0.2
    symmetric = front + front.flip(-1)
    assert front_back_similarity(symmetric, -symmetric).item() == pytest.approx(-1.0, abs=1e-5)
    flat = torch.full_like(front, 0.7)
    assert front_back_similarity(front, flat).item() == pytest.approx(0.0, abs=1e-6)


def test_front_back_similarity_is_pearsons() -> None:
    front, back = noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=5)
    expected = max(np.corrcoef(front.flatten(), other.flatten())[0, 1] for other in (back, back.flip(-1)))
    assert front_back_similarity(front, back).item() == pytest.approx(expected, abs=1e-5)


def test_a_back_resembles_what_it_was_made_of() -> None:
    fronts, backs = noise(2, 3, 64, 64), noise(2, 3, 64, 64, seed=1)
    assert resembles_front(fronts[1], fronts, backs)
    assert not resembles_front(backs[0], fronts, backs)
    assert not resembles_front(noise(3, 64, 64, seed=2), fronts, fronts)
    # A quarter of the way from a back to a front is nearer to the back, three quarters to the front.
    assert not resembles_front(0.75 * backs[0] + 0.25 * fronts[0], fronts[:1], backs[:1])
    assert resembles_front(0.25 * backs[0] + 0.75 * fronts[0], fronts[:1], backs[:1])


def test_mode_coverage_by_counting() -> None:
    weights = torch.tensor([0.5, 0.25, 0.25])
    found = mode_coverage([0, 0, 0, 1], weights)
    assert (found.found, found.distance) == pytest.approx((2 / 3, 0.25))
    assert mode_coverage([0, 0, 1, 2], weights).distance == pytest.approx(0.0)
    collapsed = mode_coverage([2], weights)
    assert (collapsed.found, collapsed.distance) == pytest.approx((1 / 3, 0.75))


def test_temporal_flicker_at_its_ends() -> None:
    still = noise(1, 3, 6, 6).repeat(5, 1, 1, 1)
    assert temporal_flicker(still) == 0.0
    blinking = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1, 1).expand(4, 3, 6, 6)
    assert temporal_flicker(blinking) == 1.0


def as_mesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(shape.vertices).float(), torch.tensor(shape.faces).long())


def test_a_closed_mesh_is_watertight_until_a_face_is_gone() -> None:
    ball = as_mesh(trimesh.creation.icosphere(2))
    whole = check_mesh(ball)
    assert (whole.watertight, whole.degenerate_faces, whole.components) == (True, 0, 1)
    assert not check_mesh(Mesh(ball.vertices, ball.faces[1:])).watertight
    flipped = ball.faces.clone()
    flipped[0] = flipped[0].flip(0)
    assert not check_mesh(Mesh(ball.vertices, flipped)).watertight


def test_seams_do_not_make_holes() -> None:
    box = as_mesh(trimesh.creation.box())
    split = Mesh(box.vertices[box.faces].reshape(-1, 3), torch.arange(36).reshape(12, 3))
    checks = check_mesh(split)
    assert checks.watertight and checks.components == 1


def test_degenerate_faces_and_components_are_counted() -> None:
    vertices = torch.tensor(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0], [5, 5, 5], [6, 5, 5], [5, 6, 5]]
    ).float()
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [1, 1, 2], [4, 5, 6]])
    checks = check_mesh(Mesh(vertices, faces))
    assert (checks.watertight, checks.degenerate_faces, checks.components) == (False, 2, 2)
    nothing = check_mesh(Mesh(vertices, faces[:0]))
    assert (nothing.watertight, nothing.degenerate_faces, nothing.components) == (False, 0, 0)
