"""The exact motion prior against the mixture that it says it is."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from studio.cameras import frame_times, front
from studio.clipart.drawing import Drawing
from studio.clipart.gestures import GESTURES, performances
from studio.clipart.puppet import Puppet
from studio.clipart.sheet import Sheet
from studio.errors import StudioError
from studio.priors.clips import ClipPrior
from studio.renderers.cutouts import CutoutRenderer
from studio.types import Condition

FRAMES, SIZE = 3, 16


def puppet() -> Puppet:
    """A coloured square on two keypoints a side."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    inside = ((x - 15.5).abs() < 8) & ((y - 15.5).abs() < 10)
    rgba = torch.stack([8 * x, 8 * y, 0 * x + 90, 255 * inside], dim=-1).to(torch.uint8)
    columns, rows = torch.meshgrid(torch.linspace(48, 208, 5), torch.linspace(40, 216, 5), indexing="xy")
    vertices = torch.stack([columns, rows], dim=-1).reshape(-1, 2)
    corner = torch.arange(20).reshape(4, 5)[:, :4].reshape(-1)
    faces = torch.cat([
        torch.stack([corner, corner + 1, corner + 6], -1), torch.stack([corner, corner + 6, corner + 5], -1)
    ])  # fmt: skip
    sheet = Sheet(vertices, faces, torch.tensor([6, 8, 16, 18]), torch.tensor([[0, 1], [1, 3], [3, 2]]))
    return Puppet.of(Drawing(rgba, (), "square"), sheet)


@functools.cache
def drawn() -> tuple[Tensor, Tensor]:
    """Every performance, drawn here: colours over black and coverage, [k t _ h w]."""
    figure, renderer, camera = puppet(), CutoutRenderer(), front(SIZE, SIZE)
    rgb, alpha = [], []
    for gesture in GESTURES:
        for performance in performances(gesture):
            places = [performance(figure.keypoints, time) for time in frame_times(FRAMES).tolist()]
            seen = [renderer(each, camera, torch.zeros(1, 3)) for each in figure.posed(torch.stack(places))]
            rgb.append(torch.cat([each.rgb for each in seen]))
            alpha.append(torch.cat([each.alpha for each in seen]))
    return torch.stack(rgb), torch.stack(alpha)


def clips(background: Tensor) -> Tensor:
    """Every performance over a background for each frame, [k t 3 h w] in -1 to 1."""
    rgb, alpha = drawn()
    return 2 * (rgb + (1 - alpha) * background[:, :, None, None]) - 1


@pytest.fixture(scope="module")
def prior() -> ClipPrior:
    return ClipPrior(puppet(), FRAMES, SIZE, std=0.3)


@pytest.mark.parametrize("prompt", ["the square jumps and waves", ""])
def test_the_score_is_the_slope_of_the_log_density(prior: ClipPrior, prompt: str) -> None:
    rng = torch.Generator().manual_seed(0)
    background = torch.rand(2 * FRAMES, 3, generator=rng)
    timesteps = torch.tensor([300.0, 300, 300, 650, 400, 820])  # of two clips; frames need not share one
    x_t = 0.5 * torch.randn(2 * FRAMES, 3, SIZE, SIZE, generator=rng)
    embedded = prior.encode_prompts([prompt])
    weights = embedded.tokens[0, 0].double()
    assert float(weights.sum()) == pytest.approx(1.0)
    noise = prior.predict_noise(x_t, timesteps, Condition(embedded, background=background))

    alpha, sigma = prior.schedule.alpha_sigma(timesteps, torch.float64)
    variance = (alpha * prior.std).square() + sigma.square()
    for clip in range(2):
        rows = slice(clip * FRAMES, (clip + 1) * FRAMES)
        means = clips(background[rows]).double()
        x = x_t[rows].double().requires_grad_()
        logs = weights.log() - ((x - alpha[rows] * means).square() / (2 * variance[rows])).flatten(1).sum(1)
        (slope,) = torch.autograd.grad(torch.logsumexp(logs, 0), x)
        expected = -sigma[rows] * slope
        # Means are kept in 256 steps.
        assert float((noise[rows].double() - expected).abs().max()) < 0.02 * float(expected.abs().max())


def test_a_prompt_weighs_gestures_alike_however_many_members_they_have(prior: ClipPrior) -> None:
    (weights,) = prior.encode_prompts(["it jumps and waves"]).tokens[0]
    by_name = {gesture.name: 0.0 for gesture in GESTURES}
    for performance, weight in zip(prior.performances, weights.tolist(), strict=True):
        by_name[performance.gesture.name] += weight
    assert by_name["jump"] == pytest.approx(0.5) and by_name["wave"] == pytest.approx(0.5)


def test_the_nearest_performance_is_the_one_that_is_shown(prior: ClipPrior) -> None:
    truths = (clips(torch.ones(FRAMES, 3)) + 1) / 2
    for index in (0, 7, 20, len(truths) - 1):
        likeness = prior.nearest(truths[index])
        assert likeness.performance == prior.performances[index] and likeness.psnr_db > 40


def test_pictures_that_are_no_clips_are_refused(prior: ClipPrior) -> None:
    with pytest.raises(StudioError, match="4 pictures came; the motion prior expected clips of 3 frames"):
        prior.predict_noise(
            torch.zeros(4, 3, SIZE, SIZE), torch.full((4,), 500.0), Condition(prior.encode_prompts(["jump"]))
        )
