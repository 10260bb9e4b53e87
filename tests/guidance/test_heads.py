"""Editing by a second prompt, identities, and pictures protected from imitation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from studio.cameras import orbit
from studio.errors import StudioError
from studio.guidance.identity import with_identity
from studio.guidance.methods import method_of, negative_prompts
from studio.guidance.protection import Protection, protect
from studio.priors.analytic import AnalyticPrior
from studio.recipes.guidance import IesdConfig, IsdConfig, SdsConfig, VsdConfig
from studio.types import Condition, Conditioning, NegativePrompt
from studio.view_prompts import ViewPrompts
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    branch,
    by_name,
    conditioning_of,
    constant,
    expected_gradient,
    gaussian,
    images,
    mixtures,
    random_mixture,
    run,
)
from tests.guidance.critics import knowing, run_beside

TIME = 500.0


def iesd(edit_weight: float, edit: str = "neg") -> Tensor:
    prior = mixtures()
    config = IesdConfig(edit_weight=edit_weight, cfg_scale=7.5)
    conditioning = conditioning_of(prior, negatives=[edit])
    return run(method_of(config), prior, conditioning, images(2), TIME, images(2, 1)).gradient


def sds(prompt: str) -> Tensor:
    prior, config = mixtures(), SdsConfig(cfg_scale=7.5, weight="fantasia3d")
    conditioning = conditioning_of(prior, prompt)
    return run(method_of(config), prior, conditioning, images(2), TIME, images(2, 1)).gradient


def test_an_edit_is_sds_of_a_mean_of_prompts() -> None:
    torch.testing.assert_close(iesd(0.0), sds("c"))
    torch.testing.assert_close(iesd(1.0), sds("neg"))
    torch.testing.assert_close(iesd(0.3), 0.7 * sds("c") + 0.3 * sds("neg"))
    assert (sds("c") - sds("neg")).norm() > 1


def test_an_edit_that_changes_nothing_has_no_weight() -> None:
    torch.testing.assert_close(iesd(0.2, edit="c"), iesd(0.9, edit="c"))
    assert negative_prompts(IesdConfig(edit_prompt="an old man")) == (NegativePrompt("an old man"),)


class TellsTextsApart(AnalyticPrior):
    """Mixtures by text; a token is the text's place."""

    texts = ("", "c, front view", "c, side view", "c, back view", "c, overhead view", "neg")

    def __init__(self) -> None:
        super().__init__({text: random_mixture(i) for i, text in enumerate(self.texts)}, STABLE_DIFFUSION)


@pytest.mark.parametrize("front_only", [True, False])
def test_an_edit_of_the_front_leaves_the_back_to_sds(front_only: bool) -> None:
    """Image by image: the front is edited, side and back are SDS of the prompt, or everything is edited."""
    prior, cameras = TellsTextsApart(), orbit(torch.tensor([0.0, 90.0, 180.0]), torch.zeros(3), 4, 4)
    edited, plain = (
        method_of(IesdConfig(edit_weight=weight, edit_prompt="neg", cfg_scale=7.5, front_only=front_only))
        for weight in (0.4, 0.0)
    )
    conditioning = ViewPrompts(prior, "c", negatives=edited.negatives)(cameras)
    with_edit, without = (
        run(method, prior, conditioning, images(3), TIME, images(3, 1)).gradient for method in (edited, plain)
    )
    change = (with_edit - without).abs().amax(dim=(1, 2, 3))
    assert change[0] > 0.1
    assert bool((change[1:] < 1e-9).all()) is front_only
    if not front_only:
        assert bool((change[1:] > 0.1).all())


@pytest.mark.parametrize("edit_weight", [0.0, 0.4, 1.0])
def test_edits_come_to_rest_between_the_prompts(edit_weight: float) -> None:
    prior = by_name({"": gaussian(0.0, 0.5), "c": gaussian(1.0, 0.5), "edit": gaussian(-2.0, 0.5)})
    method = method_of(IesdConfig(edit_weight=edit_weight, cfg_scale=1.0))
    rest = constant(1.0 + edit_weight * (-2.0 - 1.0))
    conditioning = conditioning_of(prior, negatives=["edit"])
    at_rest, beside = (
        expected_gradient(method, prior, conditioning, x, TIME).abs().max() for x in (rest, rest + 0.1)
    )
    assert at_rest < 1e-12 < 1e-3 < beside


def test_isd_has_the_form_of_vsd_or_of_sds() -> None:
    prior, critic = mixtures(), knowing(random_mixture(3))
    rest = (prior, conditioning_of(prior), images(2), TIME, images(2, 1))
    isd = run_beside(critic, method_of(IsdConfig()), *rest).gradient
    vsd = run_beside(critic, method_of(VsdConfig(cfg_scale=50.0)), *rest).gradient
    assert torch.equal(isd, vsd)
    with_noise = run(method_of(IsdConfig(form="sds")), *rest).gradient
    assert torch.equal(with_noise, run(method_of(SdsConfig(cfg_scale=50.0)), *rest).gradient)


class KnowsFaces(AnalyticPrior):
    """N(0, 0.5²), shifted by what the last token says."""

    def __init__(self) -> None:
        super().__init__({"": gaussian(0.0, 0.5), "c": gaussian(0.0, 0.5)}, STABLE_DIFFUSION)

    def predict_noise(self, x_t: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        shift = condition.prompt.expanded(len(x_t)).tokens[:, -1, 0].double()[:, None, None, None]
        alpha, sigma = STABLE_DIFFUSION.alpha_sigma(timesteps, torch.float64)
        return sigma * (x_t - alpha * shift) / (0.25 * alpha**2 + sigma**2)


def seen_from(azimuth_deg: list[float], identity: float) -> Conditioning:
    prior = KnowsFaces()
    cameras = orbit(torch.tensor(azimuth_deg), torch.zeros(len(azimuth_deg)), 4, 4)
    told = Conditioning(
        replace(branch(prior, "c"), cameras=cameras), replace(branch(prior, ""), cameras=cameras)
    )
    return with_identity(told, torch.full((2, 1), identity), torch.zeros(2, 1))


def test_an_identity_moves_the_views_that_show_the_face_and_no_others() -> None:
    prior, method = KnowsFaces(), method_of(SdsConfig(cfg_scale=1.0))
    angles = [0.0, 69.0, 71.0, 180.0, -69.0, 289.0, 291.0]
    faces = torch.tensor([0.8, 0.8, 0.0, 0.0, 0.8, 0.0, 0.8])
    conditioning = seen_from(angles, 0.8)
    assert conditioning.positive.prompt.tokens[:, -1, 0].tolist() == faces.tolist()
    assert conditioning.positive.prompt.tokens.shape == (7, 3, 1)
    assert conditioning.null.prompt.tokens.flatten().tolist() == [0.0, 0.0, 0.0]
    at_rest = faces.double()[:, None, None, None].expand(-1, 3, 4, 4)
    got = run(method, prior, conditioning, at_rest, TIME, torch.zeros_like(at_rest)).gradient
    assert got.abs().max() < 1e-7


def test_a_critic_is_told_the_identity_too() -> None:
    prior = KnowsFaces()
    cameras = orbit(torch.tensor([0.0, 180.0]), torch.zeros(2), 4, 4)
    positive, null = (replace(branch(prior, text), cameras=cameras) for text in ("c", ""))
    told = with_identity(Conditioning(positive, null, plain=positive), torch.ones(2, 1), torch.zeros(2, 1))
    assert told.plain is not None
    assert torch.equal(told.plain.prompt.tokens, told.positive.prompt.tokens)
    assert told.plain.prompt.tokens[:, -1, 0].tolist() == [1.0, 0.0]


def test_nobodys_identity_changes_nothing() -> None:
    conditioning = seen_from([0.0, 180.0], 0.0)
    assert not conditioning.positive.prompt.tokens[:, 1:].any()


def test_identities_need_cameras_and_tokens_of_the_right_width() -> None:
    told = conditioning_of(KnowsFaces())
    with pytest.raises(StudioError, match="expected cameras"):
        with_identity(told, torch.zeros(2, 1), torch.zeros(2, 1))
    cameras = orbit(torch.zeros(1), torch.zeros(1), 4, 4)
    told = replace(told, positive=replace(told.positive, cameras=cameras))
    with pytest.raises(StudioError, match=r"shapes \(2, 3\) and \(2, 3\); expected .* width 1"):
        with_identity(told, torch.zeros(2, 3), torch.zeros(2, 3))


# Protection


class Scaled(AnalyticPrior):
    """Images times given numbers, of both signs: a linear encoder."""

    factors = torch.where(images(1, 8) > 0, 2.0, -1.5)

    def encode_images(self, rgb: Tensor) -> Tensor:
        return self.factors * rgb


def protected(direction: str, steps: int, mean: float = 0.3) -> tuple[Tensor, Tensor, Scaled]:
    prior = Scaled({"": gaussian(mean, 0.1)}, STABLE_DIFFUSION)
    pictures = 0.5 + 0.1 * images(2).clamp(-1, 1)
    how = Protection(radius=0.06, step=0.01, steps=steps, direction=direction)  # type: ignore[arg-type]
    rng = torch.Generator().manual_seed(0)
    return pictures, protect(prior, pictures, branch(prior, ""), how, rng), prior


@pytest.mark.parametrize("direction", ["towards", "away"])
def test_protected_pictures_stay_in_their_box(direction: str) -> None:
    pictures, after, _ = protected(direction, 20)
    change = (after - pictures).abs()
    assert change.max().item() == pytest.approx(0.06, abs=1e-12)
    assert after.min() >= 0 and after.max() <= 1 and not after.requires_grad


@pytest.mark.parametrize(("direction", "closer"), [("towards", True), ("away", False)])
def test_protection_moves_the_encoded_picture(direction: str, closer: bool) -> None:
    """A Gaussian's score points to its mean."""
    pictures, after, prior = protected(direction, 20)
    before, now = ((prior.encode_images(rgb) - 0.3).abs().mean() for rgb in (pictures, after))
    assert bool(now < before) is closer


def test_one_step_is_the_sign_of_the_gradient() -> None:
    """Through a linear encoder it is the sign of its factors times that of the score's residual."""
    pictures, after, prior = protected("away", 1)
    rng = torch.Generator().manual_seed(0)
    timesteps = torch.randint(1000, (2,), generator=rng).float()
    noise = torch.randn(pictures.shape, generator=rng, dtype=torch.float64)
    x_t = STABLE_DIFFUSION.add_noise(prior.encode_images(pictures), noise, timesteps)
    residual = prior.predict_noise(x_t, timesteps, branch(prior, "")) - noise
    expected = pictures + 0.01 * (prior.factors * residual).sign()
    torch.testing.assert_close(after, expected)
