"""DisBack: towards the prior by way of priors that are closer to where the scene starts.

At first the scene rests and a copy of the prior unlearns towards its renders; copies are kept on the way.
Then distribution matching runs with the last of them as the prior, the one before, and so on back to the
prior itself: each is near enough to the renders to say something useful.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.guidance import dmd2, gradient, noise, times, weighting
from studio.guidance.citation import Citation
from studio.guidance.critic import TrainedCritic, build_critic, trainable_network
from studio.guidance.method import Method
from studio.guidance.refusals import limits_of
from studio.guidance.score_distillation import ScoreDistillation
from studio.interfaces import Limits, Prior, TunablePrior
from studio.recipes.guidance import DisbackConfig
from studio.schedule import NoiseSchedule
from studio.types import Condition, Conditioning, GuidanceOutput, PromptEmbedding

CITATION = Citation(
    authors="S. Zhang, Z. Zhao, Y. Wang, X. Zhang",
    title="Distribution Backtracking Builds A Faster Convergence Trajectory for Diffusion Distillation",
    year=2024,
    arxiv="2408.15991",
)


def method(config: DisbackConfig) -> Method:
    """The second stage: DMD2's loss, whoever the teacher is."""
    return Method(
        citation=CITATION,
        times=times.sampler(config.times),
        noise=noise.policy(config.noise),
        combine=dmd2.DistributionMatching(config.cfg_scale),
        weight=weighting.named("uniform"),
        scores=config.scores,
        gradient=config.gradient,
        critic=config.critic,
    )


def teacher_at(progress: float, degrade_until: float, walk_until: float, teachers: int) -> int:
    """Which teacher leads: ``teachers`` is the most degraded one, and 0 the prior itself.

    It never rises, each leads for the same time, and from ``walk_until`` on it is 0.
    """
    if progress >= walk_until:
        return 0
    left = (walk_until - progress) / (walk_until - degrade_until)
    return max(1, min(teachers, math.ceil(teachers * left - 1e-9)))


class Walk:
    """The prior and its degraded copies as one prior: implements the ``Prior`` protocol.

    Raises:
        StudioError: the prior has no network that could unlearn.
    """

    def __init__(self, prior: Prior, config: DisbackConfig) -> None:
        if not isinstance(prior, TunablePrior) or config.degradation.rank == 0:
            raise StudioError(
                "disback needs a prior whose network can be tuned and degradation.rank of 1 or more; "
                "expected a learned prior, try prior.kind = 'small'"
            )
        self._prior = prior
        self._config = config
        self._network = trainable_network(config.degradation, prior)
        self._degraded = TrainedCritic(config.degradation, self._network, prior.schedule, limits_of(prior))
        self._kept: list[dict[str, Tensor]] = []
        self._leader = 0

    @property
    def schedule(self) -> NoiseSchedule:
        """The prior's."""
        return self._prior.schedule

    @property
    def limits(self) -> Limits:
        """The prior's."""
        return limits_of(self._prior)

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        """As the prior does."""
        return self._prior.encode_prompts(prompts)

    def encode_images(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hx wx"]:
        """As the prior does."""
        return self._prior.encode_images(rgb)

    def decode_images(self, x: Float[Tensor, "b c hx wx"]) -> Float[Tensor, "b 3 h w"]:
        """As the prior does."""
        return self._prior.decode_images(x)

    def predict_noise(
        self, x_t: Float[Tensor, "b c hx wx"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c hx wx"]:
        """As the teacher that leads does."""
        if self._leader == 0:
            return self._prior.predict_noise(x_t, timesteps, condition)
        return self._network.predict_noise(x_t, timesteps, condition)

    def degrade(
        self,
        clean: Float[Tensor, "b c h w"],
        conditioning: Conditioning,
        progress: float,
        rng: torch.Generator,
    ) -> Mapping[str, float]:
        """Unlearn towards the renders; the copy kept of each share of the time is its last."""
        figures = self._degraded.learn(clean, conditioning, rng)
        share = int(progress / self._config.degrade_until * self._config.teachers)
        weights = {name: parameter.detach().clone() for name, parameter in self._network.parameters().items()}
        self._kept = [*self._kept[:share], weights]
        return figures

    def lead(self, progress: float) -> int:
        """Make the teacher of ``progress`` the leader; its number, 0 for the prior itself."""
        config = self._config
        leader = teacher_at(progress, config.degrade_until, config.walk_until, len(self._kept))
        if leader not in (self._leader, 0):
            with torch.no_grad():
                for name, parameter in self._network.parameters().items():
                    parameter.copy_(self._kept[leader - 1][name])
        self._leader = leader
        return leader

    def training_calls(self, batch: int) -> int:
        """Images that ``degrade`` sends through the denoiser."""
        return self._degraded.training_calls(batch)

    def state(self) -> Mapping[str, Tensor]:
        """The degraded teachers, and what is needed to go on degrading."""
        kept = {
            f"kept/{place:04d}/{name}": tensor
            for place, weights in enumerate(self._kept)
            for name, tensor in weights.items()
        }
        return kept | {f"degraded/{name}": tensor for name, tensor in self._degraded.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state; from the empty one, start anew."""
        self._leader = 0
        count = len({name.split("/")[1] for name in state if name.startswith("kept/")})
        self._kept = [
            {name: state[f"kept/{place:04d}/{name}"] for name in self._network.parameters()}
            for place in range(count)
        ]
        self._degraded.load_state(
            {
                name.removeprefix("degraded/"): tensor
                for name, tensor in state.items()
                if name.startswith("degraded/")
            }
        )


class Disback:
    """Both stages: implements the ``Guidance`` protocol."""

    def __init__(self, prior: Prior, config: DisbackConfig) -> None:
        self._degrade_until = config.degrade_until
        self._walk = Walk(prior, config)
        self._matching = ScoreDistillation(
            self._walk, method(config), critic=build_critic(config.critic, prior)
        )

    def __call__(
        self,
        rgb: Float[Tensor, "b 3 h w"],
        conditioning: Conditioning,
        progress: float,
        rng: torch.Generator,
    ) -> GuidanceOutput:
        """No gradient while the prior unlearns, distribution matching afterwards."""
        if progress >= self._degrade_until:
            self._walk.lead(progress)
            return self._matching(rgb, conditioning, progress, rng)
        x = self._walk.encode_images(rgb)
        figures = self._walk.degrade(x.detach(), conditioning, progress, rng)
        nothing = torch.zeros_like(x)
        return GuidanceOutput(
            loss=gradient.inject(x, nothing),
            gradient=nothing,
            timesteps=torch.zeros(len(x), device=x.device),
            denoiser_calls=self._walk.training_calls(len(x)),
            terms={f"degradation_{name}": value for name, value in figures.items()},
        )

    def denoiser_calls(self, batch: int, progress: float = 1.0) -> int:
        """Of the stage that ``progress`` lies in."""
        if progress < self._degrade_until:
            return self._walk.training_calls(batch)
        return self._matching.denoiser_calls(batch, progress)

    def state(self) -> Mapping[str, Tensor]:
        """The teachers and the critic."""
        walk = {f"walk/{name}": tensor for name, tensor in self._walk.state().items()}
        return walk | dict(self._matching.state())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state; from the empty one, start anew."""
        walk = {name: tensor for name, tensor in state.items() if name.startswith("walk/")}
        self._walk.load_state({name.removeprefix("walk/"): tensor for name, tensor in walk.items()})
        self._matching.load_state({name: state[name] for name in state.keys() - walk.keys()})
