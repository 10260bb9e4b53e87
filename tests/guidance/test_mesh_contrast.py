"""Guidance by meshes against naive loops, finite differences and meshes that are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import trimesh
from jaxtyping import Bool, Float
from torch import Tensor

from studio.cameras import filmed, orbit
from studio.errors import StudioError
from studio.guidance.mesh_contrast import MeshContrast, info_nce, similarity
from studio.meshes import load_mesh, normalised
from studio.ops.surfaces import Light
from studio.priors.nobody import NoPrior
from studio.recipes.guidance import MeshContrastConfig, MeshesTarget
from studio.renderers.raster import MeshRenderer
from studio.run.targets import build_target
from studio.types import Cameras, Condition, Conditioning, PromptEmbedding

SIDE = 16


class ByTime:
    """A grey that is the time, with a bright corner."""

    def knows(self, cameras: Cameras) -> Bool[Tensor, "b"]:
        return torch.ones(len(cameras), dtype=torch.bool)

    def __call__(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 h w"]:
        assert cameras.time is not None
        pictures = cameras.time[:, None, None, None].expand(-1, 3, SIDE, SIDE).double().clone()
        pictures[:, 0, :4, :4] = 1 - pictures[:, 0, :4, :4]
        return pictures


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cameras(times: list[float]) -> Cameras:
    return filmed(orbit(torch.tensor([30.0]), torch.tensor([10.0]), SIDE, SIDE), torch.tensor(times))


def told(views: Cameras) -> Conditioning:
    condition = Condition(PromptEmbedding(torch.zeros(1, 1, 1)), views, torch.ones(len(views), 3))
    return Conditioning(condition, condition)


def config(**changes: float) -> MeshContrastConfig:
    return MeshContrastConfig(target=MeshesTarget(path="unread"), **changes)


def test_structural_similarity_window_by_window() -> None:
    """Wang et al. 2004, eq. 13, in the windows that lie within the picture."""
    a, b = images(1, 1), images(1, 1, seed=1)
    bell = torch.exp(-(torch.arange(-3, 4, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    weights = bell[:, None] * bell / bell.sum() ** 2
    for row, column in ((3, 3), (7, 9), (12, 4)):
        x, y = (picture[0, 0, row - 3 : row + 4, column - 3 : column + 4] for picture in (a, b))
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        variance_x, variance_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
        covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
        above = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
        below = (mean_x**2 + mean_y**2 + 1e-4) * (variance_x + variance_y + 9e-4)
        torch.testing.assert_close(similarity(a, b)[0, 0, row, column], above / below)
    torch.testing.assert_close(similarity(a, a), torch.ones_like(a))


def test_the_contrast_is_a_naive_loop() -> None:
    rgb, instants, times = images(3, 3), images(3, 3, 3, seed=1), torch.tensor([0.2, 0.7, 0.2])
    losses = []
    for row in range(3):
        pooled = [
            torch.stack([part.mean() for part in picture.unfold(1, 2, 2).unfold(2, 2, 2).flatten(0, 2)])
            for picture in (rgb[row], *instants[row])
        ]
        middle = torch.stack(pooled[1:]).mean(0)
        seen, *known = (each - middle for each in pooled)
        cosines = [float(seen @ each / seen.norm() / each.norm()) for each in known]
        rivals = [column for column in range(3) if column == row or times[column] != times[row]]
        total = sum(math.exp(cosines[column] / 0.3) for column in rivals)
        losses.append(-math.log(math.exp(cosines[row] / 0.3) / total))
    assert float(info_nce(rgb, instants, times, 0.3)) == pytest.approx(sum(losses) / 3, rel=1e-9)


def test_a_render_is_told_from_those_of_other_instants() -> None:
    times = torch.tensor([0.0, 0.5, 1.0])
    known = ByTime()(cameras([0.0, 0.5, 1.0]), torch.ones(3, 3))
    each = known.expand(3, -1, -1, -1, -1)
    right = float(info_nce(known, each, times, 0.1))
    wrong = float(info_nce(known.flip(0), each, times, 0.1))
    assert right < 0.5 * math.log(3) < wrong


@pytest.mark.parametrize("contrast", [0.0, 0.5])
def test_the_gradient_is_the_slope_of_the_loss(contrast: float) -> None:
    guidance = MeshContrast(ByTime(), config(contrast=contrast))
    conditioning, rgb = told(cameras([0.1, 0.4, 0.9])), images(3, 3).requires_grad_()
    output = guidance(rgb, conditioning, 0.5, torch.Generator())
    output.loss.backward()
    torch.testing.assert_close(rgb.grad, output.gradient / 3)
    step = torch.zeros_like(rgb)
    step[1, 2, 5, 7] = 1e-6
    ahead, behind = (
        guidance(rgb.detach() + sign * step, conditioning, 0.5, torch.Generator()).loss for sign in (1, -1)
    )
    assert float((ahead - behind) / 2e-6) == pytest.approx(float(output.gradient[1, 2, 5, 7]) / 3, rel=1e-4)
    assert output.denoiser_calls == 0


def test_without_contrast_nothing_is_wrong_at_the_meshes_themselves() -> None:
    views, guidance = cameras([0.1, 0.9]), MeshContrast(ByTime(), config())
    output = guidance(ByTime()(views, torch.ones(2, 3)), told(views), 0.0, torch.Generator())
    assert float(output.loss) == pytest.approx(0.0, abs=1e-9)


def test_meshes_of_a_folder_are_frames(tmp_path: Path) -> None:
    """A box that doubles its height; all are moved and scaled as the first is."""
    for number, height in enumerate((1.0, 1.5, 2.0)):
        trimesh.creation.box((1.0, height, 1.0)).export(tmp_path / f"{number:04d}.stl")
    target = build_target(MeshesTarget(path=str(tmp_path)), "a box", NoPrior())
    views, black = cameras([0.0, 0.45, 1.0]), torch.zeros(3, 3)
    shown = target(views, black)
    assert bool(target.knows(views).all())
    first = normalised(load_mesh(tmp_path / "0000.stl"))
    alone = MeshRenderer(light=Light())(first, views[[0]], black[:1]).rgb
    torch.testing.assert_close(shown[:1], alone)
    covered = (shown.amax(1) > 0.5).flatten(1).sum(1)
    assert covered[0] < covered[1] < covered[2]
    with pytest.raises(StudioError, match=r"holds 0 meshes, expected a folder with one a frame"):
        build_target(MeshesTarget(path=str(tmp_path / "nowhere")), "a box", NoPrior())
