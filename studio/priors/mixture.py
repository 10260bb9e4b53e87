"""Mixtures of Gaussians about renderings: the exact prior's distribution of one image, and its score.

A rendering is kept as premultiplied colour and coverage, so that one serves over every background.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

_MODES_AT_ONCE = 64


@dataclass(frozen=True)
class Picture:
    """A model as seen from one camera.

    Attributes:
        rgba: premultiplied, in 0-255.
        moments: sums over the pixels for each channel, of p², p t, t², p and t, where p is the premultiplied
            colour and t = 255 - alpha.
    """

    rgba: UInt8[Tensor, "4 h w"] | Float[Tensor, "4 h w"]
    moments: Float[Tensor, "5 3"]

    @staticmethod
    def of(rgba: UInt8[Tensor, "4 h w"] | Float[Tensor, "4 h w"]) -> Picture:
        """A picture with its moments."""
        values = rgba.double().flatten(1)
        p, t = values[:3], (255 - values[3:]).expand(3, -1)
        return Picture(
            rgba, torch.stack([(p * p).sum(1), (p * t).sum(1), (t * t).sum(1), p.sum(1), t.sum(1)])
        )


@dataclass(frozen=True)
class Mixture:
    """The clean images of one branch of one image: isotropic Gaussians of one width about some pictures.

    The methods take a noised image ``x_t`` in -1 to 1 and its level, ``alpha`` and ``sigma``.

    Attributes:
        pictures: what is at each mean.
        log_weights: of each Gaussian.
        std: of all of them, in units of -1 to 1.
        background: behind the pictures, rgb in 0-1; on the device of the noised images, in their precision.
    """

    pictures: Sequence[Picture]
    log_weights: Float[Tensor, "m"]
    std: float
    background: Float[Tensor, "3"]

    def noise(self, x_t: Float[Tensor, "3 h w"], alpha: float, sigma: float) -> Float[Tensor, "3 h w"]:
        """The posterior mean of the noise: the exact prior's formula, its softmax kept as running sums."""
        best = torch.tensor(-math.inf, dtype=torch.float64, device=x_t.device)
        total = torch.zeros((), dtype=torch.float64, device=x_t.device)
        blend = torch.zeros(4 * x_t[0].numel(), dtype=x_t.dtype, device=x_t.device)
        for logits, values in self._chunks(x_t, alpha, sigma):
            new_best = torch.maximum(best, logits.max())
            rescale, shares = (best - new_best).exp(), (logits - new_best).exp()
            blend = blend * rescale.to(x_t.dtype) + shares.to(x_t.dtype) @ values
            total = total * rescale + shares.sum()
            best = new_best
        picture = (blend / total.to(x_t.dtype)).reshape(1, 4, *x_t.shape[1:])
        shown = composite(picture, self.background)[0]
        return (x_t - alpha * shown) * (sigma / self._variance(alpha, sigma))

    def log_density(self, x_t: Float[Tensor, "3 h w"], alpha: float, sigma: float) -> Float[Tensor, ""]:
        """The log of the noised density."""
        normaliser = 0.5 * x_t.numel() * math.log(2 * math.pi * self._variance(alpha, sigma))
        return torch.logsumexp(self._logits(x_t, alpha, sigma), 0) - normaliser

    def responsibilities(self, x_t: Float[Tensor, "3 h w"], alpha: float, sigma: float) -> Float[Tensor, "m"]:
        """The posterior probability of each Gaussian."""
        return self._logits(x_t, alpha, sigma).softmax(0)

    def _logits(self, x_t: Float[Tensor, "3 h w"], alpha: float, sigma: float) -> Float[Tensor, "m"]:
        return torch.cat([logits for logits, _ in self._chunks(x_t, alpha, sigma)])

    def _variance(self, alpha: float, sigma: float) -> float:
        return alpha**2 * self.std**2 + sigma**2

    def _chunks(
        self, x_t: Float[Tensor, "3 h w"], alpha: float, sigma: float
    ) -> Iterator[tuple[Float[Tensor, "k"], Float[Tensor, "k d"]]]:
        """Unnormalised log responsibilities of the Gaussians, and their pictures, some at a time.

        A mean is m = a (p + b t) - 1 with a = 2 / 255, its colour p, transmittance t and the background b, so
        its scalar product with x_t needs the picture only, not the composite, and |m|² follows from the
        moments that are kept with it. In single precision the product is good to about 1e-7 |x_t| |m|: at the
        lowest noise that confuses no renderings but those which differ by less than 0.02 in squared distance
        over all pixels.
        """
        scale = 2 / 255
        shown = (self.background[:, None, None] * x_t).sum(0, keepdim=True)
        query = torch.cat([x_t, -shown]).reshape(-1)
        constant = 2 * shown.double().sum() - x_t.double().sum()
        color = self.background.double()
        for start in range(0, len(self.pictures), _MODES_AT_ONCE):
            chosen = slice(start, start + _MODES_AT_ONCE)
            pictures = self.pictures[chosen]
            values = torch.stack([picture.rgba for picture in pictures]).to(x_t.device, x_t.dtype).flatten(1)
            products = scale * (values @ query).double() + constant
            moments = torch.stack([picture.moments for picture in pictures]).to(x_t.device)
            p_p, p_t, t_t, p_sum, t_sum = (moments[:, row] for row in range(5))
            squares = scale**2 * (p_p + 2 * color * p_t + color.square() * t_t) - 2 * scale * (
                p_sum + color * t_sum
            )
            norms = squares.sum(1) + x_t.numel()
            distances = x_t.double().square().sum() - 2 * alpha * products + alpha**2 * norms
            log_weights = self.log_weights[chosen].to(x_t.device)
            yield log_weights - 0.5 * distances / self._variance(alpha, sigma), values


@dataclass(frozen=True)
class Crowd:
    """The mean of many pictures at one camera, and how far they spread about it.

    A model's image over a background b is p + t b with its premultiplied colour p and transmittance t, so its
    variance over any background follows from three moments, each averaged over the pixels.
    """

    mean: Picture
    color_variance: Float[Tensor, "3"]
    covariance: Float[Tensor, "3"]
    transmittance_variance: Float[Tensor, ""]

    @staticmethod
    def of(pictures: UInt8[Tensor, "k 4 h w"]) -> Crowd:
        """The moments of some pictures."""
        values = pictures.double() / 255
        mean = values.mean(0)
        color, transmittance = values[:, :3] - mean[:3], mean[3] - values[:, 3]
        return Crowd(
            mean=Picture.of((mean * 255).float()),
            color_variance=color.square().mean((0, 2, 3)),
            covariance=(color * transmittance[:, None]).mean((0, 2, 3)),
            transmittance_variance=transmittance.square().mean(),
        )

    def std_over(self, background: Float[Tensor, "3"]) -> float:
        """The root mean square distance of an image's values, in [-1, 1], from the mean image's."""
        color = background.detach().cpu().double()
        variance = (
            self.color_variance + 2 * color * self.covariance + color.square() * self.transmittance_variance
        )
        return 2 * math.sqrt(float(variance.mean()))


def composite(pictures: Tensor, background: Float[Tensor, "3"]) -> Float[Tensor, "k 3 h w"]:
    """Premultiplied rgba pictures in 0-255 over a colour in 0-1, as values in [-1, 1]."""
    values = pictures.to(background.device, background.dtype)
    transmittance = 255 - values[:, 3:]
    color = (background * (2 / 255))[None, :, None, None]
    return values[:, :3].mul(2 / 255).addcmul_(transmittance, color).sub_(1)
