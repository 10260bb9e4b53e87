"""What the critics of finished runs have learned: do they know what was rendered?

For each run whose method trains a critic, with what it has learned and without (which is the prior):

* the error of the noise that it predicts in the scene's views, at fixed levels and noise
* how near its samples come to the views (DDIM from fixed noise, told camera and prompt)

and the spread of the views that the run ended with. ::

    studio compare "a teddy bear" --methods vsd,esd --seeds 5 --preset small --output critics
    python benchmarks/critics.py critics --sheet critics.png

The sheet shows for each run the views, samples of its critic, and samples of the prior from the same noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from studio.cameras import orbit
from studio.evaluate.metrics import psnr
from studio.export.images import to_pixels
from studio.guidance.critic import TrainedCritic
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.terms import told_to_critic
from studio.interfaces import NoisePredictor, Prior
from studio.randomness import generator
from studio.run import checkpoint
from studio.run.build import build_stages
from studio.run.optimize import load_learned
from studio.run.session import Run
from studio.run.views import drawn
from studio.types import Condition


@dataclass(frozen=True)
class Critics:
    """Judges what critics have learned."""

    runs: tyro.conf.Positional[Path]
    """A folder with runs in it, at any depth."""
    views: int = 4
    """Views of each scene, evenly around it."""
    steps: int = 30
    """DDIM steps of a sample."""
    sheet: Path | None = None
    """Where to put the pictures."""


@dataclass(frozen=True)
class Knowledge:
    """Of a scene's views: mean squared error of the predicted noise, and likeness of samples in dB."""

    error: float
    likeness_db: float
    samples: Float[Tensor, "b 3 h w"]


def main() -> None:
    """Print the table."""
    args = tyro.cli(Critics, description=__doc__)
    print("| run | method | error, prior | error, critic | samples dB, prior | samples dB, critic | spread |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    sheets = []
    for marker in sorted(args.runs.rglob("recipe.toml")):
        run = Run.open(marker.parent)
        prior = run.prior
        stage = build_stages(run.recipe, prior)[-1]
        term = stage.terms[0]
        guidance = term.guidance
        if not isinstance(guidance, ScoreDistillation) or not isinstance(guidance.critic, TrainedCritic):
            continue
        state = checkpoint.load(checkpoint.checkpoints(run.folder / "state")[-1], run.recipe, run.device)
        cameras = orbit(
            torch.arange(args.views) * (360.0 / args.views), torch.full((args.views,), 15.0), 64, 64
        )
        views = drawn(run.scene(), run.renderer(), cameras).rgb
        told = told_to_critic(term.conditioning(cameras, torch.ones(args.views, 3)))
        before = knowledge(guidance.critic, prior, told, views, args.steps)
        load_learned(stage, state)
        after = knowledge(guidance.critic, prior, told, views, args.steps)
        spread = float(run.metrics()["view_variance"])
        print(
            f"| {run.folder.name} | {term.name} | {before.error:.4f} | {after.error:.4f} "
            f"| {before.likeness_db:.1f} | {after.likeness_db:.1f} | {1000 * spread:.2f} |",
            flush=True,
        )
        sheets.append([views, after.samples, before.samples])
    if args.sheet is not None:
        rows = [
            np.concatenate([pixels for part in parts for pixels in to_pixels(part)], 1) for parts in sheets
        ]
        Image.fromarray(np.concatenate(rows)).save(args.sheet)


def knowledge(
    critic: NoisePredictor, prior: Prior, told: Condition, views: Float[Tensor, "b 3 h w"], steps: int
) -> Knowledge:
    """What a predictor of noise knows of a scene's views, told what ``told`` says."""
    clean = prior.encode_images(views)
    rng = generator(0, "critics")
    errors = []
    with torch.no_grad():
        for level in torch.linspace(0.1, 0.9, 9) * len(prior.schedule):
            timesteps = level.expand(len(clean))
            noise = torch.randn(clean.shape, generator=rng)
            x_t = prior.schedule.add_noise(clean, noise, timesteps)
            errors.append((critic.predict_noise(x_t, timesteps, told) - noise).square().mean())
        x = torch.randn(clean.shape, generator=rng)
        for now, after in pairwise(torch.linspace(len(prior.schedule) - 1, 0, steps + 1)):
            timesteps = now.expand(len(clean))
            predicted = critic.predict_noise(x, timesteps, told)
            x = prior.schedule.ddim_step(x, predicted, timesteps, after.expand(len(clean)))
        samples = prior.decode_images(x)
    return Knowledge(float(torch.stack(errors).mean()), float(psnr(samples, views).mean()), samples)


if __name__ == "__main__":
    main()
