"""Parameters that learn beside the scene, and all that must be saved of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_LOSS_SCALE = 2.0**12
"""Keeps small gradients alive on their way through a network in half precision; exact, as a power of two."""


class Learner:
    """AdamW on named parameters, with a state that is complete: going on from it is exact on a CPU."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], learning_rate: float) -> None:
        self.updates = 0
        """Steps taken."""
        self._parameters = dict(parameters)
        self._rate = learning_rate
        self._first = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._optimizer = self._fresh()

    def descend(self, loss: Float[Tensor, ""]) -> float:
        """One step down ``loss``; its value. A loss that is not finite changes nothing."""
        value = float(loss.detach())
        self.updates += 1
        parameters = list(self._parameters.values())
        gradients = torch.autograd.grad(loss * _LOSS_SCALE, parameters, allow_unused=True)
        if any(gradient is not None and not bool(gradient.isfinite().all()) for gradient in gradients):
            return value
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient / _LOSS_SCALE
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return value

    def state(self) -> dict[str, Tensor]:
        """Weights, moments and the count of steps, by name; empty before the first step."""
        if self.updates == 0:
            return {}
        saved = {"updates": torch.tensor(self.updates)}
        for name, parameter in self._parameters.items():
            saved[f"weights/{name}"] = parameter.detach()
            moments = self._optimizer.state.get(parameter, {})
            saved |= {f"adam/{name}/{moment}": moments[moment] for moment in _MOMENTS if moment in moments}
        return saved

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state; from the empty one, start anew."""
        self.updates = int(state["updates"]) if state else 0
        self._optimizer = self._fresh()
        for name, parameter in self._parameters.items():
            with torch.no_grad():
                parameter.copy_(state.get(f"weights/{name}", self._first[name]))
            if f"adam/{name}/step" in state:
                self._optimizer.state[parameter] = {
                    moment: state[f"adam/{name}/{moment}"].detach().clone() for moment in _MOMENTS
                }

    def _fresh(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(list(self._parameters.values()), lr=self._rate, fused=True)
