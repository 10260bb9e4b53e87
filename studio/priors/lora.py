"""A diffusion model beside itself: small learned changes that hold only while the copy is asked.

The change is attached to the network for the length of one call, so the network that everybody else asks is
the one that was loaded, bit for bit. LoRA: Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from studio.cameras import CAMERA_FEATURES, camera_features
from studio.errors import StudioError
from studio.types import Cameras, Condition, PromptEmbedding

_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
"""Diffusers' names of the linear layers of an attention block."""
_LEVEL_EMBEDDINGS = ("time_embedding", "time_text_embed", "adaln_single.emb")
"""Its names of what turns a noise level into a vector: of U-Nets, of SD3 and FLUX, of PixArt."""


@runtime_checkable
@runtime_checkable
class PredictNoise(Protocol):
    """A prior's ``predict_noise``, with gradients wherever they are on."""

    def __call__(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]: ...


class LowRankCopy:
    """A network whose attention projections compute ``W x + up (down x)``, with ``up`` zero at first.

    Args:
        network: in diffusers' layout, frozen; it is not changed.
        predict: the noise prediction that calls ``network``.
        rank: of ``up down``.
        joins_camera: the network knows no cameras: add an embedding of them to that of the noise level. It is
            zero at first.
        rng: draws ``down`` from N(0, 1/rank²) and the camera's first layer.

    Raises:
        StudioError: the network has no attention layers, or no embedding of the level, of diffusers' kind.
    """

    def __init__(
        self,
        network: nn.Module,
        predict: PredictNoise,
        rank: int,
        *,
        joins_camera: bool,
        rng: torch.Generator,
    ) -> None:
        self._predict = predict
        self._layers = {
            name: layer
            for name, layer in network.named_modules()
            if isinstance(layer, nn.Linear) and name.endswith(_PROJECTIONS)
        }
        if not self._layers:
            raise StudioError(
                f"the network {type(network).__name__} has no attention projections named like diffusers' "
                f"{', '.join(_PROJECTIONS)}; a critic cannot be made of it, try another model"
            )
        self._weights: dict[str, nn.Parameter] = {}
        for name, layer in self._layers.items():
            down = torch.randn(rank, layer.in_features, generator=rng) / rank
            self._add(f"{name}.down", down, layer.weight.device)
            self._add(f"{name}.up", torch.zeros(layer.out_features, rank), layer.weight.device)
        self._level_embedding: nn.Module | None = None
        if joins_camera:
            self._level_embedding = _level_embedding(network)
            last = [layer for layer in self._level_embedding.modules() if isinstance(layer, nn.Linear)][-1]
            width, device = last.out_features, last.weight.device
            first = torch.randn(width, CAMERA_FEATURES, generator=rng) / CAMERA_FEATURES**0.5
            self._add("camera.first", first, device)
            self._add("camera.second", torch.zeros(width, width), device)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The changes, in full precision."""
        return self._weights

    def predict_noise(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        """The changed network's prediction; without cameras, for any view."""
        with self._attached(condition.cameras):
            return self._predict(x_t, timesteps, condition)

    @contextmanager
    def _attached(self, cameras: Cameras | None) -> Iterator[None]:
        weights = self._weights
        handles = [
            layer.register_forward_hook(partial(_changed, weights[f"{name}.down"], weights[f"{name}.up"]))
            for name, layer in self._layers.items()
        ]
        if self._level_embedding is not None and cameras is not None:
            turned = partial(_turned, weights["camera.first"], weights["camera.second"], cameras)
            handles.append(self._level_embedding.register_forward_hook(turned))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, name: str, value: Tensor, device: torch.device) -> None:
        self._weights[name] = nn.Parameter(value.to(device, torch.float32))


def _changed(down: Tensor, up: Tensor, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    change = functional.linear(functional.linear(inputs[0].to(down.dtype), down), up)
    return output + change.to(output.dtype)


def _turned(
    first: Tensor, second: Tensor, cameras: Cameras, _: nn.Module, inputs: object, output: Tensor
) -> Tensor:
    features = camera_features(cameras).to(first)
    embedded = functional.linear(functional.silu(functional.linear(features, first)), second)
    return output + embedded.to(output.dtype)


def _level_embedding(network: nn.Module) -> nn.Module:
    modules: dict[str, nn.Module] = dict(network.named_modules())
    for name in _LEVEL_EMBEDDINGS:
        if name in modules:
            return modules[name]
    raise StudioError(
        f"the network {type(network).__name__} has none of {', '.join(_LEVEL_EMBEDDINGS)}, where a critic's "
        "camera would join; try another model"
    )


class LearnedNull:
    """A network that reads one learned embedding in the place of every prompt; at first the empty one's."""

    def __init__(self, predict: PredictNoise, empty: PromptEmbedding) -> None:
        self._predict = predict
        self._tokens = nn.Parameter(empty.tokens.detach().float().clone())
        self._pooled = empty.pooled

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The embedding."""
        return {"tokens": self._tokens}

    def predict_noise(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        """The network's prediction under the learned prompt."""
        prompt = PromptEmbedding(self._tokens, self._pooled)
        return self._predict(x_t, timesteps, replace(condition, prompt=prompt))
