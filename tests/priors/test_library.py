"""The exact prior against autograd, the analytic Gaussian and counting, on three painted discs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

from studio.cameras import fibonacci_sphere, orbit
from studio.errors import StudioError
from studio.interfaces import Prior
from studio.priors.catalogue import Catalogue, CatalogueEntry
from studio.priors.library import CameraMode, LibraryPrior, NullModel, fixed_views, library_schedule
from studio.types import Cameras, Condition, Material, Mesh, PromptEmbedding, RenderOutput

SIZE = 8
COLORS = {"red chair": (0.9, 0.2, 0.1), "blue chair": (0.1, 0.2, 0.9), "teapot": (0.2, 0.9, 0.3)}


def triangle(color: tuple[float, float, float]) -> Mesh:
    vertices = torch.tensor([[0.0, 0.5, 0.0], [-0.4, -0.3, 0.0], [0.4, -0.3, 0.0]])
    return Mesh(vertices, torch.tensor([[0, 1, 2]]), materials=(Material((*color, 1.0)),))


@dataclass
class PaintedDiscs:
    """Draws a mesh as a disc of its colour that darkens with the azimuth, with a half-covered rim."""

    calls: int = 0

    def __call__(self, primitives: Mesh, cameras: Cameras, background: torch.Tensor) -> RenderOutput:
        self.calls += len(cameras)
        rows, columns = torch.meshgrid(
            torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij"
        )
        radius = torch.hypot(rows - cameras.height / 2 + 0.5, columns - cameras.width / 2 + 0.5)
        alpha = (radius < SIZE / 3).float() - 0.5 * ((radius >= SIZE / 4) & (radius < SIZE / 3)).float()
        alpha = alpha.expand(len(cameras), 1, -1, -1)
        shade = 0.6 + 0.4 * torch.cos(torch.deg2rad(cameras.azimuth_deg))[:, None, None, None]
        color = torch.tensor(primitives.materials[0].base_color[:3])[None, :, None, None]
        rgb = color * shade * alpha + background[:, :, None, None] * (1 - alpha)
        return RenderOutput(rgb, alpha)


def catalogue() -> Catalogue:
    return Catalogue(
        tuple(
            CatalogueEntry(
                id=name.replace(" ", "-"),
                noun=name.split()[-1],
                caption=f"a {name}",
                load=partial(triangle, color),
                colours=(name.split()[0],) if " " in name else (),
            )
            for name, color in COLORS.items()
        )
    )


def make_prior(
    camera: CameraMode = "exact",
    null: NullModel = "broad",
    std: float = 0.02,
    renderer: PaintedDiscs | None = None,
    cache_bytes: int = 2**20,
) -> LibraryPrior:
    return LibraryPrior(
        catalogue(),
        resolution=SIZE,
        camera=camera,
        null=null,
        std=std,
        renderer=renderer or PaintedDiscs(),
        cache_bytes=cache_bytes,
    )


def views(count: int = 2) -> Cameras:
    return orbit(torch.linspace(0, 120, count), torch.full((count,), 15.0), SIZE, SIZE)


def noisy(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).double()


def condition(prior: LibraryPrior, prompt: str, cameras: Cameras | None, color: float = 0.3) -> Condition:
    count = 2 if cameras is None else len(cameras)
    return Condition(prior.encode_prompts([prompt]), cameras, torch.full((count, 3), color))


def test_it_is_a_prior() -> None:
    assert isinstance(make_prior(), Prior)


@pytest.mark.parametrize("camera", ["exact", "view_words", "none"])
@pytest.mark.parametrize("null", ["broad", "subset"])
@pytest.mark.parametrize("prompt", ["a chair", "a teapot, back view", ""])
@pytest.mark.parametrize("timestep", [1.0, 400.0, 990.0])
def test_the_noise_is_minus_sigma_times_the_gradient_of_the_log_density(
    camera: CameraMode, null: NullModel, prompt: str, timestep: float
) -> None:
    prior = make_prior(camera, null, std=0.1)
    asked = condition(prior, prompt, views())
    timesteps = torch.full((2,), timestep)
    x_t = (0.2 * noisy(2)).requires_grad_()
    (score,) = torch.autograd.grad(prior.log_density(x_t, timesteps, asked).sum(), x_t)
    _, sigma = prior.schedule.alpha_sigma(timesteps, torch.float64)
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, asked).detach(), -sigma * score)


def test_one_model_is_the_analytic_gaussian() -> None:
    prior = make_prior(std=0.3)
    cameras = views()
    background = torch.tensor([[0.2, 0.5, 0.8], [1.0, 0.0, 0.4]])
    timesteps = torch.tensor([300.0, 700.0])
    x_t = noisy(2)
    asked = Condition(prior.encode_prompts(["a teapot"]), cameras, background)
    mean = prior.encode_images(prior.true_renderings("a teapot", cameras, background)[0]).double()
    alpha, sigma = prior.schedule.alpha_sigma(timesteps, torch.float64)
    expected = sigma * (x_t - alpha * mean) / (alpha**2 * 0.3**2 + sigma**2)
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, asked), expected, rtol=1e-5, atol=1e-6)


def test_true_renderings_are_the_renderer_s_up_to_eight_bits() -> None:
    prior, cameras = make_prior(), views(3)
    background = torch.tensor([[0.2, 0.5, 0.8]]).expand(3, 3)
    drawn = PaintedDiscs()(triangle(COLORS["teapot"]), cameras, background).rgb
    truth = prior.true_renderings("a teapot", cameras, background)
    assert truth.shape == (1, 3, 3, SIZE, SIZE)
    torch.testing.assert_close(truth[0], drawn, atol=1.01 / 255, rtol=0)


def test_the_background_only_shows_where_the_model_is_not() -> None:
    prior, cameras = make_prior(), views(1)
    black, white = (
        prior.true_renderings("a teapot", cameras, torch.full((1, 3), grey))[0, 0] for grey in (0.0, 1.0)
    )
    alpha = PaintedDiscs()(triangle(COLORS["teapot"]), cameras, torch.zeros(1, 3)).alpha[0]
    torch.testing.assert_close(white - black, (1 - alpha).expand(3, -1, -1), atol=1 / 255, rtol=0)


def test_single_precision_agrees_with_double() -> None:
    prior = make_prior()
    asked = condition(prior, "a chair", views())
    for timestep in (0.0, 200.0, 999.0):
        timesteps = torch.full((2,), timestep)
        truth = prior.encode_images(prior.true_renderings("a chair", views(), torch.full((2, 3), 0.3))[0])
        x_t = prior.schedule.add_noise(truth.double(), noisy(2), timesteps)
        exact = prior.predict_noise(x_t, timesteps, asked)
        torch.testing.assert_close(
            prior.predict_noise(x_t.float(), timesteps, asked).double(), exact, rtol=1e-3, atol=2e-4
        )


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_at_the_top_level_nothing_is_decided(resolution: int) -> None:
    schedule = library_schedule(resolution)
    alpha, sigma = schedule.alpha_sigma(torch.tensor([float(len(schedule) - 1)]), torch.float64)
    most_different_images = 3 * resolution**2 * 2.0**2
    log_odds = most_different_images * float(alpha) ** 2 / (2 * float(sigma) ** 2)
    assert log_odds < 1e-2


def test_responsibilities_are_the_weights_at_the_top_and_certain_at_the_bottom() -> None:
    prior = make_prior()
    asked = condition(prior, "a chair", views())
    truth = prior.encode_images(prior.true_renderings("a blue chair", views(), torch.full((2, 3), 0.3))[0])
    for timestep, expected, tolerance in ((999.0, [0.5, 0.5, 0.0], 1e-2), (0.0, [0.0, 1.0, 0.0], 1e-6)):
        timesteps = torch.full((2,), timestep)
        x_t = prior.schedule.add_noise(truth.double(), noisy(2), timesteps)
        shares = prior.responsibilities(x_t, timesteps, asked)
        torch.testing.assert_close(
            shares, torch.tensor([expected] * 2, dtype=torch.float64), atol=tolerance, rtol=0
        )


def test_weights_follow_the_prompt() -> None:
    prior = make_prior()
    tokens = prior.encode_prompts(["a chair", "a red chair", "a teapot, side view", ""]).tokens[:, 0]
    expected = torch.tensor(
        [
            [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0],
            [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(tokens, expected)


def test_unknown_words_are_warned_of_and_nothing_known_is_an_error() -> None:
    prior = make_prior()
    with pytest.warns(UserWarning, match="does not know 'teepot'; it is ignored. Did you mean 'teapot'"):
        prior.encode_prompts(["a chair beside a teepot"])
    with pytest.raises(StudioError, match="nothing for the prompt 'a dragon'"):
        prior.encode_prompts(["a dragon"])


def mean_picture(prior: LibraryPrior, asked: Condition) -> torch.Tensor:
    """The mean of the clean distribution: what the noise prediction points away from where all is noise."""
    timesteps = torch.full((1,), float(len(prior.schedule) - 1))
    x_t = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.float64)
    alpha, sigma = prior.schedule.alpha_sigma(timesteps, torch.float64)
    return (
        -prior.predict_noise(x_t, timesteps, asked) * (alpha**2 * prior.std**2 + sigma**2) / (alpha * sigma)
    )


@pytest.mark.parametrize(
    ("camera", "prompt", "word"),
    [
        ("view_words", "a teapot, front view", "front"),
        ("view_words", "a teapot, back view", "back"),
        ("view_words", "a teapot, overhead view", "above"),
        ("view_words", "a teapot", None),
        ("none", "a teapot, back view", None),
    ],
)
def test_without_exact_cameras_the_mixture_runs_over_the_fixed_views(
    camera: CameraMode, prompt: str, word: str | None
) -> None:
    prior = make_prior(camera)
    cameras, words = fixed_views(SIZE, SIZE)
    chosen = [place for place, of_view in enumerate(words) if word in (None, of_view)]
    background = torch.full((len(chosen), 3), 0.3)
    pictures = prior.true_renderings("a teapot", cameras[chosen], background)[0]
    asked = Condition(prior.encode_prompts([prompt]), views(1), background[:1])
    expected = prior.encode_images(pictures).mean(0, keepdim=True).double()
    torch.testing.assert_close(mean_picture(prior, asked), expected, atol=1e-2, rtol=0)


def test_a_blend_of_two_view_words_shares_the_mixture() -> None:
    prior = make_prior("view_words")
    front, back = prior.encode_prompts(["a teapot, front view", "a teapot, back view"]).tokens
    blended = PromptEmbedding((0.75 * front + 0.25 * back)[None])
    background = torch.full((1, 3), 0.3)
    parts = [
        mean_picture(prior, Condition(PromptEmbedding(token[None]), views(1), background))
        for token in (front, back)
    ]
    torch.testing.assert_close(
        mean_picture(prior, Condition(blended, views(1), background)),
        0.75 * parts[0] + 0.25 * parts[1],
        atol=1e-2,
        rtol=0,
    )


def test_a_condition_without_cameras_runs_over_all_views() -> None:
    exact, blind = make_prior("exact"), make_prior("none")
    timesteps, x_t = torch.full((2,), 500.0), noisy(2)
    torch.testing.assert_close(
        exact.predict_noise(x_t, timesteps, condition(exact, "a chair", None)),
        blind.predict_noise(x_t, timesteps, condition(blind, "a chair", views())),
    )


def test_the_broad_null_has_the_subset_s_mean_and_spread() -> None:
    prior = make_prior(null="broad")
    cameras, background = views(1), torch.tensor([[0.9, 0.4, 0.1]])
    pictures = torch.cat([prior.true_renderings(prompt, cameras, background)[0] for prompt in COLORS])
    values = prior.encode_images(pictures).double()
    mean = values.mean(0)
    spread = values.var(0, correction=0).mean() + prior.std**2
    timesteps, x_t = torch.tensor([400.0]), noisy(1)
    alpha, sigma = prior.schedule.alpha_sigma(timesteps, torch.float64)
    expected = sigma * (x_t - alpha * mean) / (alpha**2 * spread + sigma**2)
    asked = Condition(prior.encode_prompts([""]), cameras, background)
    torch.testing.assert_close(prior.predict_noise(x_t, timesteps, asked), expected, rtol=1e-4, atol=1e-5)


def test_the_subset_null_is_the_mixture_of_everything_in_a_small_catalogue() -> None:
    prior = make_prior(null="subset")
    tokens = torch.zeros(1, 1, 7)
    tokens[..., :3] = 1 / 3
    background = torch.full((2, 3), 0.3)
    timesteps, x_t = torch.full((2,), 700.0), noisy(2)
    torch.testing.assert_close(
        prior.predict_noise(x_t, timesteps, condition(prior, "", views())),
        prior.predict_noise(x_t, timesteps, Condition(PromptEmbedding(tokens), views(), background)),
    )


def test_a_batch_equals_its_images_one_by_one() -> None:
    prior = make_prior()
    cameras, x_t, timesteps = views(3), noisy(3), torch.tensor([10.0, 500.0, 900.0])
    prompts = prior.encode_prompts(["a chair", "a teapot", ""])
    background = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
    together = prior.predict_noise(x_t, timesteps, Condition(prompts, cameras, background))
    for row in range(3):
        alone = Condition(PromptEmbedding(prompts.tokens[[row]]), cameras[[row]], background[[row]])
        torch.testing.assert_close(prior.predict_noise(x_t[[row]], timesteps[[row]], alone)[0], together[row])


def test_renderings_are_drawn_once() -> None:
    renderer = PaintedDiscs()
    prior = make_prior(renderer=renderer)
    asked = condition(prior, "a chair", views())
    timesteps, x_t = torch.full((2,), 500.0), noisy(2)
    first = prior.predict_noise(x_t, timesteps, asked)
    assert renderer.calls == 4
    nearly = replace(views(), world_to_camera=views().world_to_camera + 1e-7)
    again = prior.predict_noise(x_t, timesteps, replace(asked, cameras=nearly))
    assert renderer.calls == 4
    torch.testing.assert_close(again, first, rtol=0, atol=0)


def test_warming_draws_everything_that_a_run_needs() -> None:
    renderer = PaintedDiscs()
    prior = make_prior(renderer=renderer)
    told: list[tuple[int, int]] = []
    cameras = views(4)
    report: Callable[[int, int], None] = lambda done, total: told.append((done, total))  # noqa: E731
    prior.warm(prior.encode_prompts(["a chair"]), cameras, report)
    assert told == [(1, 3), (2, 3), (3, 3)]
    drawn = renderer.calls
    for prompt in ("a chair", ""):
        prior.predict_noise(noisy(4), torch.full((4,), 500.0), condition(prior, prompt, cameras))
    assert renderer.calls == drawn


def test_a_small_cache_only_costs_drawing_again() -> None:
    renderer = PaintedDiscs()
    roomy, tight = make_prior(), make_prior(renderer=renderer, cache_bytes=4 * SIZE * SIZE)
    for prior in (roomy, tight):
        prior.predict_noise(noisy(2), torch.full((2,), 500.0), condition(prior, "a teapot", views()))
    drawn = renderer.calls
    results = [
        prior.predict_noise(noisy(2), torch.full((2,), 500.0), condition(prior, "a chair", views()))
        for prior in (roomy, tight)
    ]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert renderer.calls == drawn + 4


def test_the_nearest_entry_is_voted_for_by_the_views() -> None:
    prior = make_prior()
    cameras = fibonacci_sphere(5, SIZE, SIZE)
    background = torch.full((5, 3), 0.5)
    images = prior.true_renderings("a blue chair", cameras, background)[0]
    images[0] = prior.true_renderings("a teapot", cameras, background)[0, 0]
    found = prior.nearest_entry(images + 0.02, cameras, background)
    assert found.entry == prior.catalogue.index("blue-chair")
    assert found.votes == (2, 1, 1, 1, 1)


def test_images_become_the_variable_and_back() -> None:
    prior = make_prior()
    rgb = torch.rand(2, 3, 5, 7)
    x = prior.encode_images(rgb)
    assert float(x.min()) >= -1 and float(x.max()) <= 1
    torch.testing.assert_close(prior.decode_images(x), rgb)
    assert math.isclose(float(prior.encode_images(torch.ones(1, 3, 1, 1)).mean()), 1.0)
