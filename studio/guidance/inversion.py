"""Noise that the prior itself finds in the images, along its probability-flow ODE.

A step along the ODE is a DDIM step (Song et al. 2021, arXiv:2010.02502), whose score is asked where the step
begins. Nothing is asked twice: what was predicted on the way and may be wanted again stays in the state.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from studio.guidance.combine import LinearCombination, guided
from studio.guidance.forward import NoisePolicy, Rounds, diffused, fresh_noise
from studio.guidance.state import ANCHOR, LATER, MAIN, POSITIVE, Level, Levels, State, Term
from studio.guidance.terms import ScoreBank
from studio.schedule import NoiseSchedule


@dataclass(frozen=True)
class Inverted:
    """DDIM inversion: from the clean image upwards in strides.

    With an ``ANCHOR`` among the levels the path ends there, and every other level is one step from it; its
    scores stay in the state. Without, it ends at ``MAIN``. The state's ``noise`` is what leads from the clean
    image to ``MAIN`` in a straight line.

    Attributes:
        stride: longest step, as a fraction of the schedule.
        cfg_scale: guidance on the way; 0 asks the null branch alone.
        eta: share of fresh noise added in each step on top, as the posterior of DDPM would; 0 draws nothing.
        start_noise: what share of the first level's noise is there before the first step; 0 draws nothing.
    """

    stride: float = 0.2
    cfg_scale: float = 0.0
    eta: float = 0.0
    start_noise: float = 0.0

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """The images at the levels, and the anchor's scores."""
        levels = {name: timesteps.to(clean.device) for name, timesteps in levels.items()}
        anchor, others = _split(levels)
        path = self._path(levels[anchor], schedule)
        x = schedule.add_noise(clean, self._fresh(clean, self.start_noise, rng), path[0])
        for here, there in pairwise(path):
            state = State(schedule, clean, {MAIN: here}, {MAIN: x}, x)
            score = self._guided(bank.get(self._terms, state), state, progress)
            x = schedule.ddim_step(x, score, here, there)
            x = x + _posterior_std(schedule, here, there, x.dtype) * self._fresh(x, self.eta, rng)
        noisy = {anchor: x}
        known: dict[Term, Tensor] = {}
        if others:
            state = State(schedule, clean, {MAIN: levels[anchor]}, {MAIN: x}, x)
            scores = bank.get(self._terms, state)
            known = {replace(term, level=anchor): score for term, score in scores.items()}
            score = self._guided(scores, state, progress)
            noisy |= {name: schedule.ddim_step(x, score, levels[anchor], levels[name]) for name in others}
        alpha, sigma = schedule.alpha_sigma(levels[MAIN], clean.dtype)
        return State(schedule, clean, levels, noisy, (noisy[MAIN] - alpha * clean) / sigma, known)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """The same scores at every stop."""
        anchor, others = _split(levels)
        steps = len(self._path(levels[anchor], schedule)) - 1
        return [self._terms] * (steps + bool(others))

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """The scores at the anchor, if a step begins there."""
        anchor, others = _split(levels)
        return {replace(term, level=anchor) for term in self._terms} if others else ()

    @property
    def _guided(self) -> LinearCombination:
        return guided(self.cfg_scale)

    @property
    def _terms(self) -> tuple[Term, ...]:
        return self._guided.terms(0.0)

    def _path(self, end: Float[Tensor, "b"], schedule: NoiseSchedule) -> list[Float[Tensor, "b"]]:
        """Timesteps from 0 to each image's end; who has arrived waits, in steps of no length."""
        stride = self.stride * len(schedule)
        steps = math.ceil(end.max().item() / stride - 1e-9)
        return [end.clamp(max=k * stride) for k in range(steps + 1)]

    @staticmethod
    def _fresh(
        like: Float[Tensor, "b c h w"], scale: float, rng: torch.Generator
    ) -> Float[Tensor, "b c h w"]:
        return torch.zeros_like(like) if scale == 0 else scale * fresh_noise(like, rng)


@dataclass(frozen=True)
class Refined:
    """RFDS-Rev's noise (arXiv:2406.03293): whatever was added, replaced once by what the prompt predicts."""

    inner: NoisePolicy

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """The images under the predicted noise."""
        drawn = self.inner(clean, levels, schedule, bank, progress, rng)
        return diffused(clean, bank.get([POSITIVE], drawn)[POSITIVE], levels, schedule)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """What comes before, and one prediction."""
        return [*self.inner.rounds(levels, schedule, progress), (POSITIVE,)]

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """Nothing: the images have changed since."""
        return ()


@dataclass(frozen=True)
class Ode:
    """The noise at the far end of the prompt's own ODE, in ``steps`` equal Euler steps.

    A DDIM step to a level without signal lands on the score it was made with: that is the noise.
    """

    steps: int

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """The images under the noise that the ODE leads them to."""
        stops = [clean.new_full((len(clean),), k / self.steps * len(schedule)) for k in range(self.steps)]
        alpha, _ = schedule.alpha_sigma(stops[0], clean.dtype)
        x = alpha * clean
        for here, there in pairwise(stops):
            x = schedule.ddim_step(x, self._score(x, clean, here, schedule, bank), here, there)
        return diffused(clean, self._score(x, clean, stops[-1], schedule, bank), levels, schedule)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """One prediction a step."""
        return [(POSITIVE,)] * self.steps

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """Nothing: the way was another one."""
        return ()

    @staticmethod
    def _score(
        x: Float[Tensor, "b c h w"],
        clean: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        schedule: NoiseSchedule,
        bank: ScoreBank,
    ) -> Float[Tensor, "b c h w"]:
        return bank.get([POSITIVE], State(schedule, clean, {MAIN: timesteps}, {MAIN: x}, x))[POSITIVE]


@dataclass(frozen=True)
class Descended:
    """One step down the ODE, from ``MAIN`` to ``LATER``, with guidance; its scores stay in the state."""

    inner: NoisePolicy
    guided: LinearCombination

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """The images at ``MAIN`` as the inner policy makes them, and one step further."""
        state = self.inner(clean, levels, schedule, bank, progress, rng)
        scores = bank.get(self.guided.terms(progress), state)
        later = schedule.ddim_step(
            state.noisy[MAIN],
            self.guided(scores, state, progress),
            state.levels[MAIN],
            state.levels[LATER],
        )
        return replace(state, noisy={**state.noisy, LATER: later}, scores=scores)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """What comes before, and the scores of the step."""
        return [*self.inner.rounds(levels, schedule, progress), self.guided.terms(progress)]

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """The scores of the step."""
        return self.guided.terms(progress)


@dataclass(frozen=True)
class Denoised:
    """From ``MAIN`` down the ODE with guidance, in equal steps, all but the last of them.

    The state's ``MAIN`` is where the last step begins, its ``noise`` what leads there from the clean image in
    a straight line: sigma/alpha (score - noise) is the clean image minus the one at the end of the way.
    """

    inner: NoisePolicy
    guided: LinearCombination
    steps: int

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        levels: Levels,
        schedule: NoiseSchedule,
        bank: ScoreBank,
        progress: float,
        rng: torch.Generator,
    ) -> State:
        """The images before the last step."""
        begun = self.inner(clean, levels, schedule, bank, progress, rng)
        x, start = begun.noisy[MAIN], begun.levels[MAIN]
        stops = [(start * (1 - k / self.steps)).round() for k in range(self.steps)]
        for here, there in pairwise(stops):
            state = State(schedule, clean, {MAIN: here}, {MAIN: x}, x)
            scores = bank.get(self.guided.terms(progress), state)
            x = schedule.ddim_step(x, self.guided(scores, state, progress), here, there)
        alpha, sigma = schedule.alpha_sigma(stops[-1], clean.dtype)
        return State(schedule, clean, {MAIN: stops[-1]}, {MAIN: x}, (x - alpha * clean) / sigma)

    def rounds(self, levels: Levels, schedule: NoiseSchedule, progress: float) -> Rounds:
        """What comes before, and the scores of each step but the last."""
        terms = self.guided.terms(progress)
        return [*self.inner.rounds(levels, schedule, progress), *[terms] * (self.steps - 1)]

    def known(self, levels: Levels, progress: float) -> Collection[Term]:
        """Nothing: the last step's scores are the method's to ask."""
        return ()


def _split(levels: Levels) -> tuple[Level, Sequence[Level]]:
    """The level where the path ends, and those one step away from it."""
    anchor = ANCHOR if ANCHOR in levels else MAIN
    return anchor, [name for name in levels if name != anchor]


def _posterior_std(
    schedule: NoiseSchedule, here: Float[Tensor, "b"], there: Float[Tensor, "b"], dtype: torch.dtype
) -> Float[Tensor, "b 1 1 1"]:
    """Of the cleaner image, given the noisier one and x0: DDPM's way back (arXiv:2006.11239, eq. 7)."""
    alpha, sigma = schedule.alpha_sigma(here, dtype)
    next_alpha, next_sigma = schedule.alpha_sigma(there, dtype)
    return sigma * (1 - (next_alpha * sigma / (alpha * next_sigma)) ** 2).clamp(min=0).sqrt()
