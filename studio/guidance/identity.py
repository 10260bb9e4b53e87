"""Telling a prior whose face it is: tokens after the text's, for views that show the face.

The way of IP-Adapter's face models as Portrait3D uses them: the prompt's tokens are followed by an identity's
or, where the face is turned away, by nobody's, so every view has as many.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.types import Condition, Conditioning
from studio.view_prompts import from_front_deg

GATE_DEG = 70.0
"""Portrait3D's: views turned further from the front than this do not show the face."""


def with_identity(
    conditioning: Conditioning,
    identity: Float[Tensor, "k d"],
    nobody: Float[Tensor, "n e"],
    gate_deg: float = GATE_DEG,
) -> Conditioning:
    """The branches with identity tokens: in the positive one, and in what a critic is told, where the face
    shows, and nobody's elsewhere. Negatives stay as they are.

    Args:
        identity, nobody: tokens of the width that the prior's prompts have.

    Raises:
        StudioError: the positive branch comes without cameras, or tokens are of another width.
    """
    positive = conditioning.positive
    if positive.cameras is None:
        raise StudioError(
            "an identity is shown by view; expected cameras in the positive branch, try tell_camera = true"
        )
    width = positive.prompt.tokens.shape[2]
    if identity.shape != nobody.shape or identity.shape[1] != width:
        raise StudioError(
            f"identity tokens of shapes {tuple(identity.shape)} and {tuple(nobody.shape)}; expected two of "
            f"one length and the prompt's width {width}"
        )
    shows = (from_front_deg(positive.cameras.azimuth_deg) <= gate_deg).to(identity.device)[:, None, None]
    tokens = torch.where(shows, identity, nobody)
    return replace(
        conditioning,
        positive=_followed(positive, tokens),
        null=_followed(conditioning.null, nobody[None]),
        plain=None if conditioning.plain is None else _followed(conditioning.plain, tokens),
    )


def _followed(condition: Condition, tokens: Float[Tensor, "b k d"]) -> Condition:
    prompt = condition.prompt.expanded(len(tokens)) if len(tokens) > 1 else condition.prompt
    after = tokens.expand(len(prompt.tokens), -1, -1).to(prompt.tokens)
    return replace(condition, prompt=replace(prompt, tokens=torch.cat([prompt.tokens, after], dim=1)))
