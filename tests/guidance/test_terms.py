from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from studio.cameras import orbit
from studio.errors import StudioError
from studio.guidance.forward import diffused
from studio.guidance.state import MAIN, NEGATIVE, NULL, POSITIVE, Branch, State, Term
from studio.guidance.terms import ScoreBank, perp_neg, perpendicular
from studio.ops.classifier_free import cfg
from studio.schedule import Prediction
from studio.types import Condition, Conditioning
from tests.guidance.bench import (
    STABLE_DIFFUSION,
    CountingPrior,
    branch,
    conditioning_of,
    images,
    mixtures,
    with_wrong_views,
)

TIMESTEPS = torch.tensor([50.0, 400.0, 900.0])
WEIGHTS = torch.tensor([[-0.2, -1.1, -0.7], [-1.6, 0.0, -0.4]])


def state_of(batch: int = 3) -> State:
    levels = {MAIN: TIMESTEPS[:batch], "later": TIMESTEPS[:batch] / 2}
    return diffused(images(batch), images(batch, seed=1), levels, STABLE_DIFFUSION)


def perp_neg_inputs() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    return images(3, 0), images(3, 1), [images(3, 2), images(3, 3)]


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_cfg_has_one_convention(scale: float) -> None:
    null, positive = images(2, 0), images(2, 1)
    torch.testing.assert_close(cfg(null, positive, scale), (1 - scale) * null + scale * positive)


def test_perpendicular_is_perpendicular_and_only_that_is_lost() -> None:
    vector, axis = images(5, 0), images(5, 1)
    across = perpendicular(vector, axis)
    for row in range(5):
        assert abs(torch.dot(across[row].flatten(), axis[row].flatten()).item()) < 1e-9
        lost = (vector - across)[row].flatten()
        cosine = torch.nn.functional.cosine_similarity(lost, axis[row].flatten(), dim=0)
        assert abs(cosine.item()) == pytest.approx(1.0, abs=1e-12)


def test_perp_neg_without_weights_is_the_prompt() -> None:
    null, positive, repulsions = perp_neg_inputs()
    torch.testing.assert_close(perp_neg(null, positive, repulsions, torch.zeros(2, 3)), positive)


def test_perp_neg_ignores_a_negative_along_the_prompt() -> None:
    null, positive, _ = perp_neg_inputs()
    along = [null + 0.4 * (positive - null), null - 2.0 * (positive - null)]
    torch.testing.assert_close(perp_neg(null, positive, along, WEIGHTS), positive)


def test_perp_neg_leaves_the_component_along_the_prompt() -> None:
    null, positive, repulsions = perp_neg_inputs()
    delta = (positive - null).flatten(1)
    pushed = (perp_neg(null, positive, repulsions, WEIGHTS) - null).flatten(1)
    torch.testing.assert_close((pushed * delta).sum(1), (delta * delta).sum(1))
    assert (pushed - delta).norm() > 1


@pytest.mark.parametrize("prediction", [Prediction.V, Prediction.X0, Prediction.FLOW])
def test_perp_neg_and_cfg_commute_with_the_prediction_type(prediction: Prediction) -> None:
    """Combined as the network's outputs or as noises: the same."""
    null, positive, repulsions = perp_neg_inputs()
    x_t = images(3, 4)

    def output(noise: torch.Tensor) -> torch.Tensor:
        return STABLE_DIFFUSION.output_from_noise(noise, x_t, TIMESTEPS, prediction)

    as_noise = cfg(null, perp_neg(null, positive, repulsions, WEIGHTS), 7.5)
    outputs = [output(repulsion) for repulsion in repulsions]
    as_output = cfg(output(null), perp_neg(output(null), output(positive), outputs, WEIGHTS), 7.5)
    torch.testing.assert_close(output(as_noise), as_output)


def test_distinct_terms_take_one_forward_pass() -> None:
    prior = CountingPrior(mixtures())
    bank = ScoreBank(prior, conditioning_of(prior.inner, negatives=["neg"]))
    later = Term(Branch.NULL, level="later")
    scores = bank.get([POSITIVE, NULL, POSITIVE, NEGATIVE, later, NULL], state_of())
    assert prior.forward_sizes == [12]
    assert bank.denoiser_calls == 12
    assert set(scores) == {POSITIVE, NULL, NEGATIVE, later}


def test_each_term_is_what_the_prior_says_alone() -> None:
    prior = mixtures()
    state = state_of()
    terms = {POSITIVE: "c", NULL: "", NEGATIVE: "neg", Term(Branch.NULL, level="later"): ""}
    scores = ScoreBank(prior, conditioning_of(prior, negatives=["neg"])).get(list(terms), state)
    for term, prompt in terms.items():
        alone = prior.predict_noise(state.noisy[term.level], state.levels[term.level], branch(prior, prompt))
        torch.testing.assert_close(scores[term], alone)


@pytest.mark.parametrize(("at_most", "sizes"), [(1, [3, 3, 3]), (2, [6, 3]), (5, [9])])
def test_terms_can_be_spread_over_forward_passes(at_most: int, sizes: list[int]) -> None:
    prior = CountingPrior(mixtures())
    conditioning = conditioning_of(prior.inner, negatives=["neg"])
    terms = [POSITIVE, NULL, NEGATIVE]
    spread = ScoreBank(prior, conditioning, terms_per_forward=at_most).get(terms, state_of())
    assert prior.forward_sizes == sizes
    together = ScoreBank(prior, conditioning).get(terms, state_of())
    for term in terms:
        torch.testing.assert_close(spread[term], together[term])


def test_scores_that_the_noise_policy_made_are_not_made_again() -> None:
    prior = CountingPrior(mixtures())
    known = images(3, 9)
    state = replace(state_of(), scores={NULL: known})
    scores = ScoreBank(prior, conditioning_of(prior.inner)).get([POSITIVE, NULL], state)
    assert prior.forward_sizes == [3]
    assert scores[NULL] is known


def test_branches_told_different_things_go_separately() -> None:
    """A branch with cameras and one without cannot share a batch."""
    prior = CountingPrior(mixtures())
    plain = conditioning_of(prior.inner)
    cameras = orbit(torch.zeros(3), torch.zeros(3), 4, 4)
    with_camera = Condition(plain.positive.prompt, cameras, torch.ones(3, 3))
    scores = ScoreBank(prior, Conditioning(with_camera, plain.null)).get([NULL, POSITIVE], state_of())
    assert prior.forward_sizes == [3, 3]
    expected = ScoreBank(prior, plain).get([NULL, POSITIVE], state_of())
    for term in (NULL, POSITIVE):
        torch.testing.assert_close(scores[term], expected[term])


def test_conditions_reach_the_prior_row_by_row() -> None:
    """What a branch says of image i stands beside image i, in every part of the condition."""
    seen: list[Condition] = []

    class Listening(CountingPrior):
        def predict_noise(
            self, x_t: torch.Tensor, timesteps: torch.Tensor, condition: Condition
        ) -> torch.Tensor:
            seen.append(condition)
            return super().predict_noise(x_t, timesteps, condition)

    prior = Listening(mixtures())
    cameras = orbit(torch.tensor([10.0, 20.0, 30.0]), torch.zeros(3), 4, 4)
    colours = torch.arange(9.0).view(3, 3)
    pictures = torch.rand(3, 3, 4, 4)
    positive = Condition(prior.encode_prompts(["c", "neg", "c"]), cameras, colours, pictures)
    null = Condition(prior.encode_prompts([""]), cameras, 1 + colours, pictures / 2)
    ScoreBank(prior, Conditioning(positive, null)).get([POSITIVE, NULL], state_of())
    (together,) = seen
    assert together.prompt.tokens.flatten().tolist() == [1, 2, 1, 0, 0, 0]
    assert together.cameras is not None
    assert together.cameras.azimuth_deg.tolist() == [10, 20, 30] * 2
    assert torch.equal(together.cameras.world_to_camera[3:], cameras.world_to_camera)
    assert together.background is not None and together.image is not None
    assert torch.equal(together.background, torch.cat([colours, 1 + colours]))
    assert torch.equal(together.image, torch.cat([pictures, pictures / 2]))


def test_perp_neg_meets_each_image_with_its_own_level_and_weights() -> None:
    """The batch-layout trap: three images at distinct levels equal three single calls."""
    prior = CountingPrior(mixtures())
    state = state_of()
    conditioning = with_wrong_views(conditioning_of(prior.inner), prior.inner, WEIGHTS)
    together = ScoreBank(prior, conditioning, perp_neg=1.0).get([POSITIVE, NULL], state)
    assert prior.forward_sizes == [12]
    for row in range(3):
        one = slice(row, row + 1)
        single = diffused(state.clean[one], state.noise[one], {MAIN: TIMESTEPS[one]}, STABLE_DIFFUSION)
        conditioning = with_wrong_views(conditioning_of(prior.inner), prior.inner, WEIGHTS[:, one])
        alone = ScoreBank(prior, conditioning, perp_neg=1.0).get([POSITIVE, NULL], single)
        for term in (POSITIVE, NULL):
            torch.testing.assert_close(together[term][one], alone[term])


def test_perp_neg_replaces_the_positive_score_only() -> None:
    prior = mixtures()
    plain = conditioning_of(prior)
    scores = ScoreBank(prior, plain).get([POSITIVE, NULL], state_of())
    names = ("wrong1", "wrong2")
    wrong = [prior.predict_noise(state_of().noisy[MAIN], TIMESTEPS, branch(prior, name)) for name in names]
    expected = perp_neg(scores[NULL], scores[POSITIVE], wrong, 0.5 * WEIGHTS)
    steered = ScoreBank(prior, with_wrong_views(plain, prior, WEIGHTS), perp_neg=0.5).get(
        [POSITIVE, NULL], state_of()
    )
    torch.testing.assert_close(steered[POSITIVE], expected)
    torch.testing.assert_close(steered[NULL], scores[NULL])


def test_perp_neg_without_wrong_views_is_explained() -> None:
    prior = mixtures()
    with pytest.raises(StudioError, match="perp_neg is on but the prompts came without wrong views"):
        ScoreBank(prior, conditioning_of(prior), perp_neg=1.0).get([POSITIVE], state_of())
