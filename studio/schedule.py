"""Noise schedules, and ε, x0, v and flow predictions as one language.

Everywhere ``x_t = alpha x + sigma noise`` with the level named by a *timestep*: the (possibly fractional)
index in 0 .. T-1 that the schedule's own paper uses, growing with the noise. Three families fix alpha given
sigma:

* ``vp``   alpha² + sigma² = 1   (DDPM, Stable Diffusion)
* ``flow`` alpha  + sigma  = 1   (rectified flow: Stable Diffusion 3, FLUX)
* ``ve``   alpha = 1             (NCSN, EDM)

A level between two indices is interpolated linearly in log-SNR, λ = log(alpha²/sigma²).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

Family = Literal["vp", "flow", "ve"]


class Prediction(Enum):
    """What a network outputs. Values are diffusers' names."""

    EPSILON = "epsilon"
    X0 = "sample"
    V = "v_prediction"
    FLOW = "flow_prediction"


@dataclass(frozen=True)
class NoiseSchedule:
    """The signal and noise level at each timestep.

    Attributes:
        family: what ties alpha to sigma.
        log_snr: λ at each integer timestep, strictly decreasing.
    """

    family: Family
    log_snr: Float[Tensor, "t"]

    def __post_init__(self) -> None:
        if not bool((self.log_snr.diff() < 0).all()):
            raise ValueError("log_snr must fall strictly with the timestep")

    def __len__(self) -> int:
        return self.log_snr.shape[0]

    @staticmethod
    def from_alphas_cumprod(alphas_cumprod: Float[Tensor, "t"]) -> NoiseSchedule:
        """A variance-preserving schedule from diffusers' table of alpha²."""
        # The floor, diffusers' own, keeps tables that end in pure noise (zero terminal SNR) invertible.
        alphas_cumprod = alphas_cumprod.double().clamp(min=2.0**-24)
        return NoiseSchedule("vp", torch.log(alphas_cumprod / (1 - alphas_cumprod)))

    @staticmethod
    def scaled_linear(
        levels: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
    ) -> NoiseSchedule:
        """Stable Diffusion's schedule: betas linear in their square root."""
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, levels, dtype=torch.float64) ** 2
        return NoiseSchedule.from_alphas_cumprod(torch.cumprod(1 - betas, 0))

    @staticmethod
    def cosine(levels: int = 1000) -> NoiseSchedule:
        """Nichol and Dhariwal 2021, eq. 17, betas clipped at 0.999 (diffusers' ``squaredcos_cap_v2``)."""
        time = torch.arange(levels + 1, dtype=torch.float64) / levels
        alpha_bar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
        return NoiseSchedule.from_alphas_cumprod(torch.cumprod(1 - betas, 0))

    @staticmethod
    def rectified_flow(levels: int = 1000, shift: float = 1.0) -> NoiseSchedule:
        """Sigma from 1/T to 1 - 1/(10 T), shifted towards noise as in Stable Diffusion 3 (sec. 5.3.2)."""
        sigma = torch.linspace(1 / levels, 1 - 0.1 / levels, levels, dtype=torch.float64)
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
        return NoiseSchedule("flow", 2 * torch.log((1 - sigma) / sigma))

    def shifted(self, factor: float) -> NoiseSchedule:
        """The schedule with sigma/alpha multiplied by ``factor`` at every timestep.

        Averaging k² pixels divides their noise by k, so an image k times larger needs a factor of k for the
        same decisions to be open (Hoogeboom et al. 2023, "simple diffusion", eq. 4).
        """
        return NoiseSchedule(self.family, self.log_snr - 2 * math.log(factor))

    def log_snr_at(self, timesteps: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """λ at fractional timesteps, in double precision. Clamped to the table's ends."""
        table = self.log_snr.to(timesteps.device)
        position = timesteps.double().clamp(0, len(self) - 1)
        low = position.floor().long().clamp(max=max(len(self) - 2, 0))
        high = (low + 1).clamp(max=len(self) - 1)
        return torch.lerp(table[low], table[high], position - low)

    def timestep_at(self, log_snr: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The fractional timestep whose λ is ``log_snr``: the inverse of ``log_snr_at``."""
        table = self.log_snr.to(log_snr.device)
        log_snr = log_snr.double().clamp(table[-1], table[0])
        low = (torch.searchsorted(-table, -log_snr.contiguous(), right=True) - 1).clamp(0, len(self) - 2)
        return low + (table[low] - log_snr) / (table[low] - table[low + 1])

    def alpha_sigma(
        self, timesteps: Float[Tensor, "b"], dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """Signal and noise coefficients, shaped to multiply a batch of images."""
        log_snr = self.log_snr_at(timesteps)
        match self.family:
            case "vp":
                alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
            case "flow":
                alpha, sigma = (log_snr / 2).sigmoid(), (-log_snr / 2).sigmoid()
            case "ve":
                alpha, sigma = torch.ones_like(log_snr), torch.exp(-log_snr / 2)
            case _:
                assert_never(self.family)
        return alpha.to(dtype)[:, None, None, None], sigma.to(dtype)[:, None, None, None]

    def add_noise(
        self, x: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"]
    ) -> Float[Tensor, "b c h w"]:
        """``x_t = alpha x + sigma noise``."""
        alpha, sigma = self.alpha_sigma(timesteps, x.dtype)
        return alpha * x + sigma * noise

    def clean_from_noise(
        self, x_t: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"]
    ) -> Float[Tensor, "b c h w"]:
        """x0 = (x_t - sigma noise) / alpha."""
        alpha, sigma = self.alpha_sigma(timesteps, x_t.dtype)
        return (x_t - sigma * noise) / alpha

    def noise_from_output(
        self,
        output: Float[Tensor, "b c h w"],
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        prediction: Prediction,
    ) -> Float[Tensor, "b c h w"]:
        """The noise prediction that a network's output stands for.

        Exact algebra in each case: v = alpha noise - sigma x0 (Salimans and Ho 2022), flow = noise - x0.
        """
        alpha, sigma = self.alpha_sigma(timesteps, x_t.dtype)
        match prediction:
            case Prediction.EPSILON:
                return output
            case Prediction.X0:
                return (x_t - alpha * output) / sigma
            case Prediction.V:
                return (alpha * output + sigma * x_t) / (alpha**2 + sigma**2)
            case Prediction.FLOW:
                return (x_t + alpha * output) / (alpha + sigma)
            case _:
                assert_never(prediction)

    def output_from_noise(
        self,
        noise: Float[Tensor, "b c h w"],
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        prediction: Prediction,
    ) -> Float[Tensor, "b c h w"]:
        """What a network of the given kind would output for a noise prediction: the inverse of the above."""
        alpha, sigma = self.alpha_sigma(timesteps, x_t.dtype)
        clean = (x_t - sigma * noise) / alpha
        match prediction:
            case Prediction.EPSILON:
                return noise
            case Prediction.X0:
                return clean
            case Prediction.V:
                return alpha * noise - sigma * clean
            case Prediction.FLOW:
                return noise - clean
            case _:
                assert_never(prediction)

    def ddim_step(
        self,
        x_t: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        next_timesteps: Float[Tensor, "b"],
    ) -> Float[Tensor, "b c h w"]:
        """One deterministic step to another level (Song et al. 2021, eq. 12; exact Euler for a flow)."""
        return self.add_noise(self.clean_from_noise(x_t, noise, timesteps), noise, next_timesteps)
