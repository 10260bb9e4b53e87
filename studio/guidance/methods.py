"""The list of methods: from a recipe's words to a record, and from a record to a guidance."""

from __future__ import annotations

from typing_extensions import assert_never

from studio.guidance import (
    asd,
    bridge,
    bsd,
    cds,
    cfd,
    csd,
    csm,
    disback,
    dmd2,
    esd,
    f_distill,
    gradient,
    hifa,
    iesd,
    isd,
    ism,
    jsd,
    lods,
    mesh_contrast,
    mvdream,
    nfsd,
    pgsb,
    refine,
    rfds,
    sdi,
    sds,
    sfd,
    sid,
    sim,
    sjc,
    tdm,
    terms,
    times,
    tsm,
    ucm,
    vpcsm,
    vsd,
)
from studio.guidance.citation import Citation
from studio.guidance.critic import build_critic
from studio.guidance.method import Method
from studio.guidance.objective import Descent
from studio.guidance.ratio import RatioHead
from studio.guidance.refusals import refuse_second, refuse_unservable
from studio.guidance.score_distillation import ScoreDistillation
from studio.guidance.second import SecondPrior
from studio.interfaces import Guidance, Prior
from studio.recipes.guidance import (
    AnyGuidanceConfig,
    AsdConfig,
    BridgeConfig,
    BsdConfig,
    CdsConfig,
    CfdConfig,
    CsdConfig,
    CsmConfig,
    DisbackConfig,
    Dmd2Config,
    EsdConfig,
    FDistillConfig,
    GuidanceConfig,
    HifaConfig,
    IesdConfig,
    IsdConfig,
    IsmConfig,
    JsdConfig,
    LodsConfig,
    MeshContrastConfig,
    MvdreamConfig,
    NfsdConfig,
    PgSbConfig,
    PixelsConfig,
    RefineConfig,
    RfdsConfig,
    SdiConfig,
    SdsConfig,
    SfdConfig,
    SidConfig,
    SimConfig,
    SjcConfig,
    TdmConfig,
    TsmConfig,
    UcmConfig,
    VpcsmConfig,
    VsdConfig,
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
        case VsdConfig():
            return vsd.method(config)
        case EsdConfig():
            return esd.method(config)
        case LodsConfig():
            return lods.method(config)
        case PgSbConfig():
            return pgsb.method(config)
        case Dmd2Config():
            return dmd2.method(config)
        case FDistillConfig():
            return f_distill.method(config)
        case TdmConfig():
            return tdm.method(config)
        case DisbackConfig():
            return disback.method(config)
        case SidConfig():
            return sid.method(config)
        case SimConfig():
            return sim.method(config)
        case SfdConfig():
            return sfd.method(config)
        case IesdConfig():
            return iesd.method(config)
        case IsdConfig():
            return isd.method(config)
        case IsmConfig():
            return ism.method(config)
        case TsmConfig():
            return tsm.method(config)
        case CsmConfig():
            return csm.method(config)
        case VpcsmConfig():
            return vpcsm.method(config)
        case SdiConfig():
            return sdi.method(config)
        case RefineConfig():
            return refine.method(config)
        case CdsConfig():
            return cds.method(config)
        case AsdConfig():
            return asd.method(config)
        case BsdConfig():
            return bsd.method(config)
        case MvdreamConfig():
            return mvdream.method(config)
        case JsdConfig():
            return jsd.method(config)
        case RfdsConfig():
            return rfds.method(config)
        case UcmConfig():
            return ucm.method(config)
        case CfdConfig():
            return cfd.method(config)
        case _:
            assert_never(config)


def build_guidance(config: GuidanceConfig, prior: Prior, views_prior: Prior | None = None) -> Guidance:
    """The guidance that a recipe describes, asking ``prior``; with a critic of its own where it needs one.

    Args:
        views_prior: the second prior, of several views at once, of a method that asks two.

    Raises:
        StudioError: the priors cannot serve the method; see `studio.guidance.refusals`.
    """
    refuse_unservable(config.kind, method_of(config), prior)
    refuse_second(config.kind, method_of(config), views_prior)
    if isinstance(config, DisbackConfig):
        return disback.Disback(prior, config)
    method = method_of(config)
    second = None
    if method.second is not None and views_prior is not None:
        second = SecondPrior(method.second, views_prior)
    return ScoreDistillation(
        prior,
        method,
        critic=None if method.critic is None else build_critic(method.critic, prior),
        ratio=None if method.ratio is None else RatioHead(method.ratio, prior.schedule),
        second=second,
    )


def asks_critic(config: GuidanceConfig) -> bool:
    """Whether a conditioning for this guidance must hold the plain prompt, as a critic is told it."""
    return method_of(config).critic is not None


def descends_through_prior(config: GuidanceConfig) -> bool:
    """Whether the prior must let gradients through."""
    return isinstance(method_of(config).combine, Descent)


def negative_prompts(config: GuidanceConfig) -> tuple[NegativePrompt, ...]:
    """The texts that a conditioning for this guidance must hold, in order."""
    return method_of(config).negatives


def citations(config: AnyGuidanceConfig) -> tuple[Citation, ...]:
    """The papers to cite: the method's, then those of the options in use. Comparing pixels has none."""
    if isinstance(config, MeshContrastConfig):
        return (mesh_contrast.CITATION,)
    if isinstance(config, PixelsConfig):
        return ()
    method = method_of(config)
    used = {
        times.DREAMTIME: isinstance(method.times, times.DreamTime),
        terms.PERP_NEG: method.scores.perp_neg != 0,
        gradient.RESCALING: method.gradient.rescale_std != 0,
        gradient.DEBIASING: method.gradient.clamp is not None,
        gradient.PIXEL_CLIPPING: method.gradient.pixel_clip is not None,
    }
    options = (citation for citation, is_used in used.items() if is_used)
    return tuple(dict.fromkeys((method.citation, *options)))
