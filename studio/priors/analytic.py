"""A prior whose data distributions are known, and with them the exact noise prediction at every level.

A prompt is the name of a distribution; the empty prompt is the unconditional one. Images are not encoded: the
prior's variable is the image itself. Every guidance method can be checked against closed forms here, in
milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError, nearest
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Condition, PromptEmbedding


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of Gaussians over images, each with one standard deviation for all its elements.

    Attributes:
        means: images.
        stds: 0 for a point mass.
        weights: positive; they need not sum to one.
    """

    means: Float[Tensor, "k c h w"]
    stds: Float[Tensor, "k"]
    weights: Float[Tensor, "k"]

    @staticmethod
    def gaussian(mean: Float[Tensor, "c h w"], std: float) -> GaussianMixture:
        """N(mean, std²)."""
        return GaussianMixture(mean[None], mean.new_tensor([std]), mean.new_ones(1))

    @staticmethod
    def particles(images: Float[Tensor, "k c h w"]) -> GaussianMixture:
        """The empirical distribution of a set of images: a point mass at each."""
        return GaussianMixture(images, images.new_zeros(len(images)), images.new_ones(len(images)))

    def noise(
        self,
        x_t: Float[Tensor, "b c h w"],
        alpha: Float[Tensor, "b 1 1 1"],
        sigma: Float[Tensor, "b 1 1 1"],
    ) -> Float[Tensor, "b c h w"]:
        """The expected noise in ``x_t``: ``sigma sum_k r_k (x_t - alpha mean_k) / v_k``.

        ``v_k = alpha² std_k² + sigma²`` and ``r_k`` is the probability that ``x_t`` came from component k.
        """
        variance = (alpha**2 * self.stds[:, None, None] ** 2 + sigma**2)[..., 0]  # b k 1
        offset = (x_t[:, None] - alpha[:, None] * self.means).flatten(2)  # b k chw
        log_likelihood = -0.5 * (offset**2 / variance + variance.log()).sum(dim=2)
        responsibility = (self.weights.log() + log_likelihood).softmax(dim=1)[:, :, None]
        return sigma * (responsibility * offset / variance).sum(dim=1).view_as(x_t)


class AnalyticPrior:
    """The exact denoiser of named distributions: implements the ``Prior`` protocol.

    Args:
        distributions: by prompt, all over images of one shape; ``""`` is the unconditional one.
        schedule: the noise levels.
        prediction: what the "network" outputs before it is read as noise.
        dtype: the precision of that output. The arithmetic behind it is in double precision.

    Raises:
        StudioError: from ``encode_prompts``, for a prompt that names no distribution.
    """

    def __init__(
        self,
        distributions: Mapping[str, GaussianMixture],
        schedule: NoiseSchedule,
        prediction: Prediction = Prediction.EPSILON,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self._names = tuple(distributions)
        self._distributions = tuple(
            GaussianMixture(d.means.double(), d.stds.double(), d.weights.double())
            for d in distributions.values()
        )
        self._schedule = schedule
        self._prediction = prediction
        self._dtype = dtype

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels."""
        return self._schedule

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One token, whose one number is the distribution's place in the list."""
        for prompt in prompts:
            if prompt not in self._names:
                raise StudioError(
                    f"prompt {prompt!r} names no distribution; expected one of {sorted(self._names)}."
                    f"{nearest(prompt, self._names)}"
                )
        places = torch.tensor([self._names.index(prompt) for prompt in prompts])
        return PromptEmbedding(tokens=places.float()[:, None, None])

    def encode_images(self, rgb: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The images themselves."""
        return rgb

    def decode_images(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The images themselves."""
        return x

    def network_output(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        """What a perfectly trained network of this prediction type would say."""
        exact = x_t.double()
        places = condition.prompt.expanded(len(x_t)).tokens[:, 0, 0].to(timesteps.device)
        alpha, sigma = self._schedule.alpha_sigma(timesteps, torch.float64)
        noise = torch.empty_like(exact)
        for place in torch.unique(places):
            rows = places == place
            distribution = self._distributions[int(place)]
            noise[rows] = distribution.noise(exact[rows], alpha[rows], sigma[rows])
        return self._schedule.output_from_noise(noise, exact, timesteps, self._prediction).to(self._dtype)

    def predict_noise(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        """The noise that the output stands for."""
        output = self.network_output(x_t, timesteps, condition).to(x_t.dtype)
        return self._schedule.noise_from_output(output, x_t, timesteps, self._prediction)
