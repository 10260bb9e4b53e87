"""Topology: what an edit does to the splats, and that Adam's moments go with them."""

from __future__ import annotations

import math

import pytest
import torch

from studio.ops.rotations import quats_to_rotations
from studio.recipes.config import DensifyConfig, GaussiansConfig, RelocateConfig
from studio.renderers.splatting import SplatRenderer
from studio.run.state import adam
from studio.scenes.gaussians import Gaussians, GaussianTensors, as_surfels
from studio.scenes.topology import (
    Densify,
    Edit,
    Relocate,
    TopologyState,
    apply,
    relocate,
    reset_opacities,
)
from studio.types import SplatFootprints
from tests.scenes.test_gaussians import cloud

ALWAYS = 0.5  # A progress at which all policies act.


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def trained(tensors: GaussianTensors) -> tuple[Gaussians, torch.optim.Adam]:
    """A scene and an optimiser whose moments differ from row to row."""
    scene = Gaussians(tensors, GaussiansConfig())
    optimizer = adam(scene)
    for _ in range(3):
        for index, group in enumerate(scene.parameter_groups()):
            rows = torch.arange(1.0, len(scene) + 1).reshape(-1, *[1] * (group.parameter.ndim - 1))
            group.parameter.grad = (rows * (index + 1)).expand_as(group.parameter).contiguous()
        optimizer.step()
    return scene, optimizer


def moments(optimizer: torch.optim.Adam) -> dict[str, dict[str, torch.Tensor]]:
    return {
        group["name"]: {name: value.clone() for name, value in optimizer.state[group["params"][0]].items()}
        for group in optimizer.param_groups
    }


def test_survivors_keep_their_moments_and_new_rows_start_at_zero() -> None:
    scene, optimizer = trained(cloud(6))
    before, values = moments(optimizer), scene.state()
    source = torch.tensor([5, 0, 2, 2])
    is_new = torch.tensor([False, False, False, True])
    statistics = apply(Edit(scene.tensors.rows(source), source, is_new), scene, optimizer)
    assert len(scene) == len(statistics.views) == 4
    for name, now in moments(optimizer).items():
        assert torch.equal(getattr(scene.tensors, name), values[name][source])
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(now[moment][:3], before[name][moment][[5, 0, 2]])
            assert not now[moment][3].any()
        assert torch.equal(now["step"], before[name]["step"])


def test_the_optimiser_moves_the_new_tensors() -> None:
    scene, optimizer = trained(cloud(4))
    source = torch.tensor([1, 3])
    apply(Edit(scene.tensors.rows(source), source, torch.zeros(2, dtype=torch.bool)), scene, optimizer)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(group.parameter) for group in scene.parameter_groups()
    }
    before = scene.tensors.means.detach().clone()
    scene.at().means.square().sum().backward()
    optimizer.step()
    assert not torch.equal(scene.tensors.means, before)


def test_an_edit_before_the_first_step_needs_no_moments() -> None:
    scene = Gaussians(cloud(4), GaussiansConfig())
    source = torch.tensor([1, 3])
    optimizer = adam(scene)
    apply(Edit(scene.tensors.rows(source), source, torch.zeros(2, dtype=torch.bool)), scene, optimizer)
    scene.at().means.sum().backward()
    optimizer.step()


def small_and_large() -> tuple[GaussianTensors, TopologyState]:
    """Four splats: small and pulled, large and pulled, small and not, faint."""
    tensors = cloud(4, sh_degree=0)
    tensors.log_scales[:] = torch.tensor([0.01, 0.1, 0.01, 0.01]).log()[:, None]
    tensors.opacity_logits[:] = torch.tensor([3.0, 3.0, 3.0, -9.0])
    pull = torch.tensor([5.0, 9.0, 1.0, 0.5])
    return tensors, TopologyState(gradient_sum=pull, views=torch.ones(4), radius=torch.zeros(4))


def test_densify_clones_small_splits_large_prunes_faint() -> None:
    tensors, state = small_and_large()
    config = DensifyConfig(every=10, grow_fraction=0.5, max_count=100, split_scale=0.02)
    edit = Densify(config).edit(tensors, state, 10, ALWAYS, rng())
    assert edit is not None
    assert edit.source.tolist() == [0, 2, 0, 1, 1]
    assert edit.is_new.tolist() == [False, False, True, True, True]
    assert torch.equal(edit.tensors.means[2], tensors.means[0])
    torch.testing.assert_close(edit.tensors.log_scales[3:].exp(), torch.full((2, 3), 0.1 / 1.6))
    offsets = (edit.tensors.means[3:] - tensors.means[1]).norm(dim=-1)
    assert bool((offsets > 0).all()) and bool((offsets < 5 * 0.1 * 3**0.5).all())


@pytest.mark.parametrize("shape", ["ellipsoid", "surfel"])
def test_split_offsets_have_the_covariance_of_the_splat(shape: str) -> None:
    count, scales = 40_000, torch.tensor([0.3, 0.1, 0.05])
    one = cloud(1, sh_degree=0)
    one.log_scales[:] = scales.log()
    if shape == "surfel":
        one, scales[2] = as_surfels(one), 0.0
    tensors = one.rows(torch.zeros(count, dtype=torch.long))
    state = TopologyState(torch.ones(count), torch.ones(count), torch.zeros(count))
    config = DensifyConfig(
        every=1, grow_fraction=1.0, max_count=10 * count, prune_opacity=0.0, prune_scale=9.0
    )
    edit = Densify(config).edit(tensors, state, 1, ALWAYS, rng())
    assert edit is not None
    axes = quats_to_rotations(one.quats_wxyz)[0]
    expected = axes @ torch.diag(scales**2) @ axes.T
    torch.testing.assert_close(torch.cov((edit.tensors.means - one.means).T), expected, atol=2e-3, rtol=0)


def test_densify_never_exceeds_the_cap_and_keeps_its_hours() -> None:
    tensors, state = small_and_large()
    policy = Densify(DensifyConfig(every=10, grow_fraction=1.0, max_count=5, prune_opacity=0.0))
    edit = policy.edit(tensors, state, 10, ALWAYS, rng())
    assert edit is not None
    assert len(edit.tensors) == 5
    assert policy.edit(tensors, state, 11, ALWAYS, rng()) is None
    assert policy.edit(tensors, state, 10, 0.99, rng()) is None
    assert policy.edit(tensors, state, 10, 0.0, rng()) is None


def test_pruning_leaves_something() -> None:
    tensors, state = small_and_large()
    tensors.opacity_logits[:] = -9.0
    edit = Densify(DensifyConfig(every=10, grow_fraction=0.0)).edit(tensors, state, 10, ALWAYS, rng())
    assert edit is not None
    assert len(edit.tensors) == 4


def test_opacity_reset() -> None:
    tensors = cloud(4)
    edit = reset_opacities(tensors, 0.05)
    expected = tensors.opacity_logits.sigmoid().clamp(max=0.05)
    torch.testing.assert_close(edit.tensors.opacity_logits.sigmoid(), expected)
    assert torch.equal(edit.tensors.means, tensors.means)


def test_statistics_are_means_over_the_views_that_show_a_splat() -> None:
    probe = torch.zeros(2, 3, 2, requires_grad=True)
    pull = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [7.0, 0.0]], [[0.0, 1.0], [5.0, 0.0], [7.0, 0.0]]])
    (probe * pull).sum().backward()
    radii = torch.tensor([[2.0, 1.0, 0.0], [6.0, 0.0, 0.0]])
    state = TopologyState.empty(3).observed(SplatFootprints(radii, probe), width=16)
    assert state.views.tolist() == [2.0, 1.0, 0.0]
    assert state.gradient_sum.tolist() == [8 * (5.0 + 1.0), 8 * 1.0, 0.0]
    assert state.radius.tolist() == [6 / 16, 1 / 16, 0.0]
    again = TopologyState.from_state(state.state())
    assert torch.equal(again.gradient_sum, state.gradient_sum)


@pytest.mark.parametrize("opacity", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("copies", [2, 3, 10])
def test_relocated_copies_share_opacity_and_mass(opacity: float, copies: int) -> None:
    """N copies blended in front of each other keep the peak, and the integral along a line through it."""
    tensors = cloud(copies, sh_degree=0)
    tensors.opacity_logits[:] = math.log(opacity / (1 - opacity))
    tensors.log_scales[:] = 0.0
    weights = torch.zeros(copies)
    weights[0] = 1.0
    edit = relocate(tensors, torch.arange(1, copies), weights, rng())
    assert edit.source.tolist() == [0] * copies
    assert edit.is_new.all()
    each = edit.tensors.opacity_logits.sigmoid().double()
    assert torch.allclose(1 - (1 - each).prod(), torch.tensor(opacity, dtype=torch.float64), atol=1e-6)
    scale = float(edit.tensors.log_scales[0, 0].exp())
    x = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    before = torch.trapezoid(opacity * torch.exp(-(x**2) / 2), x)
    after = torch.trapezoid(1 - (1 - each[0] * torch.exp(-((x / scale) ** 2) / 2)) ** copies, x)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=0)


def test_relocate_moves_the_dead_and_grows_to_the_cap() -> None:
    tensors = cloud(20, sh_degree=0)
    tensors.opacity_logits[:] = 2.0
    tensors.opacity_logits[:3] = -9.0
    policy = Relocate(RelocateConfig(every=10, growth=0.5, max_count=24))
    edit = policy.edit(tensors, TopologyState.empty(20), 10, ALWAYS, rng())
    assert edit is not None
    assert len(edit.tensors) == 24
    touched = set(edit.source[:3].tolist()) | set(edit.source[20:].tolist())
    assert touched.isdisjoint({0, 1, 2})
    assert edit.is_new[[0, 1, 2, 20, 21, 22, 23]].all()
    untouched = [row for row in range(3, 20) if row not in touched]
    assert torch.equal(edit.tensors.means[untouched], tensors.means[untouched])
    assert torch.equal(edit.tensors.opacity_logits[untouched], tensors.opacity_logits[untouched])
    assert policy.edit(tensors, TopologyState.empty(20), 9, ALWAYS, rng()) is None


def test_surfels_stay_flat_through_every_policy() -> None:
    scene, optimizer = trained(as_surfels(cloud(40)))
    policies = (
        Densify(
            DensifyConfig(every=1, grow_fraction=0.5, split_scale=0.8, prune_scale=1e3, prune_radius=9.0)
        ),
        Relocate(RelocateConfig(every=1, dead_opacity=0.5, growth=0.2, max_count=60, noise=1.0)),
    )
    for policy in policies:
        count = len(scene)
        state = TopologyState(torch.rand(count, generator=rng()), torch.ones(count), torch.zeros(count))
        edit = policy.edit(scene.tensors, state, 1, ALWAYS, rng())
        assert edit is not None
        apply(edit, scene, optimizer)
        policy.explore(scene, 1.0, ALWAYS, rng())
        assert scene.tensors.log_scales.shape == (len(scene), 2)
        assert bool(scene.tensors.means.isfinite().all()) and not scene.scales[:, 2].any()


def test_edits_are_drawn_from_the_generator_alone() -> None:
    tensors = cloud(20, sh_degree=0)
    policy = Relocate(RelocateConfig(every=1, growth=0.5, dead_opacity=0.4))
    torch.manual_seed(1)
    first = policy.edit(tensors, TopologyState.empty(20), 1, ALWAYS, rng())
    torch.manual_seed(2)
    second = policy.edit(tensors, TopologyState.empty(20), 1, ALWAYS, rng())
    assert first is not None and second is not None
    for mine, theirs in zip(first.tensors.named().values(), second.tensors.named().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_noise_follows_the_splats_shape_and_spares_the_opaque() -> None:
    count = 20_000
    tensors = cloud(1, sh_degree=0).rows(torch.zeros(count, dtype=torch.long))
    tensors.log_scales[:] = torch.tensor([0.3, 0.1, 0.05]).log()
    tensors.opacity_logits[:] = -9.0
    tensors.opacity_logits[0] = 9.0
    scene = Gaussians(tensors, GaussiansConfig())
    Relocate(RelocateConfig(noise=2.0)).explore(scene, 0.5, ALWAYS, rng())
    moved = scene.tensors.means.detach() - tensors.means
    assert float(moved[0].norm()) < 1e-9
    axes = quats_to_rotations(tensors.quats_wxyz[:1])[0]
    covariance = axes @ torch.diag(torch.tensor([0.3, 0.1, 0.05]) ** 2) @ axes.T
    faintness = torch.sigmoid(100 * (0.005 - torch.tensor(-9.0).sigmoid()))
    expected = faintness**2 * covariance @ covariance
    torch.testing.assert_close(torch.cov(moved[1:].T), expected, atol=2e-4, rtol=0)


def test_the_renderer_feeds_the_statistics() -> None:
    from studio.cameras import orbit

    tensors = cloud(30, sh_degree=0)
    tensors.means.mul_(0.1)
    tensors.log_scales[:] = -3.0
    scene = Gaussians(tensors, GaussiansConfig())
    cameras = orbit(torch.tensor([0.0, 90.0]), torch.zeros(2), 16, 16)
    render = SplatRenderer(footprints=True)(scene.at(), cameras, torch.zeros(2, 3))
    render.rgb.square().sum().backward()
    assert render.footprints is not None
    state = TopologyState.empty(30).observed(render.footprints, 16)
    assert bool((state.views == 2).all())
    assert bool((state.gradient_sum > 0).any())
