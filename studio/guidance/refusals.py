"""What a prior cannot serve is refused before the first step, with the reason."""

from __future__ import annotations

from studio.errors import StudioError
from studio.guidance.method import Method
from studio.guidance.state import Branch, Term
from studio.guidance.terms import predictions_for
from studio.interfaces import LimitedPrior, Limits, Prior
from studio.schedule import NoiseSchedule

_MOMENTS = 17


def limits_of(prior: Prior) -> Limits:
    """What a prior cannot be asked; anything, if it does not say."""
    return prior.limits if isinstance(prior, LimitedPrior) else Limits()


def refuse_unservable(name: str, method: Method, prior: Prior) -> None:
    """See that a method asks a prior nothing that it cannot answer, at any progress.

    Raises:
        StudioError: it asks for an unconditional or a camera-free branch that is not there, gives words to a
            prior that reads none, or trains a critic or follows pictures beside a prior of clips.
    """
    limits = limits_of(prior)
    if not limits.supports_null and Branch.NULL in asked_branches(method, prior.schedule):
        raise StudioError(
            f"{name} compares the prompt with the unconditional branch, and a guidance-distilled model has "
            "none: its guidance is inside (prior.embedded_guidance). Use sds with cfg_scale = 1, or ism with "
            "cfg_scale = 1 and noise.cfg_scale = 1, or a model that is not distilled, such as Stable "
            "Diffusion 3."
        )
    if limits.needs_camera and Branch.CRITIC_NULL in asked_branches(method, prior.schedule):
        raise StudioError(
            f"{name} asks what is rendered from anywhere, and a multi-view prior has no camera-free branch; "
            "use vsd, or a prior of single views."
        )
    if limits.frames > 1 and method.critic is not None:
        raise StudioError(
            f"{name} trains a critic of single pictures, and this prior sees clips; use sds, or another "
            "method without a critic."
        )
    if limits.frames > 1 and method.as_pixels:
        raise StudioError(
            f"{name} follows single pictures, and this prior sees clips; use sds, or a prior of pictures."
        )
    if not limits.reads_text and (method.negatives or method.scores.perp_neg != 0.0):
        raise StudioError(
            f"{name} steers by a negative prompt or by views in words, and this prior reads no words; use "
            "sds, or a prior that is told a prompt."
        )


def refuse_second(name: str, method: Method, views_prior: Prior | None) -> None:
    """See that a method that asks two priors has a second one, of several views at once, and others none.

    Raises:
        StudioError: it is missing, sees single views, or nobody would ask it.
    """
    example = "views_prior = { kind = 'latent', source = 'ashawkey/mvdream-sd2.1-diffusers' }"
    if method.second is None:
        if views_prior is not None:
            raise StudioError(
                f"{name} asks one prior and its term names a views_prior too; leave that out, or use jsd."
            )
    elif views_prior is None:
        raise StudioError(
            f"{name} asks a second prior, of several views at once, and its term names none; expected "
            f"{example} beside the method."
        )
    elif limits_of(views_prior).views < 2:
        raise StudioError(
            f"The views_prior of {name} sees one view at a time, expected one that sees several at once; try "
            f"{example}."
        )


def asked_branches(method: Method, schedule: NoiseSchedule) -> frozenset[Branch]:
    """What a method asks for, on the way to its noise or for its combination, at any progress."""
    asked: set[Term] = set()
    for moment in range(_MOMENTS):
        progress = moment / (_MOMENTS - 1)
        asked.update(method.combine.terms(progress))
        for levels in method.times.extremes(schedule, progress):
            for terms in method.noise.rounds(levels, schedule, progress):
                asked.update(terms)
    return frozenset(term.branch for term in predictions_for(tuple(asked), method.scores.perp_neg != 0.0))
