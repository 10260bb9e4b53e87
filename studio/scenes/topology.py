"""How many Gaussians there are, and where: clone, split, prune, opacity reset, relocation.

State in, state out. A policy looks at what renders have told (``TopologyState``) and now and then proposes an
``Edit``: new rows, and for each of them the row that it comes from. ``apply`` carries the edit out on the
scene and on Adam's moments, which follow the rows that live on and start at zero for rows that are new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from typing_extensions import assert_never

from studio.ops.rotations import quats_to_rotations
from studio.recipes.config import DensifyConfig, NoTopologyConfig, RelocateConfig, TopologyConfig
from studio.scenes.gaussians import Gaussians, GaussianTensors
from studio.types import SplatFootprints

_SPLIT_SHRINKS_BY = 1.6  # Kerbl et al. 2023, sec. 5.2
_MOST_COPIES = 51  # of one splat in one relocation; Kheradmand et al. 2024 use the same bound
_OPACITY_MARGIN = 0.005


@dataclass(frozen=True)
class TopologyState:
    """What the policy has seen since its last edit, one entry a splat.

    Attributes:
        gradient_sum: summed norms of the gradients on the screen position, in loss per half picture width.
        views: in how many pictures the splat was drawn.
        radius: largest screen radius, as a share of the picture's width.
    """

    gradient_sum: Float[Tensor, "n"]
    views: Float[Tensor, "n"]
    radius: Float[Tensor, "n"]

    @staticmethod
    def empty(count: int, device: torch.device | str = "cpu") -> TopologyState:
        """Nothing seen yet of ``count`` splats."""
        return TopologyState(*(torch.zeros(count, device=device) for _ in range(3)))

    def state(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {"gradient_sum": self.gradient_sum, "views": self.views, "radius": self.radius}

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> TopologyState:
        """The inverse of ``state``."""
        return TopologyState(state["gradient_sum"], state["views"], state["radius"])

    def observed(self, footprints: SplatFootprints, width: int) -> TopologyState:
        """The statistics with one more batch of renders in them. Call it after backward."""
        gradient = footprints.means2d_probe.grad
        assert gradient is not None, "backward has not run"
        drawn = footprints.radii_px > 0
        norms = gradient.norm(dim=-1) * (width / 2)
        return TopologyState(
            gradient_sum=self.gradient_sum + torch.where(drawn, norms, 0.0).sum(0),
            views=self.views + drawn.sum(0),
            radius=torch.maximum(self.radius, footprints.radii_px.amax(0) / width),
        )


@dataclass(frozen=True)
class Edit:
    """A change of the splats.

    Attributes:
        tensors: all splats after the edit.
        source: the row before the edit that each row comes from.
        is_new: rows whose moments start at zero.
    """

    tensors: GaussianTensors
    source: Int[Tensor, "m"]
    is_new: Bool[Tensor, "m"]


@runtime_checkable
class Topology(Protocol):
    """A policy. Stateless: what it has seen is in ``TopologyState``."""

    @property
    def watches(self) -> bool:
        """Whether it needs statistics of the renders: the gradient on the screen positions costs time."""

    def edit(
        self, tensors: GaussianTensors, state: TopologyState, step: int, progress: float, rng: torch.Generator
    ) -> Edit | None:
        """What to change after ``step`` steps of the stage are done, or None."""

    def explore(self, scene: Gaussians, learning_rate: float, progress: float, rng: torch.Generator) -> None:
        """Move the centres at random, after each step, where the policy explores by noise."""


def build_topology(config: TopologyConfig) -> Topology:
    """The policy that a recipe describes."""
    match config:
        case NoTopologyConfig():
            return Fixed()
        case DensifyConfig():
            return Densify(config)
        case RelocateConfig():
            return Relocate(config)
        case _:
            assert_never(config)


def apply(edit: Edit, scene: Gaussians, optimizer: torch.optim.Adam) -> TopologyState:
    """Carry out an edit on the scene and on the optimiser that holds its parameters.

    Returns:
        Fresh statistics for the new rows.
    """
    scene.set_tensors(edit.tensors)
    groups = {group["name"]: group for group in optimizer.param_groups}
    for new in scene.parameter_groups():
        old = groups[new.name]["params"][0]
        groups[new.name]["params"][0] = new.parameter
        moments = optimizer.state.pop(old, {})
        for name in ("exp_avg", "exp_avg_sq"):
            if name in moments:
                rows = moments[name][edit.source]
                rows[edit.is_new] = 0.0
                moments[name] = rows
        optimizer.state[new.parameter] = moments
    return TopologyState.empty(len(scene), scene.tensors.means.device)


@dataclass(frozen=True)
class Fixed:
    """Changes nothing."""

    @property
    def watches(self) -> bool:
        """No."""
        return False

    def edit(
        self, tensors: GaussianTensors, state: TopologyState, step: int, progress: float, rng: torch.Generator
    ) -> Edit | None:
        """Nothing."""
        return None

    def explore(self, scene: Gaussians, learning_rate: float, progress: float, rng: torch.Generator) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Densify:
    """Adaptive density control of 3D Gaussian splatting (Kerbl et al. 2023, sec. 5)."""

    config: DensifyConfig

    @property
    def watches(self) -> bool:
        """Yes: splats grow where their screen positions are pulled hardest."""
        return True

    def edit(
        self, tensors: GaussianTensors, state: TopologyState, step: int, progress: float, rng: torch.Generator
    ) -> Edit | None:
        """Clone and split, then prune; or lower all opacities."""
        config = self.config
        if not config.start_at <= progress <= config.end_at:
            return None
        if config.reset_every and step % config.reset_every == 0:
            return reset_opacities(tensors, config.reset_opacity)
        if step % config.every:
            return None
        grown = self._grow(tensors, state, rng)
        return _prune(grown, self._worth_keeping(grown, state))

    def explore(self, scene: Gaussians, learning_rate: float, progress: float, rng: torch.Generator) -> None:
        """Nothing: densification explores by splitting."""

    def _grow(self, tensors: GaussianTensors, state: TopologyState, rng: torch.Generator) -> Edit:
        config = self.config
        count = len(tensors)
        wanted = min(round(config.grow_fraction * count), config.max_count - count)
        pull = state.gradient_sum / state.views.clamp_min(1.0)
        chosen = pull.topk(max(wanted, 0)).indices.sort().values
        chosen = chosen[pull[chosen] > 0]
        large = tensors.log_scales.detach()[chosen].amax(1) > math.log(config.split_scale)
        return _joined(tensors, chosen[~large], chosen[large], rng)

    def _worth_keeping(self, edit: Edit, state: TopologyState) -> Bool[Tensor, "m"]:
        config, tensors = self.config, edit.tensors
        visible = tensors.opacity_logits.sigmoid() >= config.prune_opacity
        fits = tensors.log_scales.amax(1) <= math.log(config.prune_scale)
        fits &= state.radius[edit.source] <= config.prune_radius
        return visible & fits


@dataclass(frozen=True)
class Relocate:
    """3D Gaussian splatting as Markov chain Monte Carlo (Kheradmand et al. 2024)."""

    config: RelocateConfig

    @property
    def watches(self) -> bool:
        """No: it goes by opacities alone."""
        return False

    def edit(
        self, tensors: GaussianTensors, state: TopologyState, step: int, progress: float, rng: torch.Generator
    ) -> Edit | None:
        """Move dead splats onto living ones, and add some more."""
        config = self.config
        if step % config.every or not config.start_at <= progress <= config.end_at:
            return None
        count = len(tensors)
        opacities = tensors.opacity_logits.detach().sigmoid()
        dead = opacities <= config.dead_opacity
        if bool(dead.all()):
            return None
        added = max(min(round(config.growth * count), config.max_count - count), 0)
        places = torch.cat(
            [dead.nonzero().squeeze(1), torch.arange(count, count + added, device=dead.device)]
        )
        return relocate(tensors, places, torch.where(dead, 0.0, opacities), rng)

    def explore(self, scene: Gaussians, learning_rate: float, progress: float, rng: torch.Generator) -> None:
        """Noise shaped like each splat, strongest for the faintest (eq. 8 of the paper)."""
        config = self.config
        if config.noise == 0.0 or progress > config.end_at:
            return
        tensors = scene.tensors
        with torch.no_grad():
            faintness = torch.sigmoid(100.0 * (_OPACITY_MARGIN - scene.opacities))
            covariance = _covariances(tensors.quats_wxyz, scene.scales)
            draws = torch.randn(tensors.means.shape, generator=rng, device=rng.device).to(covariance)
            step = (covariance @ draws[..., None]).squeeze(-1)
            tensors.means.add_(step * (config.noise * learning_rate * faintness)[:, None])


def relocate(
    tensors: GaussianTensors,
    places: Int[Tensor, "k"],
    weights: Float[Tensor, "n"],
    rng: torch.Generator,
) -> Edit:
    """Put copies of splats, drawn with the given weights, at rows ``places`` (beyond the end: new rows).

    A splat and its copies together look like the splat did (eq. 9 of the paper), so they share its opacity
    ``o`` as ``1 - (1 - o)^(1/N)`` and shrink.
    """
    count = len(tensors)
    total = max(count, int(places.max()) + 1) if len(places) else count
    source = torch.arange(total, device=weights.device)
    is_new = torch.zeros(total, dtype=torch.bool, device=weights.device)
    if len(places) == 0:
        return Edit(tensors.rows(source), source, is_new)
    models = torch.multinomial(weights.to(rng.device), len(places), replacement=True, generator=rng)
    models = models.to(weights.device)
    source[places] = models
    is_new[places] = True
    is_new[models] = True
    copies = (torch.bincount(models, minlength=count) + 1).clamp(max=_MOST_COPIES)
    moved = tensors.rows(source)
    shared, shrinking = _shared(moved.opacity_logits.sigmoid(), copies[source])
    changed = copies[source] > 1
    return Edit(
        replace(
            moved,
            opacity_logits=torch.where(changed, torch.logit(shared), moved.opacity_logits),
            log_scales=moved.log_scales + torch.where(changed, shrinking.log(), 0.0)[:, None],
        ),
        source,
        is_new,
    )


def _shared(
    opacities: Float[Tensor, "n"], copies: Int[Tensor, "n"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """The opacity of each of N copies, and the factor of their scales."""
    old = opacities.double().clamp(_OPACITY_MARGIN, 1 - _OPACITY_MARGIN)
    new = 1 - (1 - old) ** (1 / copies)
    denominator = torch.zeros_like(old)
    for order in range(int(copies.max())):  # Σ_i C(i, k) over i < N is C(N, k + 1).
        chosen = copies > order
        ways = torch.exp(
            torch.lgamma(copies + 1.0) - math.lgamma(order + 2) - torch.lgamma((copies - order).clamp_min(1))
        ).double()
        term = ways * (-1) ** order / math.sqrt(order + 1) * new ** (order + 1)
        denominator = denominator + torch.where(chosen, term, 0.0)
    new = new.clamp(_OPACITY_MARGIN, 1 - _OPACITY_MARGIN)
    return new.to(opacities.dtype), (old / denominator).to(opacities.dtype)


def reset_opacities(tensors: GaussianTensors, opacity: float) -> Edit:
    """Lower every opacity to at most ``opacity``; all splats stay, their opacities' moments with them.

    Adam's moments of all tensors start anew, as the pictures change at once.
    """
    source = torch.arange(len(tensors), device=tensors.means.device)
    logit = math.log(opacity / (1 - opacity))
    same = tensors.rows(source)
    return Edit(
        replace(same, opacity_logits=same.opacity_logits.clamp(max=logit)),
        source,
        torch.ones_like(source, dtype=torch.bool),
    )


def _joined(tensors: GaussianTensors, clones: Tensor, splits: Tensor, rng: torch.Generator) -> Edit:
    """The splats, a copy of each of ``clones``, and two smaller ones in the place of each of ``splits``."""
    count, device = len(tensors), tensors.means.device
    survivors = torch.ones(count, dtype=torch.bool, device=device)
    survivors[splits] = False
    old = survivors.nonzero().squeeze(1)
    source = torch.cat([old, clones, splits, splits])
    after = tensors.rows(source)
    halves = slice(len(old) + len(clones), None)
    means, log_scales = after.means, after.log_scales
    width = log_scales.shape[1]  # 2 of surfels, whose halves stay in their plane
    draws = torch.randn(2 * len(splits), width, generator=rng, device=rng.device).to(means)
    axes = quats_to_rotations(after.quats_wxyz[halves])[..., :width]
    means[halves] += (axes @ (log_scales[halves].exp() * draws)[..., None]).squeeze(-1)
    log_scales[halves] -= math.log(_SPLIT_SHRINKS_BY)
    is_new = torch.arange(len(source), device=device) >= len(old)
    return Edit(after, source, is_new)


def _prune(edit: Edit, kept: Bool[Tensor, "m"]) -> Edit:
    """The edit without some of its rows; with all of them if nothing would be left."""
    if not bool(kept.any()):
        return edit
    return Edit(edit.tensors.rows(kept), edit.source[kept], edit.is_new[kept])


def _covariances(quats_wxyz: Float[Tensor, "n 4"], scales: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    roots = quats_to_rotations(quats_wxyz) * scales[:, None]
    return roots @ roots.mT
