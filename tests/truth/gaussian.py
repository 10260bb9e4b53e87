"""Closed forms of score distillation on Gaussian data, in plain floats and NumPy.

Data N(mean, std²) noised to ``x_t = alpha x + sigma noise`` has variance ``v = alpha² std² + sigma²``.
These are pencil-and-paper results; nothing here imports the studio.
"""

from __future__ import annotations

import numpy as np


def stable_diffusion_level(timestep: int) -> tuple[float, float]:
    """(alpha, sigma) of the ``scaled_linear`` schedule, 0.00085 to 0.012 in 1000 steps."""
    betas = np.linspace(np.sqrt(0.00085), np.sqrt(0.012), 1000) ** 2
    alpha_bar = np.prod(1.0 - betas[: timestep + 1])
    return float(np.sqrt(alpha_bar)), float(np.sqrt(1.0 - alpha_bar))


def variance(std: float, alpha: float, sigma: float) -> float:
    """Of the noised data."""
    return alpha**2 * std**2 + sigma**2


def sds_mean(x: float, mean: float, std: float, alpha: float, sigma: float) -> float:
    """E[score - noise] over the noise."""
    return sigma * alpha * (x - mean) / variance(std, alpha, sigma)


def sds_deviation(std: float, alpha: float, sigma: float) -> float:
    """Standard deviation of each element of (score - noise) over the noise."""
    return alpha**2 * std**2 / variance(std, alpha, sigma)


def csd_direction(
    x: float, positive: tuple[float, float], null: tuple[float, float], alpha: float, sigma: float
) -> float:
    """E[positive - null] over the noise, each branch a (mean, std)."""
    return sds_mean(x, *positive, alpha, sigma) - sds_mean(x, *null, alpha, sigma)


def cfg_fixed_point(
    positive: tuple[float, float], null: tuple[float, float], scale: float, alpha: float, sigma: float
) -> float:
    """Where SDS with classifier-free guidance comes to rest."""
    pull_positive = scale / variance(positive[1], alpha, sigma)
    pull_null = (1.0 - scale) / variance(null[1], alpha, sigma)
    return (pull_positive * positive[0] + pull_null * null[0]) / (pull_positive + pull_null)


def csd_fixed_point(
    positive: tuple[float, float], null: tuple[float, float], alpha: float, sigma: float
) -> float:
    """Where the classifier score vanishes, for branches of unequal spread."""
    v_positive, v_null = variance(positive[1], alpha, sigma), variance(null[1], alpha, sigma)
    return (positive[0] * v_null - null[0] * v_positive) / (v_null - v_positive)
