"""What can be added to a Stable Diffusion U-Net: ControlNets, and images as prompts (IP-Adapter)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from studio.errors import StudioError
from studio.interfaces import Limits
from studio.priors.codecs import dtype_of, resized
from studio.priors.folders import UNREADABLE, first_line, frozen, load_network
from studio.types import Condition
from studio.view_prompts import from_front_deg

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


REMEMBERED = 32
"""Images whose answers are kept: more than the frames of a video that presets follow."""


class LastImages:
    """A function of images that remembers its last answers: a run shows the same references at every step,
    a picture or the frames of a video.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._known: deque[tuple[Tensor, Tensor]] = deque(maxlen=REMEMBERED)

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "b 3 h w"]) -> Tensor:
        """One row for each image. Each is computed by itself: a run that goes on, and has forgotten, finds
        the same bits.
        """
        if bool((image == image[:1]).all()):
            row = self._of(image[:1])
            return row.expand(len(image), *row.shape[1:])
        return torch.cat([self._of(one[None]) for one in image])

    def _of(self, image: Float[Tensor, "1 3 h w"]) -> Tensor:
        for known, answer in self._known:
            if torch.equal(known, image):
                return answer
        answer = self._function(image)
        self._known.appendleft((image.clone(), answer))
        return answer


@dataclass(frozen=True)
class ClipImageEmbedder:
    """CLIP's vector for each image (transformers' ``CLIPVisionModelWithProjection``).

    Images are resized bilinearly; CLIP's own processing is bicubic.
    """

    encoder: Any

    def __call__(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Images in 0-1."""
        mean, std = (rgb.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        pixels = (resized(rgb, int(self.encoder.config.image_size)) - mean) / std
        vectors: Tensor = self.encoder(pixel_values=pixels.to(dtype_of(self.encoder))).image_embeds
        return vectors.to(rgb.dtype)


@dataclass(frozen=True)
class ControlNet:
    """Residuals for a U-Net from a picture of what is wanted (Zhang et al. 2023, arXiv:2302.05543).

    Attributes:
        network: diffusers' ``ControlNetModel``.
        scale: factor of the residuals.
    """

    network: Any
    scale: float = 1.0

    def __call__(
        self, x_t: Tensor, timesteps: Tensor, text: Tensor, control: Tensor, added: dict[str, Any]
    ) -> tuple[list[Tensor], Tensor]:
        """Residuals of the way down and of the middle."""
        size = x_t.shape[-1] * 2 ** (len(self.network.config.conditioning_embedding_out_channels) - 1)
        dtype = dtype_of(self.network)
        down, middle = self.network(
            x_t.to(dtype),
            timesteps,
            encoder_hidden_states=text.to(dtype),
            controlnet_cond=resized(control, size).to(dtype),
            conditioning_scale=self.scale,
            added_cond_kwargs=added,
            return_dict=False,
        )
        return list(down), middle


@dataclass(frozen=True)
class Adapters:
    """What is added to a U-Net; by default nothing.

    Attributes:
        controls: each is shown ``Condition.control``; their residuals are added up.
        image_prompt: makes a vector of ``Condition.image``, which the U-Net reads beside the text
            (IP-Adapter, Ye et al. 2023, arXiv:2308.06721). Without an image the vector is zero.
        image_width: of that vector.
        image_within_deg: views turned further from the front than this, in azimuth, are shown no image.
    """

    controls: tuple[ControlNet, ...] = ()
    image_prompt: LastImages | None = None
    image_width: int = 0
    image_within_deg: float = 180.0

    @property
    def limits(self) -> Limits:
        """A ControlNet wants a picture for each image."""
        return Limits(needs_control=bool(self.controls))

    def ask(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        text: Float[Tensor, "b l d"],
        condition: Condition,
        added: dict[str, Any],
        classes: Float[Tensor, "b n"] | None,
    ) -> Float[Tensor, "b k h w"]:
        """One forward pass of a ``UNet2DConditionModel``.

        Raises:
            StudioError: a ControlNet is shown no picture.
        """
        down: list[Tensor] | None = None
        middle: Tensor | None = None
        if self.controls:
            if condition.control is None:
                raise StudioError(
                    "The prior has ControlNets and was shown no picture for them; give prior.control_points, "
                    "or leave out prior.controls."
                )
            for control in self.controls:
                more, at_middle = control(x_t, timesteps, text, condition.control, added)
                down = more if down is None else [a + b for a, b in zip(down, more, strict=True)]
                middle = at_middle if middle is None else middle + at_middle
        dtype = dtype_of(denoiser)
        if self.image_prompt is not None:
            if condition.image is None:
                image = x_t.new_zeros(len(x_t), self.image_width)
            else:
                image = self.image_prompt(condition.image) * self._shown(condition, len(x_t)).to(x_t)
            added = added | {"image_embeds": [image[:, None].to(dtype)]}
        output: Tensor = denoiser(
            x_t.to(dtype),
            timesteps,
            text,
            class_labels=classes,
            added_cond_kwargs=added or None,
            down_block_additional_residuals=None if down is None else [part.to(dtype) for part in down],
            mid_block_additional_residual=None if middle is None else middle.to(dtype),
            return_dict=False,
        )[0]
        return output

    def _shown(self, condition: Condition, batch: int) -> Float[Tensor, "b 1"]:
        """1 for the views that are shown the image, 0 for the others."""
        if self.image_within_deg >= 180:
            return torch.ones(batch, 1)
        if condition.cameras is None:
            raise StudioError(
                "prior.face_within_deg shows the image by view and the prior was given no cameras; try "
                "tell_camera = true, or leave it out."
            )
        turned = from_front_deg(condition.cameras.azimuth_deg)
        return (turned <= self.image_within_deg).float()[:, None]


@dataclass(frozen=True)
class Identity:
    """What is said after a prompt.

    Attributes:
        identity: whose face it is.
        nobody: as many tokens that say nothing, for views without a face.
    """

    identity: Float[Tensor, "k d"]
    nobody: Float[Tensor, "k d"]


def load_identity(path: Path, device: torch.device) -> Identity:
    """Tokens from a safetensors file: ``identity``, and ``nobody`` or zeros.

    Raises:
        StudioError: the file is not there, not readable, or holds something else.
    """
    from safetensors.torch import load_file

    try:
        held = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudioError(
            f"prior.identity is {path}, expected a safetensors file with tokens ({first_line(error)})."
        ) from error
    identity = held.get("identity")
    if identity is None or identity.ndim != 2 or held.get("nobody", identity).shape != identity.shape:
        found = ", ".join(f"{name} {list(value.shape)}" for name, value in held.items()) or "nothing"
        raise StudioError(
            f"prior.identity {path} holds {found}, expected 'identity' of shape [tokens, width] and perhaps "
            "'nobody' of the same."
        )
    nobody = held.get("nobody", torch.zeros_like(identity))
    return Identity(identity.to(device, torch.float32), nobody.to(device, torch.float32))


def load_control(folder: Path, denoiser: Any, scale: float, device: torch.device) -> ControlNet:
    """A ControlNet for a U-Net.

    Raises:
        StudioError: it is not readable, or was made for another base.
    """
    network = frozen(load_network(folder, dtype_of(denoiser)), device)
    for name in ("in_channels", "cross_attention_dim", "block_out_channels"):
        theirs, ours = getattr(network.config, name, None), getattr(denoiser.config, name, None)
        if _as_plain(theirs) != _as_plain(ours):
            raise StudioError(
                f"The ControlNet {folder} has {name} {theirs}, expected the base model's {ours}: it was made "
                "for another base; try one for this model."
            )
    return ControlNet(network, scale)


def load_image_prompt(folder: Path, denoiser: Any, device: torch.device) -> tuple[LastImages, int]:
    """Let a U-Net read images beside the text; gives the image encoder and the width of its vectors.

    The folder holds one ``ip-adapter*.safetensors`` and ``image_encoder/``, as h94/IP-Adapter does in
    ``models/``. The U-Net's cross-attention gains weights.

    Raises:
        StudioError: they are not there, not readable, or made for another base.
    """
    from safetensors.torch import load_file

    places = (folder, folder / "models", folder / "sdxl_models")
    found = [path for place in places for path in sorted(place.glob("ip-adapter*.safetensors"))]
    encoders = [place / "image_encoder" for place in places if (place / "image_encoder").is_dir()]
    if not found or not encoders:
        raise StudioError(
            f"{folder} has no IP-Adapter, expected ip-adapter*.safetensors and image_encoder/ as in "
            "h94/IP-Adapter."
        )
    state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    try:
        for name, value in load_file(found[0]).items():
            group, _, rest = name.partition(".")
            state[group][rest] = value
        width = int(state["image_proj"]["proj.weight"].shape[1])
    except (OSError, KeyError, SafetensorError) as error:
        raise StudioError(
            f"{found[0]} is no plain IP-Adapter ({first_line(error)}), expected image_proj.proj and "
            "ip_adapter weights; variants such as 'plus' and 'faceid' are not read."
        ) from error
    encoder = ClipImageEmbedder(frozen(load_network(encoders[0], dtype_of(denoiser)), device))
    try:
        denoiser._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    except UNREADABLE as error:
        raise StudioError(
            f"The image prompt {found[0]} does not fit the base model ({first_line(error)}): it was made for "
            "another base; try the one for this model."
        ) from error
    if encoder.encoder.config.projection_dim != width:
        raise StudioError(
            f"{found[0]} reads vectors of {width} numbers, expected the "
            f"{encoder.encoder.config.projection_dim} of {encoders[0]}; take both from one model."
        )
    frozen(denoiser, device)
    return LastImages(encoder), width


def _as_plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
