"""The Protocols: what each part of the sentence promises to the others.

*A prompt becomes a conditioning for a prior; guidance turns the prior's scores into a gradient on what a
renderer shows of a scene from a camera; the loop follows it; export writes the asset.*
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from studio.schedule import NoiseSchedule
from studio.types import Cameras, Condition, Conditioning, GuidanceOutput, PromptEmbedding, RenderOutput

PrimitivesOut = TypeVar("PrimitivesOut", covariant=True)
PrimitivesIn = TypeVar("PrimitivesIn", contravariant=True)


@dataclass(frozen=True)
class ParameterGroup:
    """One tensor that the optimiser moves, with its own learning rate."""

    name: str
    parameter: torch.nn.Parameter
    learning_rate: float


@runtime_checkable
class Scene(Protocol[PrimitivesOut]):
    """What is optimised. A 4D scene answers differently at each ``time``."""

    def at(self, time: Float[Tensor, ""] | None) -> PrimitivesOut:
        """The primitives to draw at an instant in 0-1, or at rest."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """The tensors to optimise, in a fixed order with unique names."""

    def state(self) -> Mapping[str, Tensor]:
        """Everything needed to build the scene again, by name."""


@runtime_checkable
class TendedScene(Protocol):
    """A scene that keeps something beside its parameters up to date. Others need not say so."""

    def upkeep(self, step: int, rng: torch.Generator) -> None:
        """What is to be done after ``step`` steps of a stage."""


@runtime_checkable
class Renderer(Protocol[PrimitivesIn]):
    """Draws primitives. Stateless: the same arguments give the same picture."""

    def __call__(
        self, primitives: PrimitivesIn, cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> RenderOutput:
        """Images of the primitives over a background colour for each camera."""


@runtime_checkable
class Prior(Protocol):
    """A diffusion model in the one language that guidance knows: noise predictions at a level of a schedule.

    There is no classifier-free guidance inside: guidance asks for each branch by itself.
    """

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that the model knows."""

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One row of embedding for each prompt; the empty prompt is the unconditional branch."""

    def encode_images(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hx wx"]:
        """Images in 0-1 to the variable that the model denoises. Differentiable."""

    def decode_images(self, x: Float[Tensor, "b c hx wx"]) -> Float[Tensor, "b 3 h w"]:
        """The inverse of ``encode_images``, to look at."""

    def predict_noise(
        self, x_t: Float[Tensor, "b c hx wx"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c hx wx"]:
        """The noise in ``x_t``, whatever the model itself was trained to output."""


@dataclass(frozen=True)
class Limits:
    """What a prior cannot be asked. By default it can be asked anything.

    Attributes:
        supports_null: it has an unconditional branch; guidance-distilled models have none.
        views: how many pictures of one asset come together, neighbours in the batch at one noise level.
        frames: how many pictures of one camera come together, one after the other in time: a clip.
        needs_camera: every branch wants the cameras.
        needs_image: its positive branch wants ``Condition.image``.
        needs_control: every branch wants ``Condition.control``.
        reads_text: prompts mean something to it.
    """

    supports_null: bool = True
    views: int = 1
    frames: int = 1
    needs_camera: bool = False
    needs_image: bool = False
    needs_control: bool = False
    reads_text: bool = True


@runtime_checkable
class LimitedPrior(Protocol):
    """A prior that cannot be asked everything. Others need not say so."""

    @property
    def limits(self) -> Limits:
        """What it cannot be asked."""


@runtime_checkable
class NoisePredictor(Protocol):
    """Anything that says what noise is in an image: a prior, or a critic of what is rendered."""

    def predict_noise(
        self, x_t: Float[Tensor, "b c hx wx"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c hx wx"]:
        """The noise in ``x_t``."""


@runtime_checkable
class TrainableNetwork(NoisePredictor, Protocol):
    """A noise predictor with parameters, differentiable in them and in ``x_t`` wherever gradients are on."""

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """What may be trained, by name, in a fixed order."""


@runtime_checkable
class TunablePrior(Protocol):
    """A prior whose network can be tuned beside itself: the copy costs little and leaves the prior as is."""

    def tunable(self, rank: int, rng: torch.Generator) -> TrainableNetwork:
        """A network that starts as the prior's own and knows the camera.

        Args:
            rank: of the change to each attention projection; 0 for a learned empty prompt and nothing else.
            rng: draws the first weights.
        """


@runtime_checkable
class Guidance(Protocol):
    """Turns scores into a gradient on rendered images. May own parameters and state of its own."""

    def __call__(
        self,
        rgb: Float[Tensor, "b 3 h w"],
        conditioning: Conditioning,
        progress: float,
        rng: torch.Generator,
    ) -> GuidanceOutput:
        """The gradient for one batch of renders at ``progress`` (0 at the first step, 1 after the last)."""

    def denoiser_calls(self, batch: int) -> int:
        """How many images one call sends through the denoiser."""

    def state(self) -> Mapping[str, Tensor]:
        """Everything that calls have changed, by name; empty before the first one and for most methods."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved state; from the empty one, start anew."""


@runtime_checkable
class CameraSampler(Protocol):
    """Draws the cameras of a step."""

    def __call__(self, progress: float, rng: torch.Generator) -> Cameras:
        """A batch of cameras."""
