"""Randomness as an argument: every draw is named by (seed, purpose, step).

A generator is made anew for each purpose and step, so nothing has to be saved to resume a run exactly.
"""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator whose stream depends on nothing but its arguments.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for, e.g. ``"camera"``, ``"timestep"``, ``"noise"``.
        step: the optimisation step.
        device: where the numbers will be drawn. Streams of different device types differ.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
