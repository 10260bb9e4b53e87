"""Pixel guidance against autograd of its loss, SciPy's Gaussian and frames that are known."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from studio.cameras import filmed, front, orbit
from studio.errors import StudioError
from studio.guidance.pixels import Filmed, PixelGuidance, blurred
from studio.recipes.guidance import FootageConfig, PixelsConfig
from studio.recipes.ramps import Piecewise
from studio.types import Cameras, Condition, Conditioning, PromptEmbedding
from studio.video import Footage

SIDE = 12
RNG = torch.Generator()


class Fixed:
    """Pictures that are known of some views."""

    def __init__(self, rgb: Float[Tensor, "b 3 h w"], known: Bool[Tensor, "b"]) -> None:
        self.rgb, self.known = rgb, known

    def knows(self, cameras: Cameras) -> Bool[Tensor, "b"]:
        return self.known

    def __call__(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 h w"]:
        return self.rgb[self.known]


def images(count: int, seed: int) -> Float[Tensor, "b 3 h w"]:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, SIDE, SIDE, generator=rng, dtype=torch.float64)


def told(cameras: Cameras | None, grey: float | None = None) -> Conditioning:
    background = None if cameras is None or grey is None else torch.full((len(cameras), 3), grey)
    condition = Condition(PromptEmbedding(torch.zeros(1, 1, 1)), cameras, background)
    return Conditioning(condition, condition)


def views(count: int) -> Cameras:
    return orbit(torch.linspace(0, 90, count), torch.zeros(count), SIDE, SIDE)


def config(**changes: object) -> PixelsConfig:
    return PixelsConfig(target=FootageConfig(path="unused.mp4"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("blur_px", [0.0, 1.0])
@pytest.mark.parametrize("known", [[True, True, True], [True, False, True], [False, False, False]])
def test_the_gradient_is_that_of_the_mean_squared_error(blur_px: float, known: list[bool]) -> None:
    rgb, target, mask = images(3, 0).requires_grad_(), images(3, 1), torch.tensor(known)
    output = PixelGuidance(Fixed(target, mask), config(blur_px=blur_px))(rgb, told(views(3)), 0.5, RNG)
    shown = blurred(rgb, blur_px), blurred(target, blur_px)
    loss = ((shown[0] - shown[1]).square() * mask[:, None, None, None]).mean()
    (gradient,) = torch.autograd.grad(loss, rgb, retain_graph=True)
    (given,) = torch.autograd.grad(output.loss, rgb)
    torch.testing.assert_close(output.loss, loss)
    torch.testing.assert_close(output.gradient / 3, gradient)
    torch.testing.assert_close(given, gradient)
    assert output.denoiser_calls == 0 and output.terms["known"] == pytest.approx(sum(known) / 3)


def test_a_step_along_one_pixel_changes_the_loss_as_the_gradient_says() -> None:
    guidance = PixelGuidance(Fixed(images(1, 1), torch.ones(1, dtype=torch.bool)), config(blur_px=1.3))
    rgb, step = images(1, 0), torch.zeros(1, 3, SIDE, SIDE, dtype=torch.float64)
    step[0, 1, 0, 5] = 1e-6
    ahead, behind = (guidance(rgb + sign * step, told(views(1)), 0.0, RNG).loss for sign in (1, -1))
    gradient = guidance(rgb, told(views(1)), 0.0, RNG).gradient[0, 1, 0, 5]
    assert float((ahead - behind) / 2e-6) == pytest.approx(float(gradient), rel=1e-6)


def test_the_blur_is_a_gaussian_that_follows_its_ramp() -> None:
    picture = images(1, 0)
    for std_px, reach in ((1.0, 2), (0.6, 2), (2.0, 4)):
        truth = gaussian_filter(
            picture[0].numpy(), (0, std_px, std_px), mode="constant", radius=(0, reach, reach)
        )
        torch.testing.assert_close(blurred(picture, std_px)[0], torch.from_numpy(truth))
    ramp = Piecewise(points=((0.0, 1.0), (0.6, 1.0), (0.6, 0.0)))
    guidance = PixelGuidance(Fixed(images(1, 1), torch.ones(1, dtype=torch.bool)), config(blur_px=ramp))
    sharp = (picture - images(1, 1)).square().mean()
    assert float(guidance(picture, told(views(1)), 0.59, RNG).loss) < 0.5 * float(sharp)
    torch.testing.assert_close(guidance(picture, told(views(1)), 0.6, RNG).loss, sharp)


def test_it_wants_to_know_the_cameras() -> None:
    guidance = PixelGuidance(Fixed(images(1, 1), torch.ones(1, dtype=torch.bool)), config())
    with pytest.raises(StudioError, match="tell_camera"):
        guidance(images(1, 0), told(None), 0.0, RNG)


def test_frames_at_their_times() -> None:
    rgb = torch.arange(3.0)[:, None, None, None].expand(3, 3, SIDE, SIDE) / 2
    cameras = filmed(front(SIDE, SIDE), torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]))
    white = torch.ones(len(cameras), 3)
    blended = Filmed(Footage(rgb, None, 8.0))(cameras, white)[:, 0, 3, 3]
    torch.testing.assert_close(blended, torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]))
    nearer = Filmed(Footage(rgb, None, 8.0), nearest=True)(cameras, white)[:, 0, 3, 3]
    torch.testing.assert_close(nearer, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    at_rest = Filmed(Footage(rgb, None, 8.0))(front(SIDE, SIDE), white[:1])
    torch.testing.assert_close(at_rest[0], rgb[0])


def test_a_wide_video_stands_in_the_middle_over_the_background() -> None:
    alpha = torch.full((2, 1, SIDE, 2 * SIDE), 0.5)
    seen = Filmed(Footage(alpha.expand(2, 3, -1, -1) * 0.2, alpha, 8.0))(
        front(SIDE, SIDE), torch.tensor([[0.0, 0.5, 1.0]])
    )[0, :, :, SIDE // 2]
    expected = torch.tensor([0.0, 0.5, 1.0])[:, None].repeat(1, SIDE)
    expected[:, SIDE // 4 : -SIDE // 4] = 0.1 + 0.5 * expected[:, SIDE // 4 : -SIDE // 4]
    torch.testing.assert_close(seen, expected)


def test_a_video_knows_the_view_from_the_front() -> None:
    cameras = orbit(torch.tensor([0.0, 360.0, 20.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 30.0]), SIDE, SIDE)
    film = Filmed(Footage(torch.zeros(2, 3, SIDE, SIDE), None, 8.0))
    assert film.knows(cameras).tolist() == [True, True, False, False]
