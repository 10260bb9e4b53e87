"""One class a family of diffusion models: how its denoiser is asked, and what it cannot be asked.

Each is called as ``family(denoiser, x_t, timesteps, sigma, condition)`` and returns the denoiser's own
output, of which `studio.priors.latent.LatentPrior` makes noise. ``timesteps`` are indices of the schedule and
``sigma`` is the noise at them: flow models are told the noise itself. ControlNets and image prompts are
`studio.priors.adapters`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from studio.cameras import CAMERA_FEATURES, camera_features
from studio.errors import StudioError
from studio.interfaces import Limits
from studio.priors.adapters import Adapters, LastImages
from studio.priors.codecs import dtype_of
from studio.types import Cameras, Condition

CAMERA_MATRIX = 16
"""Numbers that a multi-view model is told of a camera."""


@runtime_checkable
class Family(Protocol):
    """How the denoisers of one family are asked."""

    @property
    def limits(self) -> Limits:
        """What it cannot be asked."""

    @property
    def uses_camera(self) -> bool:
        """Whether the denoiser is told the camera itself, beside the prompt's view words."""

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        sigma: Float[Tensor, "b"],
        condition: Condition,
    ) -> Float[Tensor, "b k h w"]:
        """The denoiser's output."""


# ------------------------------------------------------------------------------------------------ U-Nets


@dataclass(frozen=True)
class StableDiffusion:
    """Stable Diffusion 1 and 2 (Rombach et al. 2022), DeepFloyd IF, and the studio's own learned prior.

    Attributes:
        uses_camera: the U-Net is told the view as its class (`camera_features`).
        adapters: ControlNets and an image prompt.
    """

    uses_camera: bool = False
    adapters: Adapters = Adapters()  # noqa: RUF009

    @property
    def limits(self) -> Limits:
        """Anything may be asked."""
        return self.adapters.limits

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        sigma: Float[Tensor, "b"],
        condition: Condition,
    ) -> Float[Tensor, "b k h w"]:
        """Text by cross-attention. Without cameras, a model that knows them answers for its camera-free
        branch.
        """
        dtype = dtype_of(denoiser)
        text = condition.prompt.expanded(len(x_t)).tokens.to(dtype)
        camera = None
        if self.uses_camera:
            camera = x_t.new_zeros(len(x_t), CAMERA_FEATURES, dtype=dtype)
            if condition.cameras is not None:
                camera = camera_features(condition.cameras).to(x_t.device, dtype)
        return self.adapters.ask(denoiser, x_t, timesteps, text, condition, {}, camera)


@dataclass(frozen=True)
class StableDiffusionXl:
    """Stable Diffusion XL (Podell et al. 2023, arXiv:2307.01952): also told the pooled text and, as six
    "time ids", the size of the original, the corner of the crop, and the size that is wanted.

    Attributes:
        image_size: what the model is told that all pictures measure, in pixels, uncropped.
        adapters: ControlNets and an image prompt.
    """

    image_size: int
    adapters: Adapters = Adapters()  # noqa: RUF009
    uses_camera: ClassVar[bool] = False

    @property
    def limits(self) -> Limits:
        """Anything may be asked."""
        return self.adapters.limits

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        sigma: Float[Tensor, "b"],
        condition: Condition,
    ) -> Float[Tensor, "b k h w"]:
        """Text by cross-attention, pooled text and sizes beside the noise level."""
        dtype = dtype_of(denoiser)
        prompt = condition.prompt.expanded(len(x_t))
        size = float(self.image_size)
        time_ids = x_t.new_tensor([size, size, 0.0, 0.0, size, size], dtype=dtype).expand(len(x_t), 6)
        added = {"text_embeds": _pooled(prompt.pooled).to(dtype), "time_ids": time_ids}
        return self.adapters.ask(denoiser, x_t, timesteps, prompt.tokens.to(dtype), condition, added, None)


@dataclass(frozen=True)
class MultiView:
    """MVDream (Shi et al. 2023, arXiv:2308.16512): views of one asset attend to each other.

    Any ``UNet2DConditionModel`` serves whose class is a projection of 16 numbers, the camera's matrix: the
    class embedding has the shape of MVDream's camera embedding. `across_views` joins its self-attention.

    Attributes:
        views: pictures of one asset, side by side in the batch, all at one noise level.
    """

    views: int = 4
    uses_camera: ClassVar[bool] = True

    @property
    def limits(self) -> Limits:
        """Whole sets of views only."""
        return Limits(views=self.views, needs_camera=True)

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        sigma: Float[Tensor, "b"],
        condition: Condition,
    ) -> Float[Tensor, "b k h w"]:
        """One forward pass over whole sets of views.

        Raises:
            StudioError: the batch is no whole number of sets, the cameras are missing, or the views of a set
                have different noise levels.
        """
        if len(x_t) % self.views:
            raise StudioError(
                f"The prior sees {self.views} views at once and was asked about {len(x_t)}; try "
                f"cameras.kind = 'multi_view' with views = {self.views}."
            )
        if condition.cameras is None:
            raise StudioError(
                "The multi-view prior has no camera-free branch and was given no cameras; try another prior, "
                "or a method without such a branch."
            )
        levels = timesteps.view(-1, self.views)
        if bool((levels != levels[:, :1]).any()):
            raise StudioError(
                "The multi-view prior needs one noise level for the views of a set; try times.shared = true."
            )
        dtype = dtype_of(denoiser)
        text = condition.prompt.expanded(len(x_t)).tokens.to(dtype)
        camera = camera_matrices(condition.cameras).to(x_t.device, dtype)
        output: Tensor = denoiser(x_t.to(dtype), timesteps, text, class_labels=camera, return_dict=False)[0]
        return output


@dataclass(frozen=True)
class Zero123:
    """Zero123 (Liu et al. 2023, arXiv:2303.11328): an object in a reference image, seen from elsewhere.

    The latents of the reference are further channels; its CLIP embedding with the relative pose takes the
    place of the text. ``Condition.image`` is the reference; without one, both are zero: the unconditional
    branch.

    Attributes:
        image_encoder: CLIP's vector for each image.
        latents: the autoencoder's unscaled latents of each image.
        projection: from the embedding and the pose to the width of the text.
        elevation_deg: where the reference's camera stood; its azimuth is 0.
        distance: from which it looked at the origin.
    """

    image_encoder: LastImages
    latents: LastImages
    projection: nn.Linear
    elevation_deg: float = 0.0
    distance: float = 2.0
    uses_camera: ClassVar[bool] = True

    @property
    def limits(self) -> Limits:
        """It wants an image."""
        return Limits(needs_image=True, reads_text=False)

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        sigma: Float[Tensor, "b"],
        condition: Condition,
    ) -> Float[Tensor, "b k h w"]:
        """The view of each camera, or of nothing."""
        dtype = dtype_of(denoiser)
        if condition.image is None or condition.cameras is None:
            seen, text = torch.zeros_like(x_t), x_t.new_zeros(len(x_t), 1, self.projection.out_features)
        else:
            pose = relative_pose(condition.cameras, self.elevation_deg, self.distance)
            told = torch.cat([self.image_encoder(condition.image), pose.to(x_t.device, x_t.dtype)], dim=1)
            text = self.projection(told.to(self.projection.weight.dtype))[:, None]
            seen = self.latents(condition.image)
        both = torch.cat([x_t, seen.to(x_t)], dim=1).to(dtype)
        output: Tensor = denoiser(both, timesteps, text.to(dtype), return_dict=False)[0]
        return output


# ------------------------------------------------------------------------------------------- transformers


@dataclass(frozen=True)
class PixArt:
    """PixArt-α and Σ (Chen et al. 2023, arXiv:2310.00426): T5's rows, padding masked, and a learned variance
    in a second half of the channels.
    """

    uses_camera: ClassVar[bool] = False

    @property
    def limits(self) -> Limits:
        """Anything may be asked."""
        return Limits()

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        sigma: Float[Tensor, "b"],
        condition: Condition,
    ) -> Float[Tensor, "b k h w"]:
        """Text by cross-attention; the 1024² model of α is also told size and aspect ratio."""
        dtype = dtype_of(denoiser)
        prompt = condition.prompt.expanded(len(x_t))
        resolution, ratio = None, None
        if denoiser.config.use_additional_conditions:  # type: ignore[union-attr]
            pixels = 8.0 * x_t.shape[-1]
            resolution = x_t.new_full((len(x_t), 2), pixels, dtype=dtype)
            ratio = x_t.new_ones(len(x_t), 1, dtype=dtype)
        output: Tensor = denoiser(
            x_t.to(dtype),
            encoder_hidden_states=prompt.tokens.to(dtype),
            # Embeddings of two views may be blended, and their masks with them: a word of either is read.
            encoder_attention_mask=(_pooled(prompt.pooled) > 0).to(dtype),
            timestep=timesteps,
            added_cond_kwargs={"resolution": resolution, "aspect_ratio": ratio},
            return_dict=False,
        )[0]
        return output


@dataclass(frozen=True)
class StableDiffusion3:
    """Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv:2403.03206): a rectified flow, told 1000 sigma."""

    uses_camera: ClassVar[bool] = False

    @property
    def limits(self) -> Limits:
        """Anything may be asked."""
        return Limits()

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        sigma: Float[Tensor, "b"],
        condition: Condition,
    ) -> Float[Tensor, "b k h w"]:
        """Noise minus image."""
        dtype = dtype_of(denoiser)
        prompt = condition.prompt.expanded(len(x_t))
        output: Tensor = denoiser(
            x_t.to(dtype),
            encoder_hidden_states=prompt.tokens.to(dtype),
            pooled_projections=_pooled(prompt.pooled).to(dtype),
            timestep=1000 * sigma,
            return_dict=False,
        )[0]
        return output


@dataclass(frozen=True)
class Flux:
    """FLUX.1 (Black Forest Labs 2024): a rectified flow over 2 x 2 patches, told sigma.

    Attributes:
        guidance_scale: what a guidance-distilled checkpoint (dev) is told; it then has no unconditional
            branch. None for others.
        distilled: there is no unconditional branch; true of dev and of the few-step schnell.
    """

    guidance_scale: float | None = None
    distilled: bool = True
    uses_camera: ClassVar[bool] = False

    @property
    def limits(self) -> Limits:
        """A distilled checkpoint has no unconditional branch."""
        return Limits(supports_null=not self.distilled)

    def __call__(
        self,
        denoiser: nn.Module,
        x_t: Float[Tensor, "b c h w"],
        timesteps: Float[Tensor, "b"],
        sigma: Float[Tensor, "b"],
        condition: Condition,
    ) -> Float[Tensor, "b k h w"]:
        """Noise minus image."""
        dtype = dtype_of(denoiser)
        prompt = condition.prompt.expanded(len(x_t))
        height, width = x_t.shape[-2] // 2, x_t.shape[-1] // 2
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).view(-1, 3).to(x_t)
        guidance = None
        if self.guidance_scale is not None:
            guidance = x_t.new_full((len(x_t),), self.guidance_scale, dtype=torch.float32)
        output: Tensor = denoiser(
            hidden_states=functional.pixel_unshuffle(x_t, 2).flatten(2).mT.to(dtype),
            encoder_hidden_states=prompt.tokens.to(dtype),
            pooled_projections=_pooled(prompt.pooled).to(dtype),
            timestep=sigma,
            img_ids=places,
            txt_ids=places.new_zeros(prompt.tokens.shape[1], 3),
            guidance=guidance,
            return_dict=False,
        )[0]
        return functional.pixel_shuffle(output.mT.reshape(len(x_t), -1, height, width), 2)


# ------------------------------------------------------------------------------------------------ cameras


def camera_matrices(cameras: Cameras) -> Float[Tensor, "b 16"]:
    """What MVDream is told of a view: its camera-to-world matrix row by row, the camera moved to distance 1.

    Camera axes are OpenGL's (+y up, looking along -z), the world is +z up with the front at -y.
    """
    to_world = torch.linalg.inv(cameras.world_to_camera)
    flip = to_world.new_tensor([1.0, -1.0, -1.0, 1.0])
    upright = to_world.new_tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    matrices: Tensor = upright @ (to_world * flip)
    matrices[:, :3, 3] = functional.normalize(matrices[:, :3, 3], dim=1)
    return matrices.flatten(1)


def relative_pose(cameras: Cameras, elevation_deg: float, distance: float) -> Float[Tensor, "b 4"]:
    """What Zero123 is told: change of the polar angle, sine and cosine of the change of azimuth, change of
    the distance; angles in radians, from a reference at azimuth 0.
    """
    polar = torch.deg2rad(elevation_deg - cameras.elevation_deg)
    azimuth = torch.deg2rad(cameras.azimuth_deg)
    farther = cameras.positions.norm(dim=1) - distance
    return torch.stack([polar, azimuth.sin(), azimuth.cos(), farther], dim=1)


@dataclass(frozen=True)
class AcrossViews:
    """An attention processor for which the pictures of a set are one long picture.

    Attributes:
        views: pictures of a set, neighbours in the batch.
        inner: the processor that does the work.
    """

    views: int
    inner: Callable[..., Tensor]

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Self-attention over the cells of all views of a set."""
        batch, cells, width = hidden_states.shape
        joint = hidden_states.reshape(batch // self.views, self.views * cells, width)
        return self.inner(attn, joint, None, attention_mask, temb).reshape(batch, cells, width)


def across_views(denoiser: Any, views: int) -> None:
    """Join the self-attention of a ``UNet2DConditionModel`` over the views of a set."""
    processors = {
        name: AcrossViews(views, processor) if ".attn1." in name else processor
        for name, processor in denoiser.attn_processors.items()
    }
    denoiser.set_attn_processor(processors)


def _pooled(pooled: Tensor | None) -> Tensor:
    assert pooled is not None, "the family's own embedder gives a pooled vector"
    return pooled
