"""The scene of Gaussians: activations, groups, state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from studio.errors import StudioError
from studio.interfaces import Scene
from studio.ops.rotations import quats_to_rotations
from studio.recipes.config import GaussiansConfig
from studio.scenes.gaussians import (
    Gaussians,
    GaussianTensors,
    as_ellipsoids,
    as_surfels,
    color_to_sh,
    rest_coefficients,
)


def cloud(count: int = 5, sh_degree: int = 1) -> GaussianTensors:
    rng = torch.Generator().manual_seed(count)
    return GaussianTensors(
        means=torch.randn(count, 3, generator=rng),
        log_scales=torch.randn(count, 3, generator=rng),
        quats_wxyz=torch.randn(count, 4, generator=rng),
        opacity_logits=torch.randn(count, generator=rng),
        sh_dc=torch.randn(count, 1, 3, generator=rng),
        sh_rest=torch.randn(count, rest_coefficients(sh_degree), 3, generator=rng),
    )


def test_at_activates() -> None:
    tensors = cloud()
    scene = Gaussians(tensors, GaussiansConfig())
    assert isinstance(scene, Scene)
    splats = scene.at(None)
    torch.testing.assert_close(splats.scales, tensors.log_scales.exp())
    torch.testing.assert_close(splats.opacities, 1 / (1 + (-tensors.opacity_logits).exp()))
    torch.testing.assert_close(splats.sh[:, 1:], tensors.sh_rest)
    splats.sh.sum().backward()
    assert scene.tensors.sh_dc.grad is not None


def test_a_color_becomes_the_coefficient_that_shows_it() -> None:
    rgb = torch.tensor([[0.0, 0.25, 1.0]])
    constant_harmonic = 0.5 / torch.pi**0.5
    torch.testing.assert_close(0.5 + constant_harmonic * color_to_sh(rgb)[:, 0], rgb)


def test_groups_have_the_recipes_rates() -> None:
    config = GaussiansConfig(means_rate=0.5, colors_rate=0.2)
    groups = {group.name: group for group in Gaussians(cloud(), config).parameter_groups()}
    assert len(groups) == 6
    assert groups["means"].learning_rate == 0.5
    assert groups["sh_rest"].learning_rate == pytest.approx(0.01)


def test_state_builds_the_scene_again() -> None:
    scene = Gaussians(cloud(), GaussiansConfig())
    again = Gaussians.from_state(scene.state(), GaussiansConfig())
    for mine, theirs in zip(scene.state().values(), again.state().values(), strict=True):
        assert torch.equal(mine, theirs)
    with torch.no_grad():
        again.tensors.means.add_(1.0)
    assert not torch.equal(scene.tensors.means, again.tensors.means)


def test_damaged_states_are_refused() -> None:
    state = Gaussians(cloud(), GaussiansConfig()).state()
    with pytest.raises(StudioError, match="lacks means"):
        Gaussians.from_state(
            {name: tensor for name, tensor in state.items() if name != "means"}, GaussiansConfig()
        )
    with pytest.raises(StudioError, match="different lengths"):
        Gaussians.from_state(state | {"means": state["means"][1:]}, GaussiansConfig())


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_sh_degree_follows_the_recipe(degree: int) -> None:
    scene = Gaussians(cloud(sh_degree=1), replace(GaussiansConfig(), sh_degree=degree))
    before = scene.at().sh.detach()
    scene.match_sh_degree()
    after = scene.at().sh.detach()
    shared = min(before.shape[1], after.shape[1])
    assert after.shape[1] == (degree + 1) ** 2
    assert torch.equal(after[:, :shared], before[:, :shared])
    assert not after[:, shared:].any()


def test_surfels_are_flat_along_their_third_axis() -> None:
    scene = Gaussians(as_surfels(cloud()), replace(GaussiansConfig(), shape="surfels"))
    assert scene.state()["log_scales"].shape == (5, 2)
    splats = scene.at()
    torch.testing.assert_close(splats.scales[:, :2], scene.tensors.log_scales.exp())
    assert not splats.scales[:, 2].any()
    again = Gaussians.from_state(scene.state(), scene.config)
    assert torch.equal(again.at().scales, splats.scales)


def test_flattening_keeps_the_two_longer_axes() -> None:
    tensors = cloud(count=60)
    assert set(tensors.log_scales.argmin(1).tolist()) == {0, 1, 2}
    flat = as_surfels(tensors)
    for before, after in ((tensors, flat), (flat, as_surfels(flat))):
        old, new = quats_to_rotations(before.quats_wxyz), quats_to_rotations(after.quats_wxyz)
        scales = before.log_scales.exp()
        if scales.shape[1] == 3:
            scales = torch.where(scales == scales.amin(1, keepdim=True), 0.0, scales)
        old, new = (
            old[..., : scales.shape[1]] * scales[:, None],
            new[..., :2] * after.log_scales.exp()[:, None],
        )
        torch.testing.assert_close(old @ old.mT, new @ new.mT)


def test_shape_follows_the_recipe() -> None:
    scene = Gaussians(cloud(), replace(GaussiansConfig(), shape="surfels"))
    scene.match_shape()
    assert scene.tensors.log_scales.shape == (5, 2)
    thick = Gaussians(scene.tensors, GaussiansConfig())
    thick.match_shape()
    torch.testing.assert_close(thick.scales[:, 2], scene.scales[:, :2].amin(1) / 10)
    assert torch.equal(as_ellipsoids(thick.tensors).log_scales, thick.tensors.log_scales)
