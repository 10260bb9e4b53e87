"""Guidance against a truth: 32 one-pixel images follow SDS under a prior whose every score is known.

The prior is the Gaussian N(0.3, 0.1²). A sampler would leave the images spread by 0.1. SDS seeks the mode:
with the guidance scale at 1 all of them end at 0.3, and the spread is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import tyro

from studio.guidance.methods import build_guidance
from studio.priors.analytic import AnalyticPrior, GaussianMixture
from studio.randomness import generator
from studio.recipes.guidance import SdsConfig
from studio.schedule import NoiseSchedule
from studio.types import Condition, Conditioning


@dataclass(frozen=True)
class Outcome:
    """Mean and spread of the images in the end."""

    mean: float
    std: float

    @staticmethod
    def of(images: torch.Tensor) -> Outcome:
        """What the images are like now."""
        return Outcome(float(images.detach().mean()), float(images.detach().std(dim=0).mean()))

    def __str__(self) -> str:
        return f"mean {self.mean:.3f}  spread {self.std:.3f}"


def main(steps: int = 400, mean: float = 0.3, std: float = 0.1) -> Outcome:
    """Follow SDS and print how the images gather at the mode."""
    target = GaussianMixture.gaussian(torch.full((3, 1, 1), mean), std)
    anything = GaussianMixture.gaussian(torch.full((3, 1, 1), 0.5), 0.5)
    prior = AnalyticPrior({"grey": target, "": anything}, NoiseSchedule.cosine())
    conditioning = Conditioning(
        positive=Condition(prior.encode_prompts(["grey"])), null=Condition(prior.encode_prompts([""]))
    )
    guidance = build_guidance(SdsConfig(cfg_scale=1.0, weight="uniform"), prior)

    images = torch.rand(32, 3, 1, 1, generator=generator(0, "start")).requires_grad_()
    optimizer = torch.optim.SGD([images], lr=1.0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1.0 - step / steps
        optimizer.zero_grad()
        guidance(images, conditioning, step / steps, generator(0, "guidance", step)).loss.backward()
        optimizer.step()
        if step % max(steps // 8, 1) == 0:
            print(f"step {step:4d}  {Outcome.of(images)}")
    print(f"SDS        {Outcome.of(images)}")
    print(f"the truth  {Outcome(mean, std)}")
    return Outcome.of(images)


if __name__ == "__main__":
    tyro.cli(main)
