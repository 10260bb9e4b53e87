"""LoRA styles on a teacher, merged into its weights: W + scale alpha / rank up down (Hu et al. 2021).

Read are safetensors in diffusers' format, old (``….to_q.lora.down.weight``) and new
(``….to_q.lora_A.weight``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from studio.errors import StudioError
from studio.priors.folders import first_line
from studio.priors.weights import model_folder

_DENOISERS = ("unet", "transformer")
_DOWN = (".lora_A.weight", ".lora.down.weight", ".lora_linear_layer.down.weight", ".lora_A.default.weight")
_UP = (".lora_B.weight", ".lora.up.weight", ".lora_linear_layer.up.weight", ".lora_B.default.weight")


@dataclass(frozen=True)
class Pair:
    """One layer's change.

    Attributes:
        down, up: its factors; for convolutions in the shape of convolutions.
        alpha: scale times rank.
    """

    down: Tensor
    up: Tensor
    alpha: float

    def change(self) -> Tensor:
        """What is added to the weight."""
        product = self.up.flatten(1).float() @ self.down.flatten(1).float()
        return product * (self.alpha / self.down.shape[0])


@dataclass(frozen=True)
class Style:
    """A LoRA.

    Attributes:
        name: for messages.
        identity: a hash of its file.
        parts: changes by layer, by the network that they are for (unet, transformer, text_encoder, …).
    """

    name: str
    identity: str
    parts: Mapping[str, Mapping[str, Pair]]

    def merge_denoiser(self, denoiser: nn.Module, scale: float) -> None:
        """Change the denoiser's weights.

        Raises:
            StudioError: the style was made for another base.
        """
        changes = [self.parts[name] for name in _DENOISERS if name in self.parts]
        if not changes:
            raise StudioError(
                f"The style {self.name} changes no denoiser, expected unet or transformer layers in it."
            )
        self._merge(denoiser, changes[0], scale)

    def merge_text(self, encoder: nn.Module, part: str, scale: float) -> None:
        """Change a text encoder's weights, if the style has any for it."""
        self._merge(encoder, self.parts.get(part, {}), scale)

    def _merge(self, network: nn.Module, changes: Mapping[str, Pair], scale: float) -> None:
        layers = dict(network.named_modules())
        for name, pair in changes.items():
            # transformers before 5 wraps CLIP's layers in text_model, and styles name them so.
            layer = layers.get(name) or layers.get(name.removeprefix("text_model."))
            weight = getattr(layer, "weight", None)
            fits = isinstance(weight, Tensor) and weight.shape[0] == pair.up.shape[0]
            if not fits or weight is None or weight[0].numel() != pair.down[0].numel():
                has = "no such layer" if weight is None else f"one of {tuple(weight.shape)}"
                raise StudioError(
                    f"The style {self.name} was made for another base: it changes {name} by "
                    f"{pair.up.shape[0]} x {pair.down[0].numel()} and the model has {has}; try a style for "
                    "this model."
                )
            with torch.no_grad():
                weight += (scale * pair.change()).view_as(weight).to(weight)


def load_style(source: str) -> Style:
    """A LoRA from a file, a folder with one, or the hub.

    Raises:
        StudioError: there is none, or it is not in diffusers' format.
    """
    from safetensors.torch import load_file

    path = Path(source).expanduser()
    if not path.is_file():
        folder = model_folder(source, None)
        files = sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            found = ", ".join(file.name for file in files) or "none"
            raise StudioError(
                f"{source} holds {found}, expected one .safetensors file with a LoRA; name the file."
            )
        path = files[0]
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudioError(
            f"{path} is missing or damaged ({first_line(error)}), expected a LoRA as safetensors; download "
            "it again."
        ) from error
    parts: dict[str, dict[str, Pair]] = {}
    for key, down in state.items():
        ending = next((ending for ending in _DOWN if key.endswith(ending)), None)
        if ending is None:
            continue
        layer = key.removesuffix(ending)
        up = state.get(layer + _UP[_DOWN.index(ending)])
        if up is None:
            raise StudioError(f"{path} has {key} without its other factor, expected both; download it again.")
        alpha = state.get(f"{layer}.alpha")
        part, _, name = layer.partition(".")
        pair = Pair(down, up, float(down.shape[0] if alpha is None else alpha))
        parts.setdefault(part, {})[name.replace(".processor.", ".").replace("_lora", "")] = pair
    if not parts:
        raise StudioError(
            f"{path} is no LoRA in diffusers' format (its first weight is {next(iter(state), 'missing')}), "
            "expected names such as unet.….to_q.lora_A.weight; convert it with diffusers' save_lora_weights."
        )
    return Style(str(source), hashlib.sha256(path.read_bytes()).hexdigest(), parts)
