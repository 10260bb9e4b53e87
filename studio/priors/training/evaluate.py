"""Does the learned prior draw what it is asked for? Samples, and the retrieval of their nouns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from studio.cameras import orbit
from studio.interfaces import Prior
from studio.priors.sampling import guided_noise
from studio.priors.training.config import EvaluateConfig
from studio.priors.training.data import TrainingViews
from studio.randomness import generator
from studio.types import Cameras, Condition


@dataclass(frozen=True)
class Retrieval:
    """One sample and where its noun came among all nouns, 1 being the nearest."""

    caption: str
    noun: str
    nearest: str
    rank: int


@dataclass(frozen=True)
class Evaluation:
    """The result: one entry a pair, and the pictures.

    Attributes:
        retrievals: in the order they were drawn.
        samples: what the model drew.
        truths: for each, the nearest rendering of the right noun.
        nouns: how many nouns competed.
    """

    retrievals: tuple[Retrieval, ...]
    samples: Float[Tensor, "n 3 s s"]
    truths: Float[Tensor, "n 3 s s"]
    nouns: int

    def top(self, k: int) -> float:
        """Share of the samples whose noun is among the nearest ``k``, 0-1."""
        return sum(each.rank <= k for each in self.retrievals) / len(self.retrievals)

    def table(self) -> str:
        """The scores, then every noun that was ever missed, as Markdown."""
        lines = [
            "| samples | nouns | top-1 | top-5 |",
            "| --- | --- | --- | --- |",
            f"| {len(self.retrievals)} | {self.nouns} | {self.top(1):.1%} | {self.top(5):.1%} |",
            "",
            "| missed noun | samples | top-1 | taken for |",
            "| --- | --- | --- | --- |",
        ]
        for noun in sorted({each.noun for each in self.retrievals}):
            group = [each for each in self.retrievals if each.noun == noun]
            missed = [each.nearest for each in group if each.rank > 1]
            if missed:
                taken = ", ".join(sorted(set(missed)))
                lines.append(f"| {noun} | {len(group)} | {1 - len(missed) / len(group):.0%} | {taken} |")
        return "\n".join(lines) + "\n"


@runtime_checkable
class Sampler(Protocol):
    """Draws one image in 0-1 for each caption, seen from its camera, over white."""

    def __call__(
        self, captions: Sequence[str], cameras: Cameras, rng: torch.Generator
    ) -> Float[Tensor, "b 3 s s"]:
        """The images."""


@dataclass(frozen=True)
class DdimSampler:
    """Deterministic sampling (Song et al. 2021) of a prior, on levels evenly spaced in the timestep."""

    prior: Prior
    steps: int
    guidance_scale: float

    @torch.no_grad()
    def __call__(
        self, captions: Sequence[str], cameras: Cameras, rng: torch.Generator
    ) -> Float[Tensor, "b 3 s s"]:
        """Images at the size of the cameras."""
        prior, batch = self.prior, len(captions)
        positive = Condition(prior.encode_prompts(captions), cameras)
        null = Condition(prior.encode_prompts([""]), cameras)
        shape = prior.encode_images(torch.ones(1, 3, cameras.height, cameras.width)).shape[1:]
        x = torch.randn(batch, *shape, generator=rng)
        levels = torch.linspace(len(prior.schedule) - 1, 0, self.steps + 1)
        for now, after in pairwise(levels):
            timesteps = now.expand(batch)
            noise = guided_noise(prior, x, timesteps, positive, null, self.guidance_scale)
            # Clamped, as every true image is: guidance would otherwise drive the colours out of range.
            clean = prior.schedule.clean_from_noise(x, noise, timesteps)
            clean = prior.encode_images(prior.decode_images(clean))
            alpha, sigma = prior.schedule.alpha_sigma(timesteps)
            x = prior.schedule.add_noise(clean, (x - alpha * clean) / sigma, after.expand(batch))
        return prior.decode_images(clean)


def evaluate(sampler: Sampler, views: TrainingViews, config: EvaluateConfig) -> Evaluation:
    """Sample random (caption, camera) pairs and look for each sample's nearest true rendering.

    Nearest means the least squared difference after mean-pooling to 16 x 16, among every object of every
    noun from that very camera; a noun is as near as its nearest object.
    """
    rng = generator(config.seed, "evaluate")
    nouns = views.nouns
    object_noun = torch.tensor([nouns.index(names[0]) for names in views.names])
    wanted = torch.randint(len(nouns), (config.pairs,), generator=rng)
    cameras = torch.randint(len(views.held_out), (config.pairs,), generator=rng)
    retrievals, samples, truths = [], [], []
    for start in range(0, config.pairs, config.batch):
        chosen, seen_from = wanted[start : start + config.batch], cameras[start : start + config.batch]
        captions = [f"a {nouns[int(noun)]}" for noun in chosen]
        drawn = sampler(captions, views.held_out[seen_from], rng)
        rgba = views.held_out_rgba[:, seen_from].float() / 255
        true = rgba[:, :, :3] + 1 - rgba[:, :, 3:]
        pooled = _pooled(true.flatten(0, 1)).reshape(*true.shape[:2], -1)
        distance = (pooled - _pooled(drawn).flatten(1)).square().mean(2)
        for index, caption in enumerate(captions):
            by_noun = torch.full((len(nouns),), torch.inf).scatter_reduce(
                0, object_noun, distance[:, index], "amin"
            )
            noun = int(chosen[index])
            rank = 1 + int((by_noun < by_noun[noun]).sum())
            retrievals.append(Retrieval(caption, nouns[noun], nouns[int(by_noun.argmin())], rank))
            right = torch.where(object_noun == noun, distance[:, index], torch.inf)
            truths.append(true[int(right.argmin()), index])
        samples.append(drawn)
    return Evaluation(tuple(retrievals), torch.cat(samples), torch.stack(truths), len(nouns))


def sample_sheet(
    sampler: Sampler, captions: Sequence[str], size: int, rng: torch.Generator, views: int = 4
) -> Float[Tensor, "3 hs ws"]:
    """One row a caption, seen from ``views`` azimuths starting at the front, 15 degrees up."""
    azimuth = torch.arange(views) * (360.0 / views)
    cameras = orbit(azimuth.repeat(len(captions)), torch.full((views * len(captions),), 15.0), size, size)
    drawn = sampler([caption for caption in captions for _ in range(views)], cameras, rng)
    return tiled(drawn, views)


def tiled(images: Float[Tensor, "n 3 s s"], columns: int) -> Float[Tensor, "3 hs ws"]:
    """Images side by side in rows; an unfinished row is filled with white."""
    missing = -len(images) % columns
    images = torch.cat([images, images.new_ones(missing, *images.shape[1:])])
    rows = images.reshape(-1, columns, *images.shape[1:])
    return rows.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)


def save_png(image: Float[Tensor, "3 h w"], path: Path) -> None:
    """Write an image in 0-1."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(path)


def _pooled(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 16 16"]:
    pooled: Tensor = functional.adaptive_avg_pool2d(images, 16)
    return pooled
