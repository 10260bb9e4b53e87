"""The driver: runs any method against any prior. It is never subclassed; methods are records."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from studio.guidance import gradient as gradients
from studio.guidance.method import Method
from studio.guidance.state import MAIN, POSITIVE, State, Term
from studio.guidance.terms import ScoreBank, predictions_for
from studio.interfaces import Prior
from studio.recipes.ramps import value_at
from studio.types import Conditioning, GuidanceOutput


class ScoreDistillation:
    """A method applied to a prior: implements the ``Guidance`` protocol."""

    def __init__(self, prior: Prior, method: Method) -> None:
        self.prior = prior
        self.method = method

    def __call__(
        self,
        rgb: Float[Tensor, "b 3 h w"],
        conditioning: Conditioning,
        progress: float,
        rng: torch.Generator,
    ) -> GuidanceOutput:
        """Scores of the renders, combined into a gradient.

        Args:
            rgb: rendered images, 0-1.
            progress: 0 at the first step, 1 after the last.
            rng: draws the noise levels, then the noise.

        Returns:
            A loss whose gradient on the prior's variable is ``gradient / b``. Values that are not finite are
            left in it and counted in ``terms["nonfinite_encoded"]`` and ``terms["nonfinite_gradient"]``.
        """
        method = self.method
        if method.gradient.pixel_clip is not None:
            rgb = gradients.with_clipped_gradient(rgb, method.gradient.pixel_clip)
        x = self.prior.encode_images(rgb)
        with torch.no_grad():
            bank = ScoreBank(
                self.prior, conditioning, method.scores.perp_neg, method.scores.terms_per_forward
            )
            levels = method.times(self.prior.schedule, progress, len(x), rng)
            # Sums of large multiples of scores overflow in half precision.
            clean = x.detach().to(torch.promote_types(x.dtype, torch.float32))
            state = method.noise(clean, levels, self.prior.schedule, bank, rng)
            gradient = self._gradient(state, bank, progress)
        return GuidanceOutput(
            loss=gradients.inject(x, gradient),
            gradient=gradient,
            timesteps=state.levels[MAIN],
            denoiser_calls=bank.denoiser_calls,
            terms={
                "gradient_rms": float(gradient.square().mean().sqrt()),
                "nonfinite_encoded": gradients.nonfinite_fraction(clean),
                "nonfinite_gradient": gradients.nonfinite_fraction(gradient),
            },
        )

    def denoiser_calls(self, batch: int, progress: float = 0.0) -> int:
        """How many images one call at ``progress`` sends through the denoiser."""
        return batch * len(predictions_for(self._terms(progress), self.method.scores.perp_neg != 0))

    def _terms(self, progress: float) -> tuple[Term, ...]:
        terms = self.method.combine.terms(progress)
        return terms if self.method.gradient.rescale_std == 0 else (*terms, POSITIVE)

    def _gradient(self, state: State, bank: ScoreBank, progress: float) -> Tensor:
        method = self.method
        scores = bank.get(self._terms(progress), state)
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
        return gradient
