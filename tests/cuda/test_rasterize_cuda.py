"""Drawing meshes on CUDA: the CPU's tests again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from studio.ops.library import Backend
from tests.ops import test_rasterize as cpu


@pytest.mark.parametrize(
    "test",
    [
        cpu.test_a_triangle_covers_the_pixels_whose_centres_it_holds,
        cpu.test_depth_follows_the_plane,
        cpu.test_interpolation_is_perspective_correct,
        cpu.test_texture_rows_run_down_from_v_1,
        cpu.test_minified_textures_show_their_mean,
        cpu.test_the_nearer_triangle_wins_whatever_the_order,
        cpu.test_cut_outs_show_what_lies_behind,
        cpu.test_glass_is_blended_over_the_nearest_opaque_surface,
        cpu.test_broken_triangles_are_not_drawn,
        cpu.test_a_camera_inside_sees_the_surface_all_around,
        cpu.test_both_sides_are_drawn_and_lit_as_they_face,
        cpu.test_smooth_normals_are_the_spheres_own,
        cpu.test_nothing_shows_the_background,
    ],
    ids=lambda test: test.__name__,
)
def test_what_holds_on_a_cpu(test: Callable[[Backend], None], device: str) -> None:
    with torch.device(device):
        test("native")


@pytest.mark.parametrize("supersample", [1, 3])
def test_cuda_equals_the_reference_in_double(supersample: int, device: str) -> None:
    cpu.assert_native_equals_the_reference_in_double(supersample, device)
