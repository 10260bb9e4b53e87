"""The list of methods: from a recipe's words to a record, and from a record to a guidance."""

from __future__ import annotations

from typing_extensions import assert_never

from studio.guidance import bridge, csd, gradient, hifa, nfsd, sds, sjc, terms
from studio.guidance.citation import Citation
from studio.guidance.method import Method
from studio.guidance.score_distillation import ScoreDistillation
from studio.interfaces import Prior
from studio.recipes.guidance import (
    BridgeConfig,
    CsdConfig,
    GuidanceConfig,
    HifaConfig,
    NfsdConfig,
    SdsConfig,
    SjcConfig,
)
from studio.types import NegativePrompt


def method_of(config: GuidanceConfig) -> Method:
    """The record that a recipe describes."""
    match config:
        case SdsConfig():
            return sds.method(config)
        case SjcConfig():
            return sjc.method(config)
        case CsdConfig():
            return csd.method(config)
        case NfsdConfig():
            return nfsd.method(config)
        case BridgeConfig():
            return bridge.method(config)
        case HifaConfig():
            return hifa.method(config)
        case _:
            assert_never(config)


def build_guidance(config: GuidanceConfig, prior: Prior) -> ScoreDistillation:
    """The guidance that a recipe describes, asking ``prior``."""
    return ScoreDistillation(prior, method_of(config))


def negative_prompts(config: GuidanceConfig) -> tuple[NegativePrompt, ...]:
    """The texts that a conditioning for this guidance must hold, in order."""
    return method_of(config).negatives


def citations(config: GuidanceConfig) -> tuple[Citation, ...]:
    """The papers to cite: the method's, then those of the options in use."""
    method = method_of(config)
    used = {
        terms.PERP_NEG: method.scores.perp_neg != 0,
        gradient.RESCALING: method.gradient.rescale_std != 0,
        gradient.DEBIASING: method.gradient.clamp is not None,
        gradient.PIXEL_CLIPPING: method.gradient.pixel_clip is not None,
    }
    return (method.citation, *(citation for citation, is_used in used.items() if is_used))
