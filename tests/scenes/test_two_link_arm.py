"""An arm of two links is found again from its pictures: what is held out, its points' paths, its lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from studio.cameras import filmed, frame_times, orbit
from studio.evaluate.metrics import psnr
from studio.interfaces import ParameterGroup
from studio.ops.neighbours import nearest
from studio.recipes.config import DeformableConfig, GaussiansConfig, NodesConfig, PerceptronConfig
from studio.renderers.instants import render
from studio.renderers.splatting import SplatRenderer
from studio.run.state import adam
from studio.run.views import drawn
from studio.scenes.deformation import Deformable
from studio.scenes.gaussians import Gaussians
from studio.scenes.initialise import from_points
from studio.types import Splats

FRAMES, VIEWS, STEPS, SIZE = 8, 4, 100, 32
SHOULDER_DEG, ELBOW_DEG = 25.0, 70.0


def arm_at(points: torch.Tensor, time: float) -> torch.Tensor:
    """The upper arm turns about the shoulder at x = -0.5, the lower one about the elbow at x = 0 besides."""

    def turned(places: torch.Tensor, angle_deg: float, joint: float) -> torch.Tensor:
        angle = math.radians(angle_deg * time)
        x, y, z = (places - torch.tensor([joint, 0.0, 0.0])).unbind(1)
        c, s = math.cos(angle), math.sin(angle)
        return torch.stack([joint + c * x - s * y, s * x + c * y, z], dim=1)

    bent = torch.where(points[:, :1] > 0, turned(points, ELBOW_DEG, 0.0), points)
    return turned(bent, SHOULDER_DEG, -0.5) - torch.tensor([0.0, 0.2 * time, 0.0])


@dataclass(frozen=True)
class TrueArm:
    """The answer, as a scene."""

    rest: Gaussians

    def at(self, time: torch.Tensor | None = None) -> Splats:
        still = self.rest.at(None)
        return replace(still, means=arm_at(still.means, float(time or 0.0)))

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        return self.rest.parameter_groups()

    def state(self) -> dict[str, torch.Tensor]:
        return self.rest.state()


def arm() -> Gaussians:
    rng = torch.Generator().manual_seed(1)
    unit, grain = torch.rand(2, 300, 3, generator=rng)
    points = torch.tensor([1.0, 0.12, 0.12]) * (unit - 0.5)
    along = unit[:, :1]
    colors = 0.7 * torch.cat([along, 1 - along, torch.full_like(along, 0.6)], dim=1) + 0.3 * grain
    return Gaussians(from_points(points, colors, opacity=0.9), GaussiansConfig())


@dataclass(frozen=True)
class Found:
    """How well the arm was found: all at times between the frames, pictures from two views of its own."""

    gain_db: float  # PSNR above that of the arm at rest
    path_error: float  # mean distance from the true points, in world units
    strain: float  # mean change of the distances to the six nearest, as a share of them


def found(rest: Gaussians, rigidity: float) -> Found:
    motion = NodesConfig(count=32, track=PerceptronConfig(rate=2e-3))
    scene = Deformable.of(rest, DeformableConfig(motion=motion), torch.Generator().manual_seed(1))
    renderer, truth, optimizer = SplatRenderer(), TrueArm(rest), adam(scene)
    around = orbit(90.0 * torch.arange(VIEWS), torch.tensor([15.0, 0.0, 30.0, 10.0]), SIZE, SIZE)
    seen, white = filmed(around, frame_times(FRAMES)), torch.ones(VIEWS, 3)
    with torch.no_grad():
        pictures = render(truth, renderer, seen, white.repeat(FRAMES, 1)).rgb
    for step in range(STEPS):
        frame = torch.randint(FRAMES, (1,), generator=torch.Generator().manual_seed(step))
        views = frame + FRAMES * torch.arange(VIEWS)
        shown = render(scene, renderer, seen[views], white).rgb
        loss = (shown - pictures[views]).square().mean()
        if rigidity:
            loss = loss + rigidity * scene.rigidity(seen[views[:1]].time)
        for group, own in zip(optimizer.param_groups, scene.parameter_groups(), strict=True):
            group["lr"] = 0.1 ** max(0.0, 2 * step / STEPS - 1) * own.learning_rate
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    between = frame_times(FRAMES)[1:] - 0.5 / (FRAMES - 1)
    elsewhere = filmed(orbit(torch.tensor([40.0, 140.0]), torch.tensor([20.0, 40.0]), SIZE, SIZE), between)
    scores = psnr(drawn(scene, renderer, elsewhere).rgb, drawn(truth, renderer, elsewhere).rgb)
    before = psnr(drawn(rest, renderer, elsewhere).rgb, drawn(truth, renderer, elsewhere).rgb)
    points = rest.tensors.means.detach()
    neighbours, lengths = nearest(points, points, 7)
    errors, strains = [], []
    with torch.no_grad():
        for time in between:
            moved = scene.at(time).means
            errors.append((moved - arm_at(points, float(time))).norm(dim=1).mean())
            now = (moved[neighbours[:, 1:]] - moved[:, None]).norm(dim=-1)
            strains.append((now / lengths[:, 1:] - 1).abs().mean())
    gain = float(scores.mean() - before.mean())
    return Found(gain, float(torch.stack(errors).mean()), float(torch.stack(strains).mean()))


def test_nodes_find_the_arms_motion_and_keep_its_lengths() -> None:
    rest = arm()
    rigid, loose = found(rest, rigidity=0.5), found(rest, rigidity=0.0)
    assert rigid.gain_db > 12.0
    assert rigid.path_error < 0.03 < loose.path_error
    assert rigid.strain < 0.10 < loose.strain
