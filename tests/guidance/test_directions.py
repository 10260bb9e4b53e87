"""Editing directions: against Hessians in closed form, and against finite differences of a real network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from studio.errors import StudioError
from studio.guidance.directions import Search, editing_directions, hessian_products
from studio.priors.analytic import AnalyticPrior
from studio.priors.latent import LatentPrior, Options, load_latent_prior
from studio.types import Condition, PromptEmbedding
from tests.guidance.bench import STABLE_DIFFUSION, gaussian, images
from tests.priors import models

SIZE, TOKENS, WIDTH = 48, 3, 2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class GaussianOfWords(AnalyticPrior):
    """N(tokens M, S): noise(x_t) = sigma (alpha² S + sigma²)^-1 (x_t - alpha M tokens)."""

    def __init__(self) -> None:
        super().__init__({"": gaussian(0.0, 0.5)}, STABLE_DIFFUSION)
        self.basis = torch.linalg.qr(random(SIZE, SIZE, seed=1)).Q
        self.variances = torch.linspace(0.05, 5.0, SIZE, dtype=torch.float64)
        self.words = random(SIZE, TOKENS * WIDTH, seed=2) / SIZE**0.5

    def precision(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.basis @ torch.diag(1 / (alpha**2 * self.variances + sigma**2)) @ self.basis.T

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        alpha, sigma = (part.flatten()[0] for part in STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64))
        offset = x_t.flatten(1) - alpha * condition.prompt.tokens.flatten(1) @ self.words.T
        return (sigma * offset @ self.precision(alpha, sigma)).view_as(x_t)

    def hessian(self, of: str, timestep: float) -> Tensor:
        """Of |sigma P (alpha x + sigma n - alpha M c) - n|² / 2: sigma² alpha² P², for c between M' and M."""
        levels = STABLE_DIFFUSION.alpha_sigma(torch.tensor([timestep]), torch.float64)
        alpha, sigma = (level.flatten()[0] for level in levels)
        inner = sigma**2 * alpha**2 * self.precision(alpha, sigma) @ self.precision(alpha, sigma)
        return inner if of == "image" else self.words.T @ inner @ self.words


@pytest.mark.parametrize("of", ["image", "prompt"])
def test_the_eigenvectors_of_a_gaussians_hessian(of: str) -> None:
    """At one level the Hessian knows neither image nor noise."""
    prior, level = GaussianOfWords(), 0.3
    search = Search(of=of, count=3, iterations=100, draws=2, levels=(level, level))  # type: ignore[arg-type]
    condition = Condition(PromptEmbedding(random(1, TOKENS, WIDTH, seed=3)))
    found = editing_directions(prior, images(1), condition, search, torch.Generator().manual_seed(0))
    values, vectors = torch.linalg.eigh(prior.hessian(of, level * (len(STABLE_DIFFUSION) - 1)))
    expected = vectors.flip(1)[:, :3].T
    assert found.vectors.shape == ((3, 3, 4, 4) if of == "image" else (3, TOKENS, WIDTH))
    along = (found.vectors.flatten(1) * expected).sum(dim=1)
    torch.testing.assert_close(found.vectors.flatten(1), along.sign()[:, None] * expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.curvatures, values.flip(0)[:3], rtol=1e-4, atol=0)


def test_over_many_levels_it_is_the_mean_hessian() -> None:
    prior = GaussianOfWords()
    search = Search(of="prompt", count=1, iterations=100, draws=5)
    condition = Condition(PromptEmbedding(random(1, TOKENS, WIDTH, seed=3)))
    found = editing_directions(prior, images(1), condition, search, torch.Generator().manual_seed(4))
    rng, mean = torch.Generator().manual_seed(4), torch.zeros(TOKENS * WIDTH, TOKENS * WIDTH).double()
    for _ in range(5):
        level = 0.02 + 0.96 * torch.rand(1, generator=rng).item()
        torch.randn(1, 3, 4, 4, generator=rng, dtype=torch.float64)
        mean += prior.hessian("prompt", level * (len(STABLE_DIFFUSION) - 1)) / 5
    values, vectors = torch.linalg.eigh(mean)
    assert abs((found.vectors.flatten() @ vectors[:, -1]).item()) == pytest.approx(1.0, abs=1e-6)
    assert found.curvatures.item() == pytest.approx(values[-1].item(), rel=1e-4)


def test_products_with_a_hessian_by_hand() -> None:
    """Of x² y: [[2y, 2x], [2x, 0]]."""
    at = torch.tensor([3.0, 5.0])
    got = hessian_products(lambda z: z[0] ** 2 * z[1], at, torch.eye(2))
    assert got.tolist() == [[10.0, 6.0], [6.0, 0.0]]


def loaded(folder: Path, differentiable: bool) -> tuple[LatentPrior, Condition, Tensor]:
    options = Options(dtype=torch.float64, cache_folder=folder / "text", differentiable=differentiable)
    prior = load_latent_prior(models.save_sd(folder / "model"), options=options)
    prompt = prior.encode_prompts(["a red cube"])
    x = random(1, 4, 8, 8, seed=5)
    return prior, Condition(replace(prompt, tokens=prompt.tokens.double())), x


def test_a_direction_of_a_real_network_curves_as_finite_differences_say(tmp_path: Path) -> None:
    prior, condition, x = loaded(tmp_path, differentiable=True)
    search = Search(of="prompt", iterations=40, draws=1, levels=(0.5, 0.5))
    found = editing_directions(prior, x, condition, search, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    timesteps = 0.5 * (len(prior.schedule) - 1) + 0.0 * torch.rand(1, generator=rng)
    noise = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    x_t = prior.schedule.add_noise(x, noise, timesteps)

    def loss(step: float) -> float:
        tokens = condition.prompt.tokens + step * found.vectors
        told = replace(condition, prompt=replace(condition.prompt, tokens=tokens))
        return float((prior.predict_noise(x_t, timesteps, told) - noise).square().sum() / 2)

    h = 1e-2
    second = (loss(h) - 2 * loss(0.0) + loss(-h)) / h**2
    assert found.curvatures.item() == pytest.approx(second, rel=2e-2)
    random_way = torch.nn.functional.normalize(random(1, 16 * models.TEXT, seed=8)).view_as(found.vectors)
    found = replace(found, vectors=random_way)
    assert abs(loss(h) - 2 * loss(0.0) + loss(-h)) / h**2 < abs(second) / 2


def test_a_prior_without_gradients_is_refused(tmp_path: Path) -> None:
    prior, condition, x = loaded(tmp_path, differentiable=False)
    with pytest.raises(StudioError, match="lets no gradients through") as error:
        editing_directions(prior, x, condition, Search(), torch.Generator())
    assert "\n" not in str(error.value)
