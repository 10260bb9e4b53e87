"""What a prior is told of each batch of renders: the prompt's branches, and what the recipe adds to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from studio.errors import StudioError
from studio.guidance.identity import with_identity
from studio.guidance.methods import asks_critic, negative_prompts
from studio.guidance.refusals import limits_of
from studio.interfaces import Prior
from studio.priors.debiasing import debiased_prompts
from studio.priors.latent import LatentPrior
from studio.priors.video import VideoPrior
from studio.prompts import clean_prompt
from studio.recipes.config import LatentPriorConfig, PriorConfig, Recipe
from studio.recipes.guidance import FootageConfig, GuidanceConfig, VpcsmConfig
from studio.run.controls import load_landmarks, with_control
from studio.run.targets import build_film
from studio.types import Cameras, Condition, Conditioning, PromptEmbedding
from studio.view_prompts import Direction, ViewPrompts

Told = Callable[[Cameras, Float[Tensor, "b 3"]], Conditioning]
"""The branches for a batch of cameras over given background colours."""


def views_alone(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
    """What guidance is told that asks no prior: where from, and what is behind."""
    condition = Condition(PromptEmbedding(background.new_zeros(1, 1, 1)), cameras, background)
    return Conditioning(positive=condition, null=condition)


def told_in(
    recipe: Recipe, method: GuidanceConfig, config: PriorConfig, prior: Prior, second: Prior | None
) -> Told:
    """What one method of a recipe tells its priors.

    Args:
        config, prior: the one that the term asks.
        second: of several views, for methods that ask two.

    Raises:
        StudioError: a picture that the prior wants is missing or cannot be read.
    """
    _refuse_unshown_image(method, config, prior)
    told: Told = ViewPrompts(
        prior,
        recipe.prompt,
        negatives=negative_prompts(method),
        null_prompt=recipe.negative_prompt,
        turned_null_prompt=recipe.turned_negative_prompt,
        view_words=recipe.view_words,
        camera=recipe.tell_camera,
        threshold_deg=recipe.view_threshold_deg,
        perp_neg=method.scores.perp_neg != 0.0,
        plain=asks_critic(method),
        blend=recipe.view_blend,
        by_view=debiased(recipe),
    )
    if isinstance(prior, VideoPrior):
        told = _once_a_clip(told, prior)
    told = _with_image(_with_control(_with_face(told, config, prior), config, prior), config, prior)
    return told if second is None else _with_second(told, recipe, second)


def debiased(recipe: Recipe) -> Mapping[Direction, str] | None:
    """What of the prompt each view is told, where the recipe wants words dropped."""
    if recipe.prompt_debiasing is None:
        return None
    return debiased_prompts(recipe.prompt_debiasing, clean_prompt(recipe.prompt))


def _once_a_clip(prompts: Told, prior: VideoPrior) -> Told:
    """The branches of the camera that films each clip, for each of the clip's latent frames."""

    def conditioning(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
        rows = prior.first_pictures(len(cameras))
        return prompts(cameras[rows], background[rows])

    return conditioning


def _with_second(prompts: Told, recipe: Recipe, prior: Prior) -> Told:
    """The same branches, with those that a second prior of several views understands beside them."""
    seen = ViewPrompts(
        prior,
        recipe.prompt,
        null_prompt=recipe.negative_prompt,
        turned_null_prompt=recipe.turned_negative_prompt,
        view_words=recipe.view_words,
        threshold_deg=recipe.view_threshold_deg,
        blend=recipe.view_blend,
        by_view=debiased(recipe),
    )

    def conditioning(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
        return replace(prompts(cameras, background), second=seen(cameras, background))

    return conditioning


def _with_control(prompts: Told, config: PriorConfig, prior: Prior) -> Told:
    """The same branches, the ControlNets shown the recipe's points from each camera."""
    if not isinstance(config, LatentPriorConfig) or not limits_of(prior).needs_control:
        return prompts
    if config.control_points is None:
        raise StudioError(
            "prior.controls names ControlNets and the recipe has no pictures for them; expected "
            "prior.control_points = 'POINTS.ply', or leave out prior.controls."
        )
    landmarks = load_landmarks(
        Path(config.control_points), config.control_point_radius, config.face_within_deg
    )

    def conditioning(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
        return with_control(prompts(cameras, background), landmarks(cameras).to(background))

    return conditioning


def _with_image(prompts: Told, config: PriorConfig, prior: Prior) -> Told:
    """The same branches, the recipe's image shown with the prompt; the null branch sees none.

    Of a video, each view is told the frame at its own instant: Align4D's condition I_t.
    """
    named = config.image if isinstance(config, LatentPriorConfig) else None
    if named is None:
        if limits_of(prior).needs_image:
            raise StudioError(
                "The prior shows an object from a reference image and the recipe has none; expected "
                "--image PICTURE.png, or prior.image = 'PICTURE.png'."
            )
        return prompts
    shown = _frames(named) if isinstance(named, FootageConfig) else _one_picture(Path(named))

    def conditioning(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
        image = shown(cameras).to(background.device)
        branches = prompts(cameras, background)
        plain = None if branches.plain is None else replace(branches.plain, image=image)
        return replace(branches, positive=replace(branches.positive, image=image), plain=plain)

    return conditioning


def _with_face(prompts: Told, config: PriorConfig, prior: Prior) -> Told:
    """The same branches, the recipe's identity told to views that show the face."""
    if not isinstance(config, LatentPriorConfig) or not isinstance(prior, LatentPrior):
        return prompts
    told, within_deg = prior.identity, config.face_within_deg
    if told is None:
        return prompts

    def conditioning(cameras: Cameras, background: Float[Tensor, "b 3"]) -> Conditioning:
        return with_identity(prompts(cameras, background), told.identity, told.nobody, within_deg)

    return conditioning


def _frames(config: FootageConfig) -> Callable[[Cameras], Float[Tensor, "b 3 s s"]]:
    """The frame of a video at each camera's instant, over white, in a square."""
    film = build_film(config, "prior.image")
    return lambda cameras: film.at(cameras.time, torch.ones(len(cameras), 3), film.side, film.side)


def _one_picture(path: Path) -> Callable[[Cameras], Float[Tensor, "b 3 s s"]]:
    """The same picture for each camera."""
    picture = _square_picture(path)
    return lambda cameras: picture.expand(len(cameras), *picture.shape[1:])


def _square_picture(path: Path) -> Float[Tensor, "1 3 s s"]:
    """A picture in 0-1 over white, padded to a square."""
    try:
        with Image.open(path) as file:
            drawn = file.convert("RGBA")
    except (OSError, ValueError) as error:
        raise StudioError(
            f"prior.image is {path}, expected a picture such as a PNG ({str(error).splitlines()[0]})."
        ) from error
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    pixels = torch.from_numpy(np.asarray(square.convert("RGB"), dtype=np.float32) / 255)
    return pixels.movedim(-1, 0)[None]


def _refuse_unshown_image(method: GuidanceConfig, config: PriorConfig, prior: Prior) -> None:
    """A method that compares the prompt with and without an image wants one to be seen."""
    if not isinstance(method, VpcsmConfig):
        return
    shown = None
    if isinstance(config, LatentPriorConfig) and (config.image_prompt or limits_of(prior).needs_image):
        shown = config.image
    if shown is None:
        raise StudioError(
            f"{method.kind} compares the prompt with and without an image, and the prior is shown none; "
            "expected prior.image_prompt and prior.image, or use csm, which is the same without an image."
        )
