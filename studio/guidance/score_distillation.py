"""The driver: runs any method against any prior. It is never subclassed; methods are records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from studio.guidance import gradient as gradients
from studio.guidance.critic import Critic
from studio.guidance.method import Method
from studio.guidance.objective import Descent
from studio.guidance.ratio import RatioHead
from studio.guidance.second import SecondPrior, resized_like
from studio.guidance.state import MAIN, POSITIVE, SECOND, State, Term
from studio.guidance.terms import ScoreBank, predictions_for
from studio.interfaces import Prior
from studio.recipes.ramps import value_at
from studio.types import Conditioning, GuidanceOutput


class ScoreDistillation:
    """A method applied to a prior: implements the ``Guidance`` protocol.

    Args:
        critic, ratio: for a method that asks them; what they learn is this guidance's state.
        second: for a method that asks a second prior.
    """

    def __init__(
        self,
        prior: Prior,
        method: Method,
        *,
        critic: Critic | None = None,
        ratio: RatioHead | None = None,
        second: SecondPrior | None = None,
    ) -> None:
        self.prior = prior
        self.method = method
        self.critic = critic
        self.ratio = ratio
        self.second = second

    def __call__(
        self,
        rgb: Float[Tensor, "b 3 h w"],
        conditioning: Conditioning,
        progress: float,
        rng: torch.Generator,
    ) -> GuidanceOutput:
        """Scores of the renders, combined into a gradient. A critic first learns from the renders.

        Args:
            rgb: rendered images, 0-1.
            progress: 0 at the first step, 1 after the last.
            rng: draws the noise levels, then the noise.

        Returns:
            A loss whose gradient on the prior's variable is ``gradient / b``; of a method ``as_pixels``, half
            the squared distance of ``rgb`` to the decoded image, over ``b``. Values that are not finite are
            left in it and counted in ``terms["nonfinite_encoded"]`` and ``terms["nonfinite_gradient"]``.
        """
        method = self.method
        if method.gradient.pixel_clip is not None:
            rgb = gradients.with_clipped_gradient(rgb, method.gradient.pixel_clip)
        x = self.prior.encode_images(rgb)
        # Sums of large multiples of scores overflow in half precision.
        clean = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        learned = {} if self.critic is None else self.critic.learn(clean, conditioning, rng)
        bank = ScoreBank(
            self.prior,
            conditioning,
            method.scores.perp_neg,
            method.scores.terms_per_forward,
            critic=self.critic,
            ratio=self.ratio,
            second=None if self.second is None else self.second.shown(rgb, conditioning, progress, rng),
        )
        with torch.set_grad_enabled(isinstance(method.combine, Descent)):
            levels = method.times(self.prior.schedule, progress, len(x), rng)
            clean.requires_grad_(torch.is_grad_enabled())
            state = method.noise(clean, levels, self.prior.schedule, bank, progress, rng)
            if method.draws_chance:
                chance = torch.rand(len(x), generator=rng, device=rng.device).to(clean)
                state = replace(state, chance=chance)
            if self.second is not None:
                state = self.second.with_sets(state, conditioning)
            scores = bank.get(self._terms(progress), state)
            gradient = self._gradient(scores, state, progress)
        clean = clean.detach()
        if self.ratio is not None:
            timesteps = state.levels[MAIN]
            denoised = self.prior.schedule.clean_from_noise(state.noisy[MAIN], scores[POSITIVE], timesteps)
            learned = {**learned, **self.ratio.learn(clean, denoised.detach(), rng)}
        if method.as_pixels:
            wanted = resized_like(self.prior.decode_images(clean - gradient).to(rgb), rgb)
            loss = gradients.inject(rgb, rgb.detach() - wanted)
        else:
            loss = gradients.inject(x, gradient)
        return GuidanceOutput(
            loss=loss,
            gradient=gradient,
            timesteps=state.levels[MAIN],
            denoiser_calls=bank.denoiser_calls + self._training_calls(len(x)),
            terms={
                **learned,
                "gradient_rms": float(gradient.square().mean().sqrt()),
                "nonfinite_encoded": gradients.nonfinite_fraction(clean),
                "nonfinite_gradient": gradients.nonfinite_fraction(gradient),
            },
        )

    def denoiser_calls(self, batch: int, progress: float = 0.0) -> int:
        """How many images one call at ``progress`` sends through denoisers, a critic's training included.

        Where that follows from the noise levels that are drawn (DDIM inversion), the most that it can be.
        """
        method, schedule = self.method, self.prior.schedule
        _, noisiest = method.times.extremes(schedule, progress)
        known = method.noise.known(noisiest, progress)
        asked = [term for term in self._terms(progress) if term not in known]
        use_perp_neg = method.scores.perp_neg != 0
        rounds = method.noise.rounds(noisiest, schedule, progress)
        on_the_way = sum(len(predictions_for(terms, use_perp_neg)) for terms in rounds)
        scores = [
            term
            for term in predictions_for(asked, use_perp_neg)
            if term not in known and term.branch.is_score
        ]
        seen = self.second.calls(progress) if self.second is not None and SECOND in asked else 0
        return batch * (on_the_way + len(scores) + seen) + self._training_calls(batch)

    def state(self) -> Mapping[str, Tensor]:
        """What the critic and the density ratio have learned."""
        return {f"{name}/{key}": value for name, part in self._parts() for key, value in part.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state; from the empty one, start anew."""
        for name, part in self._parts():
            prefix = f"{name}/"
            part.load_state(
                {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            )

    def _parts(self) -> list[tuple[str, Critic | RatioHead]]:
        parts: list[tuple[str, Critic | RatioHead | None]] = [("critic", self.critic), ("ratio", self.ratio)]
        return [(name, part) for name, part in parts if part is not None]

    def _training_calls(self, batch: int) -> int:
        return 0 if self.critic is None else self.critic.training_calls(batch)

    def _terms(self, progress: float) -> tuple[Term, ...]:
        terms = self.method.combine.terms(progress)
        return terms if self.method.gradient.rescale_std == 0 else (*terms, POSITIVE)

    def _gradient(self, scores: Mapping[Term, Tensor], state: State, progress: float) -> Tensor:
        method = self.method
        direction = method.combine(scores, state, progress)
        alpha, sigma = state.alpha_sigma()
        if method.gradient.rescale_std != 0:
            unguided_x0 = (state.noisy[MAIN] - sigma * scores[POSITIVE]) / alpha
            direction = gradients.rescale_std(
                direction, unguided_x0, state.clean, sigma / alpha, method.gradient.rescale_std
            )
        gradient = method.weight(alpha, sigma) * direction
        if method.gradient.clamp is not None:
            bound = value_at(method.gradient.clamp, progress)
            gradient = gradient.clamp(-bound, bound)
        return gradient.detach()
