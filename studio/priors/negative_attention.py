"""Negative-away steer attention (NASA): a negative prompt inside one call of the denoiser, without training.

    cross-attention = attention(prompt) - scale attention(negative prompt)

in every cross-attention layer (SNOOPI, V. Nguyen et al. 2024, arXiv:2412.02687). It costs the attention again
but no call of the network, so it also serves models that are asked without classifier-free guidance. Queries
are the same for both. The authors' code and their scale are not public: the difference is taken of the whole
layer's outputs, its last projection among them, and the default scale is a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from studio.errors import StudioError
from studio.interfaces import Limits
from studio.priors.codecs import dtype_of
from studio.priors.families import Family
from studio.types import Condition, PromptEmbedding

_PROJECTIONS = ("caption_projection", "encoder_hid_proj")
"""Diffusers' names of what text passes on its way to the layers: of PixArt, of DeepFloyd IF."""
_MASKED = -10000.0
"""What diffusers adds to the logits of padding."""


@dataclass(frozen=True)
class NegativeAttention:
    """A family of denoisers that looks away from a prompt, at every prompt but the empty one.

    Attributes:
        inner: the family.
        negative, empty: one row each; the empty prompt is the unconditional branch, which stays as it is.
        scale: of what is subtracted.
    """

    inner: Family
    negative: PromptEmbedding
    empty: PromptEmbedding
    scale: float

    @property
    def limits(self) -> Limits:
        """The family's."""
        return self.inner.limits

    @property
    def uses_camera(self) -> bool:
        """As the family."""
        return self.inner.uses_camera

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        sigma: Float[Tensor, "b"],
        condition: Condition,
    ) -> Float[Tensor, "b k h w"]:
        """The denoiser's output with its cross-attention changed for the length of this call."""
        steered = self._is_steered(condition.prompt)
        if self.scale == 0 or not bool(steered.any()):
            return self.inner(denoiser, x_t, timesteps, sigma, condition)
        with self._attached(denoiser, steered):
            return self.inner(denoiser, x_t, timesteps, sigma, condition)

    def _is_steered(self, prompt: PromptEmbedding) -> Bool[Tensor, "b"]:
        """False for the empty prompt, whatever tokens follow it."""
        length = self.empty.tokens.shape[1]
        return (prompt.tokens[:, :length] != self.empty.tokens).flatten(1).any(dim=1)

    @contextmanager
    def _attached(self, denoiser: nn.Module, steered: Bool[Tensor, "b"]) -> Iterator[None]:
        tokens = self.negative.tokens.to(dtype_of(denoiser))
        for name in _PROJECTIONS:
            projection = getattr(denoiser, name, None)
            tokens = tokens if projection is None else projection(tokens)
        hook = self._hook(tokens, self.scale * steered.to(tokens.dtype)[:, None, None])
        handles = [
            layer.register_forward_hook(hook, with_kwargs=True) for layer in cross_attention_of(denoiser)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, tokens: Float[Tensor, "1 l d"], scale: Float[Tensor, "b 1 1"]) -> Callable[..., Tensor]:
        def hook(layer: nn.Module, inputs: tuple[Tensor], told: dict[str, Any], output: Tensor) -> Tensor:
            text = tokens.expand(len(output), -1, -1)
            mask = None
            if told.get("attention_mask") is not None and self.negative.pooled is not None:
                padding = self.negative.pooled.to(tokens) <= 0
                mask = (_MASKED * padding.to(tokens))[:, None].expand(len(output), -1, -1)
            # ``forward`` and not the layer itself, which would call this hook again.
            away: Tensor = layer.forward(*inputs, encoder_hidden_states=text, attention_mask=mask)
            return output - scale * away

        return hook


def cross_attention_of(denoiser: nn.Module) -> list[nn.Module]:
    """The layers that look at the text and at nothing else."""
    return [
        layer
        for layer in denoiser.modules()
        if getattr(layer, "is_cross_attention", False) and getattr(layer, "added_kv_proj_dim", None) is None
    ]


def refuse_unsteerable(source: object, denoiser: nn.Module, limits: Limits) -> None:
    """See that a denoiser's attention can look away from a prompt.

    Raises:
        StudioError: it reads no words, or has no cross-attention of its own.
    """
    if limits.reads_text and cross_attention_of(denoiser):
        return
    why = (
        "has none: in it, pictures and words attend to each other together"
        if limits.reads_text
        else "reads no words"
    )
    raise StudioError(
        f"prior.negative_attention needs cross-attention to the text alone, and {source} {why}; leave it "
        "out (negative_prompt may serve), or try Stable Diffusion 1, 2 or XL, or PixArt."
    )
