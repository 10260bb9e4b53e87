"""The exact prior over models that move: as exact at every instant as it is at rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from studio.cameras import filmed
from studio.priors.library import CameraMode, LibraryPrior, Member, NullModel, fixed_views
from studio.priors.motions import KnownMotion
from studio.types import Cameras, Condition, Mesh, RenderOutput
from tests.priors.test_library import (
    SIZE,
    PaintedDiscs,
    catalogue,
    condition,
    mean_picture,
    noisy,
    triangle,
    views,
)

TIMES = torch.tensor([0.2, 0.7])
RISE = KnownMotion("rise", lambda points, time: points + torch.tensor([0.0, time, 0.0]))
SINK = KnownMotion("sink", lambda points, time: points - torch.tensor([0.0, time, 0.0]))


@dataclass
class RisingDiscs(PaintedDiscs):
    """Also darkens and brightens with the height of the mesh."""

    def __call__(self, primitives: Mesh, cameras: Cameras, background: torch.Tensor) -> RenderOutput:
        shown = super().__call__(primitives, cameras, background)
        shade = 0.5 + 0.4 * primitives.vertices[0, 1]
        return replace(shown, rgb=shown.alpha * shade + background[:, :, None, None] * (1 - shown.alpha))


def make_prior(
    *motions: KnownMotion,
    camera: CameraMode = "exact",
    null: NullModel = "broad",
    std: float = 0.1,
    renderer: RisingDiscs | None = None,
) -> LibraryPrior:
    return LibraryPrior(
        catalogue(),
        resolution=SIZE,
        camera=camera,
        null=null,
        std=std,
        motions=motions,
        renderer=renderer or RisingDiscs(),
    )


def moving(times: torch.Tensor = TIMES) -> Cameras:
    return replace(views(len(times)), time=times)


@pytest.mark.parametrize("camera", ["exact", "view_words", "none"])
@pytest.mark.parametrize("prompt", ["a teapot, back view", ""])
def test_the_noise_is_minus_sigma_times_the_gradient_of_the_log_density(
    camera: CameraMode, prompt: str
) -> None:
    prior = make_prior(RISE, SINK, camera=camera)
    asked, timesteps = condition(prior, prompt, moving()), torch.full((2,), 400.0)
    x_t = (0.2 * noisy(2)).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_density(x_t, timesteps, asked).sum(), x_t)
    _, sigma = prior.schedule.alpha_sigma(timesteps, torch.float64)
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, asked).detach(), -sigma * score)


def test_each_image_is_scored_against_the_model_at_its_own_time() -> None:
    prior, background = make_prior(RISE), torch.full((2, 3), 0.3)
    still = triangle((0.0, 0.0, 0.0))
    means = torch.cat(
        [
            RisingDiscs()(RISE.of(still, float(time)), moving()[[row]], background[[row]]).rgb
            for row, time in enumerate(TIMES)
        ]
    )
    truth = prior.true_renderings("a teapot", moving(), background)[0]
    torch.testing.assert_close(truth, means, atol=1.01 / 255, rtol=0)
    timesteps, x_t = torch.tensor([300.0, 700.0]), noisy(2)
    alpha, sigma = prior.schedule.alpha_sigma(timesteps, torch.float64)
    mean = prior.encode_images(truth).double()
    expected = sigma * (x_t - alpha * mean) / (alpha**2 * 0.1**2 + sigma**2)
    asked = condition(prior, "a teapot", moving())
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, asked), expected, rtol=1e-5, atol=1e-6)


def test_without_a_time_models_are_at_rest() -> None:
    prior, still = make_prior(RISE, SINK), make_prior()
    timesteps, x_t = torch.full((2,), 500.0), noisy(2)
    for cameras in (views(), None):
        torch.testing.assert_close(
            prior.predict_noise(x_t, timesteps, condition(prior, "a chair", cameras)),
            still.predict_noise(x_t, timesteps, condition(still, "a chair", cameras)),
        )
    at_rest = prior.true_renderings("a chair", views(), torch.ones(2, 3))
    assert torch.equal(at_rest, still.true_renderings("a chair", views(), torch.ones(2, 3)))
    assert [member.motion for member in prior.members("a chair", at_rest=True)] == [None, None]


def test_several_motions_are_a_mixture_of_each() -> None:
    both, rising, sinking = make_prior(RISE, SINK), make_prior(RISE), make_prior(SINK)
    timesteps, x_t = torch.full((2,), 500.0), noisy(2)
    apart = [
        prior.log_density(x_t, timesteps, condition(prior, "a chair", moving()))
        for prior in (rising, sinking)
    ]
    together = both.log_density(x_t, timesteps, condition(both, "a chair", moving()))
    torch.testing.assert_close(together, torch.stack(apart).logsumexp(0) - torch.tensor(2.0).double().log())
    chairs = both.match("a chair").members
    assert both.members("a chair") == tuple(
        Member(entry, motion) for entry in chairs for motion in (RISE, SINK)
    )
    truths = both.true_renderings("a chair", moving(), torch.ones(2, 3))
    assert torch.equal(truths[1::2], sinking.true_renderings("a chair", moving(), torch.ones(2, 3)))
    shares = both.responsibilities(noisy(2), torch.full((2,), 999.0), condition(both, "a chair", moving()))
    torch.testing.assert_close(shares, torch.tensor([[0.5, 0.5, 0.0]] * 2).double(), atol=1e-2, rtol=0)


def test_where_the_camera_is_unknown_the_time_is_not() -> None:
    prior, (cameras, _) = make_prior(RISE, camera="none", std=0.02), fixed_views(SIZE, SIZE)
    background = torch.full((len(cameras), 3), 0.3)
    at_once = replace(cameras, time=torch.full((len(cameras),), 0.7))
    expected = prior.encode_images(prior.true_renderings("a teapot", at_once, background)[0]).mean(
        0, keepdim=True
    )
    asked = Condition(prior.encode_prompts(["a teapot"]), moving(TIMES[1:]), background[:1])
    torch.testing.assert_close(mean_picture(prior, asked), expected.double(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("null", ["broad", "subset"])
def test_pictures_are_kept_by_time_where_the_models_move(null: NullModel) -> None:
    renderer = RisingDiscs()
    prior = make_prior(RISE, null=null, renderer=renderer)
    timesteps, x_t = torch.full((2,), 500.0), noisy(2)

    def drawn(prompt: str, times: torch.Tensor) -> int:
        before = renderer.calls
        prior.predict_noise(x_t, timesteps, condition(prior, prompt, moving(times)))
        return renderer.calls - before

    assert drawn("a teapot", TIMES) == 2
    assert drawn("a teapot", TIMES + 1e-8) == 0
    assert drawn("a teapot", TIMES.flip(0)) == 2  # other cameras at these times
    assert drawn("", TIMES) == 2 * 3  # at rest
    assert drawn("", TIMES.flip(0)) == 0


def test_warming_draws_what_a_run_needs() -> None:
    renderer = RisingDiscs()
    prior = make_prior(RISE, renderer=renderer)
    cameras = filmed(views(), TIMES)
    prior.warm(prior.encode_prompts(["a teapot"]), cameras)
    assert renderer.calls == 3 * 2 + 4
    for prompt in ("a teapot", ""):
        prior.predict_noise(noisy(4), torch.full((4,), 500.0), condition(prior, prompt, cameras))
    assert renderer.calls == 3 * 2 + 4
